"""The terminal, by rich, which is imported when something is written to it."""

from __future__ import annotations

import shutil
import sys
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
