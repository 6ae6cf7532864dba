"""An architecture as nodes that know their shapes, the numbers that their constructors take, and what they are up to
those numbers: their key. Nodes of one key are written once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from triptych.backend.source import Kept
from triptych.emitting.units import Unit, grouped
from triptych.spec.analysis import analyse
from triptych.spec.kinds.pooling import overhang
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    AvgPool,
    Block,
    Branches,
    Dense,
    Flatten,
    Graph,
    Layer,
    MaxPool,
    Primitive,
    ReLU,
    Residual,
    Shape,
    Sigmoid,
    Tanh,
    children,
    join,
)

Key: TypeAlias = tuple[Any, ...]
Numbers: TypeAlias = Mapping[type, tuple[str, ...]]
# What may differ between two layers that are written once; the rest is part of what they are.
SOFT = frozenset({"inputs", "channels", "units", "stride", "groups", "start", "stop", "shape"})
# Numbers of a layer that say which layer behind it it does the work of: its kind's name; `flattens` looks before it.
FUSED: Mapping[str, tuple[type, ...]] = {"flattened": (Flatten,), "activation": (ReLU, Sigmoid, Tanh), "flattens": ()}
WILD: Any = None  # a number of a layer that is not there


class Column(NamedTuple):
    """One number of a node: which it is, its value, and the names of the records from the node down to its layer."""

    number: str
    value: Any
    names: tuple[str, ...] = ()


@dataclass(eq=False)
class TreeNode:
    """One record, or a unit of several. `layer` is None for a unit; `numbers` those of a layer by itself. A node's
    `key` is what it has in common with others that are written once, `loose` the same without kernels and the like."""

    path: str
    name: str
    layer: Layer | None
    input: Shape
    output: Shape
    children: list["TreeNode"] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    key: Key = ()
    loose: Key = ()
    runs: list["Run"] = field(default_factory=list)
    branch: bool = False  # whether it is one of several on the same input
    taken: tuple[str, ...] = ()  # paths of layers that its expression does the work of

    @property
    def is_leaf(self) -> bool:
        return self.layer is not None and isinstance(self.layer, Primitive)

    @property
    def is_unit(self) -> bool:
        return self.layer is None

    @property
    def is_row(self) -> bool:
        return isinstance(self.layer, Block | Auxiliary) or self.is_unit

    @property
    def is_flow(self) -> bool:
        """Whether its forward pass is more than one layer after the other."""
        return isinstance(self.layer, Branches | Residual | Graph)

    @property
    def shortcut(self) -> "TreeNode | None":
        return self.children[0] if isinstance(self.layer, Residual) and self.layer.shortcut is not None else None

    def below(self) -> Iterator["TreeNode"]:
        """This node and all in it."""
        yield self
        for child in self.children:
            yield from child.below()


@dataclass
class Run:
    """Nodes of one key in a row. `mode`: `one`, a node by itself; `rest`, the first and others that are alike; `step`,
    numbers that grow from each to the next."""

    mode: str
    nodes: list[TreeNode]


def build(architecture: Architecture, numbers: Numbers) -> TreeNode:
    """The root's node, with keys in all nodes."""
    infos = {info.path: (info.input, info.output) for info in analyse(architecture)}
    units = grouped(architecture, infos)
    whole = Block("", architecture.layers)
    root = _node(whole, "", architecture.input, infos[architecture.layers[-1].name][1], infos, numbers, units)
    shortcuts = _shortcuts(root)
    _set_keys(root, shortcuts, numbers, plain=False)
    return root


def _node(
    layer: Layer, path: str, into: Shape, out: Shape, infos: Any, numbers: Numbers, units: frozenset[Unit]
) -> TreeNode:
    node = TreeNode(path, layer.name, layer, into, out)
    if isinstance(layer, Primitive):
        node.numbers = {name: number_of(layer, name, into, out) for name in numbers.get(type(layer), ())}
        return node
    for child in children(layer):
        below = join(path, child.name)
        into, out = infos[below]
        node.children.append(_node(child, below, into, out, infos, numbers, units))
        node.children[-1].branch = node.is_flow
    if node.is_row:
        node.children = [one for child in node.children for one in _dense_apart(child)]
        node.children = _with_units(node, units)
        node.children = _fused(node.children)
    return node


def _dense_apart(node: TreeNode) -> list[TreeNode]:
    """MXNet's dense layer, which flattens what it is given, is two layers of the row, as elsewhere; else the node."""
    if not isinstance(node.layer, Block) or [type(layer) for layer in node.layer.layers] != [Flatten, Dense]:
        return [node]
    node.children[-1].name = node.name
    return node.children


def _fused(row: list[TreeNode]) -> list[TreeNode]:
    """Without the layers whose work the one before, or a dense layer behind, does as its framework has it."""
    result: list[TreeNode] = []
    for node in row:
        before = result[-1] if result else node
        names = [name for name, kinds in FUSED.items() if name in before.numbers and isinstance(node.layer, kinds)]
        if names and before is not node and before.numbers[names[0]] == "":
            before.numbers[names[0]] = type(node.layer).__name__.lower()
            before.taken, before.output = (*before.taken, node.path), node.output
        elif "flattens" in node.numbers and isinstance(before.layer, Flatten):
            node.taken = (before.path,)
            result[-1] = node
        else:
            result.append(node)
    return result


def _with_units(row: TreeNode, units: frozenset[Unit]) -> list[TreeNode]:
    """The row's nodes, those of a unit under one."""
    result: list[TreeNode] = []
    rest = row.children
    while rest:
        kinds = tuple(type(node.layer) for node in rest)
        unit = max((unit for unit in units if kinds[: len(unit)] == unit), key=len, default=())
        if unit:
            taken = rest[: len(unit)]
            result.append(TreeNode(row.path, taken[0].name, None, taken[0].input, taken[-1].output, taken))
        else:
            result.append(rest[0])
        rest = rest[max(1, len(unit)) :]
    return result


