"""Sums, products, concatenations, means and matrix products of a PyTorch program: merges, constant scales and shifts,
global pools and dense layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.torch_maps import (
    Map,
    channels_of_rows,
    in_order,
    numbered,
    pooled_rows,
    rearrangement,
    unrepeated,
)
from triptych.importers.torch_program import Constant, TorchCall
from triptych.spec.layers import (
    Affine,
    AvgPool,
    Block,
    Conv,
    Dense,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    MaxPool,
    Merge,
    Pair,
)

if TYPE_CHECKING:
    from triptych.importers.torch_walk import Walk

Values = dict[str, Any]


def _numbers(call: TorchCall, value: Any, rank: int) -> tuple[float, ...]:
    """A constant as one number or one for every channel of a tensor of that rank, the batch included."""
    from triptych.importers.torch_walk import wide

    if isinstance(value, (int, float)):
        return (float(value),)
    array = wide(value.tensor if value.exact is None else value.exact)
    if array.size == 1:
        return (float(array.reshape(())),)
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or math.prod(shape) != shape[1]:
        raise call.refused(f"has a constant of the shape {array.shape}; expected one number, or one for every channel")
    return tuple(float(number) for number in array.ravel())


def _is_constant(value: Any) -> bool:
    return isinstance(value, (Constant, int, float))


def _trained(value: Any) -> bool:
    return isinstance(value, Constant) and bool(value.sources)


def _affine(walk: Walk, call: TorchCall, value: Any, scale: Any, shift: Any, sign: float = 1.0) -> Map:
    """scale * value + sign * shift, of numbers or constants."""
    x = walk.settled(call, value)
    if x.shape != call.shape[1:]:
        raise call.refused(f"makes {call.shape[1:]} of {x.shape} with a constant")
    rank = len(x.shape) + 1
    numbers = _numbers(call, scale, rank), tuple(sign * number for number in _numbers(call, shift, rank))
    if _trained(scale) or _trained(shift):
        if not (_trained(scale) and _trained(shift) and len(numbers[0]) == len(numbers[1]) == x.shape[0]):
            raise call.refused("has a trained scale or shift alone; supported are both of them, one for every channel")
        arrays = {name: _flat(constant) for name, constant in (("weight", scale), ("bias", shift))}
        return walk.emit(call, Affine("", trained=True), [x], x.shape, arrays=arrays)
    return walk.emit(call, Affine("", *numbers), [x], x.shape)


def _flat(constant: Constant) -> Constant:
    return replace(constant, tensor=constant.tensor.reshape(-1), exact=None)


def _merge(walk: Walk, call: TorchCall, values: list[Any], merge: Merge) -> Map:
    inputs = [walk.settled(call, unrepeated(value) if isinstance(value, Map) else value) for value in values]
    if merge != "concatenate" and any(not _spreads(x.shape, call.shape[1:]) for x in inputs):
        raise call.refused(
            f"joins {', '.join(str(x.shape) for x in inputs)} to {call.shape[1:]}, which is not supported"
        )
    return walk.emit(call, Block("", ()), inputs, call.shape[1:], merge=merge)


def _spreads(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a map is the whole, or of one pixel or one channel of it."""
    return shape == whole or (len(shape) == 3 and shape in ((whole[0], 1, 1), (1, *whole[1:])))


