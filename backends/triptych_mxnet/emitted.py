"""Layers that Gluon has no block for, as emitted files have them: `triptych emit` copies what a network needs.

Each stands by itself: nothing of triptych is used. MXNet keeps most operators' numbers (a slope, bounds, an eps) as
float32; what is multiplied or added as a scalar is a float64."""

# ruff: noqa: N803 (Gluon calls the module of operators F)

import math
from typing import Any, TypeAlias

import mxnet as mx
import numpy as np
from mxnet.gluon import nn
from numpy.typing import NDArray

Tensor: TypeAlias = mx.nd.NDArray | mx.sym.Symbol


def sequence(*blocks: nn.HybridBlock) -> nn.HybridSequential:
    """The blocks one after the other."""
    result = nn.HybridSequential()
    result.add(*blocks)
    return result


def concat(F: Any, *maps: Tensor) -> Tensor:
    """Along the channels. oneDNN cannot split a gradient in its blocked layout at 24 and 40 of 64 channels ("could not
    construct a sub-memory"); a slice of everything hands it over in the plain one."""
    return F.slice_axis(F.concat(*maps, dim=1), axis=0, begin=0, end=None)


class PReLU(nn.PReLU):
    """A trained slope for every channel, in the precision of the network: the operator rounds slopes to float32."""

    def __init__(self, slopes: int, rank: int) -> None:
        super().__init__(in_channels=slopes)
        self.axes = (1, -1, *(1,) * (rank - 1))

    def hybrid_forward(self, F: Any, x: Tensor, alpha: Tensor) -> Tensor:
        return F.where(x > 0, x, F.broadcast_mul(x, F.reshape(alpha, self.axes)))


class Affine(nn.HybridBlock):
    """`gamma * x + beta`, trained, a number for every channel."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.axes = (1, -1, *(1,) * (rank - 1))
        self.gamma = self.params.get("gamma", shape=(channels,), init="ones")
        self.beta = self.params.get("beta", shape=(channels,), init="zeros")

    def hybrid_forward(self, F: Any, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        scaled = F.broadcast_mul(x, F.reshape(gamma, self.axes))
        return F.broadcast_add(scaled, F.reshape(beta, self.axes))


def in_two(value: NDArray[np.float64] | tuple[float, ...]) -> mx.nd.NDArray:
    """Two float32 arrays whose sum in float64 is the value: 0.1 in float32 alone is another number."""
    first = np.asarray(value, np.float32)
    return mx.nd.array(np.stack([first, np.asarray(value) - first]))


class Scale(nn.HybridBlock):
    """`scale * x + shift`, constant: one number, or one for every channel."""

    def __init__(self, scale: tuple[float, ...], shift: tuple[float, ...], rank: int) -> None:
        super().__init__()
        self.axes = (1, -1, *(1,) * (rank - 1))
        self.scale = self.params.get_constant("scale", in_two(scale))
        self.shift = self.params.get_constant("shift", in_two(shift))

    def hybrid_forward(self, F: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        scaled = F.broadcast_mul(x, F.reshape(F.sum(scale, axis=0), self.axes))
        return F.broadcast_add(scaled, F.reshape(F.sum(shift, axis=0), self.axes))


def between(F: Any, x: Tensor, low: float, high: float) -> Tensor:
    """x between two bounds, at which its derivative is 0; that of F.clip is 1 there."""
    inside = (x > low) * (x < high)
    return F.where(inside, x, F.BlockGrad(F.minimum(F.maximum(x, low), high)))


class Clip(nn.HybridBlock):
    """min(max(x, low), high)."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low = low
        self.high = high

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return between(F, x, self.low, self.high)


class LeakyReLU(nn.HybridBlock):
    """x where it is positive, else slope * x; nn.LeakyReLU rounds the slope to float32."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return F.where(x > 0, x, x * self.slope)


class ELU(nn.HybridBlock):
    """x where it is positive, else alpha * (exp(x) - 1); nn.ELU rounds alpha to float32."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return F.where(x > 0, x, F.expm1(F.minimum(x, 0.0)) * self.alpha)


