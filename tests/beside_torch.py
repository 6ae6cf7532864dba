"""What users of PyTorch train a network with, right and wrong."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR, StepLR

RIGHT = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4}


def net():
    body = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(4, 5))


class Bounded(nn.Module):
    def forward(self, x):
        return x.relu().clamp(max=50)


def bounded():
    network = net()
    network[2] = Bounded()
    return network


def right(net):
    return SGD(net.parameters(), **RIGHT)


def of_parameters(parameters):
    return SGD(parameters, **RIGHT)


def rate(net):
    return SGD(net.parameters(), **RIGHT | {"lr": 0.01})


def dampened(net):
    return SGD(net.parameters(), **RIGHT, dampening=0.9)


def half(net):
    return SGD(net.parameters(), **RIGHT, dampening=0.5)


def nesterov(net):
    return SGD(net.parameters(), **RIGHT, nesterov=True)


def decay(net):
    return SGD(net.parameters(), **RIGHT | {"weight_decay": 1e-4})


def weights_only(net):
    vectors = [p for p in net.parameters() if p.ndim == 1]
    matrices = [p for p in net.parameters() if p.ndim > 1]
    return SGD([{"params": matrices}, {"params": vectors, "weight_decay": 0}], **RIGHT)


def forgotten(net):
    return SGD(net[5].parameters(), **RIGHT)


def adam(net):
    return Adam(net.parameters(), lr=1e-3)


def decoupled(net):
    return AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)


def stepped(net):
    optimizer = SGD(net.parameters(), **RIGHT)
    return {"optimizer": optimizer, "lr_scheduler": StepLR(optimizer, 3)}


def late(net):
    optimizer = SGD(net.parameters(), **RIGHT)
    return [optimizer], [LambdaLR(optimizer, lambda epoch: 0.1 ** (max(epoch - 1, 0) // 3))]


criterion = nn.CrossEntropyLoss()
summed = nn.CrossEntropyLoss(reduction="sum")


def smoothed(y, labels):
    return F.cross_entropy(y, labels, label_smoothing=0.1)


def overflowing(y, labels):
    shares = torch.exp(y) / torch.exp(y).sum(1, keepdim=True)
    return -torch.log(shares[range(len(labels)), labels]).mean()
