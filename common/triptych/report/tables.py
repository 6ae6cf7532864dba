"""Tables on the terminal, by rich, which is imported when one is printed."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from textwrap import wrap
from typing import Literal

from triptych.utils.terminal import cell, console, harmless

NAME = 24  # characters of the longest name that is kept whole
LONG = 500  # rows from which on a table that needs no folding is written without rich, which takes 1 ms for each
FOLDED = 10  # columns of the terminal that a column of words takes at least

Line = tuple[str, ...]


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    right: Iterable[int] = (),
    cut: Iterable[int] = (),
) -> None:
    """Print `rows` of text under `columns`, each as `terminal.cell` shows it; those numbered in `right` are aligned to
    the right. Where the terminal is narrow, titles of columns stand in several lines, and columns of words are folded,
    with less between them, before a number is, or a short name in the first column; those numbered in `cut` end in an
    ellipsis instead. What does not stand in the width so is printed as several tables, each with the columns that tell
    the rows apart."""
    lines = [tuple(map(cell, row)) for row in (columns, *rows)]
    aligned, short, width = set(right), set(cut), console().width
    shown = None if title is None else harmless(title)
    for number, part in enumerate(_parts(_leasts(lines, aligned, short), lines[1:], width)):
        if number:
            console().print()
        chosen = [tuple(line[i] for i in part) for line in lines]
        places = {index: place for place, index in enumerate(part)}
        marked = [{places[i] for i in each if i in places} for each in (aligned, short)]
        _print(chosen, *marked, title=None if number else shown, width=width)


def _parts(least: Sequence[int], rows: Sequence[Line], width: int) -> Iterator[list[int]]:
    """The numbers of the columns of every table that is printed: all in one where that is wide enough."""
    keys = _keys(rows, least, width // 2)
    part = list(range(keys))
    for index in range(keys, len(least)):
        if len(part) > keys and sum(least[i] + 1 for i in part) + least[index] > width:
            yield part
            part = list(range(keys))
        part.append(index)
    yield part


def _leasts(lines: Sequence[Line], aligned: set[int], short: set[int]) -> list[int]:
    """The width that every column needs; one that may be cut, a few letters."""
    columns = enumerate(zip(*lines, strict=True))
    return [FOLDED if i in short else _least(column, i in aligned, i == 0) for i, column in columns]


def _least(column: Line, number: bool, first: bool) -> int:
    """The width that a column needs: numbers and short names whole, of the title and of words the longest one."""
    body, title = max(map(len, column[1:]), default=0), _longest(column[:1])
    if number or (first and body <= NAME):
        return max(body, title)
    word = _longest(column[1:])
    return max(word if word <= NAME else FOLDED, title)


def _longest(texts: Sequence[str]) -> int:
    """Letters of the longest word."""
    return max((len(word) for text in texts for word in text.split()), default=0)


def _keys(rows: Sequence[Line], least: Sequence[int], most: int) -> int:
    """How many columns from the first on tell the rows apart, as far as there is room for them; one at least."""
    for number in range(1, len(least)):
        if sum(least[:number]) > most:
            return max(number - 1, 1)
        if len({row[:number] for row in rows}) == len(rows):
            return number
    return 1


def _print(lines: Sequence[Line], aligned: set[int], short: set[int], *, title: str | None, width: int) -> None:
    """One table, the first of the lines its titles."""
    from rich.table import Table

    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if len(lines) > LONG and sum(widths) + 2 * (len(widths) - 1) <= width and all(map(str.isascii, chain(*lines))):
        return _print_long(lines, aligned, widths, title)
    least = _leasts(lines, aligned, short)
    if sum(widths) + 2 * (len(widths) - 1) > width:  # titles of several words fold between them
        lines = [tuple("\n".join(wrap(text, each)) for text, each in zip(lines[0], least, strict=True)), *lines[1:]]
        widths = [max(len(part) for text in column for part in text.split("\n")) for column in zip(*lines, strict=True)]
    whole = {i for i, longest in enumerate(widths) if i in aligned or (i == 0 and longest <= NAME)}
    if sum(widths[i] + 1 if i in whole else FOLDED for i in range(len(widths))) > width:
        whole = set()  # cut numbers would be worse than folded ones
    close = sum(widths) + 2 * len(widths) > width
    fits = sum(least) + len(least) - 1 <= width
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=close, header_style="bold"
    )
    for index, column in enumerate(lines[0]):
        side: Literal["left", "right"] = "right" if index in aligned else "left"
        if index in short:
            rest = width - sum(each + 1 + (not close) for i, each in enumerate(widths) if i != index)
            table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=max(rest, FOLDED))
        else:
            minimum = least[index] if fits and index not in whole else None  # else rich breaks a word before a text
            table.add_column(column, justify=side, overflow="fold", no_wrap=index in whole, min_width=minimum)
    for row in lines[1:]:
        table.add_row(*row)
    console().print(table)


def _print_long(lines: Sequence[Line], aligned: set[int], widths: Sequence[int], title: str | None) -> None:
    """A table of many rows, each on one line, as rich would print it."""
    padded = [
        "  ".join(
            text.rjust(n) if i in aligned else text.ljust(n)
            for i, (text, n) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    if title is not None:
        console().print(title.ljust(len(padded[0])), style="italic", soft_wrap=True)
    console().print(padded[0], style="bold", soft_wrap=True)
    console().print("\n".join(padded[1:]), soft_wrap=True)
