"""A small network of my own: a coarse branch that is brought back to full size, a gate, and a scaled residual."""

from mxnet import gluon
from mxnet.gluon import nn


class Gate(gluon.HybridBlock):
    def __init__(self, channels, squeezed, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.reduce = nn.Conv2D(squeezed, 1, activation="relu")
            self.expand = nn.Conv2D(channels, 1, activation="sigmoid")

    def hybrid_forward(self, F, x):
        s = F.mean(x, axis=(2, 3), keepdims=True)
        return F.broadcast_mul(x, self.expand(self.reduce(s)))


class Net(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.conv1 = nn.Conv2D(8, 3, padding=1)
            self.act1 = nn.PReLU(in_channels=8)
            self.pool = nn.AvgPool2D(3, 2, ceil_mode=True, count_include_pad=False)
            self.dwconv = nn.Conv2D(8, 5, padding=2, groups=8, use_bias=False)
            self.bn = nn.BatchNorm()
            self.act2 = nn.PReLU()
            self.up = nn.Conv2DTranspose(6, 4, strides=2, padding=1)
            self.gate = Gate(14, 4)
            self.mix = nn.Conv2D(8, 3, 2, 1)
            self.unit1 = nn.Conv2D(8, 3, padding=1)
            self.unit2 = nn.Conv2D(8, 3, padding=1)
            self.drop = nn.Dropout(0.3)
            self.fc = nn.Dense(10)

    def hybrid_forward(self, F, x):
        x = self.act1(self.conv1(x))
        y = self.act2(self.bn(self.dwconv(self.pool(x))))
        x = F.concat(x, self.up(y), dim=1)
        x = F.LeakyReLU(self.mix(self.gate(x)), act_type="leaky", slope=0.1)
        y = F.LeakyReLU(self.unit1(x), act_type="elu", slope=1.0)
        x = x + 0.2 * self.unit2(y)
        return self.fc(self.drop(F.mean(x, axis=(2, 3))))


network = Net
