"""SIGINT, SIGTERM and SIGHUP end a run between two steps, never inside one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """Raised where it is safe to stop; `exit_status` is the shell's convention, 130 for SIGINT, 143 for
    SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {kept}".removesuffix("; "))
        self.exit_status = 128 + number


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Within, a first signal is only noted: the given function returns its number, 0 before. A second one kills."""
    noted = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            raise Interrupted(number)
        noted = number

    if threading.current_thread() is not threading.main_thread():
        yield lambda: noted  # Python delivers signals to the main thread only
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
