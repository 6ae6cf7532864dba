"""Sums, products, concatenations and means of a JAX program: merges, biases, constant or trained scales and shifts,
pools."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.jax_numbers import as_written
from triptych.importers.jax_program import Constant, JaxCall
from triptych.importers.jax_walk import FIRST, LAST, Scaled, Total
from triptych.importers.network_builder import Order, Tensor, with_axes
from triptych.importers.steps import Step
from triptych.importers.torch_maps import Map, pooled_rows, rearrangement
from triptych.spec.layers import (
    Affine,
    AvgPool,
    Conv,
    ConvTranspose,
    Dense,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    MaxPool,
    Merge,
    Pair,
    PReLU,
)

if TYPE_CHECKING:
    from triptych.importers.jax_walk import JaxWalk


def per_channel(walk: JaxWalk, call: JaxCall, constant: Constant, x: Tensor) -> NDArray[Any]:
    """A constant as one number, or one for every channel of what the step gives."""
    value = np.asarray(constant.value)
    if value.size == 1:
        return value.reshape(1)
    spread = np.broadcast_to(value, (walk.batch, *x.source_shape))
    canonical = np.empty(int(np.prod(x.shape)), value.dtype)
    canonical[x.places().ravel()] = spread[0].ravel()
    channels = canonical.reshape(x.shape[0], -1)
    if (spread != spread[:1]).any() or (channels != channels[:, :1]).any():
        raise walk.refused(
            call, f"has a constant of the shape {value.shape}; expected one number, or one for every channel"
        )
    return channels[:, 0].copy()


def _affine(walk: JaxWalk, call: JaxCall, value: Any, scale: Any, shift: Any, sign: float = 1.0) -> Tensor:
    """scale * value + sign * shift, of numbers or constants."""
    x = walk.whole(call, value)
    if call.shape != (walk.batch, *x.source_shape):
        raise walk.refused(call, f"makes {call.shape[1:]} of {x.source_shape} with a constant")
    pair = []
    for constant in (scale, shift):
        if isinstance(constant, Constant) and constant.sources:
            raise walk.refused(
                call,
                f"has {', '.join(sorted(constant.sources))} alone; supported are a bias after its convolution or dense "
                "layer, a scale and a shift after each other, a slope, and flax's BatchNorm",
            )
        pair.append(
            per_channel(walk, call, constant, x) if isinstance(constant, Constant) else np.array([float(constant)])
        )
    read = [as_written if len(numbers) == 1 else float for numbers in pair]  # arrays are what they are
    scales, shifts = (tuple(map(*each)) for each in zip(read, (pair[0], sign * pair[1]), strict=True))
    return walk.network.pointwise(walk.name(call), Affine("", scales, shifts), x)


def trained_layer(walk: JaxWalk, call: JaxCall, layer: Layer, x: Tensor, arrays: Mapping[str, Constant]) -> Tensor:
    """A layer with one value of each array for every channel."""
    name, channels = walk.name(call), x.shape[0]
    shared = isinstance(layer, PReLU) and layer.shared
    if not shared and any(np.size(constant.value) != channels for constant in arrays.values()):
        raise walk.refused(call, f"has one trained number for {channels} channels; expected one for each")
    made = walk.network.layer(name, layer, Tensor(x.step, x.shape), walk.arrays(call, name, arrays))
    return replace(made, order=x.order)


def _with_bias(walk: JaxWalk, call: JaxCall, x: Tensor, step: Step, constant: Constant) -> Tensor:
    numbers = replace(constant, value=per_channel(walk, call, constant, x))
    if np.size(numbers.value) != x.shape[0]:
        raise walk.refused(call, f"adds one trained number to {x.shape[0]} channels; expected one for each")
    assert isinstance(step.layer, Conv | ConvTranspose | Dense)
    arrays = {**step.arrays, **walk.arrays(call, step.name, {"bias": numbers})}
    walk.network.replace(step, replace(step, layer=replace(step.layer, bias=True), arrays=arrays))
    return x


def add(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """Two maps, a bias, the shift behind a scale, or a constant."""
    places = [place for place, value in enumerate(values) if isinstance(value, Constant)]
    if not places:
        return _merge(walk, call, values, "add")
    constant, value = values[places[0]], values[1 - places[0]]
    taken = call.inputs[1 - places[0]]
    if isinstance(value, Scaled):
        arrays = {
            key: replace(c, value=per_channel(walk, call, c, value.x))
            for key, c in (("weight", value.scale), ("bias", constant))
        }
        return trained_layer(walk, call, Affine("", trained=True), value.x, arrays)
    if constant.sources and taken in walk.bare and walk.uses[taken] == 1:
        return _with_bias(walk, call, value, walk.bare[taken], constant)
    return _affine(walk, call, value, 1.0, constant)


def sub(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """Two maps, or a map and a constant."""
    left, right = values
    if isinstance(right, Constant):
        return _affine(walk, call, left, 1.0, right, -1.0)
    if isinstance(left, Constant):
        return _affine(walk, call, right, -1.0, left)
    other = walk.whole(call, right)
    negative = walk.network.pointwise(f"{walk.name(call)}_scale", Affine("", (-1.0,)), other)
    return _merge(walk, call, [left, negative], "add")


def mul(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Any:
    """Two maps, or a map and a constant; a trained one waits for its shift."""
    places = [place for place, value in enumerate(values) if isinstance(value, Constant)]
    if not places:
        return _merge(walk, call, values, "multiply")
    constant, value = values[places[0]], values[1 - places[0]]
    if isinstance(value, Total) and not constant.sources:
        return _mean(walk, call, value, 1 / np.asarray(constant.value, np.float64), _rounding(constant))
    if constant.sources:
        return Scaled(walk.whole(call, value), constant)
    return _affine(walk, call, value, constant, 0.0)


def div(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """By a constant; a sum becomes a mean."""
    value, divisor = values
    if not isinstance(divisor, Constant):
        raise walk.refused(call, "divides by what is computed of images, which is not supported but in a softmax")
    if divisor.sources:
        raise walk.refused(call, f"divides by {', '.join(sorted(divisor.sources))}, which is not supported")
    numbers = np.asarray(divisor.value, np.float64)
    if (numbers == 0).any():
        raise walk.refused(call, "divides by 0")
    if isinstance(value, Total):
        return _mean(walk, call, value, numbers, _rounding(divisor))
    return _affine(walk, call, value, Constant(1 / numbers), 0.0)


def negative(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """Minus a map."""
    return _affine(walk, call, values[0], -1.0, 0.0)


def _rounding(constant: Constant) -> float:
    """Of the number's own type, relative: 1 / n is no n in it."""
    return float({8: 2.0**-52, 4: 2.0**-23}.get(np.asarray(constant.value).dtype.itemsize, 2.0**-7))


