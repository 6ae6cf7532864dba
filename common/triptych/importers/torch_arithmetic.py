"""Sums, products, concatenations and matrix products of a PyTorch program: merges, constant scales and shifts, dense
layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.importers.torch_maps import (
    Map,
    in_order,
    numbered,
    unrepeated,
)
from triptych.importers.torch_program import Constant, TorchCall
from triptych.spec.layers import (
    Affine,
    Block,
    Conv,
    Dense,
    Merge,
)

if TYPE_CHECKING:
    from triptych.importers.torch_walk import Walk

Values = dict[str, Any]
Operation: TypeAlias = "Callable[[Walk, TorchCall, Values], Any]"
Order = NDArray[np.intp]
Turn = tuple[int, ...]
_TURNS: Sequence[Turn] = list(permutations(range(3)))[1:]


def _numbers(call: TorchCall, value: Any, rank: int, channels: int = 1) -> tuple[float, ...]:
    """A constant as one number or one for every channel of a tensor of that rank, the batch included, along whose axis
    `channels` those are."""
    from triptych.importers.torch_walk import wide

    if isinstance(value, (int, float)):
        return (float(value),)
    array = wide(value.tensor if value.exact is None else value.exact)
    if array.size == 1:
        return (float(array.reshape(())),)
    shape = (1,) * (rank - array.ndim) + array.shape
    if len(shape) != rank or math.prod(shape) != shape[channels]:
        raise call.refused(f"has a constant of the shape {array.shape}; expected one number, or one for every channel")
    return tuple(float(number) for number in array.ravel())


def is_constant(value: Any) -> bool:
    """Whether a value depends on no image."""
    return isinstance(value, (Constant, int, float))


def _trained(value: Any) -> bool:
    return isinstance(value, Constant) and bool(value.sources)


def _affine(walk: Walk, call: TorchCall, value: Any, scale: Any, shift: Any, sign: float = 1.0) -> Map:
    """scale * value + sign * shift, of numbers or constants."""
    turn = _common_turn([value])
    x = Map(value.step, value.base) if turn else walk.settled(call, value)
    if value.shape != call.shape[1:]:
        raise call.refused(f"makes {call.shape[1:]} of {value.shape} with a constant")
    rank, channels = len(call.shape), turn.index(0) + 1 if turn else 1
    factors = _numbers(call, scale, rank, channels)
    numbers = factors, tuple(sign * number for number in _numbers(call, shift, rank, channels))
    if _trained(scale) and shift == 0.0 and len(x.shape) == 3 and len(factors) == x.shape[0]:
        made = _trained_scale(walk, call, x, scale)
    elif _trained(scale) or _trained(shift):
        if not (_trained(scale) and _trained(shift) and len(numbers[0]) == len(numbers[1]) == x.shape[0]):
            raise call.refused(
                "has a trained shift alone, or one number; supported are scales, or both, one for every channel"
            )
        arrays = {name: _flat(constant) for name, constant in (("weight", scale), ("bias", shift))}
        made = walk.emit(call, Affine("", trained=True), [x], x.shape, arrays=arrays)
    else:
        made = walk.emit(call, Affine("", *numbers), [x], x.shape)
    return _as_turned(made, turn, call.place) if turn else made


def _trained_scale(walk: Walk, call: TorchCall, x: Map, scale: Constant) -> Map:
    """One for every channel, without a shift: a convolution of 1x1 of every channel by itself."""
    channels = x.shape[0]
    layer = Conv("", channels, (1, 1), groups=channels, bias=False)
    arrays = {"weight": _flat(scale)}
    return walk.emit(call, layer, [x], x.shape, arrays=arrays, change=lambda w: w.reshape(-1, 1, 1, 1))


def _common_turn(values: Sequence[Any]) -> Turn | None:
    """By which exchange of its axes each of these values is the whole output of a step, channels last perhaps: what is
    done to each of their values needs no steps that exchange axes. None where they are not turned alike."""
    return next((turn for turn in _TURNS if all(_is_turned(value, turn) for value in values)), None)


def _is_turned(value: Any, turn: Turn) -> bool:
    if not isinstance(value, Map) or value.order is None or len(value.base) != 3 or len(value.shape) != 3:
        return False
    turned = numbered(value.base).transpose(turn)
    return turned.shape == value.shape and np.array_equal(turned, value.order)


def _as_turned(made: Map, turn: Turn, name: str) -> Map:
    """The output of a step as the source has it."""
    return Map(made.step, made.base, numbered(made.base).transpose(turn), name)


def _flat(constant: Constant) -> Constant:
    return replace(constant, tensor=constant.tensor.reshape(-1), exact=None)


def _merge(walk: Walk, call: TorchCall, values: list[Any], merge: Merge) -> Map:
    turn = _common_turn(values)
    if turn and merge != "concatenate":
        return _merge_turned(walk, call, values, merge, turn)
    inputs = [walk.settled(call, unrepeated(value) if isinstance(value, Map) else value) for value in values]
    if merge != "concatenate" and any(not _spreads(x.shape, call.shape[1:]) for x in inputs):
        raise call.refused(
            f"joins {', '.join(str(x.shape) for x in inputs)} to {call.shape[1:]}, which is not supported"
        )
    return walk.emit(call, Block("", ()), inputs, call.shape[1:], merge=merge)


def _merge_turned(walk: Walk, call: TorchCall, values: list[Any], merge: Merge, turn: Turn) -> Map:
    base = tuple(call.shape[1 + turn.index(axis)] for axis in range(3))
    inputs = [Map(value.step, value.base) for value in values]
    if merge != "concatenate" and not all(_spreads(x.base, base) for x in inputs):
        raise call.refused(f"joins {', '.join(str(value.shape) for value in values)}, which is not supported")
    return _as_turned(walk.emit(call, Block("", ()), inputs, base, merge=merge), turn, call.place)


def _spreads(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether a map is the whole, or of one pixel or one channel of it."""
    return shape == whole or (len(shape) == 3 and shape in ((whole[0], 1, 1), (1, *whole[1:])))


