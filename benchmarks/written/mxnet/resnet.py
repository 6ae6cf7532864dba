"""ResNet-18 v1."""

from mxnet.gluon import HybridBlock, nn


class BasicBlock(HybridBlock):
    def __init__(self, channels, stride, downsample=False, **kwargs):
        super().__init__(**kwargs)
        self.body = nn.HybridSequential(prefix="")
        self.body.add(nn.Conv2D(channels, 3, stride, 1, use_bias=False))
        self.body.add(nn.BatchNorm())
        self.body.add(nn.Activation("relu"))
        self.body.add(nn.Conv2D(channels, 3, 1, 1, use_bias=False))
        self.body.add(nn.BatchNorm())
        self.downsample = None
        if downsample:
            self.downsample = nn.HybridSequential(prefix="")
            self.downsample.add(nn.Conv2D(channels, 1, stride, use_bias=False))
            self.downsample.add(nn.BatchNorm())

    def hybrid_forward(self, F, x):
        residual = x
        x = self.body(x)
        if self.downsample:
            residual = self.downsample(residual)
        return F.Activation(x + residual, act_type="relu")


def network():
    net = nn.HybridSequential(prefix="resnet_")
    with net.name_scope():
        net.add(nn.Conv2D(4, 7, 2, 3, use_bias=False), nn.BatchNorm(), nn.Activation("relu"), nn.MaxPool2D(3, 2, 1))
        for channels, stride in ((4, 1), (8, 2), (16, 2), (32, 2)):
            net.add(BasicBlock(channels, stride, downsample=stride > 1), BasicBlock(channels, 1))
        net.add(nn.GlobalAvgPool2D())
        net.add(nn.Dense(10))
    return net
