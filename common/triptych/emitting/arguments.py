"""The arguments of a function or class: the numbers in which what it makes differs, each with its name."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from triptych.backend.source import UNKNOWN, Kept, Value, written
from triptych.emitting.names import argument_name, safe
from triptych.emitting.tree import WILD, Column, TreeNode
from triptych.spec.layers import Branches

CHANNELS = frozenset({"inputs", "channels", "units", "groups", "step"})
WIDTHS = frozenset({"inputs", "channels", "units"})
DEFAULTS = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "scale": 1.0, "kernel": (1, 1)}
DEFAULTS["kernel_pair"] = Kept((1, 1))
ORDER = ("inputs", "channels", "units", "count", "kernel", "kernel_pair", "stride")  # then what else there is


@dataclass(frozen=True)
class Argument:
    """One argument. `column`: the first of the numbers that it stands for. `default`: None if it has none. `square`:
    one number stands for a pair of two equal ones, where the framework takes pairs alone."""

    name: str
    annotation: str
    column: int
    default: Value | None = None
    square: bool = False

    @property
    def inside(self) -> str:
        """The number as the function or class itself writes it."""
        return f"({self.name}, {self.name})" if self.square else self.name

    def given(self, value: Value) -> Value:
        """What a call gives for the number."""
        if not self.square:
            return value
        return Value(value.text[1:].partition(",")[0]) if value.literal is UNKNOWN else written(tuple(value.literal))


@dataclass(eq=False)
class Definition:
    """A function or class. `instances`: all nodes that it makes; `columns`: what each number of the first is inside of
    it; `columns_of_inputs`: whether the channels that arrive are among them."""

    name: str
    instances: list[TreeNode]
    is_class: bool
    arguments: list[Argument] = field(default_factory=list)
    columns: list[Value] = field(default_factory=list)
    columns_of_inputs: bool = True

    @property
    def widths(self) -> list[Argument]:
        """The channels of its layers, where they come last of all that have no default: a table's row may hold them."""
        plain = [argument for argument in self.arguments if argument.default is None]
        found = [a for a in plain if a.annotation == "int" and a.name not in ("in_channels", "count", "kernel")]
        return found if found and plain[-len(found) :] == found else []

    @property
    def node(self) -> TreeNode:
        """The one that is written: with everything that any of them has."""
        return max(self.instances, key=lambda node: sum(1 for _ in node.below()))


def set_arguments(made: Definition, rows: list[list[Column]], reserved: set[str]) -> None:
    """Numbers that differ between instances become arguments; those that always agree, or are a multiple of another,
    share one. `rows`: the numbers of every instance; `reserved`: names of functions and classes."""
    made.columns_of_inputs = any(column.number == "inputs" for column in rows[0])
    by_column = list(zip(*([column.value for column in row] for row in rows), strict=True))
    for index, found in enumerate(by_column):
        known = {value for value in found if value is not WILD}
        if len(known) <= 1:
            made.columns.append(written(next(iter(known), 0)))
            continue
        made.columns.append(
            _expression(made, rows, by_column, index) or _new_argument(made, rows[0][index], index, by_column)
        )
    _name(made, rows, by_column, reserved)


def _expression(made: Definition, rows: list[list[Column]], by_column: list[Any], index: int) -> Value | None:
    """The number by an argument that there is."""
    role = _role(rows[0][index])
    for argument in made.arguments:
        if _role(rows[0][argument.column]) != role:
            continue
        pairs = _pairs(by_column, argument.column, index)
        if pairs and all(a == b for a, b in pairs):
            return Value(argument.inside)
        factor = _factor(pairs) if role == "channels" else None
        if factor:
            return Value(f"{factor} * {argument.name}")
    if role == "projected":
        return _projected(made, by_column, index)
    return _half(made, rows, by_column, index) if role == "padding" else None


def _pairs(by_column: list[Any], one: int, other: int) -> list[tuple[Any, Any]]:
    """Two numbers in every instance that has both."""
    return [(a, b) for a, b in zip(by_column[one], by_column[other], strict=True) if WILD not in (a, b)]


def _factor(pairs: Sequence[tuple[int, int]]) -> int | None:
    """What every first number has to be multiplied by, if it is a whole number."""
    ratios = {b / a for a, b in pairs if a}
    (ratio,) = ratios if len(ratios) == 1 and len({a for a, _ in pairs}) > 1 else (0,)
    return int(ratio) if ratio > 1 and ratio == int(ratio) else None


