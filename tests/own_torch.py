"""Networks as users of PyTorch write them, right and wrong."""

import torch
from torch import nn


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2, 2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )


def relu():
    net = lenet()
    net[4] = nn.ReLU(inplace=True)
    return net


def no_bias():
    net = lenet()
    net[3] = nn.Conv2d(6, 16, 5, bias=False)
    return net


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return 2 * dy


class WrongGradient(nn.Module):
    def __init__(self):
        super().__init__()
        net = lenet()
        self.features, self.classifier = net[:6], net[6:]

    def forward(self, x):
        return self.classifier(Scaled.apply(self.features(x)))


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        net = lenet()
        self.features, self.classifier = net[:6], net[7:]

    def forward(self, x):
        x = self.features(x).permute(0, 2, 3, 1)
        return self.classifier(x.reshape(len(x), -1))


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lenet()

    def forward(self, x):
        return self.net[9:](nn.functional.dropout(self.net[:9](x), 0.5, training=self.training))


class CutOff(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lenet()

    def forward(self, x):
        return self.net[3:](self.net[:3](x).detach())


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = lenet()
        torch.set_autocast_enabled("cpu", True)

    def forward(self, x):
        return self.net(x)


def scripted():
    net = lenet()
    net[1] = nn.ReLU()  # has the attribute `inplace`, which a script's module does not let go
    return torch.jit.script(net)


def leaves():
    raise SystemExit(0)


def misplaced():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


class Unordered(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.a = nn.Linear(784, 784), nn.Linear(784, 784)
        self.c = nn.Linear(784, 10)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x.flatten(1))))))


def alexnet():
    return nn.Sequential(
        nn.Conv2d(1, 6, kernel_size=11, stride=4, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(6, 16, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Conv2d(16, 24, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 24, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(24, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(kernel_size=3, stride=2),
        nn.Flatten(),
        nn.LazyLinear(256),
        nn.ReLU(),
        nn.Dropout(p=0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(p=0.5),
        nn.Linear(256, 10),
    )


def broken():
    return nn.Sequential(nn.Conv2d(1, 6, 5), nn.Flatten(), nn.Linear(3, 10))


def fails():
    raise RuntimeError("no weights here")


def takes(size, depth=2):
    return lenet()


number = 3
