"""The JSON of MXNet's symbol files, versions 0.8 to 2.0: its nodes as they stand there, every type and index checked.

    {"nodes": [{"op": ..., "name": ..., "attrs": {...}, "inputs": [[node, output, version], ...]}, ...],
     "arg_nodes": [...], "node_row_ptr": [...], "heads": [[node, output, version], ...],
     "attrs": {"mxnet_version": ["int", 10901]}}

An `op` of "null" is a variable. Up to 0.8 there is no version, and `param` holds an operator's attributes, `attr` the
user's; then `attr` held both, and from 1.0 `attrs`. Source: nnvm src/pass/saveload_json.cc.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from triptych.spec.records import parse
from triptych.utils.errors import TriptychError

VARIABLE = "null"

Entry = tuple[int, int]
Version = tuple[int, int, int]

_NO_ATTRIBUTES: dict[str, str] = {}
_TOP_KEYS = {"nodes", "arg_nodes", "node_row_ptr", "heads", "attrs"}
_NODE_KEYS = {"op", "name", "inputs", "attrs", "attr", "param", "backward_source_id", "control_deps", "subgraphs"}


def read_json(content: bytes | str, source: str) -> tuple[list[RawNode], list[Entry], Version]:
    """The nodes, the heads and the version of MXNet. Raises TriptychError, which names the node."""
    top = _load(content, source)
    listed = _list(top, "nodes", source)
    nodes = []
    for index, node in enumerate(listed):
        nodes.append(RawNode(source, index, node, listed))
        listed[index] = None  # a file of many nodes would stand in memory twice
    _check_arguments(top, nodes, source)
    heads = [
        _entry(head, len(nodes), f"{source}: head {index}") for index, head in enumerate(_list(top, "heads", source))
    ]
    if not heads:
        raise TriptychError(f"{source} has no heads, so no output; export the symbol again")
    return nodes, heads, _version(top, source)


def _load(content: bytes | str, source: str) -> dict[str, Any]:
    try:
        top = parse(content)
    except ValueError as error:
        reason = str(error).encode("unicode_escape").decode()
        raise TriptychError(f"{source} is no JSON: {reason}; expected a symbol file of MXNet") from None
    if not isinstance(top, dict) or not {"nodes", "heads"} <= top.keys() <= _TOP_KEYS:
        keys = ", ".join(repr(key) for key in list(top)[:9]) if isinstance(top, dict) else f"a {type(top).__name__}"
        raise TriptychError(f"{source} is no symbol of MXNet: it holds {keys}; expected nodes, arg_nodes, heads, attrs")
    return top


def _list(top: Mapping[str, Any], key: str, where: str) -> list[Any]:
    value = top.get(key, [])
    if not isinstance(value, list):
        raise TriptychError(f"{where}: {key} is a {type(value).__name__}, expected a list")
    return value


def _version(top: Mapping[str, Any], source: str) -> Version:
    """Of ["int", 10901] it is 1.9.1; 0.8 wrote none."""
    attributes = top.get("attrs", {})
    tagged = attributes.get("mxnet_version", ["int", 800]) if isinstance(attributes, dict) else None
    if not isinstance(tagged, list) or len(tagged) != 2 or not _is_index(tagged[1]):
        raise TriptychError(f"{source}: attrs holds no mxnet_version as MXNet writes it, such as ['int', 10901]")
    return tagged[1] // 10000, tagged[1] // 100 % 100, tagged[1] % 100


def _is_index(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _entry(value: object, num_nodes: int, where: str) -> Entry:
    if not isinstance(value, list) or len(value) not in (2, 3) or not all(_is_index(part) for part in value):
        raise TriptychError(f"{where} is {_short(value)}, expected [node, output] or [node, output, version]")
    if value[0] >= num_nodes:
        raise TriptychError(f"{where} is node {value[0]}, but there are {num_nodes}")
    return value[0], value[1]


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, (str, int, float, list)) and _shallow(value) else type(value).__name__


def _shallow(value: object) -> bool:
    """Whether `repr` of it is short work: a huge number and a deep list are not."""
    if isinstance(value, list):
        return len(value) < 9 and all(not isinstance(part, list) and _shallow(part) for part in value)
    return not isinstance(value, int) or abs(value) < 1 << 63


def _check_arguments(top: Mapping[str, Any], nodes: list[RawNode], source: str) -> None:
    for index in _list(top, "arg_nodes", source):
        if not _is_index(index) or index >= len(nodes):
            raise TriptychError(f"{source}: arg_nodes names node {_short(index)}, but there are {len(nodes)}")
        if nodes[index].operator != VARIABLE:
            raise nodes[index].error("is among the arg_nodes, but is no variable")


class RawNode:
    """A node as the file has it, its types checked; every input stands before it."""

    __slots__ = ("index", "inputs", "name", "operator", "own_attributes", "source", "user_attributes")

    def __init__(self, source: str, index: int, node: object, listed: list[Any]) -> None:
        self.source, self.index, self.name, self.operator = source, index, "", ""
        if not isinstance(node, dict):
            raise self.error(f"is {_short(node)}, expected an object")
        self.name = self._text(node, "name")
        self.operator = self._text(node, "op")
        if unknown := node.keys() - _NODE_KEYS:
            raise self.error(f"has the key {sorted(unknown)[0]!r}, which is not known")
        for key in ("control_deps", "subgraphs"):
            if node.get(key):
                raise self.error(f"has {key} (control flow), which cannot be imported")
        if node.get("backward_source_id", -1) != -1:
            raise self.error("is the gradient of another node; save the symbol before it is bound")
        self.user_attributes = self._attributes(node, "attr") or self._attributes(node, "attrs")
        self.own_attributes = self._attributes(node, "param") if "param" in node else None
        entries = enumerate(_list(node, "inputs", self.place()))
        self.inputs = tuple(self._input(number, value, listed) for number, value in entries)
        if self.operator == VARIABLE and self.inputs:
            raise self.error("is a variable, but has inputs")

    def error(self, problem: str) -> TriptychError:
        """The error of this node: `problem` says what it has and what was expected."""
        return TriptychError(f"{self.place()} {problem}")

    def place(self) -> str:
        """The file, the node's number, its name and its operator, for messages."""
        named = f" {self.name!r}" if self.name else ""
        return f"{self.source}: node {self.index}{named}" + (
            f" ({self.operator})" if self.operator.isidentifier() else ""
        )

    def _input(self, number: int, value: object, listed: list[Any]) -> Entry:
        node, output = _entry(value, len(listed), f"{self.place()}: input {number}")
        if node >= self.index:
            name = listed[node].get("name") if isinstance(listed[node], dict) else None
            what = f"takes input {number} from node {node} {_short(name)}"
            raise self.error(f"{what}, which does not stand before it (a cycle, or a file that is out of order)")
        return node, output

    def _text(self, node: Mapping[str, Any], key: str) -> str:
        value = node.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"has {_short(value) if key in node else 'no'} {key}, expected a string")
        return value

    def _attributes(self, node: Mapping[str, Any], key: str) -> dict[str, str]:
        attributes = node.get(key, _NO_ATTRIBUTES)
        if not isinstance(attributes, dict) or not all(isinstance(value, str) for value in attributes.values()):
            raise self.error(f"has {key} that are no strings by name")
        return attributes
