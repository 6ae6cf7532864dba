"""ONNX's operators that move values and compute none: shapes, orders of axes, parts, padding, repetition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from triptych.importers import onnx_resize
from triptych.importers.network_builder import Order, Tensor, axes_of, with_axes
from triptych.importers.onnx_call import Convert, OnnxCall
from triptych.importers.onnx_constants import full_shape
from triptych.importers.same_padding import pads as padded_by
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import MaxPool, Pad, Pair, Slice, Upsample

_MOST_REPEATED = 1 << 14  # rows or columns
_MOST_TAKEN = 1 << 25  # values of one image in another order: 256 MB
_AXES: tuple[Literal["channels", "rows", "columns"], ...] = ("channels", "rows", "columns")


def _placed(call: OnnxCall, order: Order) -> Tensor:
    return call.network.rearranged(call.name, call.x, order)


def flatten(call: OnnxCall) -> Tensor:
    """`Flatten` at axis 1, which leaves the images apart."""
    if call.count("axis", 1) not in (1, -len(call.x.source_shape)):
        raise ImportRefusedError(f"has axis {call.count('axis', 1)}, expected 1: the images of a batch stay apart")
    return _placed(call, call.x.places().ravel())


def reshape(call: OnnxCall) -> Tensor:
    """`Reshape` to a shape that is known."""
    x, target = call.x, call.needed(1, "shape")
    try:
        shape = full_shape((call.batch, *x.source_shape), target, call.count("allowzero", 0))
    except (ValueError, IndexError) as error:
        raise ImportRefusedError(f"does not fit its input: {error}") from None
    if not shape or shape[0] != call.batch:
        raise ImportRefusedError(
            f"gives (batch, {', '.join(map(str, x.source_shape))}) the shape {target.ravel().tolist()}, which does not "
            "leave the images of a batch apart; export it with a batch that is symbolic, or with its own size"
        )
    return _placed(call, x.places().reshape(shape[1:]))


def squeeze(call: OnnxCall) -> Tensor:
    """`Squeeze`."""
    axes = call.axes()
    if axes is None:
        raise ImportRefusedError("has no axes, so that it would take off a batch of one image; export it with axes")
    if any(call.x.source_shape[axis] != 1 for axis in axes):
        raise ImportRefusedError(f"squeezes axes of {call.x.source_shape} that are larger than 1")
    return _placed(call, np.squeeze(call.x.places(), tuple(axes)))


def unsqueeze(call: OnnxCall) -> Tensor:
    """`Unsqueeze`, whose axes count in its output's shape."""
    axes = call.whole_numbers(1, "axes") or []
    rank = len(call.x.source_shape) + 1 + len(axes)
    places = [axis % rank - 1 for axis in axes if -rank <= axis < rank and axis % rank]
    if len(set(places)) != len(axes) or rank > 7:
        raise ImportRefusedError(f"has axes {axes[:9]}, expected different ones behind the batch")
    return _placed(call, np.expand_dims(call.x.places(), tuple(places)))


def transpose(call: OnnxCall) -> Tensor:
    """`Transpose` that leaves the batch in front."""
    rank = len(call.x.source_shape) + 1
    axes = call.numbers("perm", list(range(rank))[::-1]) or []
    if sorted(axes) != list(range(rank)) or axes[0] != 0:
        raise ImportRefusedError(f"has perm {axes[:9]}, expected one of {rank} axes that leaves the batch in front")
    return _placed(call, call.x.places().transpose([axis - 1 for axis in axes[1:]]))


