"""Tables on the terminal, by rich, which is imported when one is printed."""

from collections.abc import Iterable, Sequence

from triptych.utils.terminal import cell, console, harmless


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None, right: Iterable[int] = ()
) -> None:
    """Print `rows` of text under `columns`, each as `terminal.cell` shows it; those numbered in `right` are aligned to
    the right."""
    from rich.table import Table

    shown = None if title is None else harmless(title)
    table = Table(title=shown, title_justify="left", box=None, pad_edge=False, header_style="bold")
    aligned = set(right)
    for index, column in enumerate(columns):
        table.add_column(cell(column), justify="right" if index in aligned else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(cell, row))
    console().print(table)
