"""Tables on the terminal, by rich, which is imported when one is printed."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns, where there is no terminal to ask


def console(*, stderr: bool = False) -> Console:
    """A console that never breaks a table for want of a terminal, and prints names as they are: no markup, no emoji."""
    from rich.console import Console

    class PlainConsole(Console):
        """rich would end the process with status 1 here, which means a failed check."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = shutil.get_terminal_size().columns if stream is not None and stream.isatty() else WIDE
    return PlainConsole(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, right: Iterable[int] = ()
) -> None:
    """Print `rows` of text under `columns`; those numbered in `right` are aligned to the right."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    aligned = set(right)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in aligned else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
