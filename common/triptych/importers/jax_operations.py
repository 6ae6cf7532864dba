"""Primitives of JAX on images: for each, what it becomes. Sums, products and windows have modules of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.activations import ACTIVATIONS, LARGEST, named
from triptych.importers.jax_arithmetic import (
    add,
    concatenate,
    div,
    mul,
    negative,
    per_channel,
    reduce_max,
    reduce_sum,
    sub,
    trained_layer,
)
from triptych.importers.jax_numbers import as_written
from triptych.importers.jax_program import Constant, JaxCall
from triptych.importers.jax_walk import FIRST, LAST, VIEWS
from triptych.importers.jax_windows import conv, max_pool, window_sum
from triptych.importers.network_builder import Tensor, permuted, with_axes
from triptych.importers.same_padding import pads
from triptych.spec.layers import (
    BatchNorm,
    Clip,
    Conv,
    Dense,
    Dropout,
    L2Normalize,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    PReLU,
    ReLU,
    Softmax,
)

if TYPE_CHECKING:
    from triptych.importers.jax_walk import JaxWalk

_NO_BOUND = 2.0**-126  # the smallest normal number of 32 bits: an image of zeros, NaN in the module, gives zeros
Operation = Callable[["JaxWalk", JaxCall, list[Any]], Any]


def _pointwise(layer: Layer) -> Operation:
    def operation(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
        return _each(walk, call, layer, values[0])

    return operation


def _each(walk: JaxWalk, call: JaxCall, layer: Layer, value: Any, word: str = "") -> Tensor:
    """A layer that does the same to every value of its channel, so that it keeps their order."""
    x = walk.whole(call, value)
    return walk.network.pointwise(walk.name(call, word), layer, x)


def _activation(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    layer = call.params["layer"]
    return _each(walk, call, layer, values[0], type(layer).__name__.lower())


def _dense(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x, weight = values
    (taken, given), batched = call.params["dimension_numbers"]
    whole = len(taken) == len(walk.tensor(call, x).source_shape) and 0 not in taken  # of all axes of a map
    if any(map(len, batched)) or not isinstance(weight, Constant) or np.ndim(weight.value) - len(given) != 1:
        raise walk.refused(call, "is no product of features with a constant matrix, as of a dense layer")
    order = [axis for _, axis in sorted(zip(taken, given, strict=True))]
    matrix = np.moveaxis(np.asarray(weight.value), order, range(1, len(order) + 1)).reshape(call.shape[-1], -1)
    x = walk.tensor(call, x)
    if whole and len(taken) > 1:
        x = Tensor(x.step, x.shape, x.places().ravel())
        taken = (1,)
    rank = len(x.source_shape)
    if len(taken) != 1 or taken[0] != rank or rank not in (1, 3):
        raise walk.refused(
            call, f"is over the axes {tuple(taken)} of {rank + 1}; expected the last of 2 or 4, or all of a map"
        )
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


def _normalize(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    eps = _numbers(walk, call, values[1:]) or [_NO_BOUND]
    x, axes = _along_channels(walk, call, values[0], call.params["axes"])
    layer = L2Normalize("", eps[0], bound=bool(call.params["bound"]))
    return with_axes(walk.network.layer(walk.name(call), layer, x), axes)


def _response_norm(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """Of `x, k, alpha, beta`."""
    k, alpha, beta = _numbers(walk, call, values[1:])
    divided, multiplied = call.params["signs"]
    sizes, padding = call.params["window_dimensions"], call.params["padding"]
    channels = [axis for axis, size in enumerate(sizes) if size != 1]
    spread = {*call.params["base_dilation"], *call.params["window_dilation"], *call.params["window_strides"]}
    size = sizes[channels[0]] if len(channels) == 1 else 0
    sides = [(size // 2,) * 2 if axis in channels else (0, 0) for axis in range(len(sizes))]
    if size % 2 == 0 or spread != {1} or [tuple(pair) for pair in padding] != sides:
        raise walk.refused(call, f"has windows of {sizes}; expected an odd number of channels, centred")
    x, axes = _along_channels(walk, call, values[0], channels)
    numbers = alpha if multiplied else 1 / alpha, beta if divided else -beta
    layer = LocalResponseNorm("", size, *numbers, k, divide_alpha=False)
    return with_axes(walk.network.layer(walk.name(call), layer, x), axes)


def _along_channels(walk: JaxWalk, call: JaxCall, value: Any, over: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """The value with the axis `over` as its channels, and how to turn the result back."""
    x = walk.tensor(call, value)
    rank = len(x.source_shape)
    if len(over) != 1 or over[0] < 1 or rank not in (1, 3):
        raise walk.refused(call, f"is along the axes {tuple(over)} of {rank + 1}; expected the channels")
    axes = (over[0] - 1, *(axis for axis in range(rank) if axis != over[0] - 1))
    return walk.settled(call, x, axes), tuple(int(axis) for axis in np.argsort(axes))


def _numbers(walk: JaxWalk, call: JaxCall, values: list[Any]) -> list[float]:
    if any(not isinstance(v, Constant) or v.sources or np.unique(np.asarray(v.value)).size != 1 for v in values):
        raise walk.refused(call, "has other values than numbers")
    return [as_written(np.asarray(value.value).flat[0]) for value in values]


def _leaky(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    x, slope, bound = walk.whole(call, values[0]), values[1], values[2]
    if (np.asarray(bound.value) != 0).any():
        raise walk.refused(call, "chooses by another bound than 0")
    numbers = replace(slope, value=per_channel(walk, call, slope, x))
    one = np.size(numbers.value) == 1
    if slope.sources:
        return trained_layer(walk, call, PReLU("", shared=one and x.shape[0] != 1), x, {"weight": numbers})
    if not one and len(set(numbers.value)) > 1:
        raise walk.refused(call, "has several constant slopes")
    return _each(walk, call, LeakyReLU("", as_written(numbers.value[0])), x)


def _clamp(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    low, x, high = values
    return _each(walk, call, Clip("", *_numbers(walk, call, [low, high])), x)


def _bound(upper: bool) -> Operation:
    """The larger, or the smaller, of each value and a number, or of two maps. Of 0 the larger is ReLU."""

    def operation(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
        x, bound = values if isinstance(values[1], Constant) else values[::-1]
        if not isinstance(bound, Constant):
            return _of_two(walk, call, values, -1.0 if upper else 1.0)
        (number,) = _numbers(walk, call, [bound])
        if not upper:
            return _each(walk, call, Clip("", number, LARGEST) if number else ReLU(""), x)
        step = walk.network.last(x) if isinstance(x, Tensor) else None
        low = 0.0 if step is not None and isinstance(step.layer, ReLU) else -LARGEST
        return _each(walk, call, Clip("", low, number), x)

    return operation


def _of_two(walk: JaxWalk, call: JaxCall, values: list[Any], sign: float) -> Tensor:
    """The larger of two maps at every place, or, of the sign -1, the smaller."""
    first, second = (walk.tensor(call, value) for value in values)
    if first.source_shape != second.source_shape:
        raise walk.refused(call, f"takes {first.source_shape} and {second.source_shape}; expected one shape")
    axes = walk.axes(first)
    made = walk.network.larger(walk.name(call), [walk.settled(call, each, axes) for each in (first, second)], sign)
    return with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))


def _pad(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    config, value = call.params["padding_config"], values[1]
    sides = [tuple(map(int, entry)) for entry in config]
    x = walk.tensor(call, values[0])
    if not isinstance(value, Constant) or value.sources or len(sides) != 4 or any(min(s) < 0 or s[2] for s in sides):
        raise walk.refused(call, f"pads by {sides}; expected rows and columns, 0 or more, with a number")
    axes = walk.axes(x)
    channels, rows, columns = ((sides[axis + 1][0], sides[axis + 1][1]) for axis in axes)
    if any(sides[0]):
        raise walk.refused(call, f"pads by {sides}, the images of a batch too")
    made = walk.settled(call, x, axes)
    for layer in pads(made.shape, channels, (*rows, *columns), float(np.asarray(value.value))):
        made = walk.network.layer(walk.name(call), layer, made)
    return with_axes(made, tuple(int(axis) for axis in np.argsort(axes)))


def _dropout(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Any:
    """`dropout: rate shared active`; shared: the axes along which there is one mask for all, or `-`."""
    rate, shared, _ = call.primitive.partition(":")[2].split()
    if shared != "-" or float(rate) >= 1:
        raise walk.refused(call, "drops whole channels, or everything, which is not supported")
    return _each(walk, call, Dropout("", float(rate)), values[0]) if float(rate) else values[0]


def _batch_norm(walk: JaxWalk, call: JaxCall, values: list[Any]) -> Tensor:
    """`batch norm: axis eps momentum unbiased frozen names`, of a map or features and the arrays of these names."""
    axis, eps, momentum, unbiased, frozen, names = call.primitive.partition(":")[2].split()
    arrays = dict(zip(names.split(","), values[1:], strict=True))
    x = walk.tensor(call, values[0])
    rank = len(x.source_shape)
    place = int(axis) - 1
    if place < 0 or rank not in (1, 3) or not all(isinstance(array, Constant) for array in arrays.values()):
        raise walk.refused(call, f"is over axis {axis} of {rank + 1}; expected the channels")
    if not (walk.training or int(frozen)):
        raise walk.refused(call, "takes the statistics of the batch in evaluation, too")
    layer = BatchNorm(
        "",
        float(eps),
        1 - float(momentum),
        "weight" in arrays,
        bool(int(unbiased)),
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
    "reduce_sum": reduce_sum,
    "reduce_max": reduce_max,
    "add": add,
    "add_any": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "neg": negative,
    "max": _bound(upper=False),
    "min": _bound(upper=True),
    "clamp": _clamp,
    "concatenate": concatenate,
    "pad": _pad,
    **{name: _pointwise(layer) for name, layer in named("jax").items()},
    "activation": _activation,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "l2 normalize": _normalize,
    "response norm": _response_norm,
    "leaky": _leaky,
    "dropout": _dropout,
    "batch norm": _batch_norm,
}


def supported() -> list[str]:
    """The primitives and functions that can be taken over."""
    activations = {type(row.layer).__name__.lower() for row in ACTIVATIONS}
    return sorted({*OPERATIONS, *VIEWS, *activations} - {"activation"})
