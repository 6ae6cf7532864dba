"""What a node of MXNet's gives, as a view of a layer's output: reshapes and transposes move nothing until they must."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import Shape

_MOST_VALUES = 1 << 22  # of a tensor that is transposed: its order takes 16 MiB


@dataclass(frozen=True, eq=False)
class SymbolTensor:
    """The output of the step called `step`, in the shape that MXNet sees, without the batch.

    `order` has, for every value, its place in that output in channels-height-width order; None: as they are. `label` is
    the node that gave this shape and order, for the name of the layer that has to put them into effect.
    """

    step: str
    shape: Shape
    order: NDArray[np.int32] | None = None
    label: str = ""

    def viewed(self, shape: Shape, label: str) -> SymbolTensor:
        """The same values in the same order in another shape of as many."""
        order = None if self.order is None else self.order.reshape(shape)
        return replace(self, shape=shape, order=order, label=label)

    def transposed(self, axes: Sequence[int], label: str) -> SymbolTensor:
        """With the axes, counted from 0 behind the batch, in another order. Raises ValueError for too many values."""
        return self.moved(lambda places: places.transpose(axes), label)

    def moved(self, move: Callable[[NDArray[np.int32]], NDArray[np.int32]], label: str) -> SymbolTensor:
        """With the values where `move` takes them in an array of the tensor's shape, which it may change. Raises
        ValueError for too many values."""
        number = math.prod(self.shape)
        if number > _MOST_VALUES:
            raise ValueError(f"moves {number} values, more than are followed here ({_MOST_VALUES})")
        places = np.arange(number, dtype=np.int32)
        order = move(places.reshape(self.shape) if self.order is None else self.order)
        same = bool(np.array_equal(order.ravel(), places))
        return SymbolTensor(self.step, order.shape, None if same else order, label)

    def has_all_of(self, shape: Shape) -> bool:
        """Whether it has every value of an output of this shape, each once: none is left out or repeated."""
        number = math.prod(shape)
        return self.order is None or (self.order.size == number and np.unique(self.order).size == number)

    def shuffled_groups(self, channels: int) -> int:
        """The groups of the channel shuffle that this order is, of an output of so many channels; else 0."""
        if self.order is None or len(self.shape) != 3 or self.shape[0] != channels:
            return 0
        area = math.prod(self.shape[1:])
        first = int(self.order[1, 0, 0]) // area
        if not first or channels % first:
            return 0
        shuffle = np.arange(channels * area).reshape(channels // first, first, area).transpose(1, 0, 2)
        return channels // first if np.array_equal(shuffle.ravel(), self.order.ravel()) else 0


def columns_in_order(weight: NDArray[Any], tensor: SymbolTensor) -> NDArray[Any]:
    """The weight (units, features) of a dense layer on `tensor`, for the values in the order of the tensor's step."""
    if tensor.order is None:
        return weight
    moved = np.empty_like(weight)
    moved[:, tensor.order.ravel()] = weight
    return moved


def reshaped(shape: Shape, codes: Sequence[int], reverse: bool = False) -> Shape:
    """The shape, without the batch, that MXNet's Reshape makes of `shape`, for batches of every size.

    Of `codes`, 0 keeps an axis, -1 is what is left, -2 keeps all that follow, -3 joins two and -4 splits one into the
    two that follow. Source: InferReshapeShape, src/operator/tensor/matrix_op-inl.h. Raises ValueError where the batch
    does not stay as it is, and for codes that do not fit.
    """
    results = [_infer((batch, *shape), codes, reverse) for batch in (2, 3)]
    if [result[:1] for result in results] != [(2,), (3,)] or results[0][1:] != results[1][1:]:
        raise ValueError("does not leave the batch as it is")
    return results[0][1:]


def _infer(shape: Shape, codes: Sequence[int], reverse: bool) -> Shape:
    source = list(reversed(shape) if reverse else shape)
    waiting = list(codes if reverse else reversed(codes))
    total, left = math.prod(source), -1
    result: list[int] = []
    try:
        while waiting:
            code = waiting.pop()
            if code == -1:
                if left >= 0:
                    raise ValueError("has -1 twice")
                left = len(result)
            if code == -2:
                result, source = result + source, []
            elif code == -3:
                result.append(source.pop(0) * source.pop(0))
            elif code == -4:
                result += _split(source.pop(0), waiting.pop(), waiting.pop())
            elif code < -4:
                raise ValueError(f"has {code}, which says nothing")
            else:
                kept = source.pop(0) if source or code == 0 else 0
                result.append(kept if code == 0 else abs(code))
    except IndexError:
        raise ValueError(f"of {tuple(shape[1:])} needs more axes than there are") from None
    rest = math.prod(result)
    if left >= 0 and rest:
        result[left] = total // rest
    if math.prod(result) != total:
        raise ValueError(f"does not fit {tuple(shape[1:])}")
    return tuple(reversed(result) if reverse else result)


def _split(size: int, first: int, second: int) -> list[int]:
    if first == -1:
        first = size // max(second, 1)
    if second == -1:
        second = size // max(first, 1)
    if first < 1 or second < 1 or first * second != size:
        raise ValueError(f"cannot split {size} into {first} times {second}")
    return [first, second]