def _add(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right, alpha = values["self"], values["other"], float(values.get("alpha", 1))
    if _is_constant(right):
        return _affine(walk, call, left, 1.0, right, alpha)
    if _is_constant(left) and alpha == 1:
        return _affine(walk, call, right, 1.0, left)
    return _merge(walk, call, [left, right if alpha == 1 else _scaled(walk, call, right, alpha)], "add")


def _sub(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right, alpha = values["self"], values["other"], float(values.get("alpha", 1))
    if call.operator == "rsub":
        left, right = right, left
    if _is_constant(right):
        return _affine(walk, call, left, 1.0, right, -alpha)
    if _is_constant(left):
        return _affine(walk, call, right, -alpha, left)
    return _merge(walk, call, [left, _scaled(walk, call, right, -alpha)], "add")


def _scaled(walk: Walk, call: TorchCall, value: Any, factor: float) -> Map:
    x = walk.settled(call, value)
    return walk.emit(call, Affine("", (factor,)), [x], x.shape, name=walk.unique(f"{call.place}_scale"))


def _mul(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right = values["self"], values["other"]
    if _is_constant(right):
        return _affine(walk, call, left, right, 0.0)
    if _is_constant(left):
        return _affine(walk, call, right, left, 0.0)
    return _merge(walk, call, [left, right], "multiply")


def _div(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right = values["self"], values["other"]
    if not _is_constant(right) or values.get("rounding_mode") is not None:
        raise call.refused("divides by a map, or rounds, which is not supported")
    if _trained(right):
        raise call.refused("divides by a trained parameter, which is not supported")
    numbers = _numbers(call, right, len(call.shape))
    if 0.0 in numbers:
        raise call.refused("divides by 0")
    x = walk.settled(call, left)
    return walk.emit(call, Affine("", tuple(1 / number for number in numbers)), [x], x.shape)


def _negative(walk: Walk, call: TorchCall, values: Values) -> Map:
    return _affine(walk, call, values["self"], -1.0, 0.0)


def _scale_and_shift(walk: Walk, call: TorchCall, values: Values) -> Map:
    return _affine(walk, call, values["self"], values["weight"], values["bias"])


def _concatenate(walk: Walk, call: TorchCall, values: Values) -> Map:
    parts, axis = values["tensors"], values["dim"] % len(call.shape)
    if axis != 1:
        raise call.refused(f"is along dimension {axis} of {len(call.shape)}; expected the channels, 1")
    if len(parts) == 1:
        return walk.settled(call, parts[0])
    return _merge(walk, call, parts, "concatenate")


def _reduce(
    record: Callable[[str], Layer], pool: Callable[[str, Pair, Pair], Layer], *, summed: bool = False
) -> Callable[[Walk, TorchCall, Values], Any]:
    """A mean, a sum or a maximum over height and width, or over one of them."""

    def operation(walk: Walk, call: TorchCall, values: Values) -> Any:
        value, axes = values["self"], values.get("dim")
        rank = len(value.shape) + 1
        over = {
            axis % rank for axis in (axes if isinstance(axes, list) else [axes] if axes is not None else range(rank))
        }
        left = [axis for axis in range(1, rank) if axis not in over]
        if len(left) == 1 and not _whole_rows(value, left[0]) and rearrangement(value):
            value = walk.settled(call, value)
        if len(left) == 1 and _whole_rows(value, left[0]):
            channels = value.base[0]
            kernel, order = value.base[1:], np.arange(channels).reshape(call.shape[1:])
            layer, base = record(""), (channels, 1, 1)
        else:
            found = pooled_rows(value.places(), value.base, [axis - 1 for axis in over], call.shape[1:])
            if 0 in over or found is None:
                raise call.refused(f"is over the dimensions {sorted(over)} of {rank}; expected height, width, or both")
            kernel, order = found
            base = (value.base[0], value.base[1] // kernel[0], value.base[2] // kernel[1])
            layer = pool("", kernel, kernel)
        name = walk.unique(f"{call.place}_mean") if summed else ""
        made = walk.emit(call, layer, [Map(value.step, value.base)], base, name=name)
        if summed:
            made = walk.emit(call, Affine("", (float(math.prod(kernel)),)), [made], base)
        return Map(made.step, made.base, order, f"{call.place}_flatten")

    return operation


def _whole_rows(value: Map, axis: int) -> bool:
    """Whether a tensor has all places of a channel, and all channels in their order, along this axis of the batch."""
    return channels_of_rows(Map(value.step, value.base, np.moveaxis(value.places(), axis - 1, 0))) is not None


_maximum_over = _reduce(GlobalMaxPool, MaxPool)


def _maximum(walk: Walk, call: TorchCall, values: Values) -> Any:
    return [_maximum_over(walk, call, values), None]


def _linear(walk: Walk, call: TorchCall, values: Values) -> Map:
    return _dense(walk, call, values["input"], values["weight"], values["bias"])


def _addmm(walk: Walk, call: TorchCall, values: Values) -> Map:
    if values.get("alpha", 1) != 1 or values.get("beta", 1) != 1:
        raise call.refused("scales its product or its bias, which is not supported")
    return _dense(walk, call, values["mat1"], _turned(call, values["mat2"]), values["self"])


def _matrix_product(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right = list(values.values())[:2]
    return _dense(walk, call, left, _turned(call, right), None)


def _turned(call: TorchCall, weight: Any) -> Constant:
    if not isinstance(weight, Constant) or weight.tensor.ndim != 2:
        raise call.refused("multiplies two maps, which is not supported; a dense layer has a constant matrix")
    return replace(weight, tensor=weight.tensor.t(), exact=None)


def _dense(walk: Walk, call: TorchCall, value: Any, weight: Any, bias: Any) -> Map:
    if not isinstance(weight, Constant) or not isinstance(value, Map):
        raise call.refused("multiplies by what is no parameter, which is not supported")
    units = weight.tensor.shape[0]
    arrays = {"weight": weight} | ({} if bias is None else {"bias": bias})
    if len(value.shape) == 3:
        return _dense_at_every_place(walk, call, value, arrays)
    if len(value.shape) != 1:
        raise call.refused(f"takes {value.shape} without the batch; expected features")
    flat, order = _flattened(walk, call, value)

    def columns(array: NDArray[Any]) -> NDArray[Any]:
        return array if order is None else np.ascontiguousarray(array[:, np.argsort(order)])

    return walk.emit(call, Dense("", units, bias is not None), [flat], (units,), arrays=arrays, change=columns)


def _flattened(walk: Walk, call: TorchCall, value: Map) -> tuple[Map, NDArray[np.intp] | None]:
    """The value flat, and the order in which the dense layer's columns stand, if it is another one."""
    places = value.places()
    if in_order(value) or not np.array_equal(np.sort(places), np.arange(math.prod(value.base))):
        return walk.settled(call, value), None
    plain = Map(value.step, value.base, numbered(value.base).ravel(), value.name)
    return (walk.settled(call, plain) if len(value.base) == 3 else Map(value.step, value.base)), places


def _dense_at_every_place(walk: Walk, call: TorchCall, value: Map, arrays: Mapping[str, Constant]) -> Map:
    """Dense on the last axis of (height, width, channels): a convolution of 1x1."""
    if len(value.base) != 3 or not np.array_equal(value.places(), np.moveaxis(numbered(value.base), 0, -1)):
        raise call.refused(f"takes {value.shape} without the batch; expected features, or channels as the last axis")
    units = arrays["weight"].tensor.shape[0]
    base = (units, *value.base[1:])
    layer = Conv("", units, (1, 1), bias="bias" in arrays)
    made = walk.emit(
        call, layer, [Map(value.step, value.base)], base, arrays=arrays, change=lambda w: w[:, :, None, None]
    )
    return Map(made.step, base, np.moveaxis(numbered(base), 0, -1), call.place)


OPERATIONS: Mapping[str, Callable[[Walk, TorchCall, Values], Any]] = {
    "add": _add,
    "sub": _sub,
    "rsub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _negative,
    "scale_and_shift": _scale_and_shift,
    "cat": _concatenate,
    "concat": _concatenate,
    "mean": _reduce(GlobalAvgPool, AvgPool),
    "sum": _reduce(GlobalAvgPool, AvgPool, summed=True),
    "amax": _maximum_over,
    "max": _maximum,
    "linear": _linear,
    "addmm": _addmm,
    "matmul": _matrix_product,
    "mm": _matrix_product,
}
