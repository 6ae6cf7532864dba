"""MobileNet 0.25, a fourth as wide."""

from mxnet.gluon import nn


def _conv(out, channels, kernel=1, stride=1, pad=0, groups=1):
    out.add(nn.Conv2D(channels, kernel, stride, pad, groups=groups, use_bias=False))
    out.add(nn.BatchNorm(scale=True))
    out.add(nn.Activation("relu"))


def _separable(out, dw_channels, channels, stride):
    _conv(out, dw_channels, kernel=3, stride=stride, pad=1, groups=dw_channels)
    _conv(out, channels)


def network():
    dw = [2, 4] + [8] * 2 + [16] * 2 + [32] * 6 + [64]
    channels = [4] + [8] * 2 + [16] * 2 + [32] * 6 + [64] * 2
    strides = [1, 2] * 3 + [1] * 5 + [2, 1]
    net = nn.HybridSequential(prefix="")
    _conv(net, 2, kernel=3, stride=2, pad=1)
    for each in zip(dw, channels, strides):
        _separable(net, *each)
    net.add(nn.GlobalAvgPool2D(), nn.Flatten())
    net.add(nn.Dense(10))
    return net
