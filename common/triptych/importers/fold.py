"""Steps to a tree: rows, branches and residuals where the graph is series-parallel, a `Graph` only where it is not.

One pass in the order of execution (after Valdes, Tarjan and Lawler 1982). An edge carries the row of layers that lies
on it. *Series*: a step with one input and one taker joins the row of its taker. *Parallel*: edges from one place into
one merge become branches. Where a merge still takes from several places, the smallest region before it that has one
entry and that nothing leaves becomes a `Graph`. Nothing here is recursive: a file may have ten thousand steps in a row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from triptych.importers.steps import Step
from triptych.spec.layers import (
    INPUT,
    Affine,
    Block,
    Branches,
    Conv,
    ConvTranspose,
    Dense,
    Graph,
    Layer,
    Layers,
    Merge,
    Node,
    Primitive,
    Residual,
    children,
)
from triptych.utils.errors import TriptychError

MOST_NESTED = 40  # branches within branches; whatever walks the tree is recursive
_MOST_VISITS = 1_000_000  # while looking for closed regions in graphs made to have none
_START = 0  # the place of the network's input


class _Item(NamedTuple):
    """A record in a row; how many composites lie in each other in it, and its number of primitives."""

    layer: Layer
    depth: int = 0
    size: int = 1


_Row = list[_Item]


@dataclass(eq=False)
class _Edge:
    """What a step takes: the output at the place `source`, sent through `row`. `parts`: the rows of a merge that may
    still get more of them; nothing is in `row` then."""

    source: int
    row: _Row = field(default_factory=list)
    parts: list[_Row] | None = None


@dataclass(eq=False)
class _Place:
    """A step: its inputs, what it does with their merged values, and how many edges lead away from it."""

    name: str
    inputs: list[_Edge]
    merge: Merge
    row: _Row
    takers: int = 0


def fold(steps: Sequence[Step], outputs: Sequence[str]) -> Layers:
    """The layers of these steps, every one of which the outputs need. A leaf has its step's name, a merge that of the
    step that merges; Blocks in them have none. Several outputs: the last record is a `Graph` that names them. Raises
    TriptychError for a step that takes a later one, for two steps of one name, for branches too deep in branches."""
    return _Fold(steps, outputs).layers()


class _Fold:
    def __init__(self, steps: Sequence[Step], outputs: Sequence[str]) -> None:
        self.visits = _MOST_VISITS
        self.places = [_Place(INPUT, [], "concatenate", [])]
        numbers = {INPUT: _START}
        for step in steps:
            if step.name in numbers:
                raise TriptychError(f"two steps are called {step.name!r} ({INPUT!r} is the network's input)")
            inputs = [numbers[_earlier(step, name, numbers)] for name in step.inputs]
            if len(inputs) == 1 and step.layer == Block(step.layer.name, ()):
                numbers[step.name] = inputs[0]
                continue
            numbers[step.name] = len(self.places)
            self.places.append(_Place(step.name, self._edges(inputs), step.merge, _own_row(step)))
        ends = dict.fromkeys(numbers[name] for name in outputs)
        self.end = _Place("", self._edges(ends), "concatenate", [])

    def _edges(self, sources: Iterable[int]) -> list[_Edge]:
        edges = [_Edge(source) for source in sources]
        for edge in edges:
            self.places[edge.source].takers += 1
        return edges

    def layers(self) -> Layers:
        only = self.end.inputs[0].source if len(self.end.inputs) == 1 else None
        for number, place in enumerate(self.places):
            if place.inputs:
                self._join(place)
                if len(place.inputs) > 1:
                    self._close(place, whole=number == only)
        for edge in self.end.inputs:
            self._pull(edge, self.end)
        last = self._last_graph() if only is None else ()
        return (*(item.layer for item in self.end.inputs[0].row), *last)

    def _pull(self, edge: _Edge, into: _Place) -> None:
        """Series: what only this edge takes, and what takes one thing itself, joins the edge's row."""
        while edge.source != _START:
            place = self.places[edge.source]
            if place.takers != 1 or len(place.inputs) != 1:
                return
            self._seal(edge, into)
            (before,) = place.inputs
            before.row += place.row
            before.row += edge.row
            edge.row, edge.source = before.row, before.source

    def _join(self, place: _Place) -> None:
        """Parallel: edges from one source become one, as far as the order of what is merged allows."""
        joined = self._summed(place) if place.merge == "add" else self._in_order(place)
        for edge in joined:
            self._seal(edge, place)
        place.inputs = joined

    def _in_order(self, place: _Place) -> list[_Edge]:
        """Neighbours only; of a product the first ones only, because rounding is not associative."""
        joined: list[_Edge] = []
        for edge in place.inputs:
            self._pull(edge, place)
            while joined and joined[-1].source == edge.source and (place.merge == "concatenate" or len(joined) == 1):
                edge = self._side_by_side(joined.pop(), edge, place)
            joined.append(edge)
        return joined

    def _summed(self, place: _Place) -> list[_Edge]:
        joined: dict[int, _Edge] = {}
        for edge in place.inputs:
            self._pull(edge, place)
            while edge.source in joined:
                edge = self._side_by_side(joined.pop(edge.source), edge, place)
            joined[edge.source] = edge
        return list(joined.values())

    def _side_by_side(self, first: _Edge, second: _Edge, into: _Place) -> _Edge:
        parts = first.parts or [first.row]
        parts += second.parts or [second.row]
        self.places[first.source].takers -= 1
        edge = _Edge(first.source, parts=parts)
        self._pull(edge, into)
        return edge

    def _seal(self, edge: _Edge, place: _Place) -> None:
        """The parts that came together become one record."""
        if edge.parts is not None:
            layer = _joined(place.name, place.merge, edge.parts)
            edge.row, edge.parts = [_composite(layer, edge.parts)], None

    def _close(self, place: _Place, whole: bool) -> None:
        """What lies between this merge and the one place that all of it comes from becomes a Graph, unless something
        else takes from the midst of it."""
        region = self._region(place, whole)
        if region is None:
            return
        entry, within, count = region
        graph = _Nodes(self.places, entry, within, last=place.name)
        end = graph.add_merge(place, [])
        record = Graph(place.name, tuple(graph.nodes), (end,))
        edge = _Edge(entry, [_composite(record, graph.rows)])
        self.places[entry].takers -= count - 1
        place.inputs = [edge]
        self._pull(edge, place)

    def _region(self, place: _Place, whole: bool) -> tuple[int, list[int], int] | None:
        """The nearest place that `place` comes from alone, what lies between, and the number of edges between that
        place and them. Backwards, the latest first: where one place is left to look at, all paths run through it."""
        taken: dict[int, int] = {}
        latest: list[int] = []
        within: list[int] = []

        def take(edges: list[_Edge]) -> None:
            for edge in edges:
                if edge.source not in taken:
                    heapq.heappush(latest, -edge.source)
                taken[edge.source] = taken.get(edge.source, 0) + 1

        take(place.inputs)
        while len(latest) > 1:
            number = -heapq.heappop(latest)
            self.visits -= 1
            if taken[number] != self.places[number].takers or (self.visits < 0 and not whole):
                return None
            within.append(number)
            take(self.places[number].inputs)
        entry = -latest[0]
        return entry, within[::-1], taken[entry]

    def _last_graph(self) -> Layers:
        """Of several outputs, which stay apart. The row before the graph is left on the only edge of the end."""
        region = self._region(self.end, True)
        assert region is not None
        entry, within, count = region
        self.places[entry].takers -= count - 1
        trunk = _Edge(entry)
        self._pull(trunk, self.end)
        own = any(edge.source == entry and not edge.row for edge in self.end.inputs)  # the trunk's end is an output
        graph = _Nodes(self.places, entry, within, first=trunk.row.pop() if own else None)
        ends = tuple(graph.end_of(edge) for edge in self.end.inputs)
        self.end.inputs = [trunk]
        return (Graph("", tuple(graph.nodes), ends),)


