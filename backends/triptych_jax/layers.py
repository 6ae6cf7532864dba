"""One native layer for every record of the spec, channels last. Each default that differs is passed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.pooling import overhang
from triptych.spec.layers import Pair, Shape

# GPUs and TPUs would multiply float32 in TF32 or bfloat16 by default: three decimal digits.
PRECISION = lax.Precision.HIGHEST


class _Statistic(nnx.BatchStat):
    """A running statistic that takes a traced value at once. Flax asks that for its sharding first; a traced value has
    none, and for the error JAX goes through all that was traced so far: two thirds of the tracing of Inception v3."""

    def __setitem__(self, key: Any, value: jax.Array) -> None:
        if hasattr(self, "set_value") and key is ... and isinstance(value, jax.core.Tracer):  # Flax 0.12.0 has none
            like = self[...]
            if (value.shape, value.dtype) == (like.shape, like.dtype):
                self.set_value(value)
                return
        super().__setitem__(key, value)


class BatchNorm(nnx.BatchNorm):
    """nnx.BatchNorm keeps the biased variance; where the spec wants the unbiased one, it is scaled up."""

    def __init__(self, features: int, layer: spec.BatchNorm) -> None:
        super().__init__(
            features,
            momentum=1 - layer.momentum,  # Flax weighs the old statistics, and by 0.99 if not told
            epsilon=layer.eps,
            use_scale=layer.gamma,
            use_fast_variance=False,  # E[x^2] - E[x]^2 cancels
            rngs=nnx.Rngs(0),
        )
        for name in ("mean", "var"):
            setattr(self, name, _Statistic(getattr(self, name)[...]))
        self.unbiased = layer.unbiased

    def __call__(self, x: jax.Array) -> jax.Array:
        before = self.var[...]
        y = super().__call__(x)
        n = x.size // x.shape[-1]
        if self.unbiased and not self.use_running_average and n > 1:
            kept = self.momentum * before
            self.var[...] = kept + (self.var[...] - kept) * (n / (n - 1))
        return y


class Dropout(nnx.Dropout):
    """nnx.Dropout with a key, or a mask (conformance; True where a value is kept), that is set before each pass."""

    key: jax.Array | None = None
    mask: jax.Array | None = None

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.deterministic or self.rate == 0:
            return x
        if self.mask is None:
            # Flax passes a Python float, which draws other bits once 64-bit types are switched on.
            kept = jax.random.bernoulli(self.key, jnp.float32(1 - self.rate), x.shape)
        else:
            kept = jnp.transpose(self.mask, (0, 2, 3, 1)) if x.ndim == 4 else self.mask
        return x * (kept.astype(x.dtype) / (1 - self.rate))


class _Function(nnx.Module):
    """A function of the input and the spec's record as a layer: Flax has modules only for layers with state."""

    def __init__(self, function: Callable[[jax.Array, Any], jax.Array], layer: spec.Layer) -> None:
        self.function = function
        self.layer = replace(layer, name="")  # so that equal layers are compiled once

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x, self.layer)


def _zeros(key: jax.Array, shape: Shape, dtype: Any) -> NDArray[Any]:
    """Kernels are drawn in `initialize` or copied in: drawing them here would cost seconds in a large network, and
    JAX's own zeros are compiled for every shape."""
    return np.zeros(shape, dtype)


_PRODUCT: dict[str, Any] = {"precision": PRECISION, "kernel_init": _zeros, "bias_init": _zeros}
LAYERS: dict[type, Callable[[Any, Shape], nnx.Module]] = {
    spec.Conv: lambda layer, shape: nnx.Conv(
        shape[0],
        layer.channels,
        layer.kernel,
        layer.stride,
        padding=_both_sides(layer.padding),  # the default is 'SAME', which at stride 2 is not the same in PyTorch
        feature_group_count=layer.groups,
        use_bias=layer.bias,
        conv_general_dilated=_convolve,
        rngs=nnx.Rngs(0),
        **_PRODUCT,
    ),
    spec.Dense: lambda layer, shape: nnx.Linear(
        shape[0], layer.units, use_bias=layer.bias, rngs=nnx.Rngs(0), **_PRODUCT
    ),
    spec.BatchNorm: lambda layer, shape: BatchNorm(shape[0], layer),
    spec.LocalResponseNorm: lambda layer, shape: _Function(_local_response_norm, layer),
    spec.ReLU: lambda layer, shape: _Function(_relu, layer),
    spec.Sigmoid: lambda layer, shape: _Function(_sigmoid, layer),
    spec.MaxPool: lambda layer, shape: _Function(_max_pool, layer),
    spec.AvgPool: lambda layer, shape: _Function(_avg_pool, layer),
    spec.GlobalAvgPool: lambda layer, shape: _Function(_global_avg_pool, layer),
    spec.Flatten: lambda layer, shape: _Function(_flatten, layer),
    spec.Dropout: lambda layer, shape: Dropout(layer.rate),
}
check_complete(LAYERS, __name__)


def _both_sides(padding: Pair) -> tuple[Pair, Pair]:
    (rows, columns) = padding
    return (rows, rows), (columns, columns)


