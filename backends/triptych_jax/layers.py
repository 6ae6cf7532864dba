"""One native layer for every record of the spec, channels last. Each default that differs is passed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn import dtypes
from jax import lax
from numpy.typing import NDArray

from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.kind import extent
from triptych.spec.layers import Shape
from triptych_jax import functions
from triptych_jax.convolution import convolve
from triptych_jax.functions import Function

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
            use_bias=layer.beta,
            use_fast_variance=False,  # E[x^2] - E[x]^2 cancels
            rngs=nnx.Rngs(0),
        )
        for name in ("mean", "var"):
            setattr(self, name, _Statistic(getattr(self, name)[...]))
        self.unbiased = layer.unbiased
        self.frozen = layer.frozen

    def __call__(self, x: jax.Array) -> jax.Array:
        before, still = self.var[...], self.frozen or self.use_running_average
        y = super().__call__(x, use_running_average=still)
        n = x.size // x.shape[-1] * (1 if self.axis_name is None else lax.axis_size(self.axis_name))
        if self.unbiased and not still and n > 1:
            kept = self.momentum * before
            self.var[...] = kept + (self.var[...] - kept) * (n / (n - 1))
        return y


class Dropout(nnx.Dropout):
    """nnx.Dropout, whose masks are drawn from `rngs`: those of the call, else its own, which advance with every call.
    The trainer sets a key before each pass instead, conformance a mask (True where a value is kept)."""

    key: jax.Array | None = None
    mask: jax.Array | None = None
    part: tuple[jax.Array, int] | None = None  # where a micro-batch begins in its batch, and the size of that

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        if self.deterministic or self.rate == 0:
            return x
        if self.mask is None:
            if self.key is None:
                return super().__call__(x, rngs=rngs)
            begin, whole = self.part or (0, len(x))
            # Flax passes a Python float, which draws other bits once 64-bit types are switched on.
            kept = jax.random.bernoulli(self.key, jnp.float32(1 - self.rate), (whole, *x.shape[1:]))
            kept = kept if self.part is None else lax.dynamic_slice_in_dim(kept, begin, len(x))
        else:
            kept = functions.channels_last(self.mask)
        return x * (kept.astype(x.dtype) / (1 - self.rate))


class _Rounded(nnx.Module):
    """A product whose bias is added in the weights' type before the sum is rounded. Added in bfloat16, its gradient is
    summed in bfloat16, by XLA on a CPU at least: 200,000 terms of 0.5 are 8,192 then."""

    dtype: Any

    def __call__(self, x: jax.Array) -> jax.Array:
        y = super().__call__(x)
        return y if self.dtype is None else y.astype(self.dtype)


class _Conv(_Rounded, nnx.Conv):
    """nnx.Conv with such a bias."""


class _ConvTranspose(_Rounded, nnx.ConvTranspose):
    """nnx.ConvTranspose with such a bias."""


class _Linear(_Rounded, nnx.Linear):
    """nnx.Linear with such a bias."""


def _promote(values: tuple[Any, ...], *, dtype: Any) -> tuple[Any, ...]:
    """Flax's own, but for the bias."""
    x, kernel, bias = values
    return *dtypes.promote_dtype((x, kernel), dtype=dtype), bias


