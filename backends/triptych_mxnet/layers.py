"""One native layer for every record of the spec. Each default that differs between frameworks is passed."""

# ruff: noqa: N803 (Gluon calls the module of operators F)

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import mxnet as mx
from mxnet import autograd, gluon
from mxnet.gluon import nn

from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.pooling import overhang
from triptych.spec.layers import Shape
from triptych.spec.shapes import layer_output

Tensor: TypeAlias = mx.nd.NDArray | mx.sym.Symbol


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm, whose operator hands over the batch's statistics; the running ones are made of them here.

    By itself the operator keeps the biased variance and reads its momentum as float32. It writes in the *backward*
    pass: `keep` before, then `update` or `restore`.
    """

    def __init__(self, features: int, area: int, layer: spec.BatchNorm) -> None:
        # momentum is the weight of the old statistics here: with 0 the operator writes the batch's alone
        super().__init__(momentum=0.0, epsilon=layer.eps, scale=layer.gamma, in_channels=features)
        self.layer = layer
        self.area = area
        self.still = False

    def freeze(self, still: bool) -> None:
        """Whether the running statistics stay as they are, and are used in training too."""
        self.still = self._kwargs["use_global_stats"] = still

    def keep(self) -> None:
        """Remember the running statistics, which the backward pass will replace."""
        self.before = self.running_mean.data().copy(), self.running_var.data().copy()

    def update(self, batch_size: int) -> None:
        """Mix the batch's statistics into those remembered."""
        n, new = batch_size * self.area, self.layer.momentum
        correction = n / (n - 1) if self.layer.unbiased and n > 1 else 1.0
        for parameter, before, factor in zip(self.statistics(), self.before, (1.0, correction), strict=True):
            running = parameter.data()
            running *= new * factor
            running += (1 - new) * before

    def restore(self) -> None:
        """Put back what was remembered."""
        for parameter, before in zip(self.statistics(), self.before, strict=True):
            parameter.set_data(before)

    def statistics(self) -> tuple[gluon.Parameter, gluon.Parameter]:
        """The running mean and variance."""
        return self.running_mean, self.running_var


class Dropout(nn.Dropout):
    """nn.Dropout, or with a given mask (conformance, not hybridized): True where a value is kept."""

    mask: mx.nd.NDArray | None = None

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        if self.mask is not None and autograd.is_training():
            return x * (self.mask.astype(x.dtype) / (1 - self._rate))
        return super().hybrid_forward(F, x)


class _LocalResponseNorm(nn.HybridBlock):
    """F.LRN refuses float64 and windows wider than the channels; here the window is a pool along the channels."""

    def __init__(self, channels: int, layer: spec.LocalResponseNorm) -> None:
        super().__init__()
        self.channels = channels
        self.layer = layer

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        size = self.layer.size
        squares = F.reshape(F.square(x), (0, 1, self.channels, -1))
        means = F.Pooling(squares, kernel=(size, 1), pad=(size // 2, 0), pool_type="avg", count_include_pad=True)
        base = self.layer.k + self.layer.coefficient * size * F.reshape_like(means, x)
        return x * base**-self.layer.beta


class _MaxPool(nn.MaxPool2D):
    """nn.MaxPool2D, less the windows that lie wholly in the padding, which MXNet's ceil mode keeps."""

    def __init__(self, layer: spec.MaxPool, shape: Shape) -> None:
        super().__init__(layer.kernel, layer.stride, layer.padding, ceil_mode=overhang(layer, shape) != (0, 0))
        self.size = layer_output(layer, shape, layer.name)[1:]

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        y = super().hybrid_forward(F, x)
        if self._kwargs["pooling_convention"] == "valid":
            return y
        return F.slice(y, begin=(None, None, 0, 0), end=(None, None, *self.size))


class _OverhangingAvgPool(nn.HybridBlock):
    """Sums divided by counts, padded by hand: oneDNN's own backward pass is wrong for windows that hang over."""

    def __init__(self, layer: spec.AvgPool, shape: Shape) -> None:
        super().__init__()
        self.layer = layer
        self.overhang = overhang(layer, shape)

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        def pad(values: Tensor, padding: spec.Pair, end: spec.Pair, value: float) -> Tensor:
            (rows, columns), (below, right) = padding, end
            width = (0, 0, 0, 0, rows, rows + below, columns, columns + right)
            return F.pad(values, mode="constant", pad_width=width, constant_value=value)

        def sums(values: Tensor) -> Tensor:
            return F.Pooling(values, kernel=self.layer.kernel, stride=self.layer.stride, pool_type="sum")

        ones = F.ones_like(F.slice(x, begin=(0, 0, None, None), end=(1, 1, None, None)))
        ones = pad(ones, self.layer.padding, (0, 0), float(self.layer.count_padding))
        counts = sums(pad(ones, (0, 0), self.overhang, 0.0))
        return F.broadcast_div(sums(pad(x, self.layer.padding, self.overhang, 0.0)), counts)


def _avg_pool(layer: spec.AvgPool, shape: Shape) -> gluon.HybridBlock:
    if overhang(layer, shape) != (0, 0):
        return _OverhangingAvgPool(layer, shape)
    return nn.AvgPool2D(layer.kernel, layer.stride, layer.padding, count_include_pad=layer.count_padding)


LAYERS: dict[type, Callable[[Any, Shape], gluon.HybridBlock]] = {
    spec.Conv: lambda layer, shape: nn.Conv2D(
        layer.channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        groups=layer.groups,
        use_bias=layer.bias,
        in_channels=shape[0],
    ),
    spec.Dense: lambda layer, shape: nn.Dense(layer.units, use_bias=layer.bias, in_units=shape[0]),
    spec.BatchNorm: lambda layer, shape: BatchNorm(shape[0], math.prod(shape[1:]), layer),
    spec.LocalResponseNorm: lambda layer, shape: _LocalResponseNorm(shape[0], layer),
    spec.ReLU: lambda layer, shape: nn.Activation("relu"),
    spec.Sigmoid: lambda layer, shape: nn.Activation("sigmoid"),
    spec.MaxPool: _MaxPool,
    spec.AvgPool: _avg_pool,
    spec.GlobalAvgPool: lambda layer, shape: nn.GlobalAvgPool2D(),
    spec.Flatten: lambda layer, shape: nn.Flatten(),
    spec.Dropout: lambda layer, shape: Dropout(layer.rate),
}
check_complete(LAYERS, __name__)
