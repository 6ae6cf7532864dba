"""One native layer for every record of the spec. Each default that differs between frameworks is passed."""

# ruff: noqa: N803 (Gluon calls the module of operators F)

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import mxnet as mx
from mxnet import autograd, gluon
from mxnet.gluon import nn

from triptych.backend.group import Share
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.kind import extent
from triptych.spec.kinds.pooling import overhang
from triptych.spec.layers import Shape
from triptych.spec.shapes import layer_output
from triptych_mxnet import functions
from triptych_mxnet.functions import Function, Tensor


class BatchNorm(nn.BatchNorm):
    """nn.BatchNorm, whose operator hands over the batch's statistics; the running ones are made of them here.

    By itself the operator keeps the biased variance and reads its momentum as float32. It writes in the *backward*
    pass: `keep` before, then `update` or `restore`.
    """

    share: Share | None = None  # of a batch whose statistics are those of all processes
    total: Callable[[str, list[mx.nd.NDArray]], None]  # sums over these

    def __init__(self, features: int, area: int, layer: spec.BatchNorm) -> None:
        # momentum is the weight of the old statistics here: with 0 the operator writes the batch's alone
        super().__init__(momentum=0.0, epsilon=layer.eps, scale=layer.gamma, center=layer.beta, in_channels=features)
        self.layer = layer
        self.area = area
        self.freeze(False)

    def freeze(self, still: bool) -> None:
        """Whether the running statistics stay as they are, in training too; always where the spec has it so."""
        self.still = self._kwargs["use_global_stats"] = still or self.layer.frozen

    def keep(self, number: int = 0) -> None:
        """Remember the running statistics of this context, which the backward pass will replace."""
        self.before = tuple(value.copy() for value in self.statistics(number))

    def update(self, batch_size: int, number: int = 0) -> None:
        """Mix the batch's statistics into those remembered."""
        n, new = batch_size * self.area, self.layer.momentum
        correction = n / (n - 1) if self.layer.unbiased and n > 1 else 1.0
        for running, before, factor in zip(self.statistics(number), self.before, (1.0, correction), strict=True):
            running *= new * factor
            running += (1 - new) * before

    def restore(self) -> None:
        """Put back what was remembered."""
        for running, before in zip(self.statistics(), self.before, strict=True):
            running[:] = before

    def statistics(self, number: int = 0) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """The running mean and variance in a context, by its number among the network's."""
        return self.running_mean.list_data()[number], self.running_var.list_data()[number]

    def hybrid_forward(self, F: ModuleType, x: Tensor, **values: Tensor) -> Tensor:
        if self.share is None or self.still or not autograd.is_training():
            return super().hybrid_forward(F, x, **values)
        share, total = self.share, self.total
        normalise = _Synchronised(total, (share.last - share.first) * self.area * share.copies, self.layer.eps)
        y = normalise(x)
        for running, of_batch in zip(self.statistics(), normalise.statistics, strict=True):
            running[:] = of_batch  # as the operator does
        shape = (1, -1) + (1,) * (x.ndim - 2)
        y = F.broadcast_mul(y, values["gamma"].reshape(shape)) if self.layer.gamma else y
        return F.broadcast_add(y, values["beta"].reshape(shape)) if self.layer.beta else y


BACKWARD = "batch norm, backward"


