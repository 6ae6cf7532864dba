"""ONNX's operators and what each is in the spec: one table, of this file and those about windows, arithmetic and
placement. Source of defaults and of what changed when: onnx/docs/Operators.md, Changelog.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from triptych.importers import onnx_arithmetic, onnx_placement, onnx_windows
from triptych.importers.activations import LARGEST, celu, named, swish
from triptych.importers.moves import as_map
from triptych.importers.network_builder import Tensor, axes_of, is_exchanged, permuted, with_axes
from triptych.importers.onnx_call import Array, Convert, OnnxCall, vector
from triptych.importers.onnx_constants import FLOATS
from triptych.importers.onnx_file import decimal
from triptych.importers.onnx_patterns import SOFTMAX, WRITTEN_OUT
from triptych.importers.steps import FOR_TRAINING, ImportRefusedError
from triptych.spec.kinds.activations import SELU_ALPHA, SELU_SCALE
from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    BatchNorm,
    Clip,
    Conv,
    Dense,
    Dropout,
    HardSigmoid,
    L2Normalize,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    PReLU,
    ReLU,
    Softmax,
)


def _pointwise(build: Callable[[OnnxCall], Layer]) -> Convert:
    return lambda call: call.network.pointwise(call.name, build(call), call.x)


def _clip(call: OnnxCall) -> Tensor:
    """Bounds are attributes before operator set 11, then inputs; a lower bound of 0 alone is ReLU."""
    low, high = call.scalar(1, "min", -LARGEST), call.scalar(2, "max", LARGEST)
    layer: Layer = ReLU(call.name) if low == 0 and high >= LARGEST else Clip(call.name, low, high)
    if low <= -LARGEST and high >= LARGEST:
        return call.x
    return call.network.pointwise(call.name, layer, call.x)


def _plain(layer: Layer, call: OnnxCall) -> Layer:
    return replace(layer, name=call.name)


def _selu(call: OnnxCall) -> Layer:
    """The defaults of both numbers are those of SELU, in 32 bits."""
    alpha, scale = call.number("alpha", SELU_ALPHA), call.number("gamma", SELU_SCALE)
    if not np.allclose((alpha, scale), (SELU_ALPHA, SELU_SCALE), 1e-7, 0):
        raise ImportRefusedError(
            f"has alpha {alpha:g} and gamma {scale:g}, expected SELU's, {SELU_ALPHA:g} and {SELU_SCALE:g}"
        )
    return SELU(call.name)


def _gelu(call: OnnxCall) -> Layer:
    return GELU(call.name, call.text("approximate", "none", ("none", "tanh")) == "tanh")


def _row(build: Callable[[float], Sequence[Layer]]) -> Convert:
    """Layers, made of the number alpha, that do the same to every value."""

    def convert(call: OnnxCall) -> Tensor:
        alpha = call.number("alpha", 1.0)
        if alpha <= 0:
            raise ImportRefusedError(f"has alpha {alpha:g}, expected more than 0")
        y = call.x
        for layer in build(alpha):
            name = f"{call.name}_{layer.name}" if layer.name else call.name
            y = call.network.pointwise(name, replace(layer, name=name), y)
        return y

    return convert


def _hard_sigmoid(call: OnnxCall) -> Layer:
    """A slope of 1/6 (PyTorch's) has no short decimal."""
    slope = call.number("alpha", 0.2)
    return HardSigmoid(call.name, 1 / 6 if slope == decimal(1 / 6) else slope, call.number("beta", 0.5))


def _prelu(call: OnnxCall) -> Tensor:
    """The slope is broadcast to the input: one for all, or `(channels, 1, 1)`."""
    x, slope = call.x, call.needed(1, "slope")
    rank = len(x.source_shape)
    shape = (1,) * (rank - slope.ndim) + slope.shape
    shared = slope.size == 1 and x.shape[0] > 1
    channels = axes_of(x).index(0) if rank == 3 else 0
    others = [size for axis, size in enumerate(shape[-rank:]) if axis != channels]
    if slope.size not in (1, x.shape[0]) or max(others, default=1) > 1:
        raise ImportRefusedError(
            f"has a slope {slope.shape} for {x.source_shape}, expected one, or one for every channel"
        )
    weight = slope.ravel() if rank == 3 or shared else permuted(slope.ravel(), x)
    y = call.network.layer(call.name, PReLU(call.name, shared), Tensor(x.step, x.shape), {"weight": weight})
    return Tensor(y.step, y.shape, x.order)


def _softmax(call: OnnxCall) -> Tensor:
    """Before operator set 13 over all axes from `axis` (1) on, then over `axis` (-1) alone."""
    axis = call.axis(call.count("axis", -1 if call.opset >= 13 else 1))
    return _softmax_over(call, [axis] if call.opset >= 13 else list(range(axis, len(call.x.source_shape))))


def _softmax_over(call: OnnxCall, axes: Sequence[int]) -> Tensor:
    x = call.x
    if _is_over_channels(x, axes):
        y = call.network.layer(call.name, Softmax(call.name), Tensor(x.step, x.shape))
        return Tensor(y.step, y.shape, x.order)
    turned = [*axes, *(axis for axis in range(len(x.source_shape)) if axis not in axes)]
    sizes = [x.source_shape[axis] for axis in turned]
    shape = as_map((math.prod(sizes[: len(axes)]), *sizes[len(axes) :]))
    first = Tensor(x.step, x.shape, x.places().transpose(turned).reshape(shape))
    y = call.network.layer(call.name, Softmax(call.name), first)
    order = y.places().reshape(sizes).transpose([turned.index(axis) for axis in range(len(turned))])
    return Tensor(y.step, y.shape, order)


def _is_over_channels(x: Tensor, axes: Sequence[int]) -> bool:
    """Whether the axes of the source are the channels of the step's own output, all of it."""
    if x.order is not None and (x.order.size != math.prod(x.shape) or np.unique(x.order).size != x.order.size):
        return False
    if len(x.source_shape) != len(x.shape):
        return False
    if not is_exchanged(x):
        return False
    channels = axes_of(x).index(0) if len(x.shape) == 3 else 0
    larger = {axis for axis in axes if x.source_shape[axis] > 1}
    return not larger - {channels} and (channels in axes or x.shape[0] == 1)


def _log_softmax(call: OnnxCall) -> Tensor:
    raise ImportRefusedError(
        "is a logarithm of a softmax, which is the loss's here; take the network up to what it is of (--output NAME)"
    )


def _batch_norm(call: OnnxCall) -> Tensor:
    """`momentum` is the weight of the old statistics. ONNX keeps the variance with n; PyTorch, if it has written the
    file, keeps it with n - 1."""
    names = ("weight", "bias", "running_mean", "running_var")
    channels = call.x.shape[0]
    arrays = {name: vector(call.needed(place, name), channels, name) for place, name in enumerate(names, 1)}
    if call.count("spatial", 1) != 1:
        raise ImportRefusedError("is not spatial: it has statistics for every pixel")
    moves = call.opset < 14 and any(call.node.outputs[1:])  # before that the statistics that it puts out said so
    if call.count("training_mode", 0) or moves:
        call.network.remarks.append(f"batch norm {call.name!r} {FOR_TRAINING}; here it has both modes")
    eps, momentum = call.number("epsilon", 1e-5), round(1 - call.number("momentum", 0.9), 12)
    layer = BatchNorm(call.name, eps, momentum, unbiased=call.from_torch)
    if len(call.x.shape) == 1:
        flat = Tensor(call.x.step, call.x.shape)
        arrays = {name: permuted(array, call.x) for name, array in arrays.items()}
        return Tensor(call.network.layer(call.name, layer, flat, arrays).step, flat.shape, call.x.order)
    return call.network.layer(call.name, layer, call.x, arrays)


def _local_response_norm(call: OnnxCall) -> Tensor:
    """ONNX divides alpha by the size."""
    numbers = call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    return call.network.layer(call.name, LocalResponseNorm(call.name, call.count("size", 0), *numbers), call.x)


def _normalize(call: OnnxCall) -> Tensor:
    """`LpNormalization` with p = 2 over the channels. It has no eps (`onnx_patterns` gives one); a bound of 1e-12
    alters no norm above it, and makes 0 of zeros, as ONNX does."""
    x = call.x
    axis = call.axis(call.count("axis", -1))
    if call.count("p", 2) != 2 or (len(x.source_shape) == 3 and axes_of(x)[axis] != 0):
        raise ImportRefusedError(f"has p {call.count('p', 2)} and axis {axis + 1}, expected 2 and the channels")
    y = call.network.layer(
        call.name, L2Normalize(call.name, call.number("eps", 1e-12), bound=True), Tensor(x.step, x.shape)
    )
    return Tensor(y.step, y.shape, x.order)


def _gemm(call: OnnxCall) -> Tensor:
    """`alpha * A B + beta * C`."""
    weight, bias = call.needed(1, "weight"), call.constant(2, "bias")
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    if call.count("transA", 0) or weight.ndim != 2:
        raise ImportRefusedError(
            f"has transA {call.count('transA', 0)} and a weight {weight.shape}, expected 0 and a matrix"
        )
    weight = weight if call.count("transB", 0) else weight.T
    weight = weight if alpha == 1 else weight * np.asarray(alpha, weight.dtype)
    if bias is not None:
        bias = vector(bias, len(weight), "a bias")
        bias = bias if beta == 1 else bias * np.asarray(beta, bias.dtype)
    return _dense(call, call.x, weight, bias)


def _matmul(call: OnnxCall) -> Tensor:
    """By a constant matrix; on a map whose last axis are the channels, at every place: a convolution of 1x1."""
    x, weight = call.x, call.needed(1, "weight")
    if weight.ndim != 2:
        raise ImportRefusedError(f"has a weight of shape {weight.shape}, expected a matrix")
    if len(x.source_shape) == 1:
        return _dense(call, x, weight.T, None)
    axes = axes_of(x)
    if len(axes) != 3 or axes[2] != 0:
        raise ImportRefusedError(
            f"multiplies the last axis of {x.source_shape} (without the batch), expected the channels"
        )
    layer = Conv(call.name, weight.shape[1], (1, 1), bias=False)
    arrays = {"weight": weight.T[:, :, None, None]}
    return with_axes(call.network.layer(call.name, layer, Tensor(x.step, x.shape), arrays), axes)


def _dense(call: OnnxCall, x: Tensor, weight: Array, bias: Array | None) -> Tensor:
    """`weight` (units, the source's features)."""
    if len(x.source_shape) != 1 or weight.shape[1] != x.source_shape[0]:
        raise ImportRefusedError(
            f"has a weight {weight.shape} (units, features) for {x.source_shape} (without the batch)"
        )
    x = x if len(x.shape) == 1 else call.network.flat(f"{call.name}_flatten", x)
    arrays = {"weight": permuted(weight, x)} | ({} if bias is None else {"bias": bias})
    layer = Dense(call.name, len(weight), bias is not None)
    return call.network.layer(call.name, layer, Tensor(x.step, x.shape), arrays)


def _dropout(call: OnnxCall) -> Tensor:
    """The ratio is an attribute before operator set 12, then an input; what `training_mode` says is said."""
    call.get("seed", 0)
    rate = call.scalar(1, "ratio", 0.5)
    training = call.constant(2, "training_mode")
    if training is not None and training.any():
        call.network.remarks.append(f"dropout {call.name!r} {FOR_TRAINING}; here it has both modes")
    return call.network.pointwise(call.name, Dropout(call.name, rate), call.x) if rate else call.x


def _cast(call: OnnxCall) -> Tensor:
    """Between floating-point types, which are the execution's matter here."""
    call.get("saturate", 1)
    if call.count("to", 1) not in FLOATS:
        raise ImportRefusedError(
            f"casts to type {call.count('to', 1)} (onnx.TensorProto), expected a floating-point type"
        )
    return call.x


CONVERTERS: Mapping[str, Convert] = {
    **onnx_windows.CONVERTERS,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_norm,
    "LRN": _local_response_norm,
    "LpNormalization": _normalize,
    **{name: _pointwise(partial(_plain, layer)) for name, layer in named("onnx").items()},
    WRITTEN_OUT: _pointwise(lambda call: replace(call.get("layer", None), name=call.name)),
    "Clip": _clip,
    "LeakyRelu": _pointwise(lambda call: LeakyReLU(call.name, call.number("alpha", 0.01))),
    "PRelu": _prelu,
    "Elu": _pointwise(lambda call: ELU(call.name, call.number("alpha", 1.0))),
    "Selu": _pointwise(_selu),
    "Celu": _row(celu),
    "Swish": _row(swish),
    "Gelu": _pointwise(_gelu),
    "HardSigmoid": _pointwise(_hard_sigmoid),
    "Softmax": _softmax,
    SOFTMAX: lambda call: _softmax_over(call, [call.axis(call.count("axis", -1))]),
    "LogSoftmax": _log_softmax,
    "Dropout": _dropout,
    **onnx_arithmetic.CONVERTERS,
    **onnx_placement.CONVERTERS,
    "Identity": lambda call: call.x,
    "Cast": _cast,
}
SUPPORTED = ", ".join(name for name in CONVERTERS if name not in (SOFTMAX, WRITTEN_OUT))
