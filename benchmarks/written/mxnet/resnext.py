"""ResNeXt with the stem and the shortcuts of ResNet-D, and a head of both pools."""

import mxnet as mx
from mxnet.gluon import nn


def conv(channels, kernel, stride=1, groups=1):
    return nn.Conv2D(channels, kernel, strides=stride, padding=kernel // 2, groups=groups, use_bias=False)


class Unit(nn.HybridBlock):
    def __init__(self, channels, stride, cardinality=4):
        super().__init__()
        self.stride = stride
        self.conv1, self.norm1 = conv(8, 1), nn.BatchNorm()
        self.conv2, self.norm2 = conv(8, 3, stride, cardinality), nn.BatchNorm()
        self.conv3, self.norm3 = conv(channels, 1), nn.BatchNorm()
        if stride > 1:
            self.short, self.short_norm = conv(channels, 1), nn.BatchNorm()

    def hybrid_forward(self, F, x):
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        y = self.norm3(self.conv3(y))
        if self.stride > 1:
            x = F.Pooling(x, kernel=(2, 2), stride=(2, 2), pool_type="avg")
            x = self.short_norm(self.short(x))
        return F.relu(x + y)


class ResNeXt(nn.HybridBlock):
    def __init__(self, classes=10):
        super().__init__()
        self.stem1, self.stem2, self.stem3 = conv(6, 3, 2), conv(6, 3), conv(8, 3)
        self.unit1 = Unit(8, 1)
        self.unit2 = Unit(12, 2)
        self.fc = nn.Dense(classes)

    def hybrid_forward(self, F, x):
        x = F.relu(self.stem1(x))
        x = F.relu(self.stem2(x))
        x = F.relu(self.stem3(x))
        x = self.unit2(self.unit1(x))
        mean = F.mean(x, axis=(2, 3))
        peak = F.max(x, axis=(2, 3))
        x = F.concat(mean, peak, dim=1)
        x = F.Dropout(x, p=0.4)
        return self.fc(x)


def network():
    net = ResNeXt()
    net.initialize(mx.init.Xavier())
    return net
