"""Names of an imported network: the file's own, cleaned, unique at their place; what they have in common is a Block.

A folded tree calls its leaves as the file does. Here every record gets a name such as the zoo's
(`stage1.unit2.body.conv1`). `triptych.importers.grouping` says which layers of a row become a Block."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from triptych.importers.grouping import Item, groups
from triptych.importers.name_parts import Parts, beginnings, common, name_parts
from triptych.spec.layers import (
    INPUT,
    Affine,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    ConvTranspose,
    Dense,
    GlobalAvgPool,
    GlobalMaxPool,
    Graph,
    Layer,
    Layers,
    LocalResponseNorm,
    MaxPool,
    Node,
    PReLU,
    Primitive,
    Residual,
    children,
    join,
)

HEADS = "heads"  # what the last record is called that has several outputs
_LONGEST = 48  # characters of a name
_WORDS: dict[type, str] = {
    BatchNorm: "norm",
    LocalResponseNorm: "lrn",
    MaxPool: "pool",
    AvgPool: "pool",
    GlobalAvgPool: "pool",
    GlobalMaxPool: "pool",
    ConvTranspose: "conv_transpose",
    Residual: "unit",
    Block: "unit",
}
_MERGED = {"concatenate": "mixed", "add": "sum", "multiply": "product"}
_TRAINED = Conv | ConvTranspose | Dense | BatchNorm | PReLU
# What programs call a merge to which its author gave no name.
_GENERIC = re.compile(
    r"_*(elemwise_|broadcast_)?(plus|add|sum|mul|multiply|concat|concatenate|cat|eltwise)[_\d]*", re.IGNORECASE
)


def named(layers: Layers, whole: Collection[str] = ()) -> tuple[Layers, dict[str, str]]:
    """The tree that `fold` made of steps with its final names, and the path that every step's layer got. `whole`: the
    steps that came as a composite, which stays as it is inside."""
    naming = _Naming(layers, frozenset(whole))
    return naming.row(layers, (), ""), naming.paths


class _Known(NamedTuple):
    """What the names of the leaves below begin with, and of how many leaves a name says where they belong."""

    parts: Parts = ()
    leaves: int = 0


class _Naming:
    def __init__(self, layers: Layers, whole: frozenset[str]) -> None:
        self.whole = whole
        self.paths: dict[str, str] = {}
        self.parts = name_parts([layer.name for layer in self._all(layers) if layer.name])
        self.known: dict[int, _Known] = {}
        self.counts: Counter[Parts] = Counter()
        for layer in layers:
            self._learn(layer)

    def _all(self, layers: Iterable[Layer]) -> Iterator[Layer]:
        for layer in layers:
            yield layer
            if not self._is_leaf(layer):
                yield from self._all(children(layer))

    def _is_leaf(self, layer: Layer) -> bool:
        return isinstance(layer, Primitive) or layer.name in self.whole

    def _learn(self, layer: Layer) -> _Known:
        """A plain name of a layer without arrays (`relu_17`) says nothing of where it belongs."""
        if self._is_leaf(layer):
            parts = self.parts[layer.name]
            known = _Known(parts, 1) if len(parts) > 1 or not self._is_plain(layer) else _Known()
            self.counts.update(beginnings(known.parts))
        else:
            below = [known for child in children(layer) if (known := self._learn(child)).leaves]
            leaves = sum(known.leaves for known in below)
            parts = common(known.parts for known in below)
            known = _Known(parts[:-1] if leaves == 1 else parts, leaves)
        self.known[id(layer)] = known
        return known

    def _is_plain(self, layer: Layer) -> bool:
        trained = isinstance(layer, _TRAINED) or (isinstance(layer, Affine) and layer.trained)
        return isinstance(layer, Primitive) and not trained

    def row(self, layers: Sequence[Layer], prefix: Parts, path: str) -> Layers:
        """These layers, which stand in a row at `path`, with names behind what the prefix says already."""
        prefix = self._extended(layers, prefix)
        items = [self._item(layer, prefix) for layer in layers]
        composites = [item for item in items if not item.leaf]
        heads = Counter(item.parts[0] if item.parts else None for item in composites)
        used = _Used()
        named: list[Layer] = []
        leaves = {item.parts[0]: self.counts[(*prefix, item.parts[0])] for item in items if item.parts}
        for key, members in groups(items, leaves):
            if key is None:
                named.append(self._record(members[0], prefix, path, used, heads))
            else:
                name = used.unique(_cleaned(key, "unit"))
                below = [member.layer for member in members]
                named.append(Block(name, self.row(below, (*prefix, key), join(path, name))))
        return tuple(named)

    def _extended(self, layers: Sequence[Layer], prefix: Parts) -> Parts:
        """The prefix with what else all layers of the row have in common."""
        known = [known.parts for layer in layers if (known := self.known[id(layer)]).leaves]
        shared = common(known)
        shared = shared[:-1] if len(known) == 1 else shared
        return shared if shared[: len(prefix)] == prefix else prefix

    def _item(self, layer: Layer, prefix: Parts) -> Item:
        leaf = self._is_leaf(layer)
        known = self.known[id(layer)]
        parts = self.parts[layer.name] if leaf else known.parts
        behind = parts[len(prefix) :] if parts[: len(prefix)] == prefix and (leaf or known.leaves) else None
        fixed = layer.name in self.whole or _has_outputs(layer)
        return Item(layer, behind, known.leaves, leaf, fixed)

    def _record(self, item: Item, prefix: Parts, path: str, used: _Used, heads: Counter[str | None]) -> Layer:
        layer = item.layer
        if item.leaf:
            name = used.unique(self._leaf_name(layer, prefix))
            self.paths[layer.name] = join(path, name)
            return replace(layer, name=name)
        known: Parts = item.parts or ()
        if known:
            known = known[:1] if heads[known[0]] == 1 else known
            name = used.unique(_cleaned("_".join(known), _word(layer)))
        else:
            name = self._fallback(layer, prefix, used, alone=heads.total() == 1)
        return self._inside(layer, name, (*prefix, *known), join(path, name))

    def _fallback(self, layer: Layer, prefix: Parts, used: _Used, alone: bool) -> str:
        """Of a composite whose leaves say nothing: what the step that merges is called, else its kind, numbered."""
        if _has_outputs(layer):
            return used.unique(HEADS)
        if own := self._merge_name(layer, prefix):
            return used.unique(_cleaned(own, _word(layer)))
        return used.unique("residual") if alone and isinstance(layer, Residual) else used.numbered(_word(layer))

    def _leaf_name(self, layer: Layer, prefix: Parts) -> str:
        parts = self.parts[layer.name]
        outer, *inner = parts[len(common((parts, prefix))) :] or ("",)
        outer = f"unit{outer}" if inner and outer.isdigit() else outer
        return _cleaned("_".join((outer, *inner)), _word(layer))

    def _merge_name(self, layer: Layer, prefix: Parts) -> str:
        """What the file calls the step that merges, if it is more than the operator's name."""
        parts = self.parts.get(layer.name, ())
        parts = parts[:-1] if parts and _GENERIC.fullmatch(parts[-1]) else parts
        return "_".join(parts[len(common((parts, prefix))) :])

    def _inside(self, layer: Layer, name: str, prefix: Parts, path: str) -> Layer:
        """A composite with its name, and with names in it."""

        def block(name: str, inner: Block) -> Block:
            return Block(name, self.row(inner.layers, prefix, join(path, name)))

        match layer:
            case Block():
                return Block(name, self.row(layer.layers, prefix, path))
            case Branches():
                telling = [branch for branch in layer.branches if self.known[id(branch)].leaves]
                prefix = self._extended(telling, prefix) if len(telling) > 1 else prefix
                names = self._branch_names(layer, prefix)
                return Branches(name, tuple(map(block, names, layer.branches)), layer.merge)
            case Residual():
                shortcut = block("shortcut", layer.shortcut) if layer.shortcut else None
                return Residual(name, block("body", layer.body), shortcut, layer.scale)
            case Graph():
                return self._graph(layer, name, prefix, path)
        raise TypeError(f"{type(layer).__name__} is no record that fold makes")

    def _branch_names(self, layer: Branches, prefix: Parts) -> list[str]:
        used = _Used()
        known = [self.known[id(branch)].parts for branch in layer.branches]
        behind = [parts[len(prefix) :] if parts[: len(prefix)] == prefix else () for parts in known]
        heads = Counter(parts[0] for parts in behind if parts)
        names = []
        for number, (branch, parts) in enumerate(zip(layer.branches, behind, strict=True), 1):
            own = "" if not parts else parts[0] if heads[parts[0]] == 1 else "_".join(parts)
            name = _cleaned(own, "branch") if own else f"branch{number}" if branch.layers else "identity"
            names.append(used.unique(name))
        return names

    def _graph(self, graph: Graph, name: str, prefix: Parts, path: str) -> Graph:
        used = _Used(INPUT)
        calls = {INPUT: INPUT}
        nodes: list[Node] = []
        for node in graph.nodes:
            layer = self._node(node, prefix, path, used)
            calls[node.layer.name] = layer.name
            nodes.append(Node(layer, tuple(calls[i] for i in node.inputs), node.merge))
        return Graph(name, tuple(nodes), tuple(calls[output] for output in graph.outputs))

    def _node(self, node: Node, prefix: Parts, path: str, used: _Used) -> Layer:
        """A node is called as the file calls the last step in it."""
        layer = node.layer
        if self._is_leaf(layer):
            return self._record(self._item(layer, prefix), prefix, path, used, Counter())
        own = self._merge_name(layer, prefix)
        word = _MERGED[node.merge] if layer == Block(layer.name, ()) else _word(layer)
        name = used.unique(_cleaned(own, word)) if own else used.numbered(word)
        return self._inside(layer, name, prefix, join(path, name))


