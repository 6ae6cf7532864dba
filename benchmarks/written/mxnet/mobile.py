"""A small MobileNetV3 of my own: depthwise, gate, hard swish, a grouped convolution and two dense layers."""

from mxnet.gluon import nn


def hard_swish(F, x):
    return x * F.clip(x + 3, 0, 6) / 6


class SqueezeExcite(nn.HybridBlock):
    def __init__(self, channels, reduced):
        super().__init__()
        with self.name_scope():
            self.fc1 = nn.Conv2D(reduced, 1, activation="relu")
            self.fc2 = nn.Conv2D(channels, 1)

    def hybrid_forward(self, F, x):
        w = F.contrib.AdaptiveAvgPooling2D(x, output_size=1)
        w = self.fc2(self.fc1(w))
        w = F.clip(w + 3, 0, 6) / 6
        return F.broadcast_mul(x, w)


class InvertedResidual(nn.HybridBlock):
    def __init__(self, channels, expanded):
        super().__init__()
        with self.name_scope():
            self.expand = nn.Conv2D(expanded, 1, use_bias=False)
            self.bn1 = nn.BatchNorm()
            self.dwconv = nn.Conv2D(expanded, 3, padding=1, groups=expanded, use_bias=False)
            self.bn2 = nn.BatchNorm()
            self.se = SqueezeExcite(expanded, 6)
            self.project = nn.Conv2D(channels, 1, use_bias=False)
            self.bn3 = nn.BatchNorm()

    def hybrid_forward(self, F, x):
        y = hard_swish(F, self.bn1(self.expand(x)))
        y = hard_swish(F, self.bn2(self.dwconv(y)))
        y = self.bn3(self.project(self.se(y)))
        return x + y


class MobileNet(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.stem = nn.Conv2D(12, 3, 2, 1, use_bias=False)
            self.bn0 = nn.BatchNorm()
            self.unit = InvertedResidual(12, 24)
            self.down = nn.Conv2D(16, 3, 2, 1, groups=4)
            self.bn = nn.BatchNorm()
            self.pool = nn.GlobalAvgPool2D()
            self.fc1 = nn.Dense(20, activation="tanh")
            self.drop = nn.Dropout(0.2)
            self.fc2 = nn.Dense(10)

    def hybrid_forward(self, F, x):
        x = hard_swish(F, self.bn0(self.stem(x)))
        x = self.unit(x)
        x = self.bn(self.down(x))
        x = x * F.sigmoid(x)
        x = self.pool(x)
        return self.fc2(self.drop(self.fc1(x)))


network = MobileNet
