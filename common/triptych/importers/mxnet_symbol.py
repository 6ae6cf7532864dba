"""MXNet's symbol files (`NAME-symbol.json`, 0.8 to 2.0) as a graph with every default filled in, without MXNet.

Nothing is made into layers here. What MXNet does on loading an old file is done too (src/nnvm/legacy_json_util.cc):
before 0.9 auxiliary states were no nodes, and operators had other names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triptych.importers.mxnet_json import VARIABLE, Entry, RawNode, Version, read_json
from triptych.importers.mxnet_operators import ALIASES, OPERATORS, Operator
from triptych.importers.mxnet_values import REQUIRED, Attribute, PerAxis, Value
from triptych.utils.errors import TriptychError
from triptych.utils.reading import read_bounded

_MOST_BYTES = 1 << 24  # ten times the largest network that is known; JSON in memory is up to 20 times its text
# Attributes of training and placement that MXNet keeps beside an operator's own (kHiddenKeys, c_api_symbolic.cc).
_HIDDEN = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring", "mirror_stage")


@dataclass(frozen=True, slots=True)
class SymbolNode:
    """One node: a variable, whose `operator` is VARIABLE, or an operator under MXNet's own name for it.

    `attributes` are the strings of the file; `values` is what they mean, complete with the operator's defaults, and
    empty where the operator is none of `mxnet_operators.OPERATORS`. `inputs` are (index in Symbol.nodes, output).
    """

    name: str
    operator: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[Entry, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Symbol:
    """A graph in the order in which it is computed: every input stands before the node that takes it.

    Nodes that no head needs are left out, and names are unique. `arguments` and `auxiliary` are the names of the
    variables (the input's own and the label's among the arguments), `heads` the outputs, `version` that of MXNet.
    """

    nodes: tuple[SymbolNode, ...]
    arguments: tuple[str, ...]
    auxiliary: tuple[str, ...]
    heads: tuple[Entry, ...]
    version: Version


def read(path: Path) -> Symbol:
    """The graph of a symbol file. Raises TriptychError, which names the node, for one that is not as it should be."""
    try:
        return parse(read_bounded(path, _MOST_BYTES), str(path))
    except OSError as error:
        raise TriptychError(f"cannot read {path}: {error.strerror}") from None


def parse(content: bytes | str, source: str) -> Symbol:
    """The graph of a symbol's JSON; `source` names it in messages. Raises TriptychError as `read` does."""
    nodes, heads, version = read_json(content, source)
    return _Builder(source, version, nodes).build(heads)


class _Builder:
    """Makes the nodes of a Symbol from those of a file."""

    def __init__(self, source: str, version: Version, raw: list[RawNode]) -> None:
        self.source, self.version, self.raw = source, version, raw
        self.nodes: list[SymbolNode] = []
        self.new_index = [0] * len(raw)
        self.auxiliary: dict[str, None] = {}
        self.variables: dict[str, None] = {}
        self.names: set[str] = set()
        self.repetitions: dict[str, int] = {}

    def build(self, heads: list[Entry]) -> Symbol:
        needed = _needed(self.raw, heads)
        self.names = {node.name for node in self.raw if needed[node.index] and node.operator == VARIABLE}
        self.raw.reverse()
        while self.raw:  # taken away one by one: a file of many nodes would stand in memory twice
            node = self.raw.pop()
            if needed[node.index]:
                self._add(node)
        return Symbol(
            tuple(self.nodes),
            tuple(name for name in self.variables if name not in self.auxiliary),
            tuple(self.auxiliary),
            tuple(self._renumbered(head, f"{self.source}: a head") for head in heads),
            self.version,
        )

    def _add(self, node: RawNode) -> None:
        if node.operator == VARIABLE:
            self._add_variable(node)
        else:
            name = ALIASES.get(node.operator, node.operator)
            inputs = tuple(self._renumbered(entry, f"{node.place()}: an input") for entry in node.inputs)
            attributes = _attributes(node, OPERATORS.get(name))
            values: dict[str, Value] = {}
            if operator := OPERATORS.get(name):
                values = _values(node, operator, attributes)
                inputs = self._checked_inputs(node, operator.input_names(values), inputs, operator.auxiliary)
            self.nodes.append(SymbolNode(self._unique(node.name), name, attributes, inputs, values))
        self.new_index[node.index] = len(self.nodes) - 1

    def _add_variable(self, node: RawNode) -> None:
        if node.name in self.variables:
            raise node.error("is the second variable of its name; arrays are told apart by name, rename one")
        self.variables[node.name] = None
        attributes = node.user_attributes | (node.own_attributes or {})
        hidden = {f"__{key}__" if key in _HIDDEN else key: text for key, text in attributes.items()}
        self.nodes.append(SymbolNode(node.name, VARIABLE, hidden))

    def _unique(self, name: str) -> str:
        """Gluon gives a layer that is called twice two nodes of one name: the second becomes name_1."""
        unique = name
        while unique in self.names:
            self.repetitions[name] = self.repetitions.get(name, 0) + 1
            unique = f"{name}_{self.repetitions[name]}"
        self.names.add(unique)
        return unique

    def _renumbered(self, entry: Entry, where: str) -> Entry:
        node = self.nodes[self.new_index[entry[0]]]
        operator = OPERATORS.get(node.operator)
        number = operator.num_outputs(node.values) if operator else 1 if node.operator == VARIABLE else None
        if number is not None and entry[1] >= number:
            raise TriptychError(f"{where} is output {entry[1]} of {node.name!r} ({node.operator}), which has {number}")
        return self.new_index[entry[0]], entry[1]

    def _checked_inputs(
        self, node: RawNode, names: tuple[str, ...], inputs: tuple[Entry, ...], auxiliary: tuple[str, ...]
    ) -> tuple[Entry, ...]:
        """The inputs, one for each name; MXNet before 0.9 left out those at the end that it could make up itself."""
        if self.version < (0, 9, 0) and 0 < len(inputs) < len(names) and all(names):
            inputs += tuple(self._made_up(node, name) for name in names[len(inputs) :])
        if len(inputs) != len(names):
            listed = f" ({', '.join(names)})" if all(names) else ""
            raise node.error(f"has {len(inputs)} inputs, expected {len(names)}{listed}")
        for name, (index, _) in zip(names, inputs, strict=True):
            if name in auxiliary:
                if self.nodes[index].operator != VARIABLE:
                    raise node.error(f"takes {name}, an auxiliary state, from {self.nodes[index].name!r}, no variable")
                self.auxiliary[self.nodes[index].name] = None
        return inputs

    def _made_up(self, node: RawNode, name: str) -> Entry:
        full = f"{node.name}_{name}"
        if full in self.names:
            raise node.error(f"lacks its input {name}, and another node has the name {full!r} that it would get")
        self.names.add(full)
        self.variables[full] = None
        self.nodes.append(SymbolNode(full, VARIABLE))
        return len(self.nodes) - 1, 0


