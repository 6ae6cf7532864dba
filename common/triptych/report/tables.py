"""Tables on the terminal, by rich, which is imported when one is printed."""

from collections.abc import Iterable, Sequence
from typing import Literal

from triptych.utils.terminal import cell, console, harmless

NAME = 24  # characters of the longest name that is kept whole
FOLDED = 10  # columns of the terminal that a column of words takes at least


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    right: Iterable[int] = (),
    cut: Iterable[int] = (),
) -> None:
    """Print `rows` of text under `columns`, each as `terminal.cell` shows it; those numbered in `right` are aligned to
    the right. Where the terminal is narrow, columns of words are folded, with less between them, before a number is, or
    a short name in the first column; those numbered in `cut` end in an ellipsis instead."""
    from rich.table import Table

    lines = [tuple(map(cell, row)) for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned, short, width = set(right), set(cut), console().width
    whole = {i for i, longest in enumerate(widths) if i in aligned or (i == 0 and longest <= NAME)}
    if sum(widths[i] + 1 if i in whole else FOLDED for i in range(len(widths))) > width:
        whole = set()  # cut numbers would be worse than folded ones
    close = sum(widths) + 2 * len(widths) > width
    shown = None if title is None else harmless(title)
    table = Table(
        title=shown, title_justify="left", box=None, pad_edge=False, collapse_padding=close, header_style="bold"
    )
    for index, column in enumerate(lines[0]):
        side: Literal["left", "right"] = "right" if index in aligned else "left"
        if index in short:
            rest = width - sum(each + 1 + (not close) for i, each in enumerate(widths) if i != index)
            table.add_column(column, overflow="ellipsis", no_wrap=True, max_width=max(rest, FOLDED))
        else:
            table.add_column(column, justify=side, overflow="fold", no_wrap=index in whole)
    for row in lines[1:]:
        table.add_row(*row)
    console().print(table)
