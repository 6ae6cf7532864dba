"""The terminal, by rich, which is imported when something is written to it; and what strangers' names may do to it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200  # columns, where there is no terminal to ask
LONGEST = 2000  # characters of an error: a name on the command line may have 100,000
# What a terminal obeys instead of showing it: control characters (escape among them), and those that turn the direction
# of what follows or begin another line; and bytes of a file's name that are no UTF-8, which Python reads as surrogates.
_OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """The text as a terminal can show it: what it would obey is written as in a Python string. Lines stay lines."""
    return _OBEYED.sub(lambda match: ascii(match[0])[1:-1], text)


def cell(text: str) -> str:
    """A name on one line: as `harmless`, line breaks and tabs written as in a Python string, too."""
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


def one_line(message: str) -> str:
    """An error as one harmless line of bounded length."""
    line = harmless(" ".join(message.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"


class Shown(io.TextIOBase):
    """A text stream in front of another one: all that is written to it is `harmless`."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(harmless(text))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.stream, "encoding", None) or "utf-8"  # a stream that is caught may have none

    @property
    def buffer(self) -> Any:
        return self.stream.buffer  # type: ignore[attr-defined]


def behind(stream: Any) -> Any:
    """The stream itself, for who writes nothing but what is harmless, as rich with its colours."""
    return stream.stream if isinstance(stream, Shown) else stream


_report: IO[str] | None = None


@contextlib.contextmanager
def guarded(*, report: bool = False) -> Iterator[None]:
    """Around a command: standard output and error show names and obey none. With `report`, standard output is for what
    is written to `report_stream()` alone, and whatever else is printed, by somebody's module too, goes to standard
    error."""
    global _report
    out, err = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        if err is not None:
            stack.enter_context(contextlib.redirect_stderr(Shown(err)))
        if report and out is not None:
            _report = stack.enter_context(_kept(out))
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        elif out is not None:
            stack.enter_context(contextlib.redirect_stdout(Shown(out)))
        try:
            yield
        finally:
            _report = None


@contextlib.contextmanager
def _kept(out: IO[str]) -> Iterator[IO[str]]:
    """Standard output for a report alone: where it is the process's own, also what C and child processes write to it
    goes to standard error."""
    if out is not sys.__stdout__:
        yield out
        return
    out.flush()
    own = os.dup(out.fileno())
    os.dup2(2, out.fileno())
    try:
        with os.fdopen(os.dup(own), "w", encoding="utf-8") as stream:
            yield stream
    finally:
        with contextlib.suppress(OSError, ValueError):
            out.flush()
        os.dup2(own, 1)
        os.close(own)


def report_stream() -> IO[str]:
    """Where a report goes that was asked for on standard output."""
    return _report if _report is not None else sys.stdout


def console(*, stderr: bool = False) -> Console:
    """A console that never breaks a table for want of a terminal, and prints names as they are: no markup, no emoji."""
    from rich.console import Console

    class PlainConsole(Console):
        """rich would end the process with status 1 here, which means a failed check."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    stream = behind(sys.stderr if stderr else sys.stdout)
    width = shutil.get_terminal_size().columns if stream is not None and stream.isatty() else WIDE
    return PlainConsole(file=stream, width=width, highlight=False, markup=False, emoji=False)
