"""The part of a symbol that given outputs need: its nodes, its data, its parameters, and inputs that it may be for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from triptych.importers.mxnet_calls import Source
from triptych.importers.mxnet_json import VARIABLE, Entry
from triptych.importers.mxnet_operators import OPERATORS
from triptych.importers.mxnet_symbol import Symbol, SymbolNode
from triptych.importers.mxnet_values import parse_shape
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import Shape
from triptych.utils.errors import TriptychError

Input = tuple[int, int, int]
# Pixels of square images, the likeliest first: ImageNet's, then those of small sets, of face networks, and powers of 2.
SIZES = (224, 299, 227, 32, 28, 112, 64, 96, 48, 24, 12, 128, 160, 256, 331, 384, 512)
_PARAMETERS = ("weight", "bias", "gamma", "beta", "moving_mean", "moving_var", "label", "length")
_NUM_NAMED = 3


def listed(names: Sequence[str]) -> str:
    """The first few of some names, for a message."""
    more = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
    return (", ".join(map(repr, names[:_NUM_NAMED])) or "none") + more


@dataclass(frozen=True, eq=False)
class SymbolPart:
    """What the outputs `heads` need of a symbol. `arrays` are those of the parameter file, None: there is none; `files`
    names symbol and arrays in messages. `parameters`: variables that are known to be no images, and what each holds,
    None where it has no value yet."""

    symbol: Symbol
    arrays: Source | None
    files: tuple[str, str]
    heads: Sequence[Entry]
    parameters: Mapping[str, NDArray[Any] | None] = field(default_factory=dict)

    @cached_property
    def nodes(self) -> tuple[tuple[int, SymbolNode], ...]:
        """The nodes that the heads depend on, in order, with their place in the symbol; neither variables nor what
        leads to the label of a loss."""
        nodes = self.symbol.nodes
        wanted = [False] * len(nodes)
        for index, _ in self.heads:
            wanted[index] = True
        for index in reversed(range(len(nodes))):
            if wanted[index]:
                for source, _ in data(nodes[index]):
                    wanted[source] = True
        return tuple((i, node) for i, node in enumerate(nodes) if wanted[i] and node.operator != VARIABLE)

    @cached_property
    def stated_shapes(self) -> dict[str, Shape]:
        """The shapes that variables state, where they are complete; the size of the batch may be 0."""
        shapes = {}
        for node in self.symbol.nodes:
            try:
                shape = parse_shape(node.attributes["__shape__"]) if node.operator == VARIABLE else ()
            except (KeyError, ValueError):
                continue
            sizes = tuple(size or 0 for size in shape)
            if sizes and min(sizes[1:] or sizes) > 0:
                shapes[node.name] = sizes
        return shapes

    def array(self, name: str) -> NDArray[Any] | None:
        """What a variable holds, where that is known."""
        held = (self.arrays or {}).get(name)
        return self.parameters.get(name) if held is None else held

    @cached_property
    def data_names(self) -> list[str]:
        """The variables that nodes take as data, and that there is no array for."""
        sources = [self.symbol.nodes[index] for _, node in self.nodes for index, _ in data(node)]
        names = dict.fromkeys(source.name for source in sources if source.operator == VARIABLE)
        return [name for name in names if self.array(name) is None]

    def check(self) -> list[str]:
        """Remarks on arrays that are superfluous. Raises TriptychError for one that is missing, and ImportRefusedError
        for an output that is a variable, and unless there is one input."""
        for index, _ in self.heads:
            if self.symbol.nodes[index].operator == VARIABLE:
                name = self.symbol.nodes[index].name
                raise ImportRefusedError(f"{self.files[0]}: the output {name!r} is a variable, with no layer before it")
        if self.arrays is not None:
            parameters = dict.fromkeys(name for _, node in self.nodes for name in self._parameters(node))
            if missing := [name for name in parameters if name not in self.arrays]:
                raise TriptychError(
                    f"{self.files[1]} belongs to another symbol than {self.files[0]}: it lacks the array "
                    f"{listed(missing)}; it has {listed(list(self.arrays))}"
                )
        if empty := [name for name in self.data_names if name in self.parameters]:
            raise ImportRefusedError(
                f"{self.files[0]} computes with its parameter {listed(empty)}, which has no value yet; initialize the "
                f"network, and where shapes are still open, call it once"
            )
        if len(self.data_names) != 1:
            raise ImportRefusedError(
                f"{self.files[0]} takes {len(self.data_names)} inputs ({listed(self.data_names)}), and networks of one "
                f"are imported; name an output that needs only one, with --output NODE"
            )
        known = {*self.symbol.arguments, *self.symbol.auxiliary}
        superfluous = [name for name in self.arrays or {} if name not in known]
        return [f"the symbol has no place for {listed(superfluous)} of {self.files[1]}"] if superfluous else []

    def stated_input(self) -> Input | None:
        """Channels, height and width, where the symbol states them."""
        shape = self.stated_shapes.get(self.data_names[0], ())
        return (shape[1], shape[2], shape[3]) if len(shape) == 4 else None

    def likely_inputs(self) -> Iterator[Input]:
        """Of the channels that the first layer with arrays has, at the usual sizes."""
        shape, node = self._first_array()
        if len(shape) == 2:
            for channels in (1, 3):
                side = math.isqrt(shape[1] // channels)
                if side * side * channels == shape[1]:
                    yield channels, side, side
            yield shape[1], 1, 1
            return
        groups = node.values.get("num_group", 1) if node else 1
        assert isinstance(groups, int)
        channels = shape[0] if len(shape) == 1 else shape[1] * groups if len(shape) == 4 else 3
        yield from ((channels, size, size) for size in SIZES)

    def _first_array(self) -> tuple[Shape, SymbolNode | None]:
        """The shape of the weight, or of a batch norm's shift, of the first layer that has one whose shape is known."""
        for _, node in self.nodes:
            for role, variable in self._roles(node):
                if role == "weight" or (role == "beta" and node.operator.startswith("BatchNorm")):
                    array = (self.arrays or {}).get(variable.name)
                    shape = self.stated_shapes.get(variable.name, ()) if array is None else array.shape
                    return shape, node
        return (), None

    def _roles(self, node: SymbolNode) -> list[tuple[str, SymbolNode]]:
        operator = OPERATORS.get(node.operator)
        names = operator.input_names(node.values) if operator else ()
        return [(name, self.symbol.nodes[entry[0]]) for name, entry in zip(names, node.inputs, strict=False)]

    def _parameters(self, node: SymbolNode) -> list[str]:
        """The variables that the node takes as parameters. A scale that is fixed is none."""
        unused = {"label", "length"} | ({"gamma"} if node.values.get("fix_gamma") else set())
        wanted = set(_PARAMETERS) - unused
        return [each.name for role, each in self._roles(node) if role in wanted and each.operator == VARIABLE]


def data(node: SymbolNode) -> list[Entry]:
    """The inputs of a node that are no parameters; all of them where its operator is not known."""
    operator = OPERATORS.get(node.operator)
    if operator is None:
        return list(node.inputs)
    names = operator.input_names(node.values)
    return [entry for name, entry in zip(names, node.inputs, strict=True) if name not in _PARAMETERS]
