"""One native layer for every record of the spec. Each default that differs between frameworks is passed."""

from __future__ import annotations

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


class GlobalAvgPool(nn.AdaptiveAvgPool2d):
    """The mean over height and width, kept as 1x1."""

    def __init__(self) -> None:
        super().__init__(1)


def conv(layer: spec.Conv, shape: Shape) -> nn.Module:
    return nn.Conv2d(
        shape[0], layer.channels, layer.kernel, layer.stride, layer.padding, groups=layer.groups, bias=layer.bias
    )


def dense(layer: spec.Dense, shape: Shape) -> nn.Module:
    return nn.Linear(shape[0], layer.units, bias=layer.bias)


def batch_norm(layer: spec.BatchNorm, shape: Shape) -> nn.Module:
    return BatchNorm(shape[0], layer)


def local_response_norm(layer: spec.LocalResponseNorm, shape: Shape) -> nn.Module:
    # PyTorch divides alpha by the size itself.
    return nn.LocalResponseNorm(layer.size, layer.coefficient * layer.size, layer.beta, layer.k)


def relu(layer: spec.ReLU, shape: Shape) -> nn.Module:
    return nn.ReLU()


def sigmoid(layer: spec.Sigmoid, shape: Shape) -> nn.Module:
    return nn.Sigmoid()


def max_pool(layer: spec.MaxPool, shape: Shape) -> nn.Module:
    return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil)


def avg_pool(layer: spec.AvgPool, shape: Shape) -> nn.Module:
    return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding, layer.ceil, layer.count_padding)


def global_avg_pool(layer: spec.GlobalAvgPool, shape: Shape) -> nn.Module:
    return GlobalAvgPool()


def flatten(layer: spec.Flatten, shape: Shape) -> nn.Module:
    return nn.Flatten()


def dropout(layer: spec.Dropout, shape: Shape) -> nn.Module:
    return Dropout(layer.rate)


LAYERS: dict[type, Callable[[Any, Shape], nn.Module]] = {
    spec.Conv: conv,
    spec.Dense: dense,
    spec.BatchNorm: batch_norm,
    spec.LocalResponseNorm: local_response_norm,
    spec.ReLU: relu,
    spec.Sigmoid: sigmoid,
    spec.MaxPool: max_pool,
    spec.AvgPool: avg_pool,
    spec.GlobalAvgPool: global_avg_pool,
    spec.Flatten: flatten,
    spec.Dropout: dropout,
}
check_complete(LAYERS, __name__)
