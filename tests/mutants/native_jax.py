"""Faults in Flax's own terms; the same names as in the other two files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from triptych.spec import layers as spec
from triptych.spec.kinds.activations import SELU_ALPHA
from triptych.spec.layers import Shape
from triptych_jax import functions, layers
from triptych_jax.functions import Function
from triptych_jax.model import Network, Outputs, Rngs


class Unbiased(nnx.Conv):
    def __call__(self, x: jax.Array) -> jax.Array:
        return super().__call__(x) - self.bias[...]


class Transposed(nnx.Linear):
    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel[...].T + self.bias[...]


class GammaFixed(layers.BatchNorm):
    def __call__(self, x: jax.Array) -> jax.Array:
        return (super().__call__(x) - self.bias[...]) / self.scale[...] + self.bias[...]


class Unscaled(layers.Dropout):
    def __call__(self, x: jax.Array, rngs: Rngs = None) -> jax.Array:
        return x if self.deterministic else x * jnp.transpose(self.mask, (0, 2, 3, 1)).astype(x.dtype)


def same_padding(layer: spec.Conv, shape: Shape) -> nnx.Module:
    return nnx.Conv(
        shape[0], layer.channels, layer.kernel, layer.stride, rngs=nnx.Rngs(0)
    )  # padding 'SAME' is the default


def flipped_kernel(layer: spec.Conv, shape: Shape) -> nnx.Module:
    padding = tuple((pixels, pixels) for pixels in layer.padding)
    return nnx.Conv(
        shape[0],
        layer.channels,
        layer.kernel,
        layer.stride,
        padding=padding,
        conv_general_dilated=_convolve,
        rngs=nnx.Rngs(0),
    )


def unused_bias(layer: spec.Conv, shape: Shape) -> nnx.Module:
    padding = tuple((pixels, pixels) for pixels in layer.padding)
    return Unbiased(shape[0], layer.channels, layer.kernel, layer.stride, padding=padding, rngs=nnx.Rngs(0))


def transposed_weight(layer: spec.Dense, shape: Shape) -> nnx.Module:
    return (Transposed if shape[0] == layer.units else nnx.Linear)(shape[0], layer.units, rngs=nnx.Rngs(0))


def flatten_channels_last(layer: spec.Flatten, shape: Shape) -> nnx.Module:
    return Function(_flatten, layer)


def gamma_fixed(layer: spec.BatchNorm, shape: Shape) -> nnx.Module:
    return GammaFixed(shape[0], layer)


def unscaled_dropout(layer: spec.Dropout, shape: Shape) -> nnx.Module:
    return Unscaled(layer.rate)


def empty_window(layer: spec.MaxPool, shape: Shape) -> nnx.Module:
    return Function(_max_pool_and_a_row, layer)


def split_ties(layer: spec.MaxPool, shape: Shape) -> nnx.Module:
    return Function(_max_of_reshaped, layer)


def softmax_of_rows(layer: spec.Softmax, shape: Shape) -> nnx.Module:
    return Function(lambda x, layer: jax.nn.softmax(x, axis=1), layer)


def elu_of_selu(layer: spec.SELU, shape: Shape) -> nnx.Module:
    return Function(functions.elu, spec.ELU("", SELU_ALPHA))


def output_padding_above(layer: spec.ConvTranspose, shape: Shape) -> nnx.Module:
    pads = tuple(
        (k - 1 - p + extra, k - 1 - p)
        for k, p, extra in zip(layer.kernel, layer.padding, layer.output_padding, strict=True)
    )
    return nnx.ConvTranspose(
        shape[0], layer.channels, layer.kernel, layer.stride, padding=pads, transpose_kernel=True, rngs=nnx.Rngs(0)
    )


def overhang_counted(layer: spec.AvgPool, shape: Shape) -> nnx.Module:
    return Function(_mean_with_zeros, layer)


def rows_for_channels(right: type) -> type:
    class Other(right):  # type: ignore[misc]
        def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
            map_, gate = (self._run(name, x, outputs, rngs) for name in self._names)
            return map_ * jnp.swapaxes(gate, 1, 3)

    return Other


def mean_for_sum(right: type) -> type:
    class Mean(right):  # type: ignore[misc]
        def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
            return super().__call__(x, outputs, rngs) / len(self._names)

    return Mean


def stacked(right: type) -> type:
    class Stacked(right):  # type: ignore[misc]
        def __call__(self, x: jax.Array, outputs: Outputs, rngs: Rngs) -> jax.Array:
            return jnp.concatenate([self._run(name, x, outputs, rngs) for name in self._names], axis=1)

    return Stacked


def share_weights(network: Network) -> None:
    network.second.kernel = network.first.kernel


def _convolve(x: jax.Array, kernel: jax.Array, *given: Any, **more: Any) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel[::-1, ::-1], *given, **more)


def _max_pool_and_a_row(x: jax.Array, layer: spec.MaxPool) -> jax.Array:
    lowest = jnp.finfo(jnp.float32).min
    return jnp.pad(functions.max_pool(x, layer), ((0, 0), (0, 1), (0, 0), (0, 0)), constant_values=lowest)


def _mean_with_zeros(x: jax.Array, layer: spec.AvgPool) -> jax.Array:
    right = spec.AvgPool("", layer.kernel, layer.stride)
    return functions.avg_pool(jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0))), right)


def _max_of_reshaped(x: jax.Array, layer: spec.MaxPool) -> jax.Array:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels).max((2, 4))


def _flatten(x: jax.Array, layer: spec.Flatten) -> jax.Array:
    return x.reshape(len(x), -1)


class OneMask(layers.Dropout):
    axis = 0

    def __call__(self, x: jax.Array, rngs: Rngs = None) -> jax.Array:
        if self.mask is not None or self.deterministic:
            return super().__call__(x)
        return x * super().__call__(jnp.ones_like(jax.lax.slice_in_dim(x, 0, 1, axis=self.axis)))


class OneMaskOfChannels(OneMask):
    axis = -1


def one_mask(layer: spec.Dropout, shape: Shape) -> nnx.Module:
    return OneMask(layer.rate)


def one_mask_of_channels(layer: spec.Dropout, shape: Shape) -> nnx.Module:
    return OneMaskOfChannels(layer.rate)


def _maximum(x: jax.Array, layer: spec.ReLU) -> jax.Array:
    return jnp.maximum(x, 0)


def maximum(layer: spec.ReLU, shape: Shape) -> nnx.Module:
    """Half the gradient at 0."""
    return Function(_maximum, layer)


def swapped_gradient(right: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The matrix products for a kernel's gradient are put together by columns."""

    def wrong(*given: Any, **more: Any) -> jax.Array:
        return right(*given, **more).swapaxes(0, 1)

    return wrong


