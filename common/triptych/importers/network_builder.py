"""The steps of a network as an importer finds them, with the shape of every value, also of what is laid out otherwise.

A source may hold an image as height-width-channels, flatten it in that order, or go by shapes that the spec does not
have on the way to one that it has. What its nodes hand on is a `Tensor`: the output of a step, and where the source's
values stand in it. The order is cancelled by the source itself, goes into the columns of the next dense layer, or is
refused; it never becomes a layer that moves data without need.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.importers.moves import as_map, channel_parts, larger_of_two, output_remark, transposed
from triptych.importers.steps import ImportRefusedError, Step, merge_only
from triptych.spec.kinds import kind_of
from triptych.spec.kinds.composites import merged_shape
from triptych.spec.kinds.kind import Wire
from triptych.spec.layers import INPUT, Affine, ChannelShuffle, Flatten, Layer, Merge, Reshape, Shape, Slice

if TYPE_CHECKING:
    from triptych.importers.steps import Arrays

_MOST_VALUES = 1 << 25  # of a map whose order is kept: 256 MB, ten times the largest map of a published network

Order = NDArray[np.intp]
_EXCHANGES = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0))  # the likeliest first


@dataclass(frozen=True, eq=False)
class Tensor:
    """What a node of the source hands on for one image: the output of `step` (or of the network's input), which has
    the canonical `shape`. `order`, in the source's shape, says at which place of the canonical output, counted in
    channels-height-width order, each value of the source stands; None: they are the same."""

    step: str
    shape: Shape
    order: Order | None = None

    @property
    def source_shape(self) -> Shape:
        """The shape that the source sees, without the batch."""
        return self.shape if self.order is None else self.order.shape

    def places(self) -> Order:
        """The order, written out. Raises ImportRefusedError for a map that is too large to rearrange."""
        if self.order is not None:
            return self.order
        if (size := int(np.prod(self.shape, dtype=float))) > _MOST_VALUES:
            raise ImportRefusedError(f"rearranges {size} values of one image, more than any network that is known")
        return np.arange(size).reshape(self.shape)


class NetworkBuilder:
    """Collects steps; every method adds some and returns what they hand on. `name` is the file's own for the layer; it
    is made unique. Raises SpecError where a layer does not fit what it takes, ImportRefusedError for an order that none
    of the spec's layers makes."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.remarks: list[str] = []
        self._places: dict[str, int] = {}
        self._repeated: dict[str, int] = {}
        self._moved: dict[tuple[str, Shape, bytes], Tensor] = {}

    def layer(self, name: str, layer: Layer, x: Tensor, arrays: Arrays | None = None) -> Tensor:
        """`layer` on a tensor in canonical order."""
        x = self.canonical(x, f"{name}_reshape")
        return self._add(Step(name, layer, (x.step,), arrays=arrays or {}), x.shape)

    def pointwise(self, name: str, layer: Layer, x: Tensor) -> Tensor:
        """A layer that does the same to every value, so that it keeps their order."""
        return replace(self._add(Step(name, layer, (x.step,)), x.shape), order=x.order)

    def merge(self, name: str, tensors: Sequence[Tensor], merge: Merge) -> Tensor:
        """Several tensors in one; where all are laid out alike, so is their sum or product."""
        first = tensors[0]
        alike = all(x.shape == first.shape and _same_order(x, first) for x in tensors)
        order = first.order
        if merge == "concatenate":
            flat = len(first.shape) == 1 and any(x.order is not None for x in tensors)
            order = _in_a_row(tensors) if flat else None
        if order is None or (not alike and merge != "concatenate"):
            tensors, order = [self.canonical(x, f"{name}_reshape") for x in tensors], None
        wire = Wire(tuple(range(len(tensors))), merge)
        shape = merged_shape(wire, [x.shape for x in tensors], name)
        return Tensor(self._append(merge_only(name, [x.step for x in tensors], merge)), shape, order)

    def row(self, name: str, layers: Sequence[Layer], x: Tensor) -> Tensor:
        """Layers one behind the other, the last of which has the name."""
        for layer in layers:
            own = name if layer is layers[-1] else f"{name}_{layer.name}"
            x = self.layer(own, replace(layer, name=own), x)
        return x

    def larger(self, name: str, pair: Sequence[Tensor], sign: float = 1.0) -> Tensor:
        """The larger of two maps at every place; with the sign -1 the smaller, which is that of both with the other
        sign, with the other sign."""
        pair = [self.canonical(x, f"{name}_reshape") for x in pair]
        shapes = [x.shape for x in pair]
        if shapes[0] != shapes[1]:
            raise ImportRefusedError(f"takes {shapes[0]} and {shapes[1]}, expected two maps of one shape")
        turn = Affine(f"{name}_negative", (sign,))
        if sign < 0:
            pair = [self.layer(turn.name, turn, x) for x in pair]
        joined = self.merge(f"{name}_pair", pair, "concatenate")
        return self.row(name, (*larger_of_two(shapes[0]), *[turn] * (sign < 0)), joined)

    def rearranged(self, name: str, x: Tensor, order: Order) -> Tensor:
        """`x` with its values in this order and shape: as the layer that does it, else remembered."""
        if order.ndim == 1 and len(x.shape) == 3:
            x = self._add(Step(name, Flatten(name), (x.step,)), x.shape)
        if order.shape == x.shape and _in_order(order):
            return Tensor(x.step, x.shape)
        if groups := _shuffle(x.shape, order):
            return self._add(Step(name, ChannelShuffle(name, groups), (x.step,)), x.shape)
        return Tensor(x.step, x.shape, order)

    def last(self, x: Tensor) -> Step | None:
        """The step whose output this is; None for the network's input."""
        return self.steps[self._places[x.step]] if x.step in self._places else None

    def replace(self, step: Step, by: Step) -> None:
        """Put another step of the same name, inputs and output shape in its place."""
        self.steps[self._places[step.name]] = by

    def flat(self, name: str, x: Tensor) -> Tensor:
        """`x` as features, in the order that they have."""
        return self.rearranged(name, x, x.places().ravel())

    def output(self, x: Tensor) -> str:
        """The step whose output is an output of the network. Raises ImportRefusedError for the input itself, and for
        values in another order than the source's."""
        if x.order is not None and _axes(x) is not None:
            self.remarks.append(
                f"the output {x.step!r} is channels, height, width here; the source has {x.order.shape}"
            )
            x = Tensor(x.step, x.shape)
        if (shape := as_map(x.source_shape)) != x.source_shape:
            self.remarks.append(output_remark(x.step, x.source_shape))
            x = Tensor(x.step, x.shape, x.places().reshape(shape))
        try:
            x = self.canonical(x, "reshape")
        except ImportRefusedError as error:
            raise ImportRefusedError(f"the output (of {x.step!r}) {error}") from None
        if x.step == INPUT:
            raise ImportRefusedError("an output of the network is its input; there is no layer between them")
        return x.step

    def canonical(self, x: Tensor, name: str) -> Tensor:
        """`x`, whose values stand where the spec has them, in the source's shape; `name` is that of a Reshape, where
        this takes one. Raises ImportRefusedError where they stand elsewhere."""
        if x.order is None:
            return x
        if x.order.ndim in (1, 3) and _in_order(x.order):
            return self._add(Step(name, Reshape(name, x.order.shape), (x.step,)), x.shape)
        key = (x.step, x.order.shape, x.order.tobytes())
        if key not in self._moved:
            self._moved[key] = self._moved_as(x, x.order, name)
        return self._moved[key]

    def _moved_as(self, x: Tensor, order: Order, name: str) -> Tensor:
        """By layers that exchange axes, or put channels into another order."""
        if layers := transposed(x.shape, order):
            y = Tensor(x.step, x.shape)
            for layer in layers:
                y = self._add(Step(name, replace(layer, name=name), (y.step,)), y.shape)
            return y
        if parts := channel_parts(x.shape, order):
            cut = [Slice(f"{name}_part", "channels", start, stop) for start, stop in parts]
            made = [self._add(Step(layer.name, layer, (x.step,)), x.shape) for layer in cut]
            return made[0] if len(made) == 1 else self.merge(name, made, "concatenate")
        raise ImportRefusedError(
            f"takes values of shape {order.shape} in an order that no layer of the spec makes of {x.shape}; supported: "
            "flattened, axes exchanged, channels in another order"
        )

    def as_map(self, x: Tensor, name: str) -> Tensor:
        """`x`, with features that the source has as a map, such as the gate of every channel, made one, and a map that
        is in another order than its axes in one of the spec's."""
        other = len(x.source_shape) == 3 and (len(x.shape) == 1 or _axes(x) is None)
        return self.canonical(x, f"{name}_reshape") if other else x

    def _add(self, step: Step, shape: Shape) -> Tensor:
        kind = kind_of(step.layer)
        output = kind.output(step.layer, shape, step.name)
        for info in kind.arrays(step.layer, shape):
            if info.path in step.arrays and step.arrays[info.path].shape != info.shape:
                raise ImportRefusedError(
                    f"has {info.path} {step.arrays[info.path].shape}, but by its attributes {info.shape}"
                )
            if info.path not in step.arrays:
                raise ImportRefusedError(f"has no array for its {info.path}")
        return Tensor(self._append(step), output)

    def _append(self, step: Step) -> str:
        name = unique = step.name
        while unique in self._places or unique == INPUT:
            self._repeated[name] = self._repeated.get(name, 0) + 1
            unique = f"{name}_{self._repeated[name]}"
        self._places[unique] = len(self.steps)
        self.steps.append(replace(step, name=unique))
        return unique


def is_exchanged(x: Tensor) -> bool:
    """Whether it is all of the step's output, with its axes in any order, or features in any order."""
    return len(x.shape) == 1 or _axes(x) is not None


def axes_of(x: Tensor) -> tuple[int, ...]:
    """Which axis of the canonical map each axis of the source is: (1, 2, 0) of height-width-channels. Raises
    ImportRefusedError where it is no exchange of axes."""
    axes = _axes(x)
    if axes is None:
        raise ImportRefusedError(f"takes values of shape {x.source_shape} that are no map (channels, height, width)")
    return axes


def with_axes(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """A canonical tensor as the source sees it, with its axes exchanged."""
    return x if axes == tuple(range(len(x.shape))) else Tensor(x.step, x.shape, x.places().transpose(axes))


def permuted(values: NDArray[np.generic], x: Tensor) -> NDArray[np.generic]:
    """Values along the last axis, one for each of the source's features, in the canonical order of a flat `x`."""
    if x.order is None:
        return values
    canonical = np.empty_like(values)
    canonical[..., x.order.ravel()] = values
    return canonical


def _in_order(order: Order) -> bool:
    return np.array_equal(order.ravel(), np.arange(order.size))


def _axes(x: Tensor) -> tuple[int, ...] | None:
    if x.order is None:
        return tuple(range(len(x.shape)))
    if x.order.size != math.prod(x.shape):
        return None
    places = np.arange(x.order.size).reshape(x.shape)
    return next((axes for axes in _EXCHANGES if _is_exchange(x.order, places, axes)), None)


def _is_exchange(order: Order, places: Order, axes: tuple[int, ...]) -> bool:
    return len(axes) == places.ndim and np.array_equal(order, places.transpose(axes))


def _same_order(a: Tensor, b: Tensor) -> bool:
    if a.order is None or b.order is None:
        return a.order is b.order
    return np.array_equal(a.order, b.order)


def _in_a_row(tensors: Sequence[Tensor]) -> Order:
    starts = np.cumsum([0, *(x.shape[0] for x in tensors)])
    return np.concatenate([x.places() + start for x, start in zip(tensors, starts, strict=False)])


def _shuffle(shape: Shape, order: Order) -> int:
    """The groups of the `ChannelShuffle` that brings a map into this order; 0 if none does."""
    if len(shape) != 3 or order.shape != shape:
        return 0
    area = shape[1] * shape[2]
    channels = order[:, 0, 0] // area
    if shape[0] < 3 or not np.array_equal(order.reshape(len(channels), -1), channels[:, None] * area + np.arange(area)):
        return 0
    groups = np.flatnonzero(channels == 1)[0]  # channel 1 of group 0 becomes channel `groups`
    if shape[0] % groups:
        return 0
    shuffled = np.arange(shape[0]).reshape(groups, -1).T.ravel()
    return int(groups) if np.array_equal(channels, shuffled) else 0
