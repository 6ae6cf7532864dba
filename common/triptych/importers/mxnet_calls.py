"""One node of a symbol under conversion: its values, its inputs, its arrays, and the steps that are made of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers.moves import channel_parts, transposed
from triptych.importers.mxnet_json import VARIABLE
from triptych.importers.mxnet_operators import OPERATORS
from triptych.importers.mxnet_symbol import Symbol, SymbolNode
from triptych.importers.mxnet_tensors import SymbolTensor
from triptych.importers.steps import ImportRefusedError, Step
from triptych.importers.torch_maps import Map, rearrangement
from triptych.spec.kinds import kind_of
from triptych.spec.kinds.composites import merged_shape
from triptych.spec.kinds.kind import SpecError, TooSmallError, Wire
from triptych.spec.layers import INPUT, Block, ChannelShuffle, Flatten, Layer, Merge, Pair, Reshape, Shape, Slice

_MOST_VALUES = 1 << 40  # of one layer's output for one image: more than any machine holds
_MOST_STEPS = 100_000
_MOST_AXES = 16

Source = Mapping[str, NDArray[Any]]


class DoesNotFitError(ImportRefusedError):
    """The network does not go with an input of this size; one of another might."""


def refusal(file: str, node: SymbolNode, why: str) -> ImportRefusedError:
    """The error of a node of the symbol in `file`; `why` goes on from its name."""
    way_out = "end the network before it, with --until NODE, or leave it out"
    return ImportRefusedError(f"{file}: node {node.name!r} ({node.operator}) {why}; {way_out}")


@dataclass(frozen=True, eq=False)
class Constant:
    """An array of the file in a place where data is expected; `fixed`: MXNet does not train it either."""

    name: str
    array: NDArray[Any]
    fixed: bool = False


@dataclass(eq=False)
class Building:
    """A network that is being made of `symbol` for an input of one size. `arrays` are those of the file, None: there
    is none; `files` names symbol and arrays in messages. `shapes` has the output of each step, `stated` those shapes of
    variables that the symbol states, `blank` what the variables that are parameters begin as: shape and value."""

    symbol: Symbol
    arrays: Source | None
    files: tuple[str, str]
    shapes: dict[str, Shape]
    stated: Mapping[str, Shape]
    steps: list[Step] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    uses: Counter[str] = field(default_factory=Counter)
    blank: dict[str, tuple[Shape, float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    plain: dict[tuple[str, Shape, int], tuple[SymbolTensor, SymbolTensor]] = field(
        default_factory=dict
    )  # by step, shape, order

    def unique(self, name: str) -> str:
        """`name`, or with a number where another step or node has it."""
        unique, number = name, 1
        while unique in self.names:
            unique, number = f"{name}_{number}", number + 1
        self.names.add(unique)
        return unique

    def add(
        self, name: str, layer: Layer, inputs: Sequence[SymbolTensor], merge: Merge, arrays: Source
    ) -> SymbolTensor:
        """A step of this very name on the plain outputs of others. Raises SpecError if it does not fit them."""
        shapes = [self.shapes[tensor.step] for tensor in inputs]
        shape = merged_shape(Wire(tuple(range(len(shapes))), merge), shapes, name)
        shape = shape if isinstance(layer, Block) else kind_of(layer).output(layer, shape, name)
        if math.prod(shape) > _MOST_VALUES or len(self.steps) >= _MOST_STEPS:
            raise SpecError(name, f"the network has an output of {shape} or is its {len(self.steps) + 1}th layer")
        self.shapes[name] = shape
        self.steps.append(Step(name, layer, tuple(tensor.step for tensor in inputs), merge, arrays))
        return SymbolTensor(name, shape)


@dataclass(frozen=True, eq=False)
class SymbolCall:
    """One node that is an operator. `inputs` are those of its inputs that are no parameters, in their order."""

    building: Building
    node: SymbolNode
    inputs: tuple[SymbolTensor | Constant, ...]

    def integer(self, key: str) -> int:
        """The attribute, which is an integer."""
        value = self.node.values[key]
        assert isinstance(value, int)
        return value

    def number(self, key: str) -> float:
        """The attribute, which is a number. Refuses an infinite one."""
        value = self.node.values[key]
        assert isinstance(value, (int, float))
        if not math.isfinite(value):
            raise self.refused(f"has the {key} {value:g}")
        return float(value)

    def text(self, key: str) -> str | None:
        """The attribute, which is a word."""
        value = self.node.values[key]
        assert value is None or isinstance(value, str)
        return value

    def integers(self, key: str) -> tuple[int, ...]:
        """The attribute, which is a tuple, or one of none for None. Refuses None in it."""
        value = self.node.values[key]
        entries = value if isinstance(value, tuple) else ()
        if any(entry is None for entry in entries):
            raise self.refused(f"has None in its {key}")
        return tuple(entry for entry in entries if entry is not None)

    def pair(self, key: str) -> Pair:
        """The attribute, which has a value for rows and one for columns. Refuses another number of them."""
        value = self.integers(key)
        if len(value) != 2:
            raise self.refused(f"has {len(value)} values as its {key}, and only images (rows, columns) are taken")
        return value[0], value[1]

    def need_channels_first(self) -> None:
        """Refuses a layout that says otherwise."""
        if self.text("layout") not in (None, "NCHW"):
            raise self.refused(f"has the layout {self.text('layout')}, and only NCHW is taken")

    def axis(self, axis: int, shape: Shape) -> int:
        """`axis` of a tensor of this shape, counted from 0 behind the batch. Refuses the batch and what is none."""
        number = len(shape) + 1
        if not -number <= axis < number or axis % number == 0:
            raise self.refused(f"has axis {axis}, which is the batch or none of its {number}")
        return axis % number - 1

    def refused(self, why: str) -> ImportRefusedError:
        """The error of this node; `why` goes on from its name."""
        return ImportRefusedError(
            f"{self._place()} {why}; end the network before it, with --until NODE, or leave it out"
        )

    def _place(self) -> str:
        return f"{self.building.files[0]}: node {self.node.name!r} ({self.node.operator})"

    def any_tensor(self, number: int = 0) -> SymbolTensor:
        """An input, in whatever shape and order. Refuses an array of the file."""
        tensor = self.inputs[number]
        if isinstance(tensor, Constant):
            raise self.refused(f"takes {tensor.name!r}, an array of the file, as its data")
        return tensor

    def tensor(self, number: int = 0) -> SymbolTensor:
        """An input as a map or a row of features, in the order that the spec has. Refuses what is neither."""
        return self.plain(self.any_tensor(number))

    def plain(self, tensor: SymbolTensor) -> SymbolTensor:
        """`tensor` as the output of a step, after one more where its shape or order are not those of its own."""
        building = self.building
        given = building.shapes[tensor.step]
        if tensor.order is None and tensor.shape == given:
            return SymbolTensor(tensor.step, given)
        key = (tensor.step, tensor.shape, id(tensor.order))
        if key in building.plain:
            return building.plain[key][1]
        result = self._rearranged(tensor, SymbolTensor(tensor.step, given), given)
        building.plain[key] = (tensor, result)  # the tensor stays, and with it the identity of its order
        return result

    def _rearranged(self, tensor: SymbolTensor, plain: SymbolTensor, given: Shape) -> SymbolTensor:
        if tensor.order is not None and (parts := channel_parts(given, tensor.order.astype(np.intp))):
            return self._in_parts(tensor, plain, parts)
        layers = self._rearranging(tensor, given)
        for layer in layers[:-1]:
            plain = self._added(self._label(tensor, layer), layer, (plain,), "concatenate", {})
        return self._added(self._label(tensor, layers[-1], last=True), layers[-1], (plain,), "concatenate", {})

    def _label(self, tensor: SymbolTensor, layer: Layer, *, last: bool = False) -> str:
        """The name of a layer that puts shape and order into effect: of the node that gave them, for the last one."""
        building = self.building
        made = tensor.label in building.names and tensor.label not in building.shapes
        suffix = type(layer).__name__.lower()
        return tensor.label if made and last else building.unique(f"{tensor.label or self.node.name}_{suffix}")

    def _in_parts(self, tensor: SymbolTensor, plain: SymbolTensor, parts: Sequence[tuple[int, int]]) -> SymbolTensor:
        """Channels one behind the other."""
        slices = [Slice("", "channels", start, stop) for start, stop in parts]
        made = [self._added(self._label(tensor, each), each, (plain,), "concatenate", {}) for each in slices]
        joined = Block("", ())
        return self._added(self._label(tensor, joined, last=True), joined, made, "concatenate", {})

    def _rearranging(self, tensor: SymbolTensor, given: Shape) -> Sequence[Layer]:
        if tensor.order is not None:
            groups = tensor.shuffled_groups(given[0]) if len(given) == 3 and given == tensor.shape else 0
            order = tensor.order.astype(np.intp)
            layers = [ChannelShuffle("", groups)] if groups else transposed(given, order)
            layers = layers or rearrangement(Map(tensor.step, given, order))
            if not layers:
                raise self.refused(
                    f"takes a tensor whose values were moved ({tensor.label!r}, of shape (batch, "
                    f"{', '.join(map(str, tensor.shape))})) as no layers do"
                )
            return layers
        if len(tensor.shape) == 1:
            return [Flatten("")]
        if len(tensor.shape) != 3:
            raise self.refused(
                f"takes a tensor of shape (batch, {', '.join(map(str, tensor.shape))}), no map of pixels"
            )
        return [Reshape("", tensor.shape)]

    def viewed(self, tensor: SymbolTensor, shape: Shape, label: str | None = None) -> SymbolTensor:
        """`tensor` in another shape of as many values. `label`: see `SymbolTensor`; the node's name, if not given."""
        if len(shape) > _MOST_AXES:
            raise self.refused(f"makes {len(shape)} axes, more than {_MOST_AXES}")
        return tensor.viewed(shape, self.node.name if label is None else label)

    def image(self, number: int = 0) -> SymbolTensor:
        """An input that is a map (channels, height, width). Refuses another."""
        tensor = self.tensor(number)
        if len(tensor.shape) != 3:
            raise self.refused(f"takes {len(tensor.shape)} axes, expected (channels, height, width)")
        return tensor

    def image_shape(self) -> tuple[int, int, int]:
        """The shape of the first input, a map in whatever order. Refuses another."""
        shape = self.any_tensor().shape
        if len(shape) != 3:
            raise self.refused(f"takes {len(shape)} axes, expected (channels, height, width)")
        return shape[0], shape[1], shape[2]

    def row(self, layers: Sequence[Layer], tensor: SymbolTensor) -> SymbolTensor:
        """Steps one behind the other on `tensor`, the last of which has the node's name."""
        for layer in layers:
            tensor = self.add(layer, tensor, part="" if layer is layers[-1] else layer.name)
        return tensor

    def add(
        self,
        layer: Layer,
        *inputs: SymbolTensor,
        merge: Merge = "concatenate",
        arrays: Source | None = None,
        part: str = "",
    ) -> SymbolTensor:
        """A step of the node's name on `inputs`, or on its own first input. `part`: what of the node's work it does,
        where that takes several; it goes into the name."""
        name = self.building.unique(f"{self.node.name}_{part}") if part else self.node.name
        return self._added(name, layer, inputs or (self.tensor(),), merge, arrays or {})

    def each_value(self, layer: Layer) -> SymbolTensor:
        """A step that does the same to every value, so that shape and order of the first input stay as they are."""
        tensor = self.any_tensor()
        base = SymbolTensor(tensor.step, self.building.shapes[tensor.step])
        step = self.add(layer, base).step
        return SymbolTensor(step, tensor.shape, tensor.order, tensor.label)

    def _added(
        self, name: str, layer: Layer, inputs: Sequence[SymbolTensor], merge: Merge, arrays: Source
    ) -> SymbolTensor:
        try:
            return self.building.add(name, layer, inputs, merge, arrays)
        except TooSmallError as error:
            place = f"{self.building.files[0]}: node {self.node.name!r} ({self.node.operator})"
            raise DoesNotFitError(f"{place}: {error.problem}; {self._input()}") from None
        except SpecError as error:
            raise self.refused(f"is not as the spec has it: {error.problem}") from None

    def _input(self) -> str:
        size = "x".join(map(str, self.building.shapes[INPUT]))
        return f"the input is {size}, another can be given with --input"

    def arrays(self, **wanted: tuple[str, Shape]) -> dict[str, NDArray[Any]]:
        """The arrays of the node by canonical name, from `canonical=(input of the operator, shape)`; none without a
        file. Refuses those of another shape."""
        found: dict[str, NDArray[Any]] = {}
        for canonical, (role, shape) in wanted.items():
            name = self._variable(role)
            self.building.uses[name] += 1
            self.building.blank[name] = shape, 0.0
            if self.building.arrays is not None:
                found[canonical] = self._checked(name, self.building.arrays[name], shape)
        return found

    def fixed_at_one(self, role: str, shape: Shape) -> None:
        """An array of the node that is 1, whatever the file holds."""
        self.building.blank[self._variable(role)] = shape, 1.0

    def given_shape(self, role: str) -> Shape | None:
        """The shape of an array of the file, or that which the symbol states for it; None where neither does."""
        name = self._variable(role)
        if self.building.arrays is not None:
            return self.building.arrays[name].shape
        return self.building.stated.get(name)

    def _variable(self, role: str) -> str:
        names = OPERATORS[self.node.operator].input_names(self.node.values)
        variable = self.building.symbol.nodes[self.node.inputs[names.index(role)][0]]
        if variable.inputs or variable.operator != VARIABLE:
            raise self.refused(f"takes its {role} from {variable.name!r} ({variable.operator}), which is no variable")
        return variable.name

    def _checked(self, name: str, array: NDArray[Any], shape: Shape) -> NDArray[Any]:
        if array.shape == shape:
            return array
        what = (
            f"array {name!r} has shape {array.shape}, but node {self.node.name!r} ({self.node.operator}) of the symbol"
        )
        if len(array.shape) == len(shape) == 2 and array.shape[0] == shape[0]:
            raise DoesNotFitError(
                f"{self.building.files[1]}: {what} gets {shape[1]} values: {self._input()}, or the file belongs to "
                f"another symbol than {self.building.files[0]}"
            )
        raise ImportRefusedError(
            f"{self.building.files[1]} belongs to another symbol than {self.building.files[0]}: {what} needs {shape}"
        )