class SELU(nn.HybridBlock):
    """1.0507 times ELU with the alpha 1.67326. The gradient of nn.SELU is wrong below 0: its operator takes the output,
    which has the scale in it, for what ELU puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0507009873554805
        self.alpha = 1.6732632423543772

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return F.where(x > 0, x * self.scale, F.expm1(F.minimum(x, 0.0)) * (self.scale * self.alpha))


class GELU(nn.HybridBlock):
    """x * (1 + erf(x / sqrt(2))) / 2; nn.GELU rounds its constants to float32. F.erf is exact, but its gradient is 3e-8
    off: the right one is added here, times what is 0."""

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        share = F.erf(x * math.sqrt(0.5)) * 0.5 + 0.5
        density = F.exp(F.square(x) * -0.5) * math.sqrt(0.5 / math.pi)
        return x * F.BlockGrad(share) + (x - F.BlockGrad(x)) * F.BlockGrad(x * density)


class TanhGELU(nn.HybridBlock):
    """x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2; nn.GELU is the erf form."""

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return x * (F.tanh((x + F.square(x) * x * 0.044715) * math.sqrt(2 / math.pi)) * 0.5 + 0.5)


class Softplus(nn.HybridBlock):
    """log(1 + exp(x)), and x itself above the threshold. The operator's is 20, and in float32 it gives -2e-6
    for -20."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return F.where(x > self.threshold, x, F.log1p(F.exp(F.minimum(x, self.threshold))))


class Mish(nn.HybridBlock):
    """x * tanh(log(1 + exp(x))), of which the hyperbolic tangent is 1 above 20."""

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return x * F.tanh(F.log1p(F.exp(F.minimum(x, 40.0))))


class HardSigmoid(nn.HybridBlock):
    """min(max(slope * x + offset, 0), 1); the operator's slope is 0.2 by default, and a float32."""

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope = slope
        self.offset = offset

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return between(F, x * self.slope + self.offset, 0.0, 1.0)


class HardSwish(nn.HybridBlock):
    """x * min(max(x + 3, 0), 6) / 6."""

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        return x * between(F, x + 3.0, 0.0, 6.0) / 6.0


