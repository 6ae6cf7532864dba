"""PyTorch modules that a comparison has to be careful with."""

import torch
from torch import nn
from torch.nn import functional


class After(nn.Module):
    """`call(x, module)`, between two convolutions."""

    def __init__(self, call):
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(4)
        self.call = call

    def forward(self, x):
        return self.last(self.call(self, self.first(x)))


def batch_statistics():
    def normed(net, x):
        return functional.batch_norm(x, net.norm.running_mean, net.norm.running_var, training=True)

    return After(normed)


def dropping():
    return After(lambda net, x: functional.dropout(x, 0.5))


def half_inside():
    return After(lambda net, x: x.half().float())


def in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.conv(x.mul_(2.0))

    torch.manual_seed(0)
    return InPlace()