def swapped_product(right: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The matrix product for small maps takes the kernel's columns for its rows."""

    def wrong(x: jax.Array, kernel: jax.Array, *given: Any, **more: Any) -> jax.Array:
        small = kernel.shape[0] * kernel.shape[1] > x.shape[1] * x.shape[2]
        return right(x, kernel.swapaxes(0, 1) if small else kernel, *given, **more)

    return wrong


class DropsMaps(layers.Dropout):
    """A map is kept whole or not at all."""

    def __call__(self, x: jax.Array, rngs: Rngs = None) -> jax.Array:
        if self.mask is not None or self.deterministic or x.ndim == 2:
            return super().__call__(x, rngs)
        kept = super().__call__(jnp.ones_like(x[:, :1, :1]), rngs)
        return x * kept


class TwoMasks(layers.Dropout):
    """The masks of two images, again and again."""

    def __call__(self, x: jax.Array, rngs: Rngs = None) -> jax.Array:
        if self.mask is not None or self.deterministic:
            return super().__call__(x, rngs)
        kept = super().__call__(jnp.ones_like(x[:2]), rngs)
        return x * jnp.concatenate([kept] * len(x))[: len(x)]


def _overflowing(x: jax.Array, layer: spec.Softmax) -> jax.Array:
    return jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True)


def dropped_maps(layer: spec.Dropout, shape: Shape) -> nnx.Module:
    return DropsMaps(layer.rate)


def two_masks(layer: spec.Dropout, shape: Shape) -> nnx.Module:
    return TwoMasks(layer.rate)


def overflowing_softmax(layer: spec.Softmax, shape: Shape) -> nnx.Module:
    return Function(_overflowing, layer)


def fast_variance(layer: spec.BatchNorm, shape: Shape) -> nnx.Module:
    """E[x^2] - E[x]^2, Flax's default."""
    norm = layers.BatchNorm(shape[0], layer)
    norm.use_fast_variance = True
    return norm


def strided_product_mirrored(right: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The matrix product for small maps is mirrored where it is strided."""

    def wrong(x: jax.Array, kernel: jax.Array, strides: Any, *given: Any, **more: Any) -> jax.Array:
        small = kernel.shape[0] * kernel.shape[1] > x.shape[1] * x.shape[2]
        y = right(x, kernel, strides, *given, **more)
        return y if not small or strides == (1, 1) else y[:, :, ::-1]

    return wrong
