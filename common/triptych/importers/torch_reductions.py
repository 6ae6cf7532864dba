"""Means, sums and maxima over axes of a map of a PyTorch program, and of two maps: pools."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.moves import larger_of_two, over_channels
from triptych.importers.torch_arithmetic import Operation, Values, is_constant, scaled
from triptych.importers.torch_maps import Map, channels_of_rows, pooled_channels, pooled_rows, rearrangement
from triptych.importers.torch_program import TorchCall
from triptych.spec.layers import (
    Affine,
    AvgPool,
    Block,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    MaxPool,
    Pair,
    Shape,
)

if TYPE_CHECKING:
    from triptych.importers.torch_walk import Walk

Order = NDArray[np.intp]


def _larger(walk: Walk, call: TorchCall, values: Values) -> Map:
    return _of_two(walk, call, values["self"], values["other"])


def _smaller(walk: Walk, call: TorchCall, values: Values) -> Map:
    """What is the larger of both with the other sign, with the other sign."""
    left, right = (scaled(walk, call, values[name], -1.0) for name in ("self", "other"))
    made = _of_two(walk, call, left, right, f"{call.place}_larger")
    return walk.emit(call, Affine("", (-1.0,)), [made], made.shape)


def _of_two(walk: Walk, call: TorchCall, left: Any, right: Any, name: str = "") -> Map:
    """The larger of two maps at every place; of a map and a number, a clip."""
    if is_constant(left) or is_constant(right):
        raise call.refused("is of a map and a constant; supported are two maps, and clamp for numbers")
    pair = [walk.settled(call, value) for value in (left, right)]
    shape = pair[0].shape
    if pair[1].shape != shape:
        raise call.refused(f"takes {shape} and {pair[1].shape}; expected two maps of one shape")
    base = (2 * shape[0], *shape[1:])
    made = walk.emit(call, Block("", ()), pair, base, name=walk.unique(f"{call.place}_pair"))
    return walk.row(call, larger_of_two(shape), made, shape, name)


def _reduce(
    record: Callable[[str], Layer], pool: Callable[[str, Pair, Pair], Layer], *, summed: bool = False
) -> Operation:
    """A mean, a sum or a maximum over height and width, over one of them, or over the channels."""

    def operation(walk: Walk, call: TorchCall, values: Values) -> Any:
        value, axes = values["self"], values.get("dim")
        order: Order | None
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
        elif (order := _over_channels(value, over, call.shape[1:])) is not None:
            layers: tuple[Layer, ...] = over_channels(AvgPool if record is GlobalAvgPool else MaxPool, value.base)
            layers += (Affine("sum", (float(value.base[0]),)),) * summed
            made = walk.row(call, layers, Map(value.step, value.base), (1, *value.base[1:]))
            return Map(made.step, made.base, order, f"{call.place}_reshape")
        else:
            found = pooled_rows(value.places(), value.base, [axis - 1 for axis in over], call.shape[1:])
            if 0 in over or found is None:
                raise call.refused(
                    f"is over the dimensions {sorted(over)} of {rank}; expected rows, columns, both, or channels"
                )
            kernel, order = found
            base = (value.base[0], value.base[1] // kernel[0], value.base[2] // kernel[1])
            layer = pool("", kernel, kernel)
        name = walk.unique(f"{call.place}_mean") if summed else ""
        made = walk.emit(call, layer, [Map(value.step, value.base)], base, name=name)
        if summed:
            made = walk.emit(call, Affine("", (float(math.prod(kernel)),)), [made], base)
        return Map(made.step, made.base, order, f"{call.place}_flatten")

    return operation


def _over_channels(value: Map, over: set[int], shape: Shape) -> Order | None:
    return pooled_channels(value.places(), value.base, [axis - 1 for axis in over], shape) if 0 not in over else None


def _whole_rows(value: Map, axis: int) -> bool:
    """Whether a tensor has all places of a channel, and all channels in their order, along this axis of the batch."""
    return channels_of_rows(Map(value.step, value.base, np.moveaxis(value.places(), axis - 1, 0))) is not None


_maximum_over = _reduce(GlobalMaxPool, MaxPool)


def _maximum(walk: Walk, call: TorchCall, values: Values) -> Any:
    if "other" in values:
        return _larger(walk, call, values)
    return [_maximum_over(walk, call, values), None]


REDUCTIONS: Mapping[str, Operation] = {
    "mean": _reduce(GlobalAvgPool, AvgPool),
    "sum": _reduce(GlobalAvgPool, AvgPool, summed=True),
    "amax": _maximum_over,
    "max": _maximum,
    "maximum": _larger,
    "minimum": _smaller,
}
