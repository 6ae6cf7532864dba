"""Values in any order that exchanging axes makes, and channels in any order, by layers that the spec has.

Pixels to channels and back, heads of detectors that are turned before they are joined, maps with the channels last:
each is a transposition of an array of some axes. A `ChannelShuffle` exchanges the first two axes of (groups, others,
rest), a `Reshape` says which they are, and a few of them make any transposition."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import AvgPool, ChannelShuffle, Layer, MaxPool, Reshape, Shape

Order = NDArray[np.intp]
_MOST_AXES = 6  # of an array that is transposed: 720 orders
_MOST_PARTS = 64  # that channels in another order are cut into


def transposed(base: Shape, order: Order) -> tuple[Layer, ...] | None:
    """The layers that give an output of the shape `base` in this order: for every value of the result, in its shape (a
    map's or features'), its place in channels-height-width order. None where no exchange of axes does."""
    axes = _axes(order) if order.ndim in (1, 3) and order.size == math.prod(base) else None
    if axes is None:
        return None
    sizes, moves = axes
    layers: list[Layer] = []
    shape = base
    for first, second in moves:
        groups, others = math.prod(sizes[:first]), math.prod(sizes[first:second])
        if len(shape) != 3 or shape[0] != groups * others:
            shape = (groups * others, 1, math.prod(sizes[second:]))
            layers.append(Reshape("axes", shape))
        layers.append(ChannelShuffle("transpose", groups))
        sizes = (*sizes[first:second], *sizes[:first], *sizes[second:])
    if shape != order.shape:
        layers.append(Reshape("reshape", order.shape))
    return tuple(layers)


def _axes(order: Order) -> tuple[Shape, tuple[tuple[int, int], ...]] | None:
    """The sizes of the fewest axes that are exchanged, as they are in the output, and how: of (first, second) each, the
    axes up to `first` change places with those from there up to `second`."""
    sizes: list[int] = []
    strides: list[int] = []
    rest = order.ravel()
    while rest.size > 1:
        stride = int(rest[1]) - int(rest[0])
        others = np.flatnonzero(np.diff(rest) != stride)
        size = int(others[0]) + 1 if others.size else rest.size
        if stride < 1 or rest.size % size or len(sizes) == _MOST_AXES:
            return None
        rows = rest.reshape(-1, size)
        rest = rows[:, 0]
        if (rows != rest[:, None] + stride * np.arange(size)).any():
            return None
        sizes.insert(0, size)
        strides.insert(0, stride)
    kept = sorted(range(len(sizes)), key=lambda axis: -strides[axis])  # as they are in the output
    before = tuple(sizes[axis] for axis in kept)
    whole = [math.prod(before[place + 1 :]) for place in range(len(kept))]
    if int(order.flat[0]) or [strides[axis] for axis in kept] != whole:
        return None
    return before, _exchanges(tuple(kept.index(axis) for axis in range(len(kept))))


def _exchanges(wanted: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """The fewest exchanges of the leading axes with those that follow them by which 0, 1, 2 ... become `wanted`."""
    start = tuple(range(len(wanted)))
    ways: dict[tuple[int, ...], tuple[tuple[int, int], ...]] = {start: ()}
    waiting = deque([start])
    while wanted not in ways:
        axes = waiting.popleft()
        for first, second in combinations(range(1, len(axes) + 1), 2):
            moved = (*axes[first:second], *axes[:first], *axes[second:])
            if moved not in ways:
                ways[moved] = (*ways[axes], (first, second))
                waiting.append(moved)
    return ways[wanted]


def as_map(shape: Shape) -> Shape:
    """The shape that the spec gives an output that is neither a map nor features: boxes and their coordinates."""
    return shape if len(shape) in (1, 3) else (shape[0], shape[1], math.prod(shape[2:]))


def output_remark(name: str, shape: Shape) -> str:
    """What is said of such an output."""
    sizes = ", ".join(map(str, shape))
    return f"the output {name!r} is (batch, {sizes}) in the source, here (batch, {', '.join(map(str, as_map(shape)))})"


def channel_parts(base: Shape, order: Order) -> Sequence[tuple[int, int]] | None:
    """For whole channels in another order, left out, or several times: the parts, from channel to channel, that make
    them one behind the other. None for another order, and for more than 64 parts."""
    if len(base) not in (1, 3) or order.ndim != len(base) or order.shape[1:] != base[1:] or not order.size:
        return None
    area = math.prod(base[1:])
    rows = order.reshape(len(order), area)
    if (rows[:, 0] % area).any() or (rows != rows[:, :1] + np.arange(area)).any():
        return None
    channels = rows[:, 0] // area
    starts = [0, *(np.flatnonzero(np.diff(channels) != 1) + 1).tolist(), len(channels)]
    if len(starts) > _MOST_PARTS + 1:
        return None
    return [(int(channels[a]), int(channels[z - 1]) + 1) for a, z in pairwise(starts)]


def over_channels(pool: type[AvgPool | MaxPool], shape: Shape) -> tuple[Layer, ...]:
    """The mean, or the maximum, over the channels at every place: they are the rows of a pool's one window."""
    channels, places = shape[0], math.prod(shape[1:])
    window = (channels, 1)
    return Reshape("rows", (1, channels, places)), pool("channels", window, window), Reshape("map", (1, *shape[1:]))


def larger_of_two(shape: Shape) -> tuple[Layer, ...]:
    """Of two maps (or features) of one shape, concatenated, the larger value at every place. Ties are the first's."""
    number = math.prod(shape)
    window = (2, 1)
    return (
        Reshape("pair", (2 * number, 1, 1)),
        ChannelShuffle("pairs", 2),
        Reshape("rows", (number, 2, 1)),
        MaxPool("larger", window, window),
        Reshape("map", shape),
    )