def _add(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right, alpha = values["self"], values["other"], float(values.get("alpha", 1))
    if is_constant(right):
        return _affine(walk, call, left, 1.0, right, alpha)
    if is_constant(left) and alpha == 1:
        return _affine(walk, call, right, 1.0, left)
    return _merge(walk, call, [left, right if alpha == 1 else scaled(walk, call, right, alpha)], "add")


def _sub(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right, alpha = values["self"], values["other"], float(values.get("alpha", 1))
    if call.operator == "rsub":
        left, right = right, left
    if is_constant(right):
        return _affine(walk, call, left, 1.0, right, -alpha)
    if is_constant(left):
        return _affine(walk, call, right, -alpha, left)
    return _merge(walk, call, [left, scaled(walk, call, right, -alpha)], "add")


def scaled(walk: Walk, call: TorchCall, value: Any, factor: float) -> Map:
    """A step that multiplies a value by a number."""
    x = walk.settled(call, value)
    return walk.emit(call, Affine("", (factor,)), [x], x.shape, name=walk.unique(f"{call.place}_scale"))


def _mul(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right = values["self"], values["other"]
    if is_constant(right):
        return _affine(walk, call, left, right, 0.0)
    if is_constant(left):
        return _affine(walk, call, right, left, 0.0)
    return _merge(walk, call, [left, right], "multiply")


def _div(walk: Walk, call: TorchCall, values: Values) -> Map:
    left, right = values["self"], values["other"]
    if not is_constant(right) or values.get("rounding_mode") is not None:
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
    if len(parts) == 1:
        return walk.settled(call, parts[0])
    turn = _common_turn(parts)
    if turn and turn.index(0) + 1 == axis:
        return _merge_turned(walk, call, parts, "concatenate", turn)
    if len(call.shape) == 3 and axis == 1:
        return _rows_joined(walk, call, parts)
    if axis != 1:
        raise call.refused(f"is along dimension {axis} of {len(call.shape)}; expected the channels, 1")
    return _merge(walk, call, parts, "concatenate")


def _rows_joined(walk: Walk, call: TorchCall, parts: list[Any]) -> Map:
    """Rows of numbers, one set behind the other: boxes of all maps of a detector. Here they are flat."""
    flat = [walk.settled(call, replace(x, order=x.places().ravel()) if isinstance(x, Map) else x) for x in parts]
    made = walk.emit(call, Block("", ()), flat, (math.prod(call.shape[1:]),))
    return Map(made.step, made.base, np.arange(made.base[0]).reshape(call.shape[1:]), call.place)


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


ARITHMETIC: Mapping[str, Operation] = {
    "add": _add,
    "sub": _sub,
    "rsub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _negative,
    "scale_and_shift": _scale_and_shift,
    "cat": _concatenate,
    "concat": _concatenate,
    "linear": _linear,
    "addmm": _addmm,
    "matmul": _matrix_product,
    "mm": _matrix_product,
}