def _needed(raw: list[RawNode], heads: Iterable[Entry]) -> bytearray:
    """Which nodes the heads depend on. Inputs stand before what takes them, so one pass backwards finds all."""
    needed = bytearray(len(raw))
    for node, _ in heads:
        needed[node] = True
    for taker in reversed(raw):
        if needed[taker.index]:
            for node, _ in taker.inputs:
                needed[node] = True
    return needed


def _is_hidden(key: str) -> bool:
    return key.startswith(("__", *_HIDDEN)) or key.endswith(_HIDDEN)


def _attributes(node: RawNode, operator: Operator | None) -> dict[str, str]:
    """The operator's own attributes. Where the file does not part them from the user's, all but the hidden ones."""
    if node.own_attributes is None:
        return {key: text for key, text in node.user_attributes.items() if not _is_hidden(key)}
    known = operator.attributes if operator else {}
    return node.own_attributes | {key: text for key, text in node.user_attributes.items() if key in known}


def _values(node: RawNode, operator: Operator, attributes: Mapping[str, str]) -> dict[str, Value]:
    if unknown := attributes.keys() - operator.attributes.keys():
        known = ", ".join(sorted(operator.attributes)) or "none"
        raise node.error(f"has the attribute {sorted(unknown)[0]!r}, which is not known; known: {known}")
    values: dict[str, Value] = {}
    per_axis: dict[str, PerAxis] = {}
    if operator.counted and operator.counted not in attributes:  # add_n does not write it
        attributes = {**attributes, operator.counted: str(len(node.inputs))}
    for key, attribute in operator.attributes.items():
        if attribute.kind == "ignored":
            continue
        values[key] = _value(node, key, attribute, attributes.get(key))
        if isinstance(attribute.default, PerAxis):
            per_axis[key] = attribute.default
    for key, default in per_axis.items():
        values[key] = _for_each_axis(node, key, values[key], default, values[default.like])
    return values


def _value(node: RawNode, key: str, attribute: Attribute, text: str | None) -> Value:
    if text is None:
        if attribute.default is REQUIRED:
            raise node.error(f"lacks the attribute {key!r}, which has no default")
        return () if isinstance(attribute.default, PerAxis) else attribute.default  # type: ignore[return-value]
    try:
        return attribute.parse(text)
    except ValueError as error:
        raise node.error(f"has {key} {text[:60]!r}, {error}") from None


def _for_each_axis(node: RawNode, key: str, value: Value, default: PerAxis, like: Value) -> Value:
    assert isinstance(value, tuple)
    assert isinstance(like, tuple)
    if like and value and len(value) != len(like):
        raise node.error(f"has {key} {value} and {default.like} {like}, which differ in number")
    return value or (default.entry,) * len(like)
