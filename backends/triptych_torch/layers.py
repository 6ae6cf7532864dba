"""One native layer for every record of the spec. Each default that differs between frameworks is passed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.layers import Shape


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d keeps the unbiased variance; where the spec wants the biased one, it is scaled back."""

    running_var: torch.Tensor

    def __init__(self, features: int, layer: spec.BatchNorm) -> None:
        super().__init__(features, eps=layer.eps, momentum=layer.momentum)
        self.unbiased = layer.unbiased
        if not layer.gamma:
            self.weight = None
        self.num_batches_tracked = None  # counts batches for momentum=None only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.running_var.clone() if self.training and not self.unbiased else None
        y = nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        if before is not None:
            n = x.numel() / x.shape[1]
            kept = (1 - self.momentum) * before
            # a new tensor: autograd forbids changing the one that the operator has seen
            self.running_var = kept + (self.running_var - kept) * ((n - 1) / n)
        return y


class Dropout(nn.Dropout):
    """nn.Dropout, or with a given mask (conformance): True where a value is kept."""

    mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.mask is not None:
            return x * (self.mask.to(x.dtype) / (1 - self.p))
        return super().forward(x)


LAYERS: dict[type, Callable[[Any, Shape], nn.Module]] = {
    spec.Conv: lambda layer, shape: nn.Conv2d(
        shape[0], layer.channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups, bias=layer.bias
    ),
    spec.Dense: lambda layer, shape: nn.Linear(shape[0], layer.units, bias=layer.bias),
    spec.BatchNorm: lambda layer, shape: BatchNorm(shape[0], layer),
    spec.LocalResponseNorm: lambda layer, shape: nn.LocalResponseNorm(
        layer.size,
        layer.coefficient * layer.size,  # PyTorch divides alpha by the size itself
        layer.beta,
        layer.k,
    ),
    spec.ReLU: lambda layer, shape: nn.ReLU(),
    spec.Sigmoid: lambda layer, shape: nn.Sigmoid(),
    spec.MaxPool: lambda layer, shape: nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil),
    spec.AvgPool: lambda layer, shape: nn.AvgPool2d(
        layer.kernel, layer.stride, layer.padding, layer.ceil, layer.count_padding
    ),
    spec.GlobalAvgPool: lambda layer, shape: nn.AdaptiveAvgPool2d(1),
    spec.Flatten: lambda layer, shape: nn.Flatten(),
    spec.Dropout: lambda layer, shape: Dropout(layer.rate),
}
check_complete(LAYERS, __name__)
