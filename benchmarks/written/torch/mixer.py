"""A mixer of convolutions: depthwise ones for places, matrix products over the last axis for channels."""

import torch.nn.functional as F
from torch import nn


def to_last(x):
    return x.permute(0, 2, 3, 1)


def to_first(x):
    return x.permute(0, 3, 1, 2)


class Mixer(nn.Module):
    def __init__(self, dim=8, depth=2, kernel=5, patch=2, num_classes=10):
        super().__init__()
        self.depth = depth
        self.patch = nn.Conv2d(3, dim, patch, stride=patch)
        self.norm = nn.BatchNorm2d(dim)
        self.dw = nn.ModuleList(nn.Conv2d(dim, dim, kernel, groups=dim, padding=kernel // 2) for _ in range(depth))
        self.dw_norm = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(depth))
        self.pw = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.pw_norm = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(depth))
        self.head = nn.Linear(dim, num_classes)

    def mix(self, x, i):
        y = F.gelu(self.dw[i](x))
        x = x + self.dw_norm[i](y)
        y = to_last(x) @ self.pw[i].weight.T + self.pw[i].bias
        return self.pw_norm[i](to_first(F.gelu(y)))

    def forward(self, x):
        x = self.norm(F.gelu(self.patch(x)))
        for i in range(self.depth):
            x = self.mix(x, i)
        b, c = x.shape[:2]
        x = x.reshape(b, c, -1).mean(-1)
        return self.head(x)


network = Mixer