def gather(call: OnnxCall) -> Tensor:
    """`Gather` of one index, of neighbours in order, which is a slice, or of channels in any order."""
    axis, indices = call.axis(call.count("axis", 0)), call.needed(1, "indices")
    size = call.x.source_shape[axis]
    numbers = [int(each) % size if -size <= each < size else -1 for each in indices.ravel()]
    if not numbers or indices.ndim > 1 or min(numbers) < 0:
        raise ImportRefusedError(f"takes {indices.ravel()[:9].tolist()} of {size}, expected places there, in a row")
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        if len(numbers) * np.prod(call.x.source_shape, dtype=float) > _MOST_TAKEN * size:
            raise ImportRefusedError(f"takes {len(numbers)} of {size} places, which are no neighbours")
        return _placed(call, call.x.places().take(numbers, axis))
    y = _sliced(call, call.name, axis, numbers[0], numbers[-1] + 1)
    return y if indices.ndim else call.network.rearranged(call.name, y, np.squeeze(y.places(), axis))


def slice_(call: OnnxCall) -> Tensor:
    """`Slice`; by other steps than 1, every n-th row or column."""
    starts, ends = call.whole_numbers(1, "starts") or [], call.whole_numbers(2, "ends") or []
    axes = call.axes(3, batch=True) if "axes" in call.node.attributes or len(call.values) > 3 else None
    steps = call.whole_numbers(4, "steps") or [1] * len(starts)
    axes = list(range(-1, len(starts) - 1)) if axes is None else axes  # by default from the batch on
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ImportRefusedError(
            f"has starts {starts[:9]}, ends {ends[:9]} and steps {steps[:9]}, expected as many of each"
        )
    y, name = call.x, call.name
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = call.batch if axis < 0 else call.x.source_shape[axis]
        if step < 0:
            y = _backwards(y, axis, slice(start, end, step))
            continue
        first, last, _ = slice(start, end).indices(size)
        if (first, last) != (0, size):
            if axis < 0:
                raise ImportRefusedError("takes a part of the images of a batch")
            y = _part(call, name, y, axis, first, last)
        if step != 1:
            y = _every(call, y, axis, step)
    return y


def _backwards(x: Tensor, axis: int, part: slice) -> Tensor:
    """Channels or features in the other order; rows and columns are refused where something takes them."""
    if axis < 0:
        raise ImportRefusedError("takes the images of a batch in another order")
    backwards = part.indices(x.source_shape[axis])
    return Tensor(x.step, x.shape, x.places().take(list(range(*backwards)), axis))


def depth_to_space(call: OnnxCall) -> Tensor:
    """`DepthToSpace`: of the channels, (rows, columns, others) of a block, or (others, rows, columns) in mode CRD."""
    block, mode = call.count("blocksize", 0), call.text("mode", "DCR", ("DCR", "CRD"))
    channels, rows, columns = _blocks(call, block, channels=True)
    others = channels // block**2
    split = (block, block, others, rows, columns) if mode == "DCR" else (others, block, block, rows, columns)
    axes = (2, 3, 0, 4, 1) if mode == "DCR" else (0, 3, 1, 4, 2)
    order = call.x.places().reshape(split).transpose(axes)
    return _placed(call, order.reshape(others, rows * block, columns * block))


