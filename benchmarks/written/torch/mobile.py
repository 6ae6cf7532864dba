"""A small MobileNetV3 of my own: depthwise, gate, hard swish, a grouped convolution and two dense layers."""

import torch
import torch.nn as nn
import torch.nn.functional as F


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduced):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, reduced, 1)
        self.fc2 = nn.Conv2d(reduced, channels, 1)

    def forward(self, x):
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = F.relu(self.fc1(scale))
        scale = F.relu6(self.fc2(scale) + 3) / 6
        return scale * x


class InvertedResidual(nn.Module):
    def __init__(self, channels, expanded):
        super().__init__()
        self.expand = nn.Conv2d(channels, expanded, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.dwconv = nn.Conv2d(expanded, expanded, 3, padding=1, groups=expanded, bias=False)
        self.bn2 = nn.BatchNorm2d(expanded)
        self.se = SqueezeExcite(expanded, 6)
        self.project = nn.Conv2d(expanded, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = F.hardswish(self.bn1(self.expand(x)))
        y = F.hardswish(self.bn2(self.dwconv(y)))
        y = self.se(y)
        y = self.bn3(self.project(y))
        return x + y


class MobileNet(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.Hardswish())
        self.unit = InvertedResidual(12, 24)
        self.down = nn.Conv2d(12, 16, 3, stride=2, padding=1, groups=4)
        self.bn = nn.BatchNorm2d(16)
        self.fc1 = nn.Linear(16, 20)
        self.fc2 = nn.Linear(20, num_classes)

    def forward(self, x):
        x = self.stem(x)
        x = self.unit(x)
        x = F.silu(self.bn(self.down(x)))
        x = x.mean((2, 3))
        x = torch.tanh(self.fc1(x))
        x = F.dropout(x, 0.2, self.training)
        return self.fc2(x)


def network():
    return MobileNet()
