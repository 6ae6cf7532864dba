"""GoogLeNet, as in the book."""

from mxnet.gluon import nn


class Inception(nn.HybridBlock):
    def __init__(self, c1, c2, c3, c4, **kwargs):
        super().__init__(**kwargs)
        self.p1_1 = nn.Conv2D(c1, kernel_size=1, activation="relu")
        self.p2_1 = nn.Conv2D(c2[0], kernel_size=1, activation="relu")
        self.p2_2 = nn.Conv2D(c2[1], kernel_size=3, padding=1, activation="relu")
        self.p3_1 = nn.Conv2D(c3[0], kernel_size=1, activation="relu")
        self.p3_2 = nn.Conv2D(c3[1], kernel_size=5, padding=2, activation="relu")
        self.p4_1 = nn.MaxPool2D(pool_size=3, strides=1, padding=1)
        self.p4_2 = nn.Conv2D(c4, kernel_size=1, activation="relu")

    def hybrid_forward(self, F, x):
        p1 = self.p1_1(x)
        p2 = self.p2_2(self.p2_1(x))
        p3 = self.p3_2(self.p3_1(x))
        p4 = self.p4_2(self.p4_1(x))
        return F.concat(p1, p2, p3, p4, dim=1)


def network():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(8, kernel_size=7, strides=2, padding=3, activation="relu"))
    net.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    net.add(nn.Conv2D(8, kernel_size=1, activation="relu"))
    net.add(nn.Conv2D(24, kernel_size=3, padding=1, activation="relu"))
    net.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    net.add(Inception(8, (12, 16), (2, 4), 4), Inception(16, (16, 24), (4, 12), 8))
    net.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    net.add(Inception(24, (12, 26), (2, 6), 8), Inception(20, (14, 28), (3, 8), 8))
    net.add(Inception(16, (16, 32), (3, 8), 8), Inception(14, (18, 36), (4, 8), 8))
    net.add(Inception(32, (20, 40), (4, 16), 16))
    net.add(nn.MaxPool2D(pool_size=3, strides=2, padding=1))
    net.add(Inception(32, (20, 40), (4, 16), 16), Inception(48, (24, 48), (6, 16), 16))
    net.add(nn.GlobalAvgPool2D(), nn.Dense(10))
    return net