class _Synchronised(autograd.Function):
    """Normalises by the mean and variance of all processes' images: `count` values of each channel. Gluon's contributed
    SyncBatchNorm knows the devices of one process alone."""

    def __init__(self, total: Callable[[str, list[mx.nd.NDArray]], None], count: float, eps: float) -> None:
        super().__init__()
        self.total, self.count, self.eps = total, count, eps

    def mean_of(self, value: mx.nd.NDArray, name: str = "batch norm") -> mx.nd.NDArray:
        """By channel, over all processes."""
        mine = value.sum(axis=1, exclude=True) / self.count
        mine.wait_to_read()  # in the thread of a backward pass the store would send what is not there yet
        self.total(name, [mine])
        mine.wait_to_read()
        return mine

    def forward(self, x: mx.nd.NDArray) -> mx.nd.NDArray:
        self.shape = (1, -1) + (1,) * (x.ndim - 2)
        mean = self.mean_of(x)
        centred = mx.nd.broadcast_sub(x, mean.reshape(self.shape))
        variance = self.mean_of(centred * centred)
        self.statistics = mean, variance
        self.scale = (1 / (variance + self.eps).sqrt()).reshape(self.shape)
        self.normalised = mx.nd.broadcast_mul(centred, self.scale)
        return self.normalised

    def backward(self, gradient: mx.nd.NDArray) -> mx.nd.NDArray:
        # Another thread than that of the forward pass runs this: with its names the store would wait for itself.
        mean = self.mean_of(gradient, BACKWARD).reshape(self.shape)
        along = self.mean_of(gradient * self.normalised, BACKWARD).reshape(self.shape)
        rest = mx.nd.broadcast_sub(gradient, mean) - mx.nd.broadcast_mul(self.normalised, along)
        return mx.nd.broadcast_mul(rest, self.scale)


class Dropout(nn.Dropout):
    """nn.Dropout, or with a given mask (conformance, not hybridized): True where a value is kept."""

    mask: mx.nd.NDArray | None = None
    share: Share | None = None  # of a batch that is drawn for whole, so that the numbers do not depend on who has what

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        if self.mask is not None and autograd.is_training():
            return x * (self.mask.astype(x.dtype) / (1 - self._rate))
        if self.share is not None and autograd.is_training():
            whole = mx.nd.ones((self.share.whole, *x.shape[1:]), x.context, x.dtype)
            return x * super().hybrid_forward(F, whole)[self.share.begin : self.share.end]
        return super().hybrid_forward(F, x)


