"""Network in network, for images (N, H, W, C)."""

import torch
import torch.nn.functional as F
from torch import nn


class Conv(nn.Module):
    def __init__(self, inp, out, kernel, stride=1, pad=0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, inp, kernel, kernel) * 0.05)
        self.bias = nn.Parameter(torch.zeros(out))
        self.stride, self.pad = stride, pad

    def forward(self, x):
        x = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, self.pad)
        return x.permute(0, 2, 3, 1)


def max_pool(x):
    return F.max_pool2d(x.permute(0, 3, 1, 2), 3, 2).permute(0, 2, 3, 1)


class NiN(nn.Module):
    def __init__(self):
        super().__init__()
        widths = ((1, 12, 11, 4, 0), (12, 32, 5, 1, 2), (32, 48, 3, 1, 1), (48, 10, 3, 1, 1))
        self.convs = nn.ModuleList()
        for inp, out, kernel, stride, pad in widths:
            self.convs += [Conv(inp, out, kernel, stride, pad), Conv(out, out, 1), Conv(out, out, 1)]
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        for i, conv in enumerate(self.convs):
            x = torch.relu(conv(x))
            if i in (2, 5, 8):
                x = max_pool(x)
            if i == 8:
                x = self.dropout(x)
        return x.mean(dim=(1, 2))


network = NiN