def _projected(made: Definition, by_column: list[Any], index: int) -> Value | None:
    """Whether there is a shortcut: where channels differ, if that is so in all."""
    for one in range(len(made.columns)):
        for other in range(one + 1, len(made.columns)):
            differ = [a != b for a, b in zip(by_column[one], by_column[other], strict=True)]
            texts = made.columns[one].text, made.columns[other].text
            held = UNKNOWN in (made.columns[one].literal, made.columns[other].literal)
            if held and differ == list(by_column[index]) and all(isinstance(a, int) for a in by_column[one]):
                return Value(f"{texts[0]} != {texts[1]}")
    return None


def _half(made: Definition, rows: list[list[Column]], by_column: list[Any], index: int) -> Value | None:
    """A padding that keeps the size: half of a square kernel."""
    for argument in made.arguments:
        if rows[0][argument.column].number in ("kernel", "kernel_pair"):
            pairs = _pairs(by_column, argument.column, index)
            if all(a[0] == a[1] and b == (a[0] // 2, a[1] // 2) for a, b in pairs):
                return Value(f"{argument.name} // 2")
    return None


def _role(column: Column) -> str:
    return "channels" if column.number in CHANNELS else column.number


def _new_argument(made: Definition, column: Column, index: int, by_column: list[Any]) -> Value:
    """An argument, called by its column's number until all are known."""
    found = [value for value in by_column[index] if value is not WILD]
    default = False if column.number == "projected" else DEFAULTS.get(column.number, WILD)
    square = column.number == "kernel_pair" and all(rows == columns for rows, columns in found)
    given = None if default is WILD or default not in found else written((1, 1) if square else default)
    argument = Argument(f"<{index}>", "int" if square else _annotation(found), index, given, square)
    made.arguments.append(argument)
    return Value(argument.inside)


def _name(made: Definition, rows: list[list[Column]], by_column: list[Any], reserved: set[str]) -> None:
    """Give the arguments their names, wherever they stand, and their order."""
    names: dict[str, str] = {}
    widths = [a for a in made.arguments if rows[0][a.column].number in WIDTHS]
    inner = sum(not _edge(made, by_column, argument) for argument in widths)
    for argument in made.arguments:
        column = rows[0][argument.column]
        wish = _edge(made, by_column, argument) if argument in widths else ""
        if not wish and argument in widths:
            wish = _of_branch(made, rows[0], argument).lower() or ("width" if inner == 1 else "")
        wish = "" if wish in {*names.values(), *reserved} or safe(wish) != wish else wish
        names[argument.name] = wish or argument_name(column, {*names.values(), *reserved})
    for place, value in enumerate(made.columns):
        if value.literal is UNKNOWN:
            text = value.text
            for old, new in names.items():
                text = text.replace(old, new)
            made.columns[place] = Value(text)
    order = {role: number for number, role in enumerate(ORDER)}
    made.arguments.sort(key=lambda a: (a.default is not None, order.get(rows[0][a.column].number, len(order))))
    made.arguments[:] = [replace(argument, name=names[argument.name]) for argument in made.arguments]


def _edge(made: Definition, by_column: list[Any], argument: Argument) -> str:
    """The name of what arrives or what is given, if it is that in all."""
    values = by_column[argument.column]

    def always(numbers: list[int]) -> bool:
        return all(value in (number, WILD) for value, number in zip(values, numbers, strict=True))

    arriving = "in_channels" if always([node.input[0] for node in made.instances]) else ""
    leaving = "channels" if always([node.output[0] for node in made.instances]) else ""
    return (arriving or leaving) if made.columns_of_inputs else (leaving or arriving)


def _of_branch(made: Definition, row: list[Column], argument: Argument) -> str:
    """By the branch that it is the width of, or that it narrows before."""
    if not isinstance(made.node.layer, Branches):
        return ""
    last = {c.names[0]: i for i, c in enumerate(row) if c.number in ("channels", "units")}
    branch = row[argument.column].names[0]
    mine = [i for i, value in enumerate(made.columns) if value.text == argument.name]
    for name, place in last.items():
        if place in mine:
            return name
    others = [a for a in made.arguments if row[a.column].names[0] == branch and _role(row[a.column]) == "channels"]
    word = branch.removeprefix("branch").strip("_")
    return f"reduce{'' if word[:1].isdigit() else '_'}{word}" if len(others) <= 2 else ""


def _annotation(found: Sequence[Any]) -> str:
    plain = {type(written(value).literal) for value in found}
    if plain <= {tuple, Kept}:
        lengths = {len(value) for value in found}
        kind = type(found[0][0]).__name__
        return f"tuple[{', '.join([kind] * lengths.pop())}]" if len(lengths) == 1 else f"tuple[{kind}, ...]"
    if plain == {int, tuple}:
        return "int | tuple[int, int]"
    return " | ".join(sorted(kind.__name__ for kind in plain))
