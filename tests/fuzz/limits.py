"""A call in bounded time and memory, that ends as it should: with a result or with a TriptychError."""

from __future__ import annotations

import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from triptych.utils.errors import TriptychError
from triptych.weights.formats import keras_trial

SECONDS = 20  # of processor time: the slowest takes a hundredth of it
BYTES = 1 << 30  # more than the process has already


class TooLongError(BaseException):
    """No reader may catch it."""


@contextmanager
def limited() -> Iterator[None]:
    """Within, memory beyond `BYTES` is a MemoryError and time beyond `SECONDS` ends with TooLongError."""

    def end(*_: object) -> None:
        raise TooLongError(f"it took more than {SECONDS} seconds of processor time")

    before, handler = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    with suppress(OSError):  # not on Linux: time alone is bounded
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + BYTES, before[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def survive(read: Callable[[], object]) -> str | None:
    """The one line of the error, if there was one; anything but a TriptychError goes on."""
    with limited():
        try:
            read()
        except TriptychError as error:
            return str(error)
    return None


def forked_trial(path: Path, size: int) -> None:
    """`keras_trial.try_out` where a fork will do for a process of its own: a hundredth of the time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX's, of forks; the child does not come near it
        child = os.fork()
    if not child:
        try:
            keras_trial.attempt(path, 2)
        finally:
            os._exit(0)
    keras_trial.judge(path, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 2)
