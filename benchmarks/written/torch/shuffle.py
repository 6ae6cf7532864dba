"""A small network of my own: a unit with a channel shuffle, and SSD's L2 norm."""

import torch
import torch.nn.functional as F
from torch import nn


def channel_shuffle(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.gconv1 = nn.Conv2d(12, 12, 1, groups=3, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.dwconv = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.gconv2 = nn.Conv2d(12, 12, 1, groups=3, bias=False)
        self.bn3 = nn.BatchNorm2d(12)
        self.dilated = nn.Conv2d(12, 8, 3, padding=2, dilation=2)
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        y = F.relu(self.bn1(self.gconv1(x)))
        y = channel_shuffle(y, 3)
        y = self.bn3(self.gconv2(self.bn2(self.dwconv(y))))
        x = F.relu(x + y)
        x = 20.0 * F.normalize(x, dim=1)
        x = F.relu(self.dilated(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


network = Net
