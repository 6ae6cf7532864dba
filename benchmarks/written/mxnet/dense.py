"""A small DenseNet of my own, whose last map is brought back to twice its size."""

from mxnet.gluon import nn


class DenseLayer(nn.HybridBlock):
    def __init__(self, growth):
        super().__init__()
        with self.name_scope():
            self.norm = nn.BatchNorm()
            self.conv = nn.Conv2D(growth, 3, padding=1)

    def hybrid_forward(self, F, x):
        new = self.conv(F.relu(self.norm(x)))
        return F.concat(x, new, dim=1)


class DenseNet(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.conv1 = nn.Conv2D(8, 3, padding=1)
            self.leaky = nn.LeakyReLU(0.1)
            self.pool = nn.MaxPool2D(3, 2, 1)
            self.layer1 = DenseLayer(4)
            self.layer2 = DenseLayer(4)
            self.norm = nn.BatchNorm()
            self.transition = nn.Conv2D(8, 1)
            self.down = nn.AvgPool2D(2)
            self.up = nn.Conv2DTranspose(6, 3, strides=2, padding=1, output_padding=1)
            self.bn = nn.BatchNorm()
            self.elu = nn.ELU(1.0)
            self.last = nn.AvgPool2D(2, 2)
            self.fc = nn.Dense(10)

    def hybrid_forward(self, F, x):
        x = self.pool(self.leaky(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        x = self.down(self.transition(F.relu(self.norm(x))))
        x = self.last(self.elu(self.bn(self.up(x))))
        return self.fc(x)


network = DenseNet
