"""Layers that Gluon has no block for, or whose operator is not exact: blocks, and functions of the operators `F`.

MXNet keeps most operators' numbers (a slope, bounds, an eps) as float32, so in float64 0.2 is another number; what is
multiplied or added as a scalar is a float64. `F.clip` hands the gradient on at its bounds, too."""

# ruff: noqa: N803 (Gluon calls the module of operators F)

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from numpy.typing import NDArray

from triptych.spec import layers as spec
from triptych.spec.kinds.activations import SELU_ALPHA, SELU_SCALE, linear_from
from triptych.spec.kinds.placement import AXES
from triptych.spec.layers import Pair, Shape
from triptych.spec.shapes import layer_output

Tensor: TypeAlias = mx.nd.NDArray | mx.sym.Symbol


class _Recorded(nn.HybridBlock):
    """A block without children, made of a spec's record, which it prints: Gluon has two empty brackets for it."""

    layer: Any  # which kind, its class says

    def __repr__(self) -> str:
        numbers = (f"{name}={value!r}" for name, value in vars(self.layer).items() if name != "name")
        return f"{type(self.layer).__name__}({', '.join(numbers)})"


class Function(_Recorded):
    """A function of the operators, the input and the spec's record as a block."""

    def __init__(self, function: Callable[[ModuleType, Tensor, Any], Tensor], layer: spec.Layer) -> None:
        super().__init__()
        self.function = function
        self.layer = layer

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return self.function(F, x, self.layer)


def between(F: ModuleType, x: Tensor, low: float, high: float) -> Tensor:
    """x between two bounds, at which its derivative is 0."""
    inside = (x > low) * (x < high)
    return F.where(inside, x, F.BlockGrad(F.minimum(F.maximum(x, low), high)))


def clip(F: ModuleType, x: Tensor, layer: spec.Clip) -> Tensor:
    return between(F, x, layer.low, layer.high)


def leaky_relu(F: ModuleType, x: Tensor, layer: spec.LeakyReLU) -> Tensor:
    return F.where(x > 0, x, x * layer.slope)


class PReLU(nn.PReLU):
    """nn.PReLU, whose operator rounds slopes to float32."""

    def __init__(self, layer: spec.PReLU, shape: Shape) -> None:
        super().__init__(in_channels=1 if layer.shared else shape[0])
        self.axes = per_channel(shape)

    def hybrid_forward(self, F: ModuleType, x: Tensor, alpha: Tensor) -> Tensor:
        return F.where(x > 0, x, F.broadcast_mul(x, F.reshape(alpha, self.axes)))


def exponential(F: ModuleType, x: Tensor, alpha: float, scale: float) -> Tensor:
    """ELU times a scale. F.LeakyReLU has a float32 alpha, and a gradient of SELU that is wrong below 0."""
    return F.where(x > 0, x * scale, F.expm1(F.minimum(x, 0.0)) * (scale * alpha))


def elu(F: ModuleType, x: Tensor, layer: spec.ELU) -> Tensor:
    return exponential(F, x, layer.alpha, 1.0)


def selu(F: ModuleType, x: Tensor, layer: spec.SELU) -> Tensor:
    return exponential(F, x, SELU_ALPHA, SELU_SCALE)


def gelu(F: ModuleType, x: Tensor, layer: spec.GELU) -> Tensor:
    """F.LeakyReLU has the erf form, in constants of float32. F.erf is exact, but its gradient is 3e-8 off: the right
    one is added here, times what is 0."""
    if layer.approximate:
        return x * (F.tanh((x + F.square(x) * x * 0.044715) * math.sqrt(2 / math.pi)) * 0.5 + 0.5)
    share = F.erf(x * math.sqrt(0.5)) * 0.5 + 0.5
    density = F.exp(F.square(x) * -0.5) * math.sqrt(0.5 / math.pi)
    return x * F.BlockGrad(share) + (x - F.BlockGrad(x)) * F.BlockGrad(x * density)


