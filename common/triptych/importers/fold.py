"""Steps to a tree: rows, branches and residuals where the graph is series-parallel, a `Graph` only where it is not.

One pass in the order of execution (after Valdes, Tarjan and Lawler 1982). An edge carries the row of layers that lies
on it. *Series*: a step with one input and one taker joins the row of its taker. *Parallel*: edges from one place into
one merge become branches. Where a merge still takes from several places, the smallest region before it that has one
entry and that nothing leaves becomes a `Graph`. Nothing here is recursive: a file may have ten thousand steps in a row.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from triptych.importers.rows import Item, NoTreeError, Row, composite, joined_rows, own_row
from triptych.importers.steps import Step, needed
from triptych.spec.layers import (
    INPUT,
    Block,
    Graph,
    Layers,
    Merge,
    Node,
)
from triptych.utils.errors import TriptychError

MOST_VISITS = 300_000  # while looking for regions; a graph for which they are not enough was made to have none
_START = 0  # the place of the network's input


@dataclass(eq=False)
class _Edge:
    """What a step takes: the output at the place `source`, sent through `row`. `parts`: the rows of a merge that may
    still get more of them; nothing is in `row` then."""

    source: int
    row: Row = field(default_factory=list)
    parts: list[Row] | None = None


@dataclass(eq=False)
class _Place:
    """A step: its inputs, what it does with their merged values, and how many edges lead away from it."""

    name: str
    inputs: list[_Edge]
    merge: Merge
    row: Row
    takers: int = 0


def fold(steps: Sequence[Step], outputs: Sequence[str]) -> Layers:
    """The layers of these steps, as far as the outputs need them. A leaf has its step's name, a merge that of the step
    that merges; Blocks in them have none. Several outputs: the last record is a `Graph` that names them. Branches too
    deep in each other, and graphs too involved: one `Graph` of all steps. Raises TriptychError for a step that takes a
    later one, and for two steps of one name."""
    wanted = needed({step.name: step.inputs for step in steps}, outputs)
    steps = [step for step in steps if step.name in wanted]
    try:
        return _Fold(steps, outputs).layers()
    except NoTreeError:
        return _Fold(steps, outputs).flat()


class _Fold:
    def __init__(self, steps: Sequence[Step], outputs: Sequence[str]) -> None:
        self.visits = MOST_VISITS
        self.places = [_Place(INPUT, [], "concatenate", [])]
        self.numbers = numbers = {INPUT: _START}
        for step in steps:
            if step.name in numbers:
                raise TriptychError(f"two steps are called {step.name!r} ({INPUT!r} is the network's input)")
            inputs = [numbers[_earlier(step, name, numbers)] for name in step.inputs]
            if len(inputs) == 1 and step.layer == Block(step.layer.name, ()):
                numbers[step.name] = inputs[0]
                continue
            numbers[step.name] = len(self.places)
            self.places.append(_Place(step.name, self._edges(inputs), step.merge, own_row(step)))
        ends = dict.fromkeys(numbers[name] for name in outputs)
        self.end = _Place("", self._edges(ends), "concatenate", [])

    def _edges(self, sources: Iterable[int]) -> list[_Edge]:
        edges = [_Edge(source) for source in sources]
        for edge in edges:
            self.places[edge.source].takers += 1
        return edges

    def layers(self) -> Layers:
        for place in self.places[1:]:
            self._join(place)
            if len(place.inputs) > 1:
                self._close(place)
        for edge in self.end.inputs:
            self._pull(edge, self.end)
        last = self._last_graph() if len(self.end.inputs) > 1 else ()
        (trunk,) = self.end.inputs
        assert trunk.source == _START
        return (*(item.layer for item in trunk.row), *last)

    def flat(self) -> Layers:
        """Every step as a node of one graph."""
        graph = _Nodes(self.places, self.numbers, _START, list(range(1, len(self.places))))
        return (Graph("", graph.nodes(), tuple(graph.end_of(edge) for edge in self.end.inputs)),)

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
            layer = joined_rows(place.name, place.merge, edge.parts)
            edge.row, edge.parts = [composite(layer, edge.parts)], None

    def _close(self, place: _Place) -> None:
        """What lies between this merge and the one place that all of it comes from becomes a Graph, unless something
        else takes from the midst of it."""
        region = self._region(place)
        if region is None:
            return
        entry, within, count = region
        graph = _Nodes(self.places, self.numbers, entry, within, last=place.name)
        end = graph.add_merge(place, [])
        record = Graph(place.name, graph.nodes(), (end,))
        edge = _Edge(entry, [composite(record, graph.rows)])
        self.places[entry].takers -= count - 1
        place.inputs = [edge]
        self._pull(edge, place)

    def _region(self, place: _Place) -> tuple[int, list[int], int] | None:
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
            if taken[number] != self.places[number].takers:
                return None
            self.visits -= 1
            if self.visits < 0:
                raise NoTreeError
            within.append(number)
            take(self.places[number].inputs)
        entry = -latest[0]
        return entry, within[::-1], taken[entry]

    def _last_graph(self) -> Layers:
        """Of several outputs, which stay apart. The row before the graph is left on the only edge of the end."""
        region = self._region(self.end)
        assert region is not None
        entry, within, count = region
        self.places[entry].takers -= count - 1
        trunk = _Edge(entry)
        self._pull(trunk, self.end)
        own = any(edge.source == entry and not edge.row for edge in self.end.inputs)  # the trunk's end is an output
        graph = _Nodes(self.places, self.numbers, entry, within, first=trunk.row.pop() if own else None)
        ends = tuple(graph.end_of(edge) for edge in self.end.inputs)
        self.end.inputs = [trunk]
        return (Graph("", graph.nodes(), ends),)


class _Nodes:
    """The nodes of a Graph; `rows` for the depth and size of what is in them."""

    def __init__(
        self,
        places: list[_Place],
        numbers: Mapping[str, int],
        entry: int,
        within: list[int],
        last: str = "",
        first: Item | None = None,
    ) -> None:
        self.numbers = numbers
        self.found: list[tuple[int, Node]] = []
        self.rows: list[Row] = []
        self.names = {INPUT, last, *(places[number].name for number in within)}
        self.names |= {first.layer.name} if first else set()
        self.calls = {entry: INPUT if first is None else self._add(first.layer.name, [first], (INPUT,))}
        for number in within:
            place = places[number]
            if len(place.inputs) > 1:
                self.calls[number] = self.add_merge(place, place.row)
            else:
                (edge,) = place.inputs
                self.calls[number] = self._add(place.name, edge.row + place.row, (self.calls[edge.source],))

    def nodes(self) -> tuple[Node, ...]:
        """In the order in which the source runs the last step of each."""
        return tuple(node for _, node in sorted(self.found, key=lambda numbered: numbered[0]))

    def add_merge(self, place: _Place, row: Row) -> str:
        return self._add(place.name, row, tuple(self.end_of(edge) for edge in place.inputs), place.merge)

    def end_of(self, edge: _Edge) -> str:
        """The node at the end of the edge: its source, if nothing lies on it."""
        source = self.calls[edge.source]
        if not edge.row:
            return source
        name = edge.row[-1].layer.name
        while name in self.names:  # a merge of which a part was joined before
            name = f"{edge.row[-1].layer.name}'{len(self.names)}"
        self.names.add(name)
        return self._add(name, edge.row, (source,))

    def _add(self, name: str, row: Row, inputs: tuple[str, ...], merge: Merge = "concatenate") -> str:
        self.rows.append(row)
        layers = tuple(item.layer for item in row)
        layer = layers[0] if len(layers) == 1 and layers[0].name == name else Block(name, layers)
        last = self.numbers.get(row[-1].layer.name if row else name, 0)
        self.found.append((last, Node(layer, inputs, merge)))
        return name


def _earlier(step: Step, name: str, known: dict[str, int]) -> str:
    if name not in known:
        raise TriptychError(f"step {step.name!r} takes {name!r}, which no step before it is called")
    return name