def space_to_depth(call: OnnxCall) -> Tensor:
    """`SpaceToDepth`."""
    block = call.count("blocksize", 0)
    channels, rows, columns = _blocks(call, block, channels=False)
    split = (channels, rows // block, block, columns // block, block)
    order = call.x.places().reshape(split).transpose(2, 4, 0, 1, 3)
    return _placed(call, order.reshape(channels * block**2, rows // block, columns // block))


def _blocks(call: OnnxCall, block: int, *, channels: bool) -> tuple[int, int, int]:
    shape = call.x.source_shape
    sizes = (shape[0],) if channels else shape[1:]
    if len(shape) != 3 or block < 1 or any(size % (block**2 if channels else block) for size in sizes):
        raise ImportRefusedError(f"has the blocksize {block} for {shape} (without the batch)")
    return shape[0], shape[1], shape[2]


def _every(call: OnnxCall, x: Tensor, axis: int, step: int) -> Tensor:
    """Every n-th row or column from the first on: what a pool of one pixel takes."""
    axes = axes_of(x)
    if len(x.shape) != 3 or axis < 0 or axes[axis] == 0:
        raise ImportRefusedError(f"takes every {step}th image, channel or feature; expected rows or columns")
    stride = (step, 1) if axes[axis] == 1 else (1, step)
    pool = MaxPool(call.name, (1, 1), stride)
    return with_axes(call.network.layer(call.name, pool, Tensor(x.step, x.shape)), axes)


def split(call: OnnxCall) -> list[Tensor]:
    """`Split` into parts, each of which is a slice."""
    axis = call.axis(call.count("axis", 0))
    size, count = call.x.source_shape[axis], len(call.node.outputs)
    call.count("num_outputs", count)
    share = -(-size // count)
    sizes = call.whole_numbers(1, "split") or [min(share, size - share * part) for part in range(count)]
    if sum(sizes) != size or len(sizes) != count or min(sizes) < 1:
        raise ImportRefusedError(f"splits {size} into {sizes[:9]}, expected {count} parts that add up")
    edges = np.cumsum([0, *sizes]).tolist()
    return [_sliced(call, f"{call.name}_{part}", axis, edges[part], edges[part + 1]) for part in range(count)]


def _sliced(call: OnnxCall, name: str, axis: int, start: int, stop: int) -> Tensor:
    return _part(call, name, call.x, axis, start, stop)


def _part(call: OnnxCall, name: str, x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """From `start` up to `stop` along an axis of the source's."""
    if len(x.shape) == 1:
        return call.network.layer(name, Slice(name, "channels", start, stop), x)
    axes = axes_of(x)
    return with_axes(
        call.network.layer(name, Slice(name, _AXES[axes[axis]], start, stop), Tensor(x.step, x.shape)), axes
    )


def concat(call: OnnxCall) -> Tensor:
    """`Concat` along the channels."""
    tensors = [call.network.as_map(x, call.name) for x in call.tensors]
    axis = call.axis(call.count("axis", 1))
    ranks = {len(x.source_shape) for x in tensors}
    if ranks == {2} and axis == 0:
        return _rows_joined(call, tensors)
    orders = {axes_of(x) for x in tensors} if ranks == {3} else {(0,)} if ranks == {1} else set()
    if len(orders) != 1 or next(iter(orders))[axis] != 0:
        raise ImportRefusedError(
            f"puts {[x.source_shape for x in tensors][:5]} together along axis {axis + 1}, expected the channels"
        )
    if len(tensors) == 1:
        return tensors[0]
    if ranks == {1}:
        return call.network.merge(call.name, tensors, "concatenate")
    plain = [Tensor(x.step, x.shape) for x in tensors]
    return with_axes(call.network.merge(call.name, plain, "concatenate"), orders.pop())


def _rows_joined(call: OnnxCall, tensors: Sequence[Tensor]) -> Tensor:
    """Rows of numbers, one set behind the other: boxes of all maps of a detector. Here they are flat."""
    width = tensors[0].source_shape[1]
    if any(x.source_shape[1] != width for x in tensors):
        raise ImportRefusedError(f"puts rows of different lengths together: {[x.source_shape for x in tensors][:5]}")
    name = f"{call.name}_flatten"
    flat = [
        call.network.canonical(Tensor(x.step, x.shape, x.places().ravel()), f"{name}_{number}")
        for number, x in enumerate(tensors)
    ]
    y = call.network.merge(call.name, flat, "concatenate")
    return Tensor(y.step, y.shape, y.places().reshape(-1, width))


def pad(call: OnnxCall) -> Tensor:
    """`Pad` of rows, columns and, by a constant, channels. Less than nothing, by a constant, is cut off."""
    x, axes = call.x, axes_of(call.x)
    mode = call.text("mode", "constant", ("constant", "edge", "reflect"))
    pads = call.whole_numbers(1, "pads") or []
    value = call.scalar(2, "value", 0.0)
    listed = call.axes(3, batch=True) if len(call.values) > 3 else None
    listed = list(range(-1, len(x.shape))) if listed is None else listed
    least = -(1 << 31) if mode == "constant" else 0
    if len(pads) != 2 * len(listed) or not all(least <= each < 1 << 31 for each in pads) or len(x.shape) != 3:
        raise ImportRefusedError(f"has pads {pads[:9]} for a map {x.source_shape}, expected two from 0 for every axis")
    sides = {axis: (pads[place], pads[place + len(listed)]) for place, axis in enumerate(listed)}
    by_axis = {axes[axis] if axis >= 0 else -1: pair for axis, pair in sides.items()}
    if min(pads) < 0 and min(by_axis.get(-1, (0, 0))) == 0:
        x, by_axis = _cut(call, x, by_axis)
    channels = by_axis.get(0, (0, 0))
    if by_axis.get(-1, (0, 0)) != (0, 0) or (any(channels) and mode != "constant"):
        raise ImportRefusedError(f"pads images or channels ({pads[:9]}), channels by a constant")
    padding = (*by_axis.get(1, (0, 0)), *by_axis.get(2, (0, 0)))
    if any(channels):
        y = Tensor(x.step, x.shape)
        for part in padded_by(x.shape, channels, padding, value):
            y = call.network.layer(call.name, part, y)
        return with_axes(y, axes)
    if not any(padding):
        return x
    layer = Pad(call.name, padding, value, "edge" if mode == "edge" else "reflect" if mode == "reflect" else "constant")
    return with_axes(call.network.layer(call.name, layer, Tensor(x.step, x.shape)), axes)


def _cut(call: OnnxCall, x: Tensor, by_axis: Mapping[int, Pair]) -> tuple[Tensor, dict[int, Pair]]:
    """Without what is padded by less than nothing, and what is left to pad."""
    axes, y = axes_of(x), Tensor(x.step, x.shape)
    for axis, (first, last) in by_axis.items():
        if min(first, last) < 0:
            part = Slice(f"{call.name}_crop", _AXES[axis], max(-first, 0), x.shape[axis] - max(-last, 0))
            y = call.network.layer(part.name, part, y)
    return with_axes(y, axes), {axis: (max(first, 0), max(last, 0)) for axis, (first, last) in by_axis.items()}


def expand(call: OnnxCall) -> Tensor:
    """`Expand` to its own shape, or of one row or column to many: what a map of one pixel is repeated by."""
    x = call.x
    wanted = [int(size) for size in call.needed(1, "shape").ravel()]
    own = (call.batch, *x.source_shape)
    wanted = [1] * (len(own) - len(wanted)) + wanted
    if len(wanted) == len(own) and all(size in (1, has) for size, has in zip(wanted, own, strict=True)):
        return x
    x = call.network.as_map(x, call.name)
    axes = axes_of(x)
    factors = {axes[place]: size for place, size in enumerate(wanted[1:]) if size != 1 and own[place + 1] == 1}
    fits = len(wanted) == len(own) == 4 and all(s in (1, h) or h == 1 for s, h in zip(wanted, own, strict=True))
    if not fits or wanted[0] not in (1, call.batch) or 0 in factors or max(wanted) > _MOST_REPEATED:
        raise ImportRefusedError(f"repeats values of {x.source_shape} (without the batch), which is not supported")
    layer = Upsample(call.name, (factors.get(1, 1), factors.get(2, 1)))
    return with_axes(call.network.layer(call.name, layer, Tensor(x.step, x.shape)), axes)


CONVERTERS: Mapping[str, Convert] = {
    "Flatten": flatten,
    "Reshape": reshape,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Gather": gather,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Slice": slice_,
    "Split": split,
    "Concat": concat,
    "Pad": pad,
    "Expand": expand,
    **onnx_resize.CONVERTERS,
}