class _SummedConvTranspose(nn.Conv2DTranspose):
    """A transposed convolution by its definition: every value's multiples of the kernel, group by group, added where
    they lie, then cut to size.

    F.Deconvolution refuses an output padding that is not below the stride, and is wrong, without a word, in float64
    where both stride and dilation are above 1."""

    def __init__(self, layer: spec.ConvTranspose, shape: Shape) -> None:
        super().__init__(**_transposed(layer, shape) | {"output_padding": (0, 0)})
        self.layer = layer
        self.area = math.prod(shape[1:])
        self.size = layer_output(layer, shape, layer.name)[1:]
        sides = zip(shape[1:], layer.stride, extent(layer), strict=True)
        self.whole = tuple((size - 1) * stride + k for size, stride, k in sides)

    def hybrid_forward(self, F: ModuleType, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        layer, (top, left), (height, width) = self.layer, self.layer.padding, self.size
        values = F.transpose(F.reshape(x, (0, layer.groups, -1, self.area)), (1, 2, 0, 3))
        kernels = F.reshape(weight, (layer.groups, -1, layer.channels // layer.groups * math.prod(layer.kernel)))
        multiples = F.batch_dot(kernels, F.reshape(values, (0, 0, -3)), transpose_a=True)
        multiples = F.transpose(F.reshape(multiples, (0, 0, -1, self.area)), (2, 0, 1, 3))
        window = {"kernel": layer.kernel, "stride": layer.stride, "dilate": layer.dilation, "pad": (0, 0)}
        y = F.col2im(F.reshape(multiples, (0, -3, -2)), output_size=self.whole, **window)
        y = F.pad(y, mode="constant", pad_width=(0, 0, 0, 0, 0, height, 0, width), constant_value=0.0)
        y = F.slice(y, begin=(None, None, top, left), end=(None, None, top + height, left + width))
        return y if bias is None else F.broadcast_add(y, F.reshape(bias, (1, -1, 1, 1)))


def _transposed(layer: spec.ConvTranspose, shape: Shape) -> dict[str, Any]:
    return {
        "channels": layer.channels,
        "kernel_size": layer.kernel,
        "strides": layer.stride,
        "padding": layer.padding,
        "output_padding": layer.output_padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "use_bias": layer.bias,
        "in_channels": shape[0],
    }


def _conv_transpose(layer: spec.ConvTranspose, shape: Shape) -> gluon.HybridBlock:
    axes = zip(layer.output_padding, layer.stride, layer.dilation, strict=True)
    if any(extra >= stride or (stride > 1 and dilation > 1) for extra, stride, dilation in axes):
        return _SummedConvTranspose(layer, shape)
    return nn.Conv2DTranspose(**_transposed(layer, shape))


FEW_CHANNELS = 8  # fewer than oneDNN's blocks have


def _avg_pool(layer: spec.AvgPool, shape: Shape) -> gluon.HybridBlock:
    if overhang(layer, shape) != (0, 0):
        return functions.OverhangingAvgPool(layer, overhang(layer, shape))
    if shape[0] < FEW_CHANNELS and layer.padding == (0, 0):
        return Function(functions.few_averages, layer)
    return nn.AvgPool2D(layer.kernel, layer.stride, layer.padding, count_include_pad=layer.count_padding)


def _upsample(layer: spec.Upsample, shape: Shape) -> gluon.HybridBlock:
    if layer.mode == "bilinear":
        return functions.Bilinear(layer, shape)
    return Function(functions.repeat, layer)


def _function(function: Callable[[ModuleType, Tensor, Any], Tensor]) -> Callable[[Any, Shape], gluon.HybridBlock]:
    return lambda layer, shape: Function(function, layer)


LAYERS: dict[type, Callable[[Any, Shape], gluon.HybridBlock]] = {
    spec.Conv: lambda layer, shape: nn.Conv2D(
        layer.channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        use_bias=layer.bias,
        in_channels=shape[0],
    ),
    spec.MaxPool: lambda layer, shape: functions.MaxPool(layer, shape, overhang(layer, shape)),
    spec.AvgPool: _avg_pool,
    spec.ConvTranspose: _conv_transpose,
    spec.Dense: lambda layer, shape: nn.Dense(layer.units, use_bias=layer.bias, in_units=shape[0]),
    spec.BatchNorm: lambda layer, shape: BatchNorm(shape[0], math.prod(shape[1:]), layer),
    spec.LocalResponseNorm: functions.LocalResponseNorm,
    spec.L2Normalize: _function(functions.l2_normalize),
    spec.Affine: functions.Affine,
    spec.ReLU: lambda layer, shape: nn.Activation("relu"),
    spec.Sigmoid: lambda layer, shape: nn.Activation("sigmoid"),
    spec.Tanh: lambda layer, shape: nn.Activation("tanh"),
    spec.Clip: _function(functions.clip),
    spec.LeakyReLU: _function(functions.leaky_relu),
    spec.PReLU: functions.PReLU,
    spec.SiLU: lambda layer, shape: nn.Swish(),
    spec.ELU: _function(functions.elu),
    spec.SELU: _function(functions.selu),
    spec.GELU: _function(functions.gelu),
    spec.Softplus: _function(functions.softplus),
    spec.Softsign: lambda layer, shape: nn.Activation("softsign"),
    spec.Mish: _function(functions.mish),
    spec.HardSigmoid: _function(functions.hard_sigmoid),
    spec.HardSwish: _function(functions.hard_swish),
    spec.Softmax: _function(functions.softmax),
    spec.GlobalAvgPool: lambda layer, shape: nn.GlobalAvgPool2D(),
    spec.GlobalMaxPool: lambda layer, shape: nn.GlobalMaxPool2D(),
    spec.Pad: _function(functions.pad),
    spec.Slice: _function(functions.part),
    spec.Upsample: _upsample,
    spec.ChannelShuffle: _function(functions.channel_shuffle),
    spec.Reshape: _function(functions.reshape),
    spec.Flatten: lambda layer, shape: nn.Flatten(),
    spec.Dropout: lambda layer, shape: Dropout(layer.rate),
}
check_complete(LAYERS, __name__)
