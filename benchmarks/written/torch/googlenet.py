"""GoogLeNet, as in the book."""

import torch
from torch import nn
from torch.nn import functional as F


class Inception(nn.Module):
    def __init__(self, inp, c1, c2, c3, c4):
        super().__init__()
        self.b1_1 = nn.Conv2d(inp, c1, 1)
        self.b2_1 = nn.Conv2d(inp, c2[0], 1)
        self.b2_2 = nn.Conv2d(c2[0], c2[1], 3, padding=1)
        self.b3_1 = nn.Conv2d(inp, c3[0], 1)
        self.b3_2 = nn.Conv2d(c3[0], c3[1], 5, padding=2)
        self.b4_1 = nn.MaxPool2d(3, stride=1, padding=1)
        self.b4_2 = nn.Conv2d(inp, c4, 1)

    def forward(self, x):
        b1 = F.relu(self.b1_1(x))
        b2 = F.relu(self.b2_2(F.relu(self.b2_1(x))))
        b3 = F.relu(self.b3_2(F.relu(self.b3_1(x))))
        b4 = F.relu(self.b4_2(self.b4_1(x)))
        return torch.cat((b1, b2, b3, b4), dim=1)


def network():
    return nn.Sequential(
        nn.Conv2d(1, 8, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        Inception(24, 8, (12, 16), (2, 4), 4),
        Inception(32, 16, (16, 24), (4, 12), 8),
        nn.MaxPool2d(3, stride=2, padding=1),
        Inception(60, 24, (12, 26), (2, 6), 8),
        Inception(64, 20, (14, 28), (3, 8), 8),
        Inception(64, 16, (16, 32), (3, 8), 8),
        Inception(64, 14, (18, 36), (4, 8), 8),
        Inception(66, 32, (20, 40), (4, 16), 16),
        nn.MaxPool2d(3, stride=2, padding=1),
        Inception(104, 32, (20, 40), (4, 16), 16),
        Inception(104, 48, (24, 48), (6, 16), 16),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