def number_of(layer: Any, name: str, into: Shape, out: Shape) -> Any:
    """A number of a layer: its own field, or one that its shapes tell."""
    if name == "inputs":
        return into[0]
    if name == "overhang":
        return overhang(layer, into) if isinstance(layer, MaxPool | AvgPool) else (0, 0)
    if name == "kernel_pair":
        return Kept(layer.kernel)
    if name == "size":
        return out[1:]
    if name == "crop":
        return out[1:] if layer.ceil and _rounded_up(layer, into) != out[1:] else ()
    if name in FUSED:
        return ""  # until the neighbours are known
    if name == "map":
        return into[1:]
    if name == "rank":
        return len(into)
    return getattr(layer, name)


def _rounded_up(layer: MaxPool | AvgPool, into: Shape) -> Shape:
    """The size of all windows that begin within the map and its padding, and those wholly in it."""
    sides = zip(into[1:], layer.kernel, layer.stride, layer.padding, strict=True)
    return tuple(-(-(size + 2 * p - k) // s) + 1 for size, k, s, p in sides)


def _shortcuts(root: TreeNode) -> dict[Key, Key]:
    """By the key of a residual's body: the key of its shortcut, where all that have one have the same."""
    _set_keys(root, {}, {}, plain=False)
    found: dict[Key, set[Key]] = {}
    for node in root.below():
        if isinstance(node.layer, Residual):
            found.setdefault(node.children[-1].key, set()).update([node.shortcut.key] if node.shortcut else [])
    return {body: next(iter(keys)) for body, keys in found.items() if len(keys) == 1}


def _set_keys(node: TreeNode, shortcuts: Mapping[Key, Key], numbers: Numbers, plain: bool) -> None:
    for child in node.children:
        _set_keys(child, shortcuts, numbers, plain=not isinstance(node.layer, Branches))
    if isinstance(node.layer, Primitive):
        own = {f.name: getattr(node.layer, f.name) for f in fields(node.layer) if f.name not in node.numbers}
        own.pop("name", None)
        if "kernel_pair" in node.numbers:
            own.pop("kernel", None)
        node.loose = (type(node.layer).__name__, *own.items())
        node.key = (*node.loose, *((name, value) for name, value in node.numbers.items() if name not in SOFT))
    elif node.is_unit:
        node.loose = ("unit", *(child.loose for child in node.children))
        node.key = ("unit", *(child.key for child in node.children))
    else:
        node.key = node.loose = _composite_key(node, shortcuts, plain)


def _composite_key(node: TreeNode, shortcuts: Mapping[Key, Key], plain: bool) -> Key:
    layer = node.layer
    keys = tuple(child.key for child in node.children)
    match layer:
        case Branches():
            return ("branches", layer.merge, keys)
        case Residual():
            shortcut = shortcuts.get(keys[-1], keys[0] if len(keys) > 1 else ())
            return ("residual", keys[-1], shortcut)
        case Graph():
            places = {child.name: i for i, child in enumerate(node.children)}
            wires = tuple((tuple(places.get(name, -1) for name in n.inputs), n.merge) for n in layer.nodes)
            return ("graph", keys, wires, tuple(places[name] for name in layer.outputs))
    node.runs = runs_of(node, plain and flow_of(node) is None)
    return ("row", *((run.mode, run.nodes[0].key) for run in node.runs))


def flow_of(node: TreeNode) -> TreeNode | None:
    """What branches in a block that otherwise is layers one after the other: the block is written as one with it."""
    if not isinstance(node.layer, Block) or not node.path or node.branch:
        return None
    flows = [child for child in node.children if child.is_flow]
    simple = all(child.is_leaf or child.is_unit or child.is_flow for child in node.children)
    return flows[0] if len(flows) == 1 and simple else None


def runs_of(row: TreeNode, compressed: bool) -> list[Run]:
    """The row's nodes, neighbours of one key together where a rule makes all of the first (and the second)."""
    groups: list[list[TreeNode]] = []
    for child in row.children:
        if groups and groups[-1][0].key == child.key:
            groups[-1].append(child)
        else:
            groups.append([child])
    result: list[Run] = []
    for group in groups:
        mode = _mode(group) if compressed else "one"
        result += [Run("one", [node]) for node in group] if mode == "one" else [Run(mode, group)]
    return result


def _mode(group: list[TreeNode]) -> str:
    vectors = [values(node) for node in group]
    if all(vector == vectors[1] for vector in vectors[2:]):
        return "rest"
    if any(len(vector) != len(vectors[0]) for vector in vectors):
        return "one"
    steps = [_difference(one, other) for one, other in pairwise(vectors)]
    return "step" if None not in steps and all(step == steps[0] for step in steps) else "one"


def _difference(one: list[Any], other: list[Any]) -> list[int] | None:
    """By how much each number grows; None if one that is no whole number changes."""
    steps = []
    for a, b in zip(one, other, strict=True):
        if a == b:
            steps.append(0)
        elif type(a) is int and type(b) is int:
            steps.append(b - a)
        else:
            return None
    return steps


def values(node: TreeNode) -> list[Any]:
    """All numbers of a node and of those in it, as they are there: for comparisons."""
    own: list[Any] = [node.layer.scale] if isinstance(node.layer, Residual) else []
    if isinstance(node.layer, Residual) and node.shortcut is None:
        own.append("identity")
    return [*node.numbers.values(), *own, *(value for child in node.children for value in values(child))]
