"""SqueezeNet 1.1."""

from mxnet.gluon import HybridBlock, nn


class Fire(HybridBlock):
    def __init__(self, squeeze, expand, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.squeeze = nn.Conv2D(squeeze, 1, activation="relu")
            self.left = nn.Conv2D(expand, 1, activation="relu")
            self.right = nn.Conv2D(expand, 3, padding=1, activation="relu")

    def hybrid_forward(self, F, x):
        x = self.squeeze(x)
        return F.concat(self.left(x), self.right(x), dim=1)


class SqueezeNet(HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.features = nn.HybridSequential()
            self.features.add(nn.Conv2D(8, 3, 2, activation="relu"), nn.MaxPool2D(3, 2, ceil_mode=True))
            self.features.add(Fire(2, 8), Fire(2, 8), nn.MaxPool2D(3, 2, ceil_mode=True))
            self.features.add(Fire(4, 16), Fire(4, 16), nn.MaxPool2D(3, 2, ceil_mode=True))
            self.features.add(Fire(6, 24), Fire(6, 24), Fire(8, 32), Fire(8, 32))
            self.features.add(nn.Dropout(0.5))
            self.last = nn.Conv2D(10, 1)

    def hybrid_forward(self, F, x):
        x = F.Activation(self.last(self.features(x)), act_type="relu")
        x = F.Pooling(x, kernel=(1, 1), pool_type="avg", global_pool=True)
        return F.flatten(x)


network = SqueezeNet
