"""One ONNX node on its way to a step: what it takes, constants and tensors, and its attributes, every type checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.importers.network_builder import NetworkBuilder, Tensor
from triptych.importers.onnx_constants import axes_of
from triptych.importers.onnx_file import OnnxNode, decimal
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import Pair

Array: TypeAlias = NDArray[Any]
Value: TypeAlias = Tensor | Array | None


@dataclass
class OnnxCall:
    """What an operator of the table gets. `values` are its inputs: tensors, arrays where they are constant, None where
    one is left out. `batch` stands for the number of images in shapes. `uses`: how many nodes take each of the steps'
    outputs, by the value's name; `single` says whether this node is the only one that takes an input."""

    node: OnnxNode
    name: str
    opset: int
    values: Sequence[Value]
    network: NetworkBuilder
    batch: int
    uses: Mapping[str, int]
    from_torch: bool = False
    read: set[str] = field(default_factory=set)

    @property
    def x(self) -> Tensor:
        """The first input, which is no constant."""
        return self.tensor(0)

    @property
    def tensors(self) -> list[Tensor]:
        """All inputs, none of which is constant."""
        return [self.tensor(place) for place in range(len(self.values))]

    def tensor(self, place: int) -> Tensor:
        value = self.values[place] if place < len(self.values) else None
        if isinstance(value, Tensor):
            return value
        kind = "missing" if value is None else f"constant {value.shape}"
        raise ImportRefusedError(f"takes a {kind} as input {place}, expected what a layer computes")

    def single(self, place: int) -> bool:
        """Whether nobody else takes this input."""
        return self.uses.get(self.node.inputs[place], 0) == 1

    def constant(self, place: int, what: str) -> Array | None:
        """A constant input; None where it is left out. Raises ImportRefusedError for one that is computed."""
        value = self.values[place] if place < len(self.values) else None
        if isinstance(value, Tensor):
            raise ImportRefusedError(f"computes its {what} from the images; expected an array in the file")
        return value

    def needed(self, place: int, what: str) -> Array:
        value = self.constant(place, what)
        if value is None:
            raise ImportRefusedError(f"lacks its {what}")
        return value

    def scalar(self, place: int, key: str, default: float) -> float:
        """A number that is an attribute in older operator sets and an input in newer ones."""
        if key in self.node.attributes:
            return self.number(key, default)
        value = self.constant(place, key)
        if value is None or value.size == 0:
            return default
        if value.size != 1:
            raise ImportRefusedError(f"has {value.size} numbers as {key}, expected one")
        return as_number(value)

    def whole_numbers(self, place: int, key: str) -> list[int] | None:
        """Whole numbers that are an attribute in older operator sets and an input in newer ones; None: left out."""
        if key in self.node.attributes:
            return self.numbers(key, None)
        value = self.constant(place, key)
        return None if value is None else [int(each) for each in value.ravel()]

    def axes(self, place: int = 1, *, batch: bool = False) -> list[int] | None:
        """`axes` of the source's shape without the batch, from 0; None: left out. `batch`: that, -1, may be among
        them."""
        self.read.add("axes")
        axes = axes_of(self.node, [None, *(self.constant(n, "axes") for n in range(1, len(self.values)))], place)
        whole = (0, -1 - len(self.x.source_shape)) if batch else ()
        return None if axes is None else [-1 if axis in whole else self.axis(axis) for axis in axes]

    def axis(self, axis: int) -> int:
        """An axis of the first input's shape, which has the batch, as one of that without it."""
        rank = len(self.x.source_shape) + 1
        if not -rank <= axis < rank or axis % rank == 0:
            raise ImportRefusedError(
                f"works along axis {axis}, expected 1 to {rank - 1}: not over the images of a batch"
            )
        return axis % rank - 1

    def get(self, key: str, default: Any) -> Any:
        self.read.add(key)
        return self.node.attributes.get(key, default)

    def number(self, key: str, default: float) -> float:
        value = self.get(key, default)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ImportRefusedError(f"has {key} of type {type(value).__name__}, expected a finite number")
        return float(value)

    def count(self, key: str, default: int) -> int:
        value = self.get(key, default)
        if not isinstance(value, int):
            raise ImportRefusedError(f"has {key} of type {type(value).__name__}, expected a whole number")
        return value

    def numbers(self, key: str, default: list[int] | None) -> list[int] | None:
        value = self.get(key, default)
        if value is not None and not (isinstance(value, list) and all(isinstance(each, int) for each in value)):
            raise ImportRefusedError(f"has {key} that are no whole numbers")
        return None if value is None else list(value)

    def pair(self, key: str, default: Pair) -> Pair:
        """Rows and columns."""
        value = self.numbers(key, list(default)) or []
        if len(value) != 2 or not all(0 <= each < 1 << 31 for each in value):
            raise ImportRefusedError(f"has {key} {value[:9]}, expected two numbers, for rows and columns")
        return value[0], value[1]

    def text(self, key: str, default: str, allowed: Sequence[str]) -> str:
        value = self.get(key, default)
        if value not in allowed:
            raise ImportRefusedError(f"has {key} {str(value)[:40]!r}, expected {' or '.join(allowed)}")
        return str(value)

    def check_all_read(self) -> None:
        """Raises ImportRefusedError for an attribute that nobody asked for."""
        if unknown := sorted(self.node.attributes.keys() - self.read):
            raise ImportRefusedError(f"has the attribute {unknown[0][:40]!r}, which is not supported")


Convert: TypeAlias = Callable[[OnnxCall], "Tensor | list[Tensor]"]


def as_number(array: Array) -> float:
    """A constant of one value: of float32 the shortest decimal that it stands for."""
    number = float(array.ravel()[0])
    return decimal(number) if array.dtype == np.float32 else number


def vector(array: Array, channels: int, what: str) -> Array:
    """An array with one value for every channel, whatever axes of size 1 are around it; one value stands for all."""
    if array.size not in (1, channels):
        raise ImportRefusedError(f"has {what} of shape {array.shape}, expected one value, or {channels}")
    return np.ravel(array) if array.size == channels else np.full(channels, array.ravel()[0], array.dtype)
