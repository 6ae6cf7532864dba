"""A wide residual network with activations before the convolutions, all of it written with functions."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class WideNet(nn.Module):
    def __init__(self, widths=(8, 8, 12), num_classes=10, drop=0.3):
        super().__init__()
        self.drop = drop
        self.conv0 = nn.Parameter(torch.randn(widths[0], 3, 3, 3) * 0.1)
        self.units = nn.ModuleList()
        for cin, cout in pairwise(widths):
            unit = nn.Module()
            self.add_norm(unit, "bn1", cin)
            unit.conv1 = nn.Parameter(torch.randn(cout, cin, 3, 3) * 0.1)
            self.add_norm(unit, "bn2", cout)
            unit.conv2 = nn.Parameter(torch.randn(cout, cout, 3, 3) * 0.1)
            if cin != cout:
                unit.proj = nn.Parameter(torch.randn(cout, cin, 1, 1) * 0.1)
            self.units.append(unit)
        self.add_norm(self, "bn", widths[-1])
        self.fc_w = nn.Parameter(torch.randn(num_classes, widths[-1]) * 0.1)
        self.fc_b = nn.Parameter(torch.zeros(num_classes))

    @staticmethod
    def add_norm(owner, name, channels):
        norm = nn.Module()
        norm.weight = nn.Parameter(torch.ones(channels))
        norm.bias = nn.Parameter(torch.zeros(channels))
        norm.register_buffer("running_mean", torch.zeros(channels))
        norm.register_buffer("running_var", torch.ones(channels))
        setattr(owner, name, norm)

    def norm_relu(self, x, n):
        x = F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, training=self.training)
        return F.relu(x)

    def unit(self, x, u, stride):
        o = self.norm_relu(x, u.bn1)
        y = F.conv2d(o, u.conv1, stride=stride, padding=1)
        o2 = self.norm_relu(y, u.bn2)
        o2 = F.dropout(o2, self.drop, self.training)
        y = F.conv2d(o2, u.conv2, stride=1, padding=1)
        if hasattr(u, "proj"):
            return y + F.conv2d(o, u.proj, stride=stride)
        return y + x

    def forward(self, x):
        x = F.conv2d(x, self.conv0, padding=1)
        for number, u in enumerate(self.units):
            x = self.unit(x, u, 1 if number == 0 else 2)
        features = self.norm_relu(x, self.bn).mean((2, 3))
        return {"logits": F.linear(features, self.fc_w, self.fc_b), "features": features}


network = WideNet
