"""Networks as strangers write them in PyTorch, right and with faults that ports really make."""

import torch
from torch import nn
from torch.nn import functional


class Mixed(nn.Module):
    """A residual, a squeeze-and-excite product, a transposed convolution beside an upsampling, and a dense layer."""

    def __init__(self, eps=1e-5, slopes=8, extra=0, swap=False, bound=6.0, leave_out=()):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.slope = nn.PReLU(slopes)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8, eps=eps)
        self.squeeze = nn.Linear(8, 4)
        self.excite = nn.Linear(4, 8)
        self.down = nn.Conv2d(8, 6, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(6, 4, 4 - extra, stride=2, padding=1, output_padding=extra)
        self.out = nn.Linear(10 * 12 * 12, 5)
        self.swap, self.bound, self.leave_out = swap, bound, leave_out

    def forward(self, x):
        x = self.slope(self.norm(self.stem(x)))
        y = functional.hardtanh(self.norm2(self.conv(x)), 0.0, self.bound)
        x = y if "add" in self.leave_out else x + y
        gate = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        gate = torch.sigmoid(self.excite(functional.relu(self.squeeze(gate))))
        x = x if "gate" in self.leave_out else x * gate[:, :, None, None]
        x = functional.silu(self.down(x))
        parts = [self.up(x), functional.interpolate(x, scale_factor=2)]
        x = torch.cat(parts[::-1] if self.swap else parts, 1)
        return self.out(functional.dropout(x.flatten(1), 0.3, self.training))


def mixed():
    return Mixed()


def other_eps():
    return Mixed(eps=1e-3)


def nearly_the_eps():
    return Mixed(eps=1.01e-5)


def shared_slope():
    return Mixed(slopes=1)


def other_bound():
    return Mixed(bound=100.0)


def no_add():
    return Mixed(leave_out=("add",))


def no_gate():
    return Mixed(leave_out=("gate",))


def swapped():
    return Mixed(swap=True)


def parallel():
    return nn.DataParallel(Mixed())


def compiled():
    return torch.compile(Mixed())


def half():
    return Mixed().half()


class Heads(Mixed):
    """Another head beside the outputs, in a dictionary."""

    def __init__(self):
        super().__init__()
        self.second = nn.Linear(5, 3)

    def forward(self, x):
        y = super().forward(x)
        return {"logits": y, "second": self.second(y)}


class Fused(nn.Module):
    """A convolution and a batch norm as one layer for inference, or as two."""

    def __init__(self, fused, activation=functional.relu, end=lambda y: y):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=fused)
        self.norm = nn.Identity() if fused else nn.BatchNorm2d(8)
        self.out = nn.Linear(8, 5)
        self.activation, self.end = activation, end

    def forward(self, x):
        return self.end(self.out(self.activation(self.norm(self.conv(x))).mean((2, 3))))


def fused():
    return Fused(True).eval()


def fused_sigmoid():
    return Fused(True, torch.sigmoid).eval()


def unfused():
    return Fused(False)


def ends():
    return Fused(False)


def ends_in_softmax():
    return Fused(False, end=lambda y: torch.softmax(y, 1))


class Detector(nn.Module):
    """Two maps, no classes: scores and boxes."""

    def __init__(self, slope=0.1):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3, padding=1)
        self.scores = nn.Conv2d(8, 2, 1)
        self.boxes = nn.Conv2d(8, 4, 1)
        self.slope = slope

    def forward(self, x):
        x = functional.leaky_relu(self.body(x), self.slope)
        return torch.softmax(self.scores(x), 1), self.boxes(x)


def detector():
    return Detector()


def other_slope():
    return Detector(0.2)


class Last(nn.Module):
    """It takes NHWC images, and flattens its map so; or neither."""

    def __init__(self, last):
        super().__init__()
        self.last = last
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.out = nn.Linear(8 * 12 * 12, 5)

    def forward(self, x):
        if not self.last:
            return self.out(functional.relu(self.conv(x)).flatten(1))
        x = functional.relu(self.conv(x.permute(0, 3, 1, 2)))
        return self.out(x.permute(0, 2, 3, 1).reshape(len(x), -1))


def last():
    return Last(True)


def first():
    return Last(False)
