"""Layers without state, channels last: functions of the input and the spec's record."""

from collections.abc import Callable, Iterator, Mapping
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
from triptych.spec.kinds.pooling import overhang
from triptych.spec.layers import Pair

AXES = {"channels": -1, "rows": 1, "columns": 2}  # of (N, H, W, C); flat values have channels alone


class Function(nnx.Module):
    """A function of the input and the spec's record as a layer: Flax has modules only for layers with state."""

    def __init__(self, function: Callable[[jax.Array, Any], jax.Array], layer: spec.Layer) -> None:
        self.function = function
        self.layer = replace(layer, name="")  # so that equal layers are compiled once

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.function(x, self.layer)


def put_like(value: Any, like: jax.Array) -> jax.Array:
    """`value`, which every process has, where `like` is: on a device, or on all of a mesh."""
    if like.is_fully_addressable:
        return jax.device_put(value, like.device)
    return jax.make_array_from_process_local_data(like.sharding, np.asarray(value))


def relu(x: jax.Array, layer: spec.ReLU) -> jax.Array:
    return jax.nn.relu(x)  # jnp.maximum(x, 0) has the derivative 0.5 at 0


def sigmoid(x: jax.Array, layer: spec.Sigmoid) -> jax.Array:
    return jax.nn.sigmoid(x)


def tanh(x: jax.Array, layer: spec.Tanh) -> jax.Array:
    return jnp.tanh(x)


def between(x: jax.Array, low: float, high: float) -> jax.Array:
    """jnp.clip has the derivative 0.5 at the bounds, this one 0."""
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x)).astype(x.dtype)


def clip(x: jax.Array, layer: spec.Clip) -> jax.Array:
    return between(x, layer.low, layer.high)


def leaky_relu(x: jax.Array, layer: spec.LeakyReLU) -> jax.Array:
    return jnp.where(x > 0, x, layer.slope * x)  # jax.nn.leaky_relu has the derivative 1 at 0


def silu(x: jax.Array, layer: spec.SiLU) -> jax.Array:
    return jax.nn.silu(x)


def elu(x: jax.Array, layer: spec.ELU) -> jax.Array:
    return jax.nn.elu(x, layer.alpha)


def selu(x: jax.Array, layer: spec.SELU) -> jax.Array:
    return jax.nn.selu(x)


def gelu(x: jax.Array, layer: spec.GELU) -> jax.Array:
    return jax.nn.gelu(x, approximate=layer.approximate)  # True, the tanh form, if not told


def softplus(x: jax.Array, layer: spec.Softplus) -> jax.Array:
    """jax.nn.softplus has no threshold."""
    y = jax.nn.softplus(x)
    return y if layer.threshold is None else jnp.where(x > layer.threshold, x, y)


def softsign(x: jax.Array, layer: spec.Softsign) -> jax.Array:
    return jax.nn.soft_sign(x)


def mish(x: jax.Array, layer: spec.Mish) -> jax.Array:
    return jax.nn.mish(x)


def hard_sigmoid(x: jax.Array, layer: spec.HardSigmoid) -> jax.Array:
    return between(layer.slope * x + layer.offset, 0.0, 1.0)  # jax.nn.hard_sigmoid has the slope 1/6 only


def hard_swish(x: jax.Array, layer: spec.HardSwish) -> jax.Array:
    return jax.nn.hard_swish(x)


def softmax(x: jax.Array, layer: spec.Softmax) -> jax.Array:
    return jax.nn.softmax(x, axis=-1)


def affine(x: jax.Array, layer: spec.Affine) -> jax.Array:
    """By constants."""
    scale, shift = (np.asarray(values).astype(x.dtype) for values in (layer.scale, layer.shift))
    return x * scale + shift


def local_response_norm(x: jax.Array, layer: spec.LocalResponseNorm) -> jax.Array:
    """JAX and Flax have none."""
    half = layer.size // 2
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (half, half)))
    channels = x.shape[-1]
    energy = sum(squares[..., i : i + channels] for i in range(layer.size))
    return x * (layer.k + layer.coefficient * energy) ** -layer.beta


def l2_normalize(x: jax.Array, layer: spec.L2Normalize) -> jax.Array:
    """Where the norm is bounded, the root is taken of 1: that of 0 has no derivative, and 0 times it is NaN."""
    squares = jnp.sum(x * x, tuple(range(1, x.ndim)) if layer.whole else -1, keepdims=True)
    if not layer.bound:
        return x / jnp.sqrt(squares + layer.eps)
    varies = jnp.sqrt(squares) > layer.eps
    return x / jnp.where(varies, jnp.sqrt(jnp.where(varies, squares, 1.0)), layer.eps).astype(x.dtype)


def global_avg_pool(x: jax.Array, layer: spec.GlobalAvgPool) -> jax.Array:
    return x.mean((1, 2), keepdims=True)


