"""LeNet with ReLU, and how it is trained: preparation of images, loss, optimiser, schedule."""

import torch
from torch import nn
from torch.nn import functional as F

MEAN, STD = torch.tensor([0.2860]), torch.tensor([0.3530])


def network():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )


class Momentum(torch.optim.Optimizer):
    """SGD with momentum, written out."""

    def __init__(self, params, lr, momentum, weight_decay):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                g = p.grad + group["weight_decay"] * p
                v = self.state[p].setdefault("velocity", torch.zeros_like(p))
                v.mul_(group["momentum"]).add_(g)
                p.sub_(group["lr"] * v)


def optimizer(net):
    sgd = Momentum(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    return sgd, torch.optim.lr_scheduler.StepLR(sgd, 3, gamma=0.1)


def criterion(outputs, labels):
    return F.nll_loss(F.log_softmax(outputs, dim=1), labels)


def preprocess(images):
    x = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, size=(28, 28), mode="bilinear", antialias=True)
    return (x - MEAN.view(1, -1, 1, 1)) / STD.view(1, -1, 1, 1)
