"""A network's layers and its source in several frameworks as columns beside each other, matched by layer: hovering or
choosing a layer lights its lines in every column. One piece of HTML for files of their own and for the site's pages."""

from __future__ import annotations

import io
import keyword
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from triptych.emitting.emit import Emitted, dialect_of
from triptych.emitting.guide import local_guide, traps_in
from triptych.emitting.text import Marks
from triptych.report.page import render, write_page
from triptych.spec.analysis import LayerInfo, analyse
from triptych.spec.layers import Architecture

Piece = tuple[str, str]  # a class of the style sheet, or "", and a text


@dataclass(frozen=True)
class Row:
    """One layer in the first column; `lit` are the numbers of the layers that are lit with it: itself, or all of a
    composite's."""

    path: str
    name: str
    depth: int
    kind: str
    numbers: str
    shapes: str
    output: str
    parameters: int
    lit: tuple[int, ...]
    traps: tuple[int, ...]

    @property
    def count(self) -> str:
        """The parameters in three figures, which is what the column has room for; nothing of a layer without any."""
        return in_three_figures(self.parameters) if self.parameters else ""


def in_three_figures(number: int) -> str:
    """`864`, `1.73k`, `103M`."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g}{unit}"
    return str(number)


@dataclass(frozen=True)
class SourceLine:
    """A line of source in pieces; the numbers of the layers that it `made`, and of those that it `called` for."""

    pieces: tuple[Piece, ...]
    made: tuple[int, ...]
    called: tuple[int, ...]


def fragment(architecture: Architecture, emitted: Sequence[Emitted], guide: str, ending: str = "html") -> str:
    """The columns as HTML, with their style and script, for a page to hold. `guide`: the address of the porting guide's
    folder, whose pages end in `ending`; if empty, the traps have no links."""
    return render("columns.html", **_values(architecture, emitted, guide, ending))


def write(path: Path, architecture: Architecture, emitted: Sequence[Emitted], about: Sequence[str] = ()) -> None:
    """One page of its own, to be read without a network; `about`: lines that stand above the columns."""
    guide = local_guide()
    ending = "html" if "_build" in guide else "md"
    title = f"{architecture.name}: {', '.join(dialect_of(one.backend).framework for one in emitted)}"
    write_page(path, "side_by_side.html", title=title, about=about, **_values(architecture, emitted, guide, ending))


def _values(architecture: Architecture, emitted: Sequence[Emitted], guide: str, ending: str) -> dict[str, Any]:
    traps = traps_in(architecture)
    infos = analyse(architecture)
    numbers = {info.path: number for number, info in enumerate(infos)}
    columns = [
        {"framework": dialect_of(one.backend).framework, "backend": one.backend, "lines": source_lines(one, numbers)}
        for one in emitted
    ]
    at = _places(list(traps.values()))
    rows = [_row(info, infos, numbers, tuple(at.get(info.path, ()))) for info in infos]
    links = [f"{guide}{trap.page}.{ending}#{trap.anchor}" if guide else "" for trap in traps]
    return {"network": architecture, "rows": rows, "columns": columns, "traps": list(zip(traps, links, strict=True))}


def _places(paths: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for number, each in enumerate(paths):
        for path in each:
            found.setdefault(path, []).append(number)
    return found


def _row(info: LayerInfo, infos: Sequence[LayerInfo], numbers: Mapping[str, int], traps: tuple[int, ...]) -> Row:
    below = tuple(numbers[other.path] for other in infos if other.path.startswith(f"{info.path}."))
    name = info.path.rsplit(".", 1)[-1]
    shapes = f"{size(info.input)} → {size(info.output)}"
    lit, output = below or (numbers[info.path],), size(info.output)
    return Row(info.path, name, info.depth, info.kind, told(info), shapes, output, info.parameters, lit, traps)


def size(shape: Sequence[int]) -> str:
    """`64x112x112`."""
    return "x".join(map(str, shape))


def told(info: LayerInfo) -> str:
    """The layer's numbers as the spec has them: `channels 64, kernel 3x3, padding 1x1`; nothing of a composite's."""
    known = {name: value for name, value in vars(info.layer).items() if name != "name"}
    plain = {name: value for name, value in known.items() if isinstance(value, bool | int | float | str | tuple)}
    texts = {name: size(value) if isinstance(value, tuple) else f"{value}" for name, value in plain.items()}
    own = not any(isinstance(value, tuple) and value and not isinstance(value[0], int) for value in known.values())
    return ", ".join(f"{name} {text}" for name, text in texts.items()) if own else ""


def source_lines(emitted: Emitted, numbers: Mapping[str, int]) -> list[SourceLine]:
    """Every line of the source with the layers that it makes."""

    def known(paths: frozenset[str]) -> tuple[int, ...]:
        return tuple(sorted(numbers[path] for path in paths))

    marks = (emitted.lines.get(number, Marks()) for number in count(1))
    return [
        SourceLine(pieces, known(mark.made), known(mark.called))
        for pieces, mark in zip(coloured_lines(emitted.source), marks, strict=False)
    ]


def coloured_lines(source: str) -> list[tuple[Piece, ...]]:
    """The lines of Python source in pieces: comments, strings, numbers and keywords apart."""
    lines = source.rstrip("\n").split("\n")
    pieces: list[list[Piece]] = [[] for _ in lines]
    place = (1, 0)

    def take(end: tuple[int, int], style: str) -> None:
        nonlocal place
        for row in range(place[0], min(end[0], len(lines)) + 1):
            start = place[1] if row == place[0] else 0
            text = lines[row - 1][start : end[1] if row == end[0] else None]
            if text:
                pieces[row - 1].append((style, text))
        place = end

    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        style = _style(token)
        if style:
            take(token.start, "")
            take(token.end, style)
    take((len(lines), len(lines[-1])), "")
    return [tuple(line) for line in pieces]


def _style(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return "k" if keyword.iskeyword(token.string) else ""
    return {tokenize.COMMENT: "c", tokenize.STRING: "s", tokenize.NUMBER: "n"}.get(token.type, "")
