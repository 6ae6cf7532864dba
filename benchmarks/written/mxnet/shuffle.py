"""The same small network as in PyTorch: a channel shuffle, and SSD's L2 norm."""

from mxnet import gluon
from mxnet.gluon import nn


class Net(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.stem = nn.Conv2D(12, 3, 2, 1)
            self.gconv1 = nn.Conv2D(12, 1, groups=3, use_bias=False)
            self.bn1 = nn.BatchNorm()
            self.dwconv = nn.Conv2D(12, 3, padding=1, groups=12, use_bias=False)
            self.bn2 = nn.BatchNorm()
            self.gconv2 = nn.Conv2D(12, 1, groups=3, use_bias=False)
            self.bn3 = nn.BatchNorm()
            self.dilated = nn.Conv2D(8, 3, padding=2, dilation=2)
            self.fc = nn.Dense(10)

    def hybrid_forward(self, F, x):
        x = F.tanh(self.stem(x))
        y = F.relu(self.bn1(self.gconv1(x)))
        y = F.reshape(F.swapaxes(F.reshape(y, (0, -4, 3, -1, -2)), 1, 2), (0, -3, -2))
        y = self.bn3(self.gconv2(self.bn2(self.dwconv(y))))
        x = F.relu(x + y)
        x = 20 * F.L2Normalization(x, mode="channel")
        x = F.relu(self.dilated(x))
        return self.fc(F.Pooling(x, kernel=(1, 1), global_pool=True, pool_type="avg"))


network = Net