class _Nodes:
    """The nodes of a Graph, in the order of execution; `rows` for the depth and size of what is in them."""

    def __init__(
        self, places: list[_Place], entry: int, within: list[int], last: str = "", first: _Item | None = None
    ) -> None:
        self.nodes: list[Node] = []
        self.rows: list[_Row] = []
        self.names = {INPUT, last, *(places[number].name for number in within)}
        self.calls = {entry: INPUT if first is None else self._add(first.layer.name, [first], (INPUT,))}
        for number in within:
            place = places[number]
            if len(place.inputs) > 1:
                self.calls[number] = self.add_merge(place, place.row)
            else:
                (edge,) = place.inputs
                self.calls[number] = self._add(place.name, edge.row + place.row, (self.calls[edge.source],))

    def add_merge(self, place: _Place, row: _Row) -> str:
        return self._add(place.name, row, tuple(self.end_of(edge) for edge in place.inputs), place.merge)

    def end_of(self, edge: _Edge) -> str:
        """The node at the end of the edge: its source, if nothing lies on it."""
        source = self.calls[edge.source]
        if not edge.row:
            return source
        name = edge.row[-1].layer.name
        while name in self.names:
            name += "'"
        self.names.add(name)
        return self._add(name, edge.row, (source,))

    def _add(self, name: str, row: _Row, inputs: tuple[str, ...], merge: Merge = "concatenate") -> str:
        self.rows.append(row)
        layers = tuple(item.layer for item in row)
        layer = replace(layers[0], name=name) if len(layers) == 1 else Block(name, layers)
        self.nodes.append(Node(layer, inputs, merge))
        return name


