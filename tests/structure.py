"""Whether two trees are one, whatever their records are called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from triptych.spec.layers import INPUT, Auxiliary, Block, Branches, Graph, Layer, Layers, Node, Residual


def same_structure(first: Iterable[Layer], second: Iterable[Layer]) -> bool:
    """Whether two rows of layers are the same up to names, to Blocks, which only group a row, and to what numbers have
    beyond six digits: files hold a momentum of 0.9 in 32 bits, as 0.89999998."""
    return _nameless(first) == _nameless(second)


def _nameless(layers: Iterable[Layer]) -> Layers:
    row: list[Layer] = []
    for layer in layers:
        if isinstance(layer, Block):
            row += _nameless(layer.layers)
        else:
            row.append(_without_names(layer))
    return tuple(row)


def _without_names(layer: Layer) -> Layer:
    def block(inner: Block | None) -> Block | None:
        return inner and Block("", _nameless(inner.layers))

    match layer:
        case Branches():
            return replace(layer, name="", branches=tuple(Block("", _nameless(b.layers)) for b in layer.branches))
        case Residual():
            return replace(layer, name="", body=Block("", _nameless(layer.body.layers)), shortcut=block(layer.shortcut))
        case Graph():
            return _numbered(layer)
        case Auxiliary():
            return replace(layer, name="", layers=_nameless(layer.layers))
    numbers = {key: float(f"{value:.6g}") for key, value in vars(layer).items() if isinstance(value, float)}
    return replace(layer, **(numbers | {"name": ""}))  # type: ignore[arg-type]


def _numbered(graph: Graph) -> Graph:
    """Its nodes called by their number."""
    numbers = {INPUT: INPUT} | {node.layer.name: str(i) for i, node in enumerate(graph.nodes)}
    nodes = tuple(
        Node(Block("", _nameless((node.layer,))), tuple(numbers[i] for i in node.inputs), node.merge)
        for node in graph.nodes
    )
    return Graph("", nodes, tuple(numbers[output] for output in graph.outputs))