def _mean(walk: JaxWalk, call: JaxCall, value: Total, divisor: NDArray[Any], rounding: float) -> Tensor:
    """A sum that is divided by how many values are in it, with or without the padding, or by any other number."""
    shape, name = call.shape, walk.name(call, "avg_pool")
    if value.inside.size > 1 and divisor.size > 1:
        divided = np.broadcast_to(divisor, shape)
        if np.array_equal(divided, np.broadcast_to(value.inside, shape)):
            return value.mean(name, count_padding=False)
    if divisor.size != 1:
        return _affine(walk, call, value, Constant(1 / divisor), 0.0)
    made = value.mean(name, count_padding=True)
    factor = value.whole / float(divisor.reshape(()))
    return made if abs(factor - 1) <= rounding else walk.network.pointwise(f"{name}_scale", Affine("", (factor,)), made)


def _merge(walk: JaxWalk, call: JaxCall, values: list[Any], merge: Merge) -> Tensor:
    """Of values of one shape, or maps of one pixel or one channel with whole ones."""
    tensors = [_unrepeated(walk.tensor(call, value)) for value in values]
    whole = max(tensors, key=lambda x: int(np.prod(x.source_shape)))
    axes = walk.axes(whole)
    made = walk.network.merge(walk.name(call), [walk.settled(call, x, axes) for x in tensors], merge)
    made = with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))
    if (walk.batch, *made.source_shape) != call.shape:
        raise walk.refused(call, f"joins {', '.join(str(x.source_shape) for x in tensors)} to {call.shape[1:]}")
    return made