def _has_outputs(layer: Layer) -> bool:
    """Whether it gives the network's several outputs, and so has to stand at the end of the top level."""
    return isinstance(layer, Graph) and len(layer.outputs) > 1


def _word(layer: Layer) -> str:
    """What a layer of this kind is called that has no name: `norm`, `conv`, `hard_swish`."""
    if isinstance(layer, Branches):
        return _MERGED[layer.merge]
    kind = type(layer)
    own = kind.__name__.lower() if kind.__name__.endswith("LU") else re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__)
    return _WORDS.get(kind, own.lower())


def _cleaned(name: str, word: str) -> str:
    """Letters, digits and single underscores, a letter first: `3x3` of a convolution becomes `conv3x3`."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_LONGEST].strip("_")
    return name if name[:1].isalpha() else f"{word}{name}"


class _Used:
    """The names at one place."""

    def __init__(self, *names: str) -> None:
        self.last: dict[str, int] = dict.fromkeys(names, 1)

    def unique(self, name: str) -> str:
        """The name, or with the first number from 2 on with which it is new."""
        if name not in self.last:
            self.last[name] = 1
            return name
        return self._next(name, f"{name}_")

    def numbered(self, word: str) -> str:
        """The word with the first number from 1 on with which it is new."""
        self.last.setdefault(f" {word}", 0)
        return self._next(f" {word}", word)

    def _next(self, key: str, stem: str) -> str:
        while True:
            self.last[key] += 1
            if (name := f"{stem}{self.last[key]}") not in self.last:
                self.last[name] = 1
                return name
