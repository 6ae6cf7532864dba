"""What is written once: functions for rows and units that repeat, classes for what branches; their arguments."""

from collections.abc import Iterator, Sequence
from typing import Any

from triptych.emitting.arguments import Definition, set_arguments
from triptych.emitting.names import definition_names
from triptych.emitting.tree import WILD, Column, Key, Run, TreeNode, flow_of
from triptych.spec.layers import Residual

FUNCTION_LINES = 3  # a function costs beside its own lines


class Plan:
    """The definitions of an architecture, in the order in which they are written, by key."""

    def __init__(self, root: TreeNode, reserved: frozenset[str] = frozenset()) -> None:
        self.root = root
        self._reserved = reserved
        self.definitions: dict[Key, Definition] = {}
        self._short: set[tuple[Key, int]] = set()
        self._examples: dict[Key, TreeNode] = {}
        for node in root.below():
            best = self._examples.get(node.key)
            if best is None or (best.layer is not None and _size(node) > _size(best)):
                self._examples[node.key] = node
        self._expand_short_runs()
        self._define()

    def definition(self, node: TreeNode) -> Definition | None:
        """The function or class that makes this node, if it is written as one."""
        return self.definitions.get(self.key(node))

    @staticmethod
    def key(node: TreeNode) -> Key:
        return node.loose if node.is_unit else node.key

    def runs(self, row: TreeNode) -> list[Run]:
        """The nodes of a row; those that are together everywhere, few and as many, one by one."""
        result: list[Run] = []
        for index, run in enumerate(row.runs or [Run("one", [child]) for child in row.children]):
            short = run.mode == "one" or (row.key, index) in self._short
            result += [Run("one", [node]) for node in run.nodes] if short else [run]
        return result

    def columns(self, node: TreeNode, names: tuple[str, ...] = ()) -> list[Column]:
        """Every number of a node, in an order that is the same for all of its key."""
        if node.is_leaf:
            return [Column(number, value, (*names, node.name)) for number, value in node.numbers.items()]
        result: list[Column] = []
        if node.is_row:
            for run in self.runs(node):
                result += self._run_columns(run, names)
            return result
        if isinstance(node.layer, Residual):
            return self._residual_columns(node, names)
        for child in node.children:
            result += self.columns(child, (*names, child.name))
        return result

    def _run_columns(self, run: Run, names: tuple[str, ...]) -> list[Column]:
        first, *rest = run.nodes
        below = (*names, first.name) if not first.is_leaf else names
        columns = self.columns(first, below)
        if run.mode == "one":
            return columns
        second = self.columns(rest[0], below) if rest else [column._replace(value=WILD) for column in columns]
        if run.mode == "step":
            second = [
                column._replace(number="step", value=0 if other.value == column.value else other.value - column.value)
                for column, other in zip(columns, second, strict=True)
            ]
        return [Column("count", len(run.nodes), below), *columns, *second]

    def _residual_columns(self, node: TreeNode, names: tuple[str, ...]) -> list[Column]:
        assert isinstance(node.layer, Residual)
        body = node.children[-1]
        result = self.columns(body, (*names, "body"))
        example = self._examples[node.key].shortcut
        if example is not None:
            columns = self.columns(example, (*names, "shortcut"))
            there = node.shortcut is not None
            result.append(Column("projected", there, names))
            result += self.columns(node.shortcut, (*names, "shortcut")) if node.shortcut else _wild(columns)
        return [*result, Column("scale", node.layer.scale, names)]

    def _expand_short_runs(self) -> None:
        counts: dict[tuple[Key, int], set[int]] = {}
        for node in self.root.below():
            for index, run in enumerate(node.runs):
                if run.mode != "one":
                    counts.setdefault((node.key, index), set()).add(len(run.nodes))
        self._short = {place for place, found in counts.items() if len(found) == 1 and max(found) <= 2}

    def _define(self) -> None:
        nodes: dict[Key, list[TreeNode]] = {}
        places: dict[Key, set[Any]] = {}
        inlined = _inlined(self.root)
        for node, place in _with_places(self.root, self.key(self.root)):
            if not node.is_leaf and node not in inlined:
                nodes.setdefault(self.key(node), []).append(node)
                places.setdefault(self.key(node), set()).add(place)
        keys = [key for key in _inner_first(self.root, self.key) if key in nodes]
        worth = [key for key in keys if self._is_worth(nodes[key][0], len(places[key]))]
        classes = [nodes[key][0].is_flow or flow_of(nodes[key][0]) is not None for key in worth]
        names = definition_names([nodes[key] for key in worth], classes, self._reserved)
        for key, name, is_class in zip(worth, names, classes, strict=True):
            self.definitions[key] = Definition(name, nodes[key], is_class)
        for made in self.definitions.values():
            set_arguments(made, [self.columns(node) for node in made.instances], set(names))

    def _is_worth(self, node: TreeNode, places: int) -> bool:
        if node is self.root:
            return False
        if node.is_unit or node.is_flow or flow_of(node) is not None:
            return True
        runs = self.runs(node)
        if any(run.mode != "one" for run in runs) and places > 1:
            return True
        return (places - 1) * (len(runs) - 1) > FUNCTION_LINES


def _inlined(root: TreeNode) -> set[TreeNode]:
    """What is written as part of the block around it."""
    found: set[TreeNode] = set()
    for node in root.below():
        for child in node.children if node.is_row and not node.is_unit else ():
            flow = flow_of(child)
            if flow is not None:
                found.add(flow)
    return found


def _size(node: TreeNode) -> int:
    return sum(1 for _ in node.below())


def _wild(columns: Sequence[Column]) -> list[Column]:
    return [column._replace(value=WILD) for column in columns]


def _with_places(node: TreeNode, place: Any) -> Iterator[tuple[TreeNode, Any]]:
    """Every node with where it is written: nodes at the same place of two that are one are so, too."""
    yield node, place
    key = Plan.key(node) if node.path else ()
    runs = [run.nodes for run in node.runs] or [[child] for child in node.children]
    for index, nodes in enumerate(runs):
        for child in nodes:
            # a residual's body is the last in it, with and without a shortcut
            yield from _with_places(child, (key, index - len(runs)))


def _inner_first(root: TreeNode, key: Any) -> dict[Key, None]:
    """Every key once, after those of the nodes in it."""
    found: dict[Key, None] = {}

    def visit(node: TreeNode) -> None:
        for child in node.children:
            visit(child)
        if not node.is_leaf:
            found.setdefault(key(node))

    visit(root)
    return found
