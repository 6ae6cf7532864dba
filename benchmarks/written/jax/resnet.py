"""ResNet-18 v1 in Flax NNX."""

from flax import nnx


def norm(features, rngs):
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


class Block(nnx.Module):
    def __init__(self, inp, out, stride, *, rngs):
        pad = ((1, 1), (1, 1))
        self.conv1 = nnx.Conv(inp, out, (3, 3), strides=stride, padding=pad, use_bias=False, rngs=rngs)
        self.bn1 = norm(out, rngs)
        self.conv2 = nnx.Conv(out, out, (3, 3), padding=pad, use_bias=False, rngs=rngs)
        self.bn2 = norm(out, rngs)
        self.project = stride != 1
        if self.project:
            self.conv3 = nnx.Conv(inp, out, (1, 1), strides=stride, use_bias=False, rngs=rngs)
            self.bn3 = norm(out, rngs)

    def __call__(self, x):
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.project:
            x = self.bn3(self.conv3(x))
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 4, (7, 7), strides=2, padding=((3, 3), (3, 3)), use_bias=False, rngs=rngs)
        self.bn1 = norm(4, rngs)
        self.blocks = nnx.List([])
        inp = 4
        for out, stride in ((4, 1), (8, 2), (16, 2), (32, 2)):
            self.blocks.append(Block(inp, out, stride, rngs=rngs))
            self.blocks.append(Block(out, out, 1, rngs=rngs))
            inp = out
        self.fc = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.fc(x.mean(axis=(1, 2)))


def network():
    return ResNet(nnx.Rngs(0))
