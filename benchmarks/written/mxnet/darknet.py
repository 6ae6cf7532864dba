"""A small Darknet with a route: what was seen finely is joined to what was seen coarsely and brought up again."""

from mxnet.gluon import nn


class ConvBN(nn.HybridBlock):
    def __init__(self, channels, kernel, stride=1, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.conv = nn.Conv2D(channels, kernel, stride, kernel // 2, use_bias=False)
            self.norm = nn.BatchNorm(epsilon=1e-5, momentum=0.9)

    def hybrid_forward(self, F, x):
        return F.LeakyReLU(self.norm(self.conv(x)), act_type="leaky", slope=0.1)


class Stage(nn.HybridBlock):
    def __init__(self, channels, units, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.down = ConvBN(channels, 3, 2)
            self.units = nn.HybridSequential()
            for _ in range(units):
                unit = nn.HybridSequential()
                unit.add(ConvBN(channels // 2, 1), ConvBN(channels, 3))
                self.units.add(unit)

    def hybrid_forward(self, F, x):
        x = self.down(x)
        for unit in self.units:
            x = x + unit(x)
        return x


class Darknet(nn.HybridBlock):
    def __init__(self, classes=10, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.stem = ConvBN(6, 3)
            self.stage = Stage(8, 2)
            self.lateral = ConvBN(4, 1)
            self.final = ConvBN(8, 3)
            self.output = nn.Dense(classes)

    def hybrid_forward(self, F, x):
        route = self.stem(x)
        x = self.stage(route)
        x = F.UpSampling(self.lateral(x), scale=2, sample_type="nearest")
        x = self.final(F.concat(x, route, dim=1))
        x = F.mean(x, axis=(2, 3))
        return self.output(x)


def network():
    net = Darknet()
    net.initialize()
    return net
