"""How a process of ours ends at once, and that nobody else's end looks like a success."""

import os
import sys
from contextlib import suppress
from typing import NoReturn

OK, BAD_INPUT = 0, 2

_exit = os._exit  # Python's own, whatever stands there later


def leave(status: int) -> NoReturn:
    """Be gone with what was written, and without the ends of libraries, which wait for other processes or for memory,
    and sometimes crash."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # AttributeError: there is no such stream
            stream.flush()
    _exit(status)


def refuse_sudden_success() -> None:
    """From here on `os._exit(0)` in this process is status 2 and a line on stderr: somebody's network ends so,
    before there was a result. What is ours ends by `leave`."""
    here = os.getpid()

    def ended(status: int) -> NoReturn:
        if status == OK and os.getpid() == here:
            os.write(2, b"triptych: the code of a network ended the program (os._exit) before there was a result\n")
            status = BAD_INPUT
        _exit(status)

    os._exit = ended