def softplus(F: ModuleType, x: Tensor, layer: spec.Softplus) -> Tensor:
    """F.Activation has a threshold of 20, and in float32 it gives -2e-6 for -20."""
    linear = linear_from(layer)
    return F.where(x > linear, x, F.log1p(F.exp(F.minimum(x, linear))))


def mish(F: ModuleType, x: Tensor, layer: spec.Mish) -> Tensor:
    return x * F.tanh(softplus(F, x, spec.Softplus("")))


def hard_sigmoid(F: ModuleType, x: Tensor, layer: spec.HardSigmoid) -> Tensor:
    return between(F, x * layer.slope + layer.offset, 0.0, 1.0)


def hard_swish(F: ModuleType, x: Tensor, layer: spec.HardSwish) -> Tensor:
    return x * between(F, x + 3.0, 0.0, 6.0) / 6.0


def softmax(F: ModuleType, x: Tensor, layer: spec.Softmax) -> Tensor:
    return F.softmax(x, axis=1)


class Affine(nn.HybridBlock):
    """`gamma * x + beta`, one number per channel or for all: parameters where they are trained, else constants."""

    def __init__(self, layer: spec.Affine, shape: Shape) -> None:
        super().__init__()
        self.axes = per_channel(shape)
        if layer.trained:
            self.gamma = self.params.get("gamma", shape=shape[:1], init="ones")
            self.beta = self.params.get("beta", shape=shape[:1], init="zeros")
        else:
            self.gamma = constant(self, "gamma", np.array(layer.scale))
            self.beta = constant(self, "beta", np.array(layer.shift))

    def hybrid_forward(self, F: ModuleType, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        scaled = F.broadcast_mul(x, F.reshape(gamma, self.axes))
        return F.broadcast_add(scaled, F.reshape(beta, self.axes))


class LocalResponseNorm(_Recorded):
    """F.LRN refuses float64 and windows wider than the channels; here the window is a pool along the channels."""

    def __init__(self, layer: spec.LocalResponseNorm, shape: Shape) -> None:
        super().__init__()
        self.channels = shape[0]
        self.layer = layer

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        size = self.layer.size
        squares = F.reshape(F.square(x), (0, 1, self.channels, -1))
        means = F.Pooling(squares, kernel=(size, 1), pad=(size // 2, 0), pool_type="avg", count_include_pad=True)
        base = self.layer.k + self.layer.coefficient * size * F.reshape_like(means, x)
        return x * base**-self.layer.beta


def l2_normalize(F: ModuleType, x: Tensor, layer: spec.L2Normalize) -> Tensor:
    """Where the norm is bounded, the root is taken of 1: that of 0 has no derivative, and 0 times it is NaN."""
    squares = F.sum(F.square(x), keepdims=True, **({"axis": 0, "exclude": True} if layer.whole else {"axis": 1}))
    if not layer.bound:
        return F.broadcast_div(x, F.sqrt(squares + layer.eps))
    ones = F.ones_like(squares)
    varies = F.BlockGrad(F.sqrt(squares) > layer.eps)
    return F.broadcast_div(x, F.where(varies, F.sqrt(F.where(varies, squares, ones)), ones * layer.eps))


def pad(F: ModuleType, x: Tensor, layer: spec.Pad) -> Tensor:
    return F.pad(x, mode=layer.mode, pad_width=(0, 0, 0, 0, *layer.padding), constant_value=layer.value)


def part(F: ModuleType, x: Tensor, layer: spec.Slice) -> Tensor:
    return F.slice_axis(x, axis=AXES[layer.axis] + 1, begin=layer.start, end=layer.stop)


def repeat(F: ModuleType, x: Tensor, layer: spec.Upsample) -> Tensor:
    """F.UpSampling has one factor for rows and columns."""
    return F.repeat(F.repeat(x, layer.factor[0], axis=2), layer.factor[1], axis=3)


class Bilinear(nn.HybridBlock):
    """Products with matrices: F.contrib.BilinearResize2D computes its weights in float32, by default between corners
    that are aligned."""

    def __init__(self, layer: spec.Upsample, shape: Shape) -> None:
        super().__init__()
        self.rows = constant(self, "rows", _interpolation(shape[1], layer.factor[0]))
        self.columns = constant(self, "columns", _interpolation(shape[2], layer.factor[1]))

    def hybrid_forward(self, F: ModuleType, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        across = F.transpose(F.dot(x, columns), (0, 1, 3, 2))
        return F.transpose(F.dot(across, rows), (0, 1, 3, 2))


def channel_shuffle(F: ModuleType, x: Tensor, layer: spec.ChannelShuffle) -> Tensor:
    grouped = F.reshape(x, (0, -4, layer.groups, -1, -2))  # (N, groups, channels of a group, H, W)
    return F.reshape(F.transpose(grouped, (0, 2, 1, 3, 4)), (0, -3, -2))


def reshape(F: ModuleType, x: Tensor, layer: spec.Reshape) -> Tensor:
    return F.reshape(x, (0, *layer.shape))


class MaxPool(nn.MaxPool2D):
    """nn.MaxPool2D, less the windows that lie wholly in the padding, which MXNet's ceil mode keeps."""

    def __init__(self, layer: spec.MaxPool, shape: Shape, overhang: Pair) -> None:
        super().__init__(layer.kernel, layer.stride, layer.padding, ceil_mode=overhang != (0, 0))
        self.size = layer_output(layer, shape, layer.name)[1:]

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        y = super().hybrid_forward(F, x)
        if self._kwargs["pooling_convention"] == "valid":
            return y
        return F.slice(y, begin=(None, None, 0, 0), end=(None, None, *self.size))


def few_averages(F: ModuleType, x: Tensor, layer: spec.AvgPool) -> Tensor:
    """Sums divided by their count, for few channels: oneDNN, which has no sums, is three times slower there than
    MXNet's own operator (LeNet's first pool: a seventh of its step)."""
    sums = F.Pooling(x, kernel=layer.kernel, stride=layer.stride, pool_type="sum")
    return sums / math.prod(layer.kernel)


class OverhangingAvgPool(_Recorded):
    """Sums divided by counts, padded by hand: oneDNN's own backward pass is wrong for windows that hang over."""

    def __init__(self, layer: spec.AvgPool, overhang: Pair) -> None:
        super().__init__()
        self.layer = layer
        self.overhang = overhang

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        def pad(values: Tensor, padding: Pair, end: Pair, value: float) -> Tensor:
            (rows, columns), (below, right) = padding, end
            width = (0, 0, 0, 0, rows, rows + below, columns, columns + right)
            return F.pad(values, mode="constant", pad_width=width, constant_value=value)

        def sums(values: Tensor) -> Tensor:
            return F.Pooling(values, kernel=self.layer.kernel, stride=self.layer.stride, pool_type="sum")

        ones = F.ones_like(F.slice(x, begin=(0, 0, None, None), end=(1, 1, None, None)))
        ones = pad(ones, self.layer.padding, (0, 0), float(self.layer.count_padding))
        counts = sums(pad(ones, (0, 0), self.overhang, 0.0))
        return F.broadcast_div(sums(pad(x, self.layer.padding, self.overhang, 0.0)), counts)


def per_channel(shape: Shape) -> tuple[int, ...]:
    """The axes of one number per channel beside values of `shape`."""
    return (1, -1, *(1,) * (len(shape) - 1))


def constant(block: nn.HybridBlock, name: str, value: NDArray[np.float64]) -> mx.gluon.Constant:
    """A constant of the block, kept as float64 until the network is cast."""
    return block.params.get_constant(name, mx.nd.array(value, dtype="float64"))


def _interpolation(size: int, factor: int) -> NDArray[np.float64]:
    """`(size, size * factor)`: linear weights by the distance between the centres, within the outermost of them."""
    centres = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(np.arange(size)[:, None] - centres))