def _unrepeated(x: Tensor) -> Tensor:
    """With one row, column or channel where all are the same place: what was widened to a larger map."""
    order = x.order
    if order is None:
        return x
    for axis in range(order.ndim):
        first = order.take([0], axis)
        order = first if order.shape[axis] > 1 and (order == first).all() else order
    return replace(x, order=order)


def concatenate(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """Along the channels, or features."""
    axis, rank = call.params["dimension"] - 1, len(call.shape) - 1
    if len(values) == 1:
        return walk.tensor(call, values[0])
    if axis < 0 or rank not in (1, 3) or any(isinstance(value, Constant) for value in values):
        raise walk.refused(
            call, f"is along axis {axis + 1} of {call.shape}, or of constants; expected the channels of maps"
        )
    if rank == 1:
        return walk.network.merge(walk.name(call), [walk.flat(call, value) for value in values], "concatenate")
    if (view := _one_view(walk, call, values)) is not None:
        return view
    axes = (axis, *(other for other in range(3) if other != axis))
    made = walk.network.merge(walk.name(call), [walk.settled(call, value, axes) for value in values], "concatenate")
    return with_axes(made, tuple(int(place) for place in np.argsort(axes)))


def _one_view(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor | None:
    """Parts of one step's output that together are as a layer makes them of it: padding by what is at the edge."""
    parts = [walk.tensor(call, value) for value in values]
    if len({part.step for part in parts}) != 1 or sum(part.order is None for part in parts) > 1:
        return None
    order = np.concatenate([part.places() for part in parts], call.params["dimension"] - 1)
    made = Tensor(parts[0].step, parts[0].shape, order)
    fits = any(rearrangement(Map(made.step, made.shape, order.transpose(axes))) for axes in (LAST, FIRST))
    return made if fits else None


def reduce_sum(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Total:
    """Over height and width, or one of them; becomes a mean by the division that follows."""
    x, kernel, order = _over_rows(walk, call, values)
    layer: Layer = GlobalAvgPool("") if kernel == x.shape[1:] else AvgPool("", kernel, kernel)

    def pool(name: str, count_padding: bool) -> Tensor:
        return walk.network.layer(name, layer, x)

    return Total(pool, order, math.prod(kernel), np.array(math.prod(kernel)))


def reduce_max(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """Over height and width, or one of them."""
    x, kernel, order = _over_rows(walk, call, values)
    layer: Layer = GlobalMaxPool("") if kernel == x.shape[1:] else MaxPool("", kernel, kernel)
    made = walk.network.layer(walk.name(call), layer, x)
    return Tensor(made.step, made.shape, order)


def _over_rows(walk: JaxWalk, call: JaxCall, values: list[Any]) -> tuple[Tensor, Pair, Order]:
    """The map, the window of the pool that is the reduction, and the order of what it gives."""
    x, over = walk.tensor(call, values[0]), [axis - 1 for axis in call.params["axes"]]
    inside = min(over, default=-1) >= 0
    if inside and len(x.source_shape) == 3:
        left = [axis for axis in range(3) if axis not in over]
        axes = FIRST if left == [0] else LAST if left == [2] else walk.axes(x)
        x = with_axes(walk.settled(call, x, axes), tuple(int(axis) for axis in np.argsort(axes)))
    found = pooled_rows(x.places(), x.shape, over, call.shape[1:]) if inside else None
    if found is None:
        named = tuple(call.params["axes"])
        raise walk.refused(
            call, f"is over the axes {named} of {len(x.source_shape) + 1}; expected height, width, or both"
        )
    return Tensor(x.step, x.shape), *found
