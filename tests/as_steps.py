"""An architecture taken apart into the loose steps that an importer would give: what folding has to undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from triptych.importers.steps import Step, merge_only
from triptych.spec.layers import (
    INPUT,
    Affine,
    Auxiliary,
    Block,
    Branches,
    Graph,
    Layer,
    Layers,
    Merge,
    Node,
    Primitive,
    Residual,
    join,
)

Arrays = Mapping[str, np.ndarray]


def as_steps(layers: Layers, arrays: Arrays | None = None) -> tuple[list[Step], tuple[str, ...]]:
    """The steps, called by the paths of the layers, and the names of the outputs. A merge is a step of its own."""
    taken_apart = _TakenApart(arrays or {})
    ends = taken_apart.row(layers, "", INPUT)
    return taken_apart.steps, ends


def as_graph(steps: Sequence[Step], outputs: Sequence[str]) -> tuple[Graph, dict[str, str]]:
    """The steps as the nodes of one graph, nothing folded, and the path of every step's layer."""
    names = {step.name: f"n{place}" for place, step in enumerate(steps)} | {INPUT: INPUT}
    nodes = tuple(
        Node(replace(step.layer, name=names[step.name]), tuple(names[i] for i in step.inputs), step.merge)
        for step in steps
    )
    graph = Graph("graph", nodes, tuple(names[output] for output in outputs))
    return graph, {step.name: join("graph", names[step.name]) for step in steps}


def below(arrays: Arrays, path: str) -> dict[str, np.ndarray]:
    """The arrays of the layer at `path`, by their names in it."""
    return {key.removeprefix(f"{path}."): value for key, value in arrays.items() if key.startswith(f"{path}.")}


class _TakenApart:
    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays
        self.steps: list[Step] = []

    def row(self, layers: Layers, prefix: str, source: str) -> tuple[str, ...]:
        ends: tuple[str, ...] = (source,)
        for layer in layers:
            path = join(prefix, layer.name)
            ends = self.graph(layer, path, ends[0]) if isinstance(layer, Graph) else (self.add(layer, path, ends[0]),)
        return ends

    def add(self, layer: Layer, path: str, source: str) -> str:
        match layer:
            case Block():
                return self.row(layer.layers, path, source)[0]
            case Branches():
                ends = [self.add(branch, join(path, branch.name), source) for branch in layer.branches]
                return self.merge(path, ends, layer.merge)
            case Residual():
                body = self.add(layer.body, join(path, "body"), source)
                if layer.scale != 1:
                    body = self.leaf(Affine("scale", (layer.scale,)), join(path, "scale"), body)
                shortcut = layer.shortcut or Block("shortcut", ())
                return self.merge(path, [self.add(shortcut, join(path, "shortcut"), source), body], "add")
        assert isinstance(layer, Primitive | Auxiliary)
        return self.leaf(layer, path, source)

    def leaf(self, layer: Layer, path: str, source: str) -> str:
        self.steps.append(Step(path, layer, (source,), arrays=below(self.arrays, path)))
        return path

    def merge(self, path: str, ends: list[str], merge: Merge) -> str:
        self.steps.append(merge_only(path, ends, merge))
        return path

    def graph(self, graph: Graph, path: str, source: str) -> tuple[str, ...]:
        ends = {INPUT: source}
        for node in graph.nodes:
            inputs = [ends[name] for name in node.inputs]
            merged = inputs[0] if len(inputs) == 1 else self.merge(f"{path}.{node.layer.name}+", inputs, node.merge)
            ends[node.layer.name] = self.add(node.layer, join(path, node.layer.name), merged)
        return tuple(ends[name] for name in graph.outputs)