def _earlier(step: Step, name: str, known: dict[str, int]) -> str:
    if name not in known:
        raise TriptychError(f"step {step.name!r} takes {name!r}, which no step before it is called")
    return name


def _own_row(step: Step) -> _Row:
    """The step's own layer; a composite comes whole, and has its step's name."""
    if isinstance(step.layer, Block) and not step.layer.layers:
        return []
    if len(step.inputs) > 1 and not isinstance(step.layer, Primitive):
        raise TriptychError(f"step {step.name!r} merges, and holds more than one layer; make it two steps")
    layer = replace(step.layer, name=step.name)
    return [_Item(layer, 0 if isinstance(layer, Primitive) else 1)]


def _composite(layer: Layer, rows: Iterable[_Row]) -> _Item:
    """A record around these rows. Raises TriptychError where too many lie in each other."""
    items = [item for row in rows for item in row]
    depth = 1 + max((item.depth for item in items), default=0)
    if depth > MOST_NESTED:
        raise TriptychError(f"at {layer.name!r} more than {MOST_NESTED} branches lie within each other; not supported")
    return _Item(layer, depth, sum(item.size for item in items))


def _joined(name: str, merge: Merge, rows: list[_Row]) -> Layer:
    if merge == "add" and len(rows) == 2:
        first, second = sorted(rows, key=_size)
        if _is_shortcut(first) and _size(first) < _size(second):
            return _residual(name, first, second)
    return Branches(name, tuple(_block("", row) for row in rows), merge)


def _size(row: _Row) -> int:
    return sum(item.size for item in row)


def _is_shortcut(row: _Row) -> bool:
    """The identity, or a projection: at most one layer with a kernel, and no branches."""
    weighted = sum(isinstance(item.layer, Conv | ConvTranspose | Dense) for item in row)
    return weighted <= 1 and all(isinstance(item.layer, Primitive) for item in row)


def _residual(name: str, shortcut: _Row, body: _Row) -> Residual:
    scale = 1.0
    match body[-1].layer:
        case Affine(scale=(number,), shift=(0.0,), trained=False) if len(body) > 1:
            scale, body = number, body[:-1]
    return Residual(name, _block("body", body), _block("shortcut", shortcut) if shortcut else None, scale)


def _block(name: str, row: _Row) -> Block:
    return Block(name, tuple(item.layer for item in row))


def same_structure(first: Iterable[Layer], second: Iterable[Layer]) -> bool:
    """Whether two rows of layers are the same up to names and to Blocks, which only group a row."""
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
    below = _nameless(children(layer))
    return replace(layer, name="", layers=below) if below else replace(layer, name="")  # type: ignore[call-arg]


def _numbered(graph: Graph) -> Graph:
    """Its nodes called by their number."""
    numbers = {INPUT: INPUT} | {node.layer.name: str(i) for i, node in enumerate(graph.nodes)}
    nodes = tuple(
        Node(Block("", _nameless((node.layer,))), tuple(numbers[i] for i in node.inputs), node.merge)
        for node in graph.nodes
    )
    return Graph("", nodes, tuple(numbers[output] for output in graph.outputs))
