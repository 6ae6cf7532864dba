"""The entry of the command line: `triptych` and `python -m triptych`."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn, TextIO

from triptych.utils.interrupt import INTERRUPTED, keyboard
from triptych.utils.leaving import leave, refuse_sudden_success

OK, FAILED, BAD_INPUT, BROKEN_PIPE = 0, 1, 2, 141


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 a check failed, 2 bad usage or input (one line on stderr)."""
    own = arguments is None
    if own:
        keyboard.take()
        open_streams()
        refuse_sudden_success()
    from triptych.cli import app, expand_json
    from triptych.utils import remarks, terminal

    expanded = expand_json(sys.argv[1:] if arguments is None else arguments)
    keyboard.begun = True
    try:
        with terminal.guarded(report="--json=-" in expanded), warnings_shown(), remarks.collected():
            status = app(expanded, exit_on_error=False, print_error=False, result_action="return_value")
            print(end="", flush=True)  # now, while an error is still ours to report; stdout may be closed
            keyboard.check()
    except BaseException as error:
        sys.exit(ending(KeyboardInterrupt() if keyboard.interrupted else error, own=own))
    sys.exit(status if isinstance(status, int) else OK)


def ending(error: BaseException, *, own: bool) -> int:
    """The exit status for what has ended a command, after a line on stderr; raises the error that is none of these.
    `own`: the process is ours alone."""
    from cyclopts import CycloptsError

    from triptych.utils import memory
    from triptych.utils.errors import TriptychError
    from triptych.utils.interrupt import Interrupted

    match error:
        case memory.OutOfMemoryError():
            give_up(str(error), at_once=own)
        case TriptychError() | CycloptsError():
            return complain(str(error))
        case SystemExit() if isinstance(error.__context__, BrokenPipeError):  # rich's way to end, in help texts
            drop_output()
            return BROKEN_PIPE
        case SystemExit():  # no command of ours ends so: somebody's network, or what it calls
            return complain(f"the code of a network ended the program ({error.code!r}) before there was a result")
        case Interrupted():
            say(str(error))
            return error.exit_status
        case KeyboardInterrupt():
            say("stopped by SIGINT")
            return INTERRUPTED
        case BrokenPipeError():  # the reader of our output has gone, as `head` does
            drop_output()
            return BROKEN_PIPE
        case OSError() if not memory.ended(error):  # the disk is full, a folder has gone
            drop_output()
            return complain(f"cannot read or write: {error}")
        case Exception():
            from triptych.backend import registry  # only here: NumPy's import may be what was interrupted

            if registry.out_of_memory(error):
                give_up(memory.failed("what was asked for is too large", error), at_once=own)
        case BaseException() if own:  # of somebody's own kind, which no `except Exception` sees
            kind = type(error).__name__
            return complain(f"the code of a network ended the program ({kind}: {error}) before there was a result")
    raise error


def open_streams() -> None:
    """Have the three standard streams, if only as the end of everything: the first file that is opened would become one
    that was closed (`2>&-`), and what is written there would lie in it."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  # open until the process ends
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Whoever has warnings be errors (PYTHONWARNINGS=error) has that of programs of her own: frameworks warn where they
    are imported, and would not be. Here they are shown, but for those that are for programmers."""
    with warnings.catch_warnings():
        if any(option.startswith("error") for option in sys.warnoptions):
            warnings.resetwarnings()
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning, SyntaxWarning):
                warnings.simplefilter("ignore", kind)
        # NumPy's, of numbers too large for float32: what becomes of them is said where it matters.
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triptych(_\w+)?\.")
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home folder that cannot be written is no matter
        yield


def drop_output(*streams: TextIO) -> None:
    """What is still to be written, by default to stdout, goes nowhere, so that Python's own flush at the end has
    nothing to complain of."""
    for stream in streams or (sys.stdout,):
        with contextlib.suppress(OSError, AttributeError):  # there is no such stream
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def give_up(message: str, *, at_once: bool) -> NoReturn:
    """The end where memory has ended. `at_once`: as a process of its own without the frameworks' own ends, which were
    seen to hang, or to crash, when they cannot get any."""
    status = complain(message)
    if at_once:
        leave(status)
    sys.exit(status)


def complain(message: str) -> int:
    """One line on stderr; the exit status for bad input."""
    say(message)
    return BAD_INPUT


def say(message: str) -> None:
    """One line on stderr. Where it cannot be written (a full disk, a reader that has gone) the exit status tells."""
    from triptych.utils import terminal

    try:
        print("triptych: " + terminal.one_line(message), file=sys.stderr, flush=True)
    except OSError:
        drop_output(sys.stderr)


if __name__ == "__main__":
    main()