class _PReLU(nnx.PReLU):
    """nnx.PReLU has one slope for all channels, and the derivative 1 at 0."""

    def __init__(self, slopes: int) -> None:
        super().__init__(np.full(slopes, 0.25, np.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.where(x > 0, x, (self.negative_slope[...] * x).astype(x.dtype))


class _Affine(nnx.Module):
    """A trained factor and summand for every channel."""

    def __init__(self, channels: int) -> None:
        self.scale = nnx.Param(jnp.ones(channels, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(channels, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return (x * self.scale[...] + self.bias[...]).astype(x.dtype)


class _GroupedConvTranspose(nnx.ConvTranspose):
    """nnx.ConvTranspose has no groups: a convolution of the spread input with the kernel turned round."""

    def __init__(self, layer: spec.ConvTranspose, inputs: int) -> None:
        super().__init__(inputs, layer.channels // layer.groups, layer.kernel, **_transposed(layer))
        if layer.bias:
            self.bias = nnx.Param(jnp.zeros(layer.channels, jnp.float32))
        self.groups = layer.groups

    def __call__(self, x: jax.Array) -> jax.Array:
        bias = self.bias[...] if self.use_bias else None
        x, kernel, bias = self.promote_dtype((x, self.kernel[...], bias), dtype=self.dtype)
        rows, columns, outputs, inputs = kernel.shape
        kernel = kernel[::-1, ::-1].reshape(rows, columns, outputs, self.groups, inputs // self.groups)
        y = lax.conv_general_dilated(
            x,
            kernel.transpose(0, 1, 4, 3, 2).reshape(rows, columns, inputs // self.groups, self.groups * outputs),
            (1, 1),
            self.padding,
            lhs_dilation=self.strides,
            rhs_dilation=self.kernel_dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
            precision=self.precision,
        )
        return (y if bias is None else y + bias).astype(y.dtype)


def _zeros(key: jax.Array, shape: Shape, dtype: Any) -> NDArray[Any]:
    """Kernels are drawn in `initialize` or copied in: drawing them here would cost seconds in a large network, and
    JAX's own zeros are compiled for every shape."""
    return np.zeros(shape, dtype)


_PRODUCT: dict[str, Any] = {
    "precision": PRECISION,
    "kernel_init": _zeros,
    "bias_init": _zeros,
    "promote_dtype": _promote,
}


def _transposed(layer: spec.ConvTranspose) -> dict[str, Any]:
    """JAX pads the spread input: by what the kernel reaches over it, less the padding that the output loses."""
    sides = zip(extent(layer), layer.padding, layer.output_padding, strict=True)
    return {
        "strides": layer.stride,
        "padding": tuple((k - 1 - p, k - 1 - p + extra) for k, p, extra in sides),
        "kernel_dilation": layer.dilation,
        "use_bias": layer.bias,
        "transpose_kernel": True,  # the gradient of a convolution; JAX's own default turns no kernel round
        "rngs": nnx.Rngs(0),
        **_PRODUCT,
    }


def _function(function: Callable[[jax.Array, Any], jax.Array]) -> Callable[[Any, Shape], nnx.Module]:
    return lambda layer, shape: Function(function, layer)


LAYERS: dict[type, Callable[[Any, Shape], nnx.Module]] = {
    spec.Conv: lambda layer, shape: _Conv(
        shape[0],
        layer.channels,
        layer.kernel,
        layer.stride,
        padding=functions.both_sides(layer.padding),  # 'SAME', the default, is not that of PyTorch at stride 2
        kernel_dilation=layer.dilation,
        feature_group_count=layer.groups,
        use_bias=layer.bias,
        conv_general_dilated=convolve,
        rngs=nnx.Rngs(0),
        **_PRODUCT,
    ),
    spec.MaxPool: _function(functions.max_pool),
    spec.AvgPool: _function(functions.avg_pool),
    spec.ConvTranspose: lambda layer, shape: (
        _ConvTranspose(shape[0], layer.channels, layer.kernel, **_transposed(layer))
        if layer.groups == 1
        else _GroupedConvTranspose(layer, shape[0])
    ),
    spec.Dense: lambda layer, shape: _Linear(shape[0], layer.units, use_bias=layer.bias, rngs=nnx.Rngs(0), **_PRODUCT),
    spec.BatchNorm: lambda layer, shape: BatchNorm(shape[0], layer),
    spec.LocalResponseNorm: _function(functions.local_response_norm),
    spec.L2Normalize: _function(functions.l2_normalize),
    spec.Affine: lambda layer, shape: _Affine(shape[0]) if layer.trained else Function(functions.affine, layer),
    spec.ReLU: _function(functions.relu),
    spec.Sigmoid: _function(functions.sigmoid),
    spec.Tanh: _function(functions.tanh),
    spec.Clip: _function(functions.clip),
    spec.LeakyReLU: _function(functions.leaky_relu),
    spec.PReLU: lambda layer, shape: _PReLU(1 if layer.shared else shape[0]),
    spec.SiLU: _function(functions.silu),
    spec.ELU: _function(functions.elu),
    spec.SELU: _function(functions.selu),
    spec.GELU: _function(functions.gelu),
    spec.Softplus: _function(functions.softplus),
    spec.Softsign: _function(functions.softsign),
    spec.Mish: _function(functions.mish),
    spec.HardSigmoid: _function(functions.hard_sigmoid),
    spec.HardSwish: _function(functions.hard_swish),
    spec.Softmax: _function(functions.softmax),
    spec.GlobalAvgPool: _function(functions.global_avg_pool),
    spec.GlobalMaxPool: _function(functions.global_max_pool),
    spec.Pad: _function(functions.pad),
    spec.Slice: _function(functions.part),
    spec.Upsample: _function(functions.upsample),
    spec.ChannelShuffle: _function(functions.channel_shuffle),
    spec.Reshape: _function(functions.reshape),
    spec.Flatten: _function(functions.flatten),
    spec.Dropout: lambda layer, shape: Dropout(layer.rate),
}
check_complete(LAYERS, __name__)
