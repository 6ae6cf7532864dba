"""Primitives of JAX on images: for each, what it becomes; those with windows by `triptych.importers.jax_windows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.jax_program import Constant, JaxCall
from triptych.importers.jax_walk import FIRST, LAST, VIEWS, Scaled, Total
from triptych.importers.jax_windows import conv, max_pool, window_sum
from triptych.importers.network_builder import Tensor, permuted, with_axes
from triptych.importers.steps import Step
from triptych.spec.layers import (
    Affine,
    BatchNorm,
    Clip,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    GlobalAvgPool,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    Merge,
    Pad,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)

if TYPE_CHECKING:
    from triptych.importers.jax_walk import JaxWalk

Operation = Callable[["JaxWalk", JaxCall, list[Any]], Any]


def _pointwise(record: Callable[[str], Layer]) -> Operation:
    def operation(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
        return _each(walk, call, record(""), values[0])

    return operation


def _each(walk: JaxWalk, call: JaxCall, layer: Layer, value: Any) -> Tensor:
    """A layer that does the same to every value of its channel, so that it keeps their order."""
    x = walk.whole(call, value)
    return walk.network.pointwise(walk.name(call), layer, x)


def _numbers(walk: JaxWalk, call: JaxCall, constant: Constant, x: Tensor) -> NDArray[Any]:
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
            _numbers(walk, call, constant, x) if isinstance(constant, Constant) else np.array([float(constant)])
        )
    scales, shifts = (tuple(map(float, numbers)) for numbers in (pair[0], sign * pair[1]))
    return walk.network.pointwise(walk.name(call), Affine("", scales, shifts), x)


def _add(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    places = [place for place, value in enumerate(values) if isinstance(value, Constant)]
    if not places:
        return _merge(walk, call, values, "add")
    constant, value = values[places[0]], values[1 - places[0]]
    taken = call.inputs[1 - places[0]]
    if isinstance(value, Scaled):
        arrays = {
            key: replace(c, value=_numbers(walk, call, c, value.x))
            for key, c in (("weight", value.scale), ("bias", constant))
        }
        return _trained(walk, call, Affine("", trained=True), value.x, arrays)
    if constant.sources and taken in walk.bare and walk.uses[taken] == 1:
        return _with_bias(walk, call, value, walk.bare[taken], constant)
    return _affine(walk, call, value, 1.0, constant)


def _trained(walk: JaxWalk, call: JaxCall, layer: Layer, x: Tensor, arrays: Mapping[str, Constant]) -> Tensor:
    """A layer with one value of each array for every channel."""
    name, channels = walk.name(call), x.shape[0]
    shared = isinstance(layer, PReLU) and layer.shared
    if not shared and any(np.size(constant.value) != channels for constant in arrays.values()):
        raise walk.refused(call, f"has one trained number for {channels} channels; expected one for each")
    made = walk.network.layer(name, layer, Tensor(x.step, x.shape), walk.arrays(call, name, arrays))
    return replace(made, order=x.order)


def _with_bias(walk: JaxWalk, call: JaxCall, x: Tensor, step: Step, constant: Constant) -> Tensor:
    numbers = replace(constant, value=_numbers(walk, call, constant, x))
    if np.size(numbers.value) != x.shape[0]:
        raise walk.refused(call, f"adds one trained number to {x.shape[0]} channels; expected one for each")
    assert isinstance(step.layer, Conv | ConvTranspose | Dense)
    arrays = {**step.arrays, **walk.arrays(call, step.name, {"bias": numbers})}
    walk.network.replace(step, replace(step, layer=replace(step.layer, bias=True), arrays=arrays))
    return x


def _sub(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    left, right = values
    if isinstance(right, Constant):
        return _affine(walk, call, left, 1.0, right, -1.0)
    if isinstance(left, Constant):
        return _affine(walk, call, right, -1.0, left)
    other = walk.whole(call, right)
    negative = walk.network.pointwise(f"{walk.name(call)}_scale", Affine("", (-1.0,)), other)
    return _merge(walk, call, [left, negative], "add")


def _mul(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Any:
    places = [place for place, value in enumerate(values) if isinstance(value, Constant)]
    if not places:
        return _merge(walk, call, values, "multiply")
    constant, value = values[places[0]], values[1 - places[0]]
    if isinstance(value, Total) and not constant.sources:
        return _mean(walk, call, value, 1 / np.asarray(constant.value, np.float64), _rounding(constant))
    if constant.sources:
        return Scaled(walk.whole(call, value), constant)
    return _affine(walk, call, value, constant, 0.0)


def _div(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
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


def _concatenate(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    axis, rank = call.params["dimension"] - 1, len(call.shape) - 1
    if axis < 0 or rank not in (1, 3) or any(isinstance(value, Constant) for value in values):
        raise walk.refused(
            call, f"is along axis {axis + 1} of {call.shape}, or of constants; expected the channels of maps"
        )
    if len(values) == 1:
        return walk.tensor(call, values[0])
    if rank == 1:
        return walk.network.merge(walk.name(call), [walk.flat(call, value) for value in values], "concatenate")
    axes = (axis, *(other for other in range(3) if other != axis))
    made = walk.network.merge(walk.name(call), [walk.settled(call, value, axes) for value in values], "concatenate")
    return with_axes(made, tuple(int(place) for place in np.argsort(axes)))


def _dense(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x, weight = values
    (taken, given), batched = call.params["dimension_numbers"]
    if any(map(len, batched)) or not isinstance(weight, Constant) or np.ndim(weight.value) != 2 or len(taken) != 1:
        raise walk.refused(call, "is no product of features with a constant matrix, as of a dense layer")
    matrix = np.asarray(weight.value)
    matrix = matrix if given[0] == 1 else matrix.T
    x = walk.tensor(call, x)
    rank = len(x.source_shape)
    if taken[0] != rank or rank not in (1, 3):
        raise walk.refused(call, f"is over axis {taken[0]} of {rank + 1}; expected the last of 2 or 4")
    if rank == 3:
        made = _layer(
            walk,
            call,
            Conv("", len(matrix), (1, 1), bias=False),
            walk.settled(call, x, LAST),
            matrix[:, :, None, None],
            weight,
        )
        return with_axes(made, (1, 2, 0))
    flat = walk.flat(call, x)
    columns = permuted(matrix, flat)
    return _layer(walk, call, Dense("", len(matrix), bias=False), Tensor(flat.step, flat.shape), columns, weight)


def _layer(walk: JaxWalk, call: JaxCall, layer: Layer, x: Tensor, array: NDArray[Any], weight: Constant) -> Tensor:
    """A layer with a weight, to which a bias may come."""
    name = walk.name(call)
    weight = replace(weight, value=np.ascontiguousarray(array))
    made = walk.network.layer(name, layer, x, walk.arrays(call, name, {"weight": weight}))
    step = walk.network.last(made)
    assert step is not None
    walk.bare[call.outputs[0]] = step
    return made


def _conv(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    return conv(walk, call, values, _layer)


def _over_places(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """The map of which a sum or maximum over height and width is taken."""
    x = walk.tensor(call, values[0])
    rank, over = len(x.source_shape), sorted(axis - 1 for axis in call.params["axes"])
    left = [axis for axis in range(rank) if axis not in over]
    if rank != 3 or len(over) != 2 or over[0] < 0:
        raise walk.refused(call, f"is over the axes {call.params['axes']} of {rank + 1}; expected height and width")
    return walk.settled(call, x, (left[0], *over))


def _reduce_sum(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Total:
    x = _over_places(walk, call, values)
    size = x.shape[1] * x.shape[2]

    def pool(name: str, count_padding: bool) -> Tensor:
        return walk.network.layer(name, GlobalAvgPool(""), x)

    return Total(pool, np.arange(x.shape[0]), size, np.array(size))


def _reduce_max(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x = _over_places(walk, call, values)
    made = walk.network.layer(walk.name(call), GlobalMaxPool(""), x)
    return Tensor(made.step, made.shape, np.arange(x.shape[0]))


def _softmax(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x = walk.tensor(call, values[0])
    rank = len(x.source_shape)
    axes = FIRST if call.params["axes"] == (1,) and rank == 3 else LAST if rank == 3 else (0,)
    if call.params["axes"] not in ((rank,), (1,)) or rank not in (1, 3):
        raise walk.refused(call, f"is along {call.params['axes']} of {rank + 1} axes; expected the channels")
    made = walk.network.layer(walk.name(call), Softmax(""), walk.settled(call, x, axes))
    if call.primitive == "log_softmax":
        walk.logarithms.add(made.step)
    return with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))


def _leaky(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x, slope, bound = walk.whole(call, values[0]), values[1], values[2]
    if (np.asarray(bound.value) != 0).any():
        raise walk.refused(call, "chooses by another bound than 0")
    numbers = replace(slope, value=_numbers(walk, call, slope, x))
    one = np.size(numbers.value) == 1
    if slope.sources:
        return _trained(walk, call, PReLU("", shared=one and x.shape[0] != 1), x, {"weight": numbers})
    if not one and len(set(numbers.value)) > 1:
        raise walk.refused(call, "has several constant slopes")
    return _each(walk, call, LeakyReLU("", float(numbers.value[0])), x)


def _bounded(walk: JaxWalk, call: JaxCall, low: Any, x: Any, high: Any) -> Tensor:
    bounds = [
        np.unique(np.asarray(bound.value)) for bound in (low, high) if isinstance(bound, Constant) and not bound.sources
    ]
    if len(bounds) != 2 or any(bound.size != 1 for bound in bounds):
        raise walk.refused(call, "has bounds that are no numbers")
    return _each(walk, call, Clip("", float(bounds[0][0]), float(bounds[1][0])), x)


def _clamp(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    return _bounded(walk, call, *values)


def _max(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x, bound = values if isinstance(values[1], Constant) else values[::-1]
    if not isinstance(bound, Constant) or bound.sources or (np.asarray(bound.value) != 0).any():
        raise walk.refused(call, "is no maximum with 0 (a ReLU), nor bounded on both sides by numbers")
    return _each(walk, call, ReLU(""), x)


def _min(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x, bound = values if isinstance(values[1], Constant) else values[::-1]
    step = walk.network.last(x) if isinstance(x, Tensor) else None
    if step is None or not isinstance(step.layer, ReLU):
        raise walk.refused(call, "is a minimum of what has no lower bound")
    return _bounded(walk, call, Constant(0.0), x, bound)


def _negative(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    return _affine(walk, call, values[0], -1.0, 0.0)


def _pad(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    config, value = call.params["padding_config"], values[1]
    sides = [tuple(map(int, entry)) for entry in config]
    x = walk.tensor(call, values[0])
    if not isinstance(value, Constant) or value.sources or len(sides) != 4 or any(min(s) < 0 or s[2] for s in sides):
        raise walk.refused(call, f"pads by {sides}; expected rows and columns, 0 or more, with a number")
    axes = walk.axes(x)
    channels, rows, columns = (sides[axis + 1] for axis in axes)
    if any(sides[0]) or any(channels):
        raise walk.refused(call, f"pads by {sides}, which is not rows and columns alone")
    layer = Pad("", (rows[0], rows[1], columns[0], columns[1]), float(np.asarray(value.value)))
    made = walk.network.layer(walk.name(call), layer, walk.settled(call, x, axes))
    return with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))


def _dropout(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Any:
    """`dropout: rate whole active`."""
    rate, whole, _ = call.primitive.partition(":")[2].split()
    if int(whole) or float(rate) >= 1:
        raise walk.refused(call, "drops whole channels, or everything, which is not supported")
    return _each(walk, call, Dropout("", float(rate)), values[0]) if float(rate) else values[0]


def _batch_norm(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """`batch norm: axis eps momentum frozen names`, of a map or features and the arrays of these names."""
    axis, eps, momentum, frozen, names = call.primitive.partition(":")[2].split()
    arrays = dict(zip(names.split(","), values[1:], strict=True))
    x = walk.tensor(call, values[0])
    rank = len(x.source_shape)
    place = int(axis) - 1
    if place < 0 or rank not in (1, 3) or not all(isinstance(array, Constant) for array in arrays.values()):
        raise walk.refused(call, f"is over axis {axis} of {rank + 1}; expected the channels")
    layer = BatchNorm(
        "",
        float(eps),
        1 - float(momentum),
        "weight" in arrays,
        False,
        "bias" in arrays,
        walk.training and bool(int(frozen)),
    )
    name = walk.name(call)
    given = walk.arrays(call, name, arrays)
    if rank == 1:
        flat = walk.flat(call, x)
        turned = {key: permuted(array, flat) for key, array in given.items()}
        return replace(walk.network.layer(name, layer, Tensor(flat.step, flat.shape), turned), order=flat.order)
    axes = (place, *(other for other in range(3) if other != place))
    made = walk.network.layer(name, layer, walk.settled(call, x, axes), given)
    return with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))


OPERATIONS: Mapping[str, Operation] = {
    "conv_general_dilated": _conv,
    "dot_general": _dense,
    "reduce_window_max": max_pool,
    "reduce_window_sum": window_sum,
    "reduce_sum": _reduce_sum,
    "reduce_max": _reduce_max,
    "add": _add,
    "add_any": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": _negative,
    "max": _max,
    "min": _min,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "pad": _pad,
    "logistic": _pointwise(Sigmoid),
    "tanh": _pointwise(Tanh),
    "relu": _pointwise(ReLU),
    "relu6": lambda walk, call, values: _each(walk, call, Clip("", 0.0, 6.0), values[0]),
    "silu": _pointwise(SiLU),
    "hard_sigmoid": _pointwise(HardSigmoid),
    "hard_silu": _pointwise(HardSwish),
    "softmax": _softmax,
    "log_softmax": _softmax,
    "leaky": _leaky,
    "dropout": _dropout,
    "batch norm": _batch_norm,
}


def supported() -> list[str]:
    """The primitives and functions that can be taken over."""
    return sorted({*OPERATIONS, *VIEWS})
