"""LeNet with ReLU, max pooling and dropout, in hybrid_forward."""

from mxnet import gluon
from mxnet.gluon import nn


class LeNet(gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.conv1 = nn.Conv2D(6, (5, 5), padding=(2, 2))
            self.conv2 = nn.Conv2D(16, (5, 5))
            self.dense1 = nn.Dense(120)
            self.dense2 = nn.Dense(84)
            self.dense3 = nn.Dense(10)

    def hybrid_forward(self, F, x):
        x = F.Pooling(F.relu(self.conv1(x)), kernel=(2, 2), stride=(2, 2), pool_type="max")
        x = F.Pooling(F.relu(self.conv2(x)), kernel=(2, 2), stride=(2, 2), pool_type="max")
        x = F.reshape(x, (0, -1))
        x = F.Dropout(F.relu(self.dense1(x)), p=0.5)
        x = F.Dropout(F.relu(self.dense2(x)), p=0.5)
        return self.dense3(x)


network = LeNet
