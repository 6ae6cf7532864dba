"""What is known of a value on its way through an imported PyTorch program: which step gives it, and in what order.

Reshapes, transpositions and slices are followed as what they do to an array of numbered places, and become layers only
where something takes the result: a flatten, a slice, a shuffle of channels, an upsampling, or new columns of a dense
layer."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import ChannelShuffle, Flatten, Layer, MaxPool, Pad, Pair, Reshape, Shape, Slice, Upsample

Order = NDArray[np.intp]
_MOST_PLACES = 100_000_000


@dataclass(frozen=True, eq=False)
class Map:
    """The output of `step`, of the shape `base` without the batch. `order` (None: as it is) has, in the value's own
    shape, the place in channels-height-width order of the output at which each value stands. `name`: of what made it
    so."""

    step: str
    base: Shape
    order: Order | None = None
    name: str = ""

    @property
    def shape(self) -> Shape:
        return self.base if self.order is None else self.order.shape

    def places(self) -> Order:
        """Raises ValueError for a map of more than a hundred million values."""
        return numbered(self.base) if self.order is None else self.order


def numbered(shape: Shape) -> Order:
    """The places of a map in channels-height-width order. Raises ValueError for more than a hundred million."""
    if math.prod(shape) > _MOST_PLACES:
        raise ValueError(f"a map of the shape {shape} has more than {_MOST_PLACES} values")
    return np.arange(math.prod(shape)).reshape(shape)


def per_image(result: Any, base: Shape, batch: int) -> Order | None:
    """The order of one image, if a rearranged batch of numbered places still has the images apart; else None."""
    rows = np.asarray(result)
    if (
        rows.ndim < 1
        or len(rows) != batch
        or any((rows[i] != rows[0] + i * math.prod(base)).any() for i in range(batch))
    ):
        return None
    order: Order = rows[0]
    return order


def in_order(value: Map) -> bool:
    """Whether the values are those of the step in its own order, in whatever shape."""
    places = value.places().ravel()
    return bool(np.array_equal(places, np.arange(math.prod(value.base))))


def unrepeated(value: Map) -> Map:
    """The value with one row, column or channel where all are the same place: what was expanded to a larger map."""
    order = value.order
    if order is None:
        return value
    for axis in range(order.ndim):
        first = order.take([0], axis)
        order = first if order.shape[axis] > 1 and (order == first).all() else order
    return replace(value, order=order)


def rearrangement(value: Map) -> tuple[Layer, ...] | None:
    """The layers, called by what they are, that make the value of the step's output; None if none do."""
    if value.order is None or (value.shape == value.base and in_order(value)):
        return ()
    if in_order(value):
        if len(value.shape) == 1:
            return (Flatten("flatten"),)
        return (Reshape("reshape", value.shape),) if len(value.shape) == 3 else None
    if value.shape == value.base and len(value.base) == 3:
        return _shuffle(value)
    return (_upsampled(value) or _slices(value) or _padded(value)) if len(value.shape) == len(value.base) else None


