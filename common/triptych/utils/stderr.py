"""Reading along with standard error, where C++ libraries write what they tell nobody else."""

import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triptych.utils import terminal

_WAIT_SECONDS = 10


@contextlib.contextmanager
def copied(into: list[str]) -> Iterator[None]:
    """Appends to `into`, at the end, what this process writes to standard error within, and Python's warnings. All of
    it is still shown at once: it runs through `tee`, a process of its own, so that a crash loses nothing. Python's own
    `sys.stderr` goes on writing to where it did, so that a terminal stays one to it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _warnings_noted(into),
        os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace") as shown,
    ):
        file = Path(folder) / "stderr"
        tee = subprocess.Popen(["tee", "-i", str(file)], stdin=subprocess.PIPE, stdout=shown)
        assert tee.stdin is not None
        os.dup2(tee.stdin.fileno(), 2)
        tee.stdin.close()
        try:
            own = terminal.behind(sys.stderr) is sys.__stderr__
            with contextlib.redirect_stderr(terminal.Shown(shown)) if own else contextlib.nullcontext():
                yield
        finally:
            os.dup2(shown.fileno(), 2)
            with contextlib.suppress(subprocess.TimeoutExpired):  # a child of ours still holds the pipe
                tee.wait(_WAIT_SECONDS)
            into.append(file.read_text(errors="replace"))


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing is shown of what is written within: to Python's standard output and error, by C++ libraries to standard
    error, and of Python's warnings."""
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        with contextlib.suppress(OSError):  # there may be no standard error
            shown = os.dup(2)
            stack.callback(os.close, shown)
            stack.callback(os.dup2, shown, 2)
            os.dup2(nowhere.fileno(), 2)
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        stack.enter_context(contextlib.redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _warnings_noted(into: list[str]) -> Iterator[None]:
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Warning | str, *rest: Any, **named: Any) -> None:
            into.append(str(message))
            show(message, *rest, **named)

        warnings.showwarning = note
        yield