def global_max_pool(x: jax.Array, layer: spec.GlobalMaxPool) -> jax.Array:
    """x.max would share the gradient among equal values."""
    return _pool(x, spec.MaxPool("", (x.shape[1], x.shape[2]), (1, 1)), -np.inf, lax.max)


def pad(x: jax.Array, layer: spec.Pad) -> jax.Array:
    above, below, left, right = layer.padding
    constants = {"constant_values": layer.value} if layer.mode == "constant" else {}
    return jnp.pad(x, ((0, 0), (above, below), (left, right), (0, 0)), layer.mode, **constants)


def part(x: jax.Array, layer: spec.Slice) -> jax.Array:
    return lax.slice_in_dim(x, layer.start, layer.stop, axis=AXES[layer.axis])


def upsample(x: jax.Array, layer: spec.Upsample) -> jax.Array:
    if layer.mode == "nearest":
        return x.repeat(layer.factor[0], 1).repeat(layer.factor[1], 2)
    n, height, width, channels = x.shape
    return jax.image.resize(x, (n, height * layer.factor[0], width * layer.factor[1], channels), "bilinear")


def channel_shuffle(x: jax.Array, layer: spec.ChannelShuffle) -> jax.Array:
    return x.reshape(*x.shape[:-1], layer.groups, -1).swapaxes(-1, -2).reshape(x.shape)


def channels_first(x: jax.Array) -> jax.Array:
    """Maps `(N, C, H, W)`; flat values as they are."""
    return jnp.transpose(x, (0, 3, 1, 2)) if x.ndim == 4 else x


def channels_last(x: jax.Array) -> jax.Array:
    """Maps `(N, H, W, C)`; flat values as they are."""
    return jnp.transpose(x, (0, 2, 3, 1)) if x.ndim == 4 else x


def reshape(x: jax.Array, layer: spec.Reshape) -> jax.Array:
    return channels_last(channels_first(x).reshape(len(x), *layer.shape))


def flatten(x: jax.Array, layer: spec.Flatten) -> jax.Array:
    """In channels-height-width order: in NHWC order the next dense layer's weights would be permuted, silently."""
    return channels_first(x).reshape(len(x), -1)


def both_sides(padding: Pair) -> tuple[Pair, Pair]:
    """JAX pads each side by its own number."""
    (rows, columns) = padding
    return (rows, rows), (columns, columns)


def _pool(x: jax.Array, layer: spec.MaxPool | spec.AvgPool, start: float, reduce: Callable[..., Any]) -> jax.Array:
    """JAX has no ceil mode: what the last windows hang over is padding that only the lower right side gets."""
    (rows, columns), (below, right) = layer.padding, overhang(layer, (x.shape[3], *x.shape[1:3]))
    padding = ((0, 0), (rows, rows + below), (columns, columns + right), (0, 0))
    return lax.reduce_window(x, start, reduce, (1, *layer.kernel, 1), (1, *layer.stride, 1), padding)


def max_pool(x: jax.Array, layer: spec.MaxPool) -> jax.Array:
    halves = layer.kernel == layer.stride == (2, 2) and layer.padding == (0, 0)
    if halves and x.shape[1] % 2 == 0 and x.shape[2] % 2 == 0:
        return _max_pool_halves(x)
    return _pool(x, layer, -np.inf, lax.max)


def avg_pool(x: jax.Array, layer: spec.AvgPool) -> jax.Array:
    return _pool(x, layer, 0.0, lax.add) / _counts(layer, x.shape[1:3]).astype(x.dtype)


def _counts(layer: spec.AvgPool, size: Pair) -> NDArray[Any]:
    """How many values each window averages; nnx.avg_pool would count what hangs over along with the padding."""
    ones = np.pad(np.ones(size), both_sides(layer.padding), constant_values=float(layer.count_padding))
    below, right = overhang(layer, (1, *size))
    ones = np.pad(ones, ((0, below), (0, right)))
    windows = sliding_window_view(ones, layer.kernel)[:: layer.stride[0], :: layer.stride[1]]
    return windows.sum((2, 3))[..., None]


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


def nodes(module: nnx.Module, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A module's variables and nodes with their paths, itself last, as `nnx.iter_graph` yields them. That one looks at
    every number and string of every layer as well, and takes four to six times as long."""
    for name, value in sorted(vars(module).items()):
        if isinstance(value, nnx.Pytree):
            yield from nodes(value, (*path, name))
        elif isinstance(value, nnx.Variable):
            yield (*path, name), value
    yield path, module


def arrays_of(variables: Mapping[tuple[str, ...], nnx.Variable]) -> dict[tuple[str, ...], jax.Array]:
    """What variables hold, for a compiled function."""
    # `variable[...]` is an operation of its own in Flax 0.12.0: a tenth of a second per step in a deep network. Not a
    # static method of the network: nnx.tabulate gives those back as methods.
    return dict(zip(variables, jax.tree.leaves(list(variables.values())), strict=True))