def _relu(x: jax.Array, layer: spec.ReLU) -> jax.Array:
    return jax.nn.relu(x)  # jnp.maximum(x, 0) has the derivative 0.5 at 0


def _sigmoid(x: jax.Array, layer: spec.Sigmoid) -> jax.Array:
    return jax.nn.sigmoid(x)


def _global_avg_pool(x: jax.Array, layer: spec.GlobalAvgPool) -> jax.Array:
    return x.mean((1, 2), keepdims=True)


def _flatten(x: jax.Array, layer: spec.Flatten) -> jax.Array:
    """In channels-height-width order: in NHWC order the next dense layer's weights would be permuted, silently."""
    if x.ndim == 4:
        x = jnp.transpose(x, (0, 3, 1, 2))
    return x.reshape(len(x), -1)


def _local_response_norm(x: jax.Array, layer: spec.LocalResponseNorm) -> jax.Array:
    """JAX and Flax have none."""
    half = layer.size // 2
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (half, half)))
    channels = x.shape[-1]
    energy = sum(squares[..., i : i + channels] for i in range(layer.size))
    return x * (layer.k + layer.coefficient * energy) ** -layer.beta


def _pool(x: jax.Array, layer: spec.MaxPool | spec.AvgPool, start: float, reduce: Callable[..., Any]) -> jax.Array:
    """JAX has no ceil mode: what the last windows hang over is padding that only the lower right side gets."""
    (rows, columns), (below, right) = layer.padding, overhang(layer, (x.shape[3], *x.shape[1:3]))
    padding = ((0, 0), (rows, rows + below), (columns, columns + right), (0, 0))
    return lax.reduce_window(x, start, reduce, (1, *layer.kernel, 1), (1, *layer.stride, 1), padding)


def _max_pool(x: jax.Array, layer: spec.MaxPool) -> jax.Array:
    halves = layer.kernel == layer.stride == (2, 2) and layer.padding == (0, 0)
    if halves and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
        return _max_pool_halves(x)
    return _pool(x, layer, -np.inf, lax.max)


def _avg_pool(x: jax.Array, layer: spec.AvgPool) -> jax.Array:
    return _pool(x, layer, 0.0, lax.add) / _counts(layer, x.shape[1:3]).astype(x.dtype)


def _counts(layer: spec.AvgPool, size: Pair) -> NDArray[Any]:
    """How many values each window averages; nnx.avg_pool would count what hangs over along with the padding."""
    ones = np.pad(np.ones(size), _both_sides(layer.padding), constant_values=float(layer.count_padding))
    below, right = overhang(layer, (1, *size))
    ones = np.pad(ones, ((0, below), (0, right)))
    windows = sliding_window_view(ones, layer.kernel)[:: layer.stride[0], :: layer.stride[1]]
    return windows.sum((2, 3))[..., None]


def _convolve(x: jax.Array, kernel: jax.Array, strides: Pair, padding: tuple[Pair, Pair], **more: Any) -> jax.Array:
    """lax.conv_general_dilated, as nnx.Conv calls it, or a matrix product where that is slow.

    On the CPU, XLA's fast convolution does not take maps with fewer pixels than the kernel has: 3x3 on 2x2 maps, as
    at the end of VGG, takes 5 to 80 times as long as this.
    """
    height, width, _, channels = kernel.shape
    if more["feature_group_count"] > 1 or height * width <= x.shape[1] * x.shape[2]:
        return lax.conv_general_dilated(x, kernel, strides, padding, **more)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    below, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    shifted = [
        x[:, i : i + below : strides[0], j : j + right : strides[1]] for i in range(height) for j in range(width)
    ]
    return jnp.matmul(jnp.concatenate(shifted, -1), kernel.reshape(-1, channels), precision=more["precision"])


@jax.custom_vjp
def _max_pool_halves(x: jax.Array) -> jax.Array:
    """2x2 windows side by side: bit for bit as `_pool`, ties included, without XLA's select-and-scatter, which takes
    a quarter of a training step on the CPU."""
    return _quarters(x).max(0)


def _quarters(x: jax.Array) -> jax.Array:
    """The four values of each window, in row order: `(4, N, H / 2, W / 2, C)`."""
    n, height, width, channels = x.shape
    windows = x.reshape(n, height // 2, 2, width // 2, 2, channels).transpose(2, 4, 0, 1, 3, 5)
    return windows.reshape(4, n, height // 2, width // 2, channels)


def _max_pool_halves_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    quarters = _quarters(x)
    return quarters.max(0), quarters.argmax(0).astype(jnp.uint8)  # argmax takes the first of equal values


def _max_pool_halves_backward(winner: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    n, height, width, channels = dy.shape
    parts = jnp.stack([jnp.where(winner == i, dy, 0) for i in range(4)])
    windows = parts.reshape(2, 2, n, height, width, channels).transpose(2, 3, 0, 4, 1, 5)
    return (windows.reshape(n, 2 * height, 2 * width, channels),)


_max_pool_halves.defvjp(_max_pool_halves_forward, _max_pool_halves_backward)
