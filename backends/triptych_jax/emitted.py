"""Layers that Flax has no module for, as emitted files have them: `triptych emit` copies what a network needs.

Each stands by itself, on maps `(N, H, W, C)`: nothing of triptych is used."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


class BatchNorm(nnx.BatchNorm):
    """Keeps the unbiased variance of the batch as the running one, as PyTorch does."""

    def __call__(self, x: jax.Array) -> jax.Array:
        before, n = self.var[...], x.size // x.shape[-1]
        y = super().__call__(x)
        if not self.use_running_average and n > 1:
            kept = self.momentum * before
            self.var[...] = kept + (self.var[...] - kept) * (n / (n - 1))
        return y


class FrozenBatchNorm(nnx.BatchNorm):
    """Uses, and keeps, the running statistics in training too."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x, use_running_average=True)


class PReLU(nnx.Module):
    """A trained slope for every channel; nnx.PReLU has one for all, and the derivative 1 at 0."""

    def __init__(self, slopes: int) -> None:
        self.negative_slope = nnx.Param(jnp.full(slopes, 0.25))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, self.negative_slope[...] * x)


class Affine(nnx.Module):
    """`scale * x + bias`, trained, a number for every channel."""

    def __init__(self, channels: int) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.scale[...] + self.bias[...]


class ConvTranspose(nnx.Module):
    """The gradient of a convolution: one of the input, spread by the stride, with the kernel turned round.
    nnx.ConvTranspose has no groups, and pads by other rules."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int],
        padding: tuple[int, int],
        output_padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        use_bias: bool,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (*kernel, channels // groups, in_channels)
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(channels)) if use_bias else None
        self.stride, self.dilation, self.groups = stride, dilation, groups
        reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
        sides = zip(reach, padding, output_padding, strict=True)
        self.padding = tuple((r - p, r - p + extra) for r, p, extra in sides)

    def __call__(self, x: jax.Array) -> jax.Array:
        rows, columns, outputs, inputs = self.kernel.shape
        each = inputs // self.groups
        kernel = self.kernel[...][::-1, ::-1].reshape(rows, columns, outputs, self.groups, each)
        kernel = kernel.transpose(0, 1, 4, 3, 2).reshape(rows, columns, each, self.groups * outputs)
        y = lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            self.padding,
            lhs_dilation=self.stride,
            rhs_dilation=self.dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return y if self.bias is None else y + self.bias[...]


def flatten(x: jax.Array) -> jax.Array:
    """In channels-height-width order, that of the next layer's weights; plain reshaping has the channels last."""
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def reshape(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """In another shape, channels first, as the values lie in channels-height-width order."""
    y = (x.transpose(0, 3, 1, 2) if x.ndim == 4 else x).reshape(len(x), *shape)
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


def local_response_norm(x: jax.Array, size: int, alpha: float, beta: float, k: float) -> jax.Array:
    """Over `size` neighbouring channels, whose sum of squares counts `alpha` times: Flax has none."""
    energy = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, (1, 1, 1, size), (1, 1, 1, 1), "SAME")
    return x * (k + alpha * energy) ** -beta


def l2_normalize(x: jax.Array, eps: float, whole: bool, bound: bool) -> jax.Array:
    """x over its Euclidean norm over the channels, or the whole image; eps is added to the sum of squares, or bounds
    the norm from below."""
    squares = jnp.sum(x * x, tuple(range(1, x.ndim)) if whole else -1, keepdims=True)
    if not bound:
        return x / jnp.sqrt(squares + eps)
    varies = jnp.sqrt(squares) > eps  # the root of 0 has no derivative
    return x / jnp.where(varies, jnp.sqrt(jnp.where(varies, squares, 1.0)), eps)


def affine(x: jax.Array, scale: tuple[float, ...], shift: tuple[float, ...]) -> jax.Array:
    """`scale * x + shift`, constant: one number, or one for every channel."""
    return x * jnp.array(scale, x.dtype) + jnp.array(shift, x.dtype)


def clip(x: jax.Array, low: float, high: float) -> jax.Array:
    """With the derivative 0 at the bounds; that of jnp.clip and nnx.relu6 is 0.5."""
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))


def leaky_relu(x: jax.Array, slope: float) -> jax.Array:
    """With the derivative `slope` at 0; that of nnx.leaky_relu is 1."""
    return jnp.where(x > 0, x, slope * x)


def softplus(x: jax.Array, threshold: float) -> jax.Array:
    """log(1 + exp(x)), and x itself above the threshold, of which nnx.softplus has none."""
    return jnp.where(x > threshold, x, nnx.softplus(x))


def hard_sigmoid(x: jax.Array, slope: float, offset: float) -> jax.Array:
    """min(max(slope * x + offset, 0), 1); nnx.hard_sigmoid has the slope 1/6 only."""
    return clip(slope * x + offset, 0.0, 1.0)


def global_max_pool(x: jax.Array) -> jax.Array:
    """The gradient goes to the first of equal values; x.max would share it among them."""
    return nnx.max_pool(x, x.shape[1:3])


def upsample(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Every value repeated."""
    return x.repeat(rows, 1).repeat(columns, 2)


def upsample_bilinear(x: jax.Array, rows: int, columns: int) -> jax.Array:
    """Linear between the centres of the values."""
    n, height, width, channels = x.shape
    return jax.image.resize(x, (n, height * rows, width * columns, channels), "bilinear")


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
    """Channel i of group g becomes channel `i * groups + g`."""
    return x.reshape(*x.shape[:-1], groups, -1).swapaxes(-1, -2).reshape(x.shape)


def avg_pool_over(
    x: jax.Array,
    window_shape: tuple[int, int],
    strides: tuple[int, int],
    overhang: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0)),
    counted: bool = True,
) -> jax.Array:
    """nnx.avg_pool whose last windows hang over the lower and right edge: padded zeros are `counted` or not, what hangs
    over never is."""
    (below, right), window = overhang, (1, *window_shape, 1)
    ones = jnp.pad(jnp.ones(x.shape[1:3], x.dtype), padding, constant_values=float(counted))
    ones = jnp.pad(ones, ((0, below), (0, right)))[None, :, :, None]
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    x = jnp.pad(x, ((0, 0), (0, below), (0, right), (0, 0)))
    sums, counts = (lax.reduce_window(y, 0.0, lax.add, window, (1, *strides, 1), "VALID") for y in (x, ones))
    return sums / counts
