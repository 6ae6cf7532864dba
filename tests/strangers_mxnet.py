"""Networks as strangers write them in Gluon: the same as in `strangers_torch`."""

from mxnet.gluon import nn


class Mixed(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2D(8, 3, padding=1, use_bias=False, in_channels=3)
        self.norm = nn.BatchNorm(epsilon=1e-5, in_channels=8)
        self.slope = nn.PReLU(in_channels=8)
        self.conv = nn.Conv2D(8, 3, padding=1, use_bias=False, in_channels=8)
        self.norm2 = nn.BatchNorm(epsilon=1e-5, in_channels=8)
        self.squeeze, self.excite = nn.Dense(4, activation="relu", in_units=8), nn.Dense(8, in_units=4)
        self.down = nn.Conv2D(6, 3, strides=2, padding=1, in_channels=8)
        self.up = nn.Conv2DTranspose(4, 4, strides=2, padding=1, in_channels=6)
        self.out = nn.Dense(5, in_units=10 * 12 * 12)
        self.drop = nn.Dropout(0.3)

    def hybrid_forward(self, F, x):  # noqa: N803
        x = self.slope(self.norm(self.stem(x)))
        x = x + F.clip(self.norm2(self.conv(x)), 0, 6)
        gate = F.sigmoid(self.excite(self.squeeze(F.contrib.AdaptiveAvgPooling2D(x, 1))))
        x = F.broadcast_mul(x, F.reshape(gate, (0, 0, 1, 1)))
        x = self.down(x)
        x = x * F.sigmoid(x)
        x = F.concat(self.up(x), F.UpSampling(x, scale=2, sample_type="nearest"), dim=1)
        return self.out(self.drop(F.flatten(x)))


def mixed():
    net = Mixed()
    net.initialize()
    return net


class Detector(nn.HybridBlock):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2D(8, 3, padding=1, in_channels=3)
        self.scores, self.boxes = nn.Conv2D(2, 1, in_channels=8), nn.Conv2D(4, 1, in_channels=8)

    def hybrid_forward(self, F, x):  # noqa: N803
        x = F.LeakyReLU(self.body(x), slope=0.1)
        return F.softmax(self.scores(x), axis=1), self.boxes(x)


def detector():
    net = Detector()
    net.initialize()
    return net


def fused_or_not():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, 3, padding=1, use_bias=False, in_channels=3), nn.BatchNorm(epsilon=1e-5, in_channels=8))
    net.add(nn.Activation("relu"), nn.GlobalAvgPool2D(), nn.Dense(5, in_units=8))
    net.initialize()
    return net


def imperative():
    class Imperative(nn.Block):
        def forward(self, x):
            return x.asnumpy()

    return Imperative()
