"""Names of an imported network."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from triptych.spec.layers import (
    INPUT,
    Block,
    Branches,
    Graph,
    Layer,
    Layers,
    Node,
    Primitive,
    Residual,
    join,
)


def named(layers: Layers, whole: Collection[str] = ()) -> tuple[Layers, dict[str, str]]:
    """TODO names proper; this is the first usable state."""
    naming = _Naming(frozenset(whole))
    return naming.row(layers, ""), naming.paths


class _Naming:
    def __init__(self, whole: frozenset[str]) -> None:
        self.whole = whole
        self.paths: dict[str, str] = {}

    def row(self, layers: Layers, prefix: str) -> Layers:
        used: set[str] = {INPUT}
        return tuple(self.record(layer, prefix, used) for layer in layers)

    def record(self, layer: Layer, prefix: str, used: set[str]) -> Layer:
        leaf = isinstance(layer, Primitive) or layer.name in self.whole
        base = re.sub(r"[^A-Za-z0-9_]+", "_", layer.name).strip("_") or type(layer).__name__.lower()
        if not base[0].isalpha():
            base = f"{type(layer).__name__.lower()}{base}"
        name, count = base, 1
        while name in used:
            count += 1
            name = f"{base}_{count}"
        used.add(name)
        path = join(prefix, name)
        if leaf:
            self.paths[layer.name] = path
            return replace(layer, name=name)
        match layer:
            case Block():
                return Block(name, self.row(layer.layers, path))
            case Branches():
                blocks = tuple(
                    Block(f"branch{i}", self.row(b.layers, join(path, f"branch{i}")))
                    for i, b in enumerate(layer.branches, 1)
                )
                return Branches(name, blocks, layer.merge)
            case Residual():
                shortcut = layer.shortcut and Block("shortcut", self.row(layer.shortcut.layers, join(path, "shortcut")))
                return Residual(
                    name, Block("body", self.row(layer.body.layers, join(path, "body"))), shortcut, layer.scale
                )
            case Graph():
                inner: set[str] = {INPUT}
                calls = {INPUT: INPUT}
                nodes = []
                for node in layer.nodes:
                    record = self.record(node.layer, path, inner)
                    calls[node.layer.name] = record.name
                    nodes.append(Node(record, tuple(calls[i] for i in node.inputs), node.merge))
                return Graph(name, tuple(nodes), tuple(calls[o] for o in layer.outputs))
        raise TypeError(type(layer).__name__)