def _shuffle(value: Map) -> tuple[Layer, ...] | None:
    channels, height, width = value.base
    second = int(value.places()[min(1, channels - 1), 0, 0]) // (height * width)
    if second == 0 or channels % second:
        return None
    shuffled = numbered(value.base).reshape(channels // second, second, height, width).swapaxes(0, 1)
    same = np.array_equal(shuffled.reshape(value.base), value.places())
    return (ChannelShuffle("shuffle", channels // second),) if same else None


def _upsampled(value: Map) -> tuple[Layer, ...] | None:
    """Every row and column repeated."""
    if len(value.base) != 3 or any(size % own for size, own in zip(value.shape, value.base, strict=True)):
        return None
    factor = (value.shape[1] // value.base[1], value.shape[2] // value.base[2])
    repeated = numbered(value.base).repeat(factor[0], 1).repeat(factor[1], 2)
    same = factor != (1, 1) and np.array_equal(repeated, value.places())
    return (Upsample("upsample", factor),) if same else None


def _slices(value: Map) -> tuple[Layer, ...] | None:
    """A box of the map, or every n-th row and column of one: what a pool of one pixel with a stride takes."""
    if not value.places().size:
        return None
    first, last = (np.unravel_index(int(value.places().flat[end]), value.base) for end in (0, -1))
    ends = [(int(a), int(z), size) for a, z, size in zip(first, last, value.shape, strict=True)]
    steps = [max(1, (z - a) // max(1, size - 1)) for a, z, size in ends]
    box = tuple(slice(a, z + 1, step) for (a, z, _), step in zip(ends, steps, strict=True))
    if steps[0] != 1 or not np.array_equal(numbered(value.base)[box], value.places()):
        return None
    axes = ("channels", "rows", "columns")
    slices = tuple(
        Slice(f"slice_{axis}", axis, part.start, part.stop)  # type: ignore[arg-type]
        for axis, part, size in zip(axes, box, value.base, strict=False)
        if part.start or (part.stop - 1) // part.step != (size - 1) // part.step
    )
    stride = tuple(steps[1:])
    return slices if set(stride) <= {1} else (*slices, MaxPool("subsample", (1, 1), (stride[0], stride[1])))


def _padded(value: Map) -> tuple[Layer, ...] | None:
    """The outermost rows and columns again, or those that lie opposite the edge."""
    if len(value.base) != 3 or value.shape[0] != value.base[0]:
        return None
    _, height, width = value.base
    places = value.places()
    lines = (places[0, :, 0] // width, height), (places[0, 0] % width, width)  # where rows, and columns, are from
    if any(len(line) < size for line, size in lines):
        return None
    before = {"edge": [_repeated(line) for line, _ in lines], "reflect": [int(line[0]) for line, _ in lines]}
    for mode in ("edge", "reflect"):
        sides = [(first, len(line) - size - first) for first, (line, size) in zip(before[mode], lines, strict=True)]
        most = [len(line) if mode == "edge" else size - 1 for line, size in lines]
        if any(not 0 <= side <= limit for pair, limit in zip(sides, most, strict=True) for side in pair):
            continue
        if np.array_equal(np.pad(numbered(value.base), ((0, 0), *sides), mode), places):
            return (Pad("pad", (*sides[0], *sides[1]), mode=mode),)
    return None


def _repeated(line: Order) -> int:
    """How often the first entry follows itself."""
    others = np.flatnonzero(line != line[0])
    return int(others[0]) - 1 if len(others) else 0


def channels_of_rows(value: Map) -> Order | None:
    """For a value whose first axis are the channels of the step's map and whose others are its places, in any order: an
    array (channels, places). None if it is not such a value."""
    if len(value.base) != 3 or value.places().size != math.prod(value.base):
        return None
    rows = np.sort(value.places().reshape(value.places().shape[0], -1), axis=1)
    return rows if np.array_equal(rows, numbered(value.base).reshape(value.base[0], -1)[: len(rows)]) else None


def axes_along(order: Order, base: Shape) -> tuple[int | None, ...] | None:
    """Along which axis of the step's map (channels, rows, columns) each axis of a value runs, None where it has one
    place. None of a value that has not all of the map, each axis in its order."""
    strides = [math.prod(base[axis + 1 :]) for axis in range(len(base))]
    found: list[int | None] = []
    for axis, size in enumerate(order.shape):
        step = int(order.take(1, axis).flat[0] - order.flat[0]) if size > 1 else 0
        same = [own for own, stride in enumerate(strides) if (base[own], stride) == (size, step)]
        if size > 1 and not same:
            return None
        found.append(same[0] if size > 1 else None)
    axes = [axis for axis in found if axis is not None]
    left = [axis for axis in range(len(base)) if axis not in axes]
    whole = len(set(axes)) == len(axes) and all(base[axis] == 1 for axis in left)
    same_order = whole and np.array_equal(numbered(base).transpose([*axes, *left]).ravel(), order.ravel())
    return tuple(found) if same_order else None


def pooled_channels(order: Order, base: Shape, over: Iterable[int], shape: Shape) -> Order | None:
    """Of a reduction over the channels alone: the order, in the value's new `shape`, of the map of one channel that it
    gives. None where it is over others."""
    axes = axes_along(order, base) if len(base) == 3 else None
    if axes is None or {axes[axis] for axis in over} - {None} != {0}:
        return None
    kept = [axis for axis in axes if axis]
    left = [axis for axis in range(3) if axis not in kept]
    return numbered((1, *base[1:])).transpose([*kept, *left]).reshape(shape)


def pooled_rows(order: Order, base: Shape, over: Iterable[int], shape: Shape) -> tuple[Pair, Order] | None:
    """Of a reduction over some axes of a value: the window of the pool that is the same, and the order of what it gives
    in the value's new `shape`. None where it is over more than rows and columns."""
    axes = axes_along(order, base) if len(base) == 3 else None
    reduced = {axes[axis] for axis in over} if axes is not None else {0}
    if axes is None or 0 in reduced:
        return None
    kernel = (base[1] if 1 in reduced else 1, base[2] if 2 in reduced else 1)
    kept = [axis for axis in axes if axis is not None and axis not in reduced]
    left = [axis for axis in range(3) if axis not in kept]
    made = numbered((base[0], base[1] // kernel[0], base[2] // kernel[1]))
    return kernel, made.transpose([*kept, *left]).reshape(shape)
