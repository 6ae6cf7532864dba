"""Source text in lines of at most 120 columns, as ruff formats it; comments go beside a line, or above where it is
long."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

WIDTH = 120
INDENT = "    "
ROW = 3  # layers that may stand together on a line within a bracket


@dataclass(frozen=True)
class Marks:
    """Paths of layers of the spec: those that a line makes, or applies by themselves, and those that it has made by
    calling what is written elsewhere."""

    made: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()

    def __or__(self, other: Marks) -> Marks:
        return Marks(self.made | other.made, self.called | other.called)


class Line(str):
    """A line of source that knows its layers."""

    __slots__ = ("marks",)
    marks: Marks

    def __new__(cls, text: str, marks: Marks = Marks()) -> Line:
        line = super().__new__(cls, text)
        line.marks = marks
        return line


@dataclass
class Expression:
    """An expression: its text on one line, or `opening`, `parts` and `)` on a line each. `comment` belongs to its
    (first) line. `marks`: the layers of the spec that it makes, without those of its parts."""

    text: str
    opening: str = ""
    parts: list[Expression] = field(default_factory=list)
    comment: str = ""
    function: bool = False
    marks: Marks = field(default_factory=Marks)

    def all_marks(self) -> Marks:
        """The layers that it and its parts make."""
        return reduce(or_, (part.all_marks() for part in self.parts), self.marks)

    def comments(self) -> list[str]:
        """All that is said of it and of its parts, each once."""
        found = [self.comment] if self.comment else []
        for part in self.parts:
            found += part.comments()
        return list(dict.fromkeys(found))


def sequence(opening: str, parts: Sequence[Expression]) -> Expression:
    """A call of `opening` (with its bracket) with these parts."""
    return Expression(f"{opening}{', '.join(part.text for part in parts)})", opening, list(parts))


def line(depth: int, text: str, comment: str = "", marks: Marks = Marks()) -> list[str]:
    """A line of code, or several where it is long; its comment beside or above."""
    return [Line(one, marks) for one in _line(depth, text, comment)]


def _line(depth: int, text: str, comment: str) -> list[str]:
    code = INDENT * depth + text
    if not comment:
        return wrapped(depth, text)
    beside = f"{code}  # {comment}"
    if len(beside) <= WIDTH:
        return [beside]
    return above(depth, comment) + wrapped(depth, text)


def above(depth: int, comment: str) -> list[str]:
    """A comment in lines of its own."""
    return [f"{INDENT * depth}# {part}" for part in textwrap.wrap(comment, WIDTH - len(INDENT) * depth - 2)]


def statement(depth: int, text: Line) -> list[Line]:
    """A statement in as many lines as it takes."""
    return [Line(one, text.marks) for one in wrapped(depth, text)]


def wrapped(depth: int, text: str) -> list[str]:
    """Code that is too long for a line, broken in its last bracket: what is in it on a line of its own or, if that is
    too long, every part."""
    start, end = _last_bracket(text)
    if len(INDENT * depth + text) <= WIDTH or end - start < 2:
        return [INDENT * depth + text]
    inner = text[start + 1 : end]
    head, tail = f"{INDENT * depth}{text[: start + 1]}", f"{INDENT * depth}{text[end:]}"
    parts = _parts(inner)
    if len(INDENT * (depth + 1) + inner) <= WIDTH or len(parts) == 1:
        return [head, *wrapped(depth + 1, inner), tail]
    return [head, *(one for part in parts for one in wrapped(depth + 1, f"{part},")), tail]


def _last_bracket(text: str) -> tuple[int, int]:
    """Where the last bracket opens and closes; strings with brackets in them do not occur."""
    end = max(text.rfind(")"), text.rfind("]"))
    depth = 0
    for place in range(end, -1, -1):
        depth += (text[place] in ")]") - (text[place] in "([")
        if depth == 0:
            return place, end
    return 0, 0


def _parts(inner: str) -> list[str]:
    """What commas outside of brackets part."""
    parts, depth = [""], 0
    for character in inner:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def lines(
    depth: int, before: str, expression: Expression, after: str = "", *, exploded: bool = False, most: int = 1
) -> list[str]:
    """A statement around an expression. On one line if it fits, is not to be `exploded`, and has at most `most` things
    said of it."""
    whole = f"{INDENT * depth}{before}{expression.text}{after}"
    comments = expression.comments()
    if not expression.opening or (len(whole) <= WIDTH and len(comments) <= most and not exploded):
        return line(depth, f"{before}{expression.text}{after}", "; ".join(comments), expression.all_marks())
    inner = ", ".join(part.text for part in expression.parts)
    if len(expression.parts) > 1 and len(comments) <= most and not exploded and is_short(depth, before, expression):
        rows = [f"{INDENT * depth}{before}{expression.opening}", f"{INDENT * (depth + 1)}{inner}"]
        rows = above(depth, "; ".join(comments)) + rows
        return [Line(one, expression.all_marks()) for one in [*rows, f"{INDENT * depth}){after}"]]
    result = line(depth, f"{before}{expression.opening}", expression.comment, expression.marks)
    for part in expression.parts:
        result += lines(depth + 1, "", part, ",")
    return [*result, f"{INDENT * depth}){after}"]


def is_short(depth: int, before: str, expression: Expression) -> bool:
    """Whether it is one line of code or, with few parts, one within a bracket."""
    inner = ", ".join(part.text for part in expression.parts)
    few = 0 < len(expression.parts) <= ROW and len(INDENT * (depth + 1) + inner) <= WIDTH
    return few or len(f"{INDENT * depth}{before}{expression.text}") <= WIDTH


def signature(depth: int, before: str, arguments: Sequence[str], after: str) -> list[str]:
    """`def name(arguments) -> type:`, an argument per line where one line is too long."""
    whole = f"{INDENT * depth}{before}({', '.join(arguments)}){after}"
    if len(whole) <= WIDTH:
        return [whole]
    inner = INDENT * (depth + 1) + ", ".join(arguments)
    if len(inner) <= WIDTH:
        return [f"{INDENT * depth}{before}(", inner, f"{INDENT * depth}){after}"]
    return [
        f"{INDENT * depth}{before}(",
        *(f"{INDENT * (depth + 1)}{argument}," for argument in arguments),
        f"{INDENT * depth}){after}",
    ]


def docstring(depth: int, text: str) -> list[str]:
    """In as many lines as it takes; what would end it, or be no letter, is left out."""
    clean = "".join(c for c in text.replace("\\", "/").replace('"', "'") if c.isprintable())
    wrapped = textwrap.wrap(f'"""{clean}', WIDTH - len(INDENT) * depth - 3) or ['"""']
    return [*(INDENT * depth + one for one in wrapped[:-1]), f'{INDENT * depth}{wrapped[-1]}"""']


def code_lines(source: str) -> int:
    """How many lines of code a file has: blank lines and those with a comment or docstring alone do not count."""
    count, within = 0, False
    for raw in source.splitlines():
        text = raw.strip()
        quotes = text.count('"""')
        if not within and text and not text.startswith(("#", '"""')):
            count += 1
        if quotes == 1:
            within = not within
    return count


def separated(blocks: Iterable[Sequence[str]]) -> list[str]:
    """The lines of definitions with two blank ones between them."""
    first, *others = [block for block in blocks if block]
    return [*first, *(line for block in others for line in ("", "", *block))]


def joined(lines: Iterable[str]) -> str:
    """Lines as a text."""
    return "\n".join(lines) + "\n"


def marks_of(lines: Iterable[str], first: int) -> dict[int, Marks]:
    """By number of the line, counted from `first`, its layers where it has some. A line may hold several."""
    found: dict[int, Marks] = {}
    number = first
    for one in lines:
        height = one.count("\n") + 1
        if isinstance(one, Line) and one.marks != Marks():
            found |= dict.fromkeys(range(number, number + height), one.marks)
        number += height
    return found