def local_response_norm(channels: int, size: int, alpha: float, beta: float, k: float) -> nn.HybridLambda:
    """x over `(k + alpha / size * sum of squares of `size` neighbouring channels) ^ beta`. F.LRN refuses float64 and
    windows wider than the channels; here the window is a pool along the channels."""

    def normalized(F: Any, x: Tensor) -> Tensor:
        squares = F.reshape(F.square(x), (0, 1, channels, -1))
        means = F.Pooling(squares, pool_type="avg", kernel=(size, 1), pad=(size // 2, 0))
        return x * (k + alpha * F.reshape_like(means, x)) ** -beta

    return nn.HybridLambda(normalized)


class L2Normalize(nn.HybridBlock):
    """x over its Euclidean norm over the channels, or the whole image; eps is added to the sum of squares, or bounds
    the norm from below."""

    def __init__(self, eps: float, whole: bool, bound: bool) -> None:
        super().__init__()
        self.eps = eps
        self.axes = {"axis": 0, "exclude": True} if whole else {"axis": 1}
        self.bound = bound

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        squares = F.sum(F.square(x), keepdims=True, **self.axes)
        if not self.bound:
            return F.broadcast_div(x, F.sqrt(squares + self.eps))
        ones = F.ones_like(squares)
        varies = F.BlockGrad(F.sqrt(squares) > self.eps)  # the root of 0 has no derivative
        return F.broadcast_div(x, F.where(varies, F.sqrt(F.where(varies, squares, ones)), ones * self.eps))


class CroppedMaxPool(nn.MaxPool2D):
    """nn.MaxPool2D rounded up, less the windows that lie wholly in the padding, which MXNet keeps; to `size`."""

    def __init__(
        self,
        kernel: int | tuple[int, int],
        strides: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        *,
        size: tuple[int, int],
    ) -> None:
        super().__init__(kernel, strides, padding, ceil_mode=True)
        self.size = size

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        y = super().hybrid_forward(F, x)
        return F.slice(y, begin=(None, None, 0, 0), end=(None, None, *self.size))


class OverhangingAvgPool(nn.HybridBlock):
    """Means over windows that hang over the lower and right edge by `overhang`, which never counts; padded zeros do if
    they are `counted`. Sums over counts: oneDNN's own backward pass is wrong for such windows."""

    def __init__(
        self,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        padding: tuple[int, int],
        overhang: tuple[int, int],
        counted: bool,
    ) -> None:
        super().__init__()
        self.window = {"kernel": kernel, "stride": strides}
        self.padding, self.overhang, self.counted = padding, overhang, counted

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        (rows, columns), (below, right) = self.padding, self.overhang

        def padded(values: Tensor, width: tuple[int, ...], value: float) -> Tensor:
            return F.pad(values, mode="constant", pad_width=(0, 0, 0, 0, *width), constant_value=value)

        def sums(values: Tensor) -> Tensor:
            return F.Pooling(values, pool_type="sum", **self.window)

        ones = F.ones_like(F.slice(x, begin=(0, 0, None, None), end=(1, 1, None, None)))
        ones = padded(ones, (rows, rows, columns, columns), float(self.counted))
        counts = sums(padded(ones, (0, below, 0, right), 0.0))
        return F.broadcast_div(sums(padded(x, (rows, rows + below, columns, columns + right), 0.0)), counts)


class ConvTranspose(nn.Conv2DTranspose):
    """A transposed convolution by its definition: every value's multiples of the kernel, group by group, added where
    they lie, then cut to `size`. F.Deconvolution refuses an output padding that is not below the stride, and is wrong,
    without a word, in float64 where both stride and dilation are above 1."""

    def __init__(
        self,
        channels: int,
        kernel: tuple[int, int],
        strides: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        use_bias: bool,
        in_channels: int,
        map: tuple[int, int],
        size: tuple[int, int],
    ) -> None:
        more = {"use_bias": use_bias, "in_channels": in_channels}
        super().__init__(channels, kernel, strides, padding, (0, 0), dilation, groups, **more)
        self.out, self.groups, self.size = channels // groups, groups, size
        self.corner, self.area, self.kernel_area = padding, math.prod(map), math.prod(kernel)
        self.window = {"kernel": kernel, "stride": strides, "dilate": dilation, "pad": (0, 0)}
        sides = zip(map, strides, kernel, dilation, strict=True)
        self.whole = tuple((n - 1) * stride + (k - 1) * d + 1 for n, stride, k, d in sides)

    def hybrid_forward(self, F: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        (top, left), (height, width) = self.corner, self.size
        values = F.transpose(F.reshape(x, (0, self.groups, -1, self.area)), (1, 2, 0, 3))
        kernels = F.reshape(weight, (self.groups, -1, self.out * self.kernel_area))
        multiples = F.batch_dot(kernels, F.reshape(values, (0, 0, -3)), transpose_a=True)
        multiples = F.transpose(F.reshape(multiples, (0, 0, -1, self.area)), (2, 0, 1, 3))
        y = F.col2im(F.reshape(multiples, (0, -3, -2)), output_size=self.whole, **self.window)
        y = F.pad(y, mode="constant", pad_width=(0, 0, 0, 0, 0, height, 0, width), constant_value=0.0)
        y = F.slice(y, begin=(None, None, top, left), end=(None, None, top + height, left + width))
        return y if bias is None else F.broadcast_add(y, F.reshape(bias, (1, -1, 1, 1)))


def interpolation(size: int, factor: int) -> NDArray[np.float64]:
    """`(size, size * factor)`: linear weights by the distance between the centres, within the outermost of them."""
    centres = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    return np.maximum(0.0, 1.0 - np.abs(np.arange(size)[:, None] - centres))


class Bilinear(nn.HybridBlock):
    """`factor` times as many rows and columns of a `map`. Products with matrices: F.contrib.BilinearResize2D computes
    its weights in float32, by default between corners that are aligned."""

    def __init__(self, map: tuple[int, int], factor: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = (in_two(interpolation(*pair)) for pair in zip(map, factor, strict=True))
        self.rows = self.params.get_constant("rows", rows)
        self.columns = self.params.get_constant("columns", columns)

    def hybrid_forward(self, F: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        across = F.swapaxes(F.dot(x, F.sum(columns, axis=0)), 2, 3)
        return F.swapaxes(F.dot(across, F.sum(rows, axis=0)), 2, 3)


class ChannelShuffle(nn.HybridBlock):
    """Channel i of group g becomes channel `i * groups + g`."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def hybrid_forward(self, F: Any, x: Tensor) -> Tensor:
        grouped = F.reshape(x, (0, -4, self.groups, -1, -2))  # (N, groups, channels of a group, H, W)
        return F.reshape(F.swapaxes(grouped, 1, 2), (0, -3, -2))
