"""Layers that PyTorch has no module for, as emitted files have them: `triptych emit` copies what a network needs.

Each stands by itself: nothing of triptych is used."""

import torch
from torch import nn


class BatchNorm(nn.BatchNorm2d):
    """Keeps the biased variance of the batch as the running one, as MXNet and Flax do."""

    running_var: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.running_var.clone()
        y = super().forward(x)
        if self.training:
            n = x.numel() / x.shape[1]
            kept = (1 - self.momentum) * before
            self.running_var = kept + (self.running_var - kept) * ((n - 1) / n)
        return y


class PlainBatchNorm(nn.Module):
    """Batch norm with or without gamma (`scale`), beta (`shift`) and the unbiased variance; `frozen`: the running
    statistics are used, and kept, in training too."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        scale: bool = True,
        shift: bool = True,
        unbiased: bool = True,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.eps, self.momentum, self.unbiased, self.frozen = eps, momentum, unbiased, frozen
        self.weight = nn.Parameter(torch.ones(channels)) if scale else None
        self.bias = nn.Parameter(torch.zeros(channels)) if shift else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        of_batch = self.training and not self.frozen
        mean, var, before = self.running_mean, self.running_var, self.running_var.clone()
        y = nn.functional.batch_norm(x, mean, var, self.weight, self.bias, of_batch, self.momentum, self.eps)
        if of_batch and not self.unbiased:
            n = x.numel() / x.shape[1]
            kept = (1 - self.momentum) * before
            self.running_var = kept + (self.running_var - kept) * ((n - 1) / n)
        return y


class Affine(nn.Module):
    """`weight * x + bias`, trained, a number for every channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1, *(1,) * (x.dim() - 2))
        return x * self.weight.view(shape) + self.bias.view(shape)


class Scale(nn.Module):
    """`scale * x + shift`, constant: one number, or one for every channel."""

    def __init__(self, scale: tuple[float, ...], shift: tuple[float, ...]) -> None:
        super().__init__()
        # float64, rounded where it is used: 0.1 in float32 is another number
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64), persistent=False)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1, *(1,) * (x.dim() - 2))
        return x * self.scale.to(x.dtype).view(shape) + self.shift.to(x.dtype).view(shape)


class HardSigmoid(nn.Module):
    """min(max(slope * x + offset, 0), 1); nn.Hardsigmoid has the slope 1/6 only."""

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope = slope
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardtanh(self.slope * x + self.offset, 0.0, 1.0)


class L2Normalize(nn.Module):
    """x over its Euclidean norm over the channels, or the whole image; eps is added to the sum of squares, or bounds
    the norm from below."""

    def __init__(self, eps: float, whole: bool, bound: bool) -> None:
        super().__init__()
        self.eps = eps
        self.whole = whole
        self.bound = bound

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = tuple(range(1, x.dim())) if self.whole else (1,)
        if self.bound:
            return nn.functional.normalize(x, dim=dims, eps=self.eps)
        return x * torch.rsqrt((x * x).sum(dims, keepdim=True) + self.eps)


class Slice(nn.Module):
    """What lies from `start` up to `stop` along one axis."""

    def __init__(self, dim: int, start: int, stop: int) -> None:
        super().__init__()
        self.dim = dim
        self.start = start
        self.length = stop - start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.narrow(self.dim, self.start, self.length)
