"""SIGINT, SIGTERM and SIGHUP end a run between two steps, never inside one."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130  # the exit status


class Interrupted(BaseException):
    """Raised where it is safe to stop; `exit_status` is the shell's convention, 130 for SIGINT, 143 for
    SIGTERM, 129 for SIGHUP."""

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {kept}".removesuffix("; "))
        self.exit_status = 128 + number


class Keyboard:
    """SIGINT in a process of our own: the end at once while nothing is begun; after that KeyboardInterrupt, which is
    remembered, because a framework may make another error of it, or none, where it is raised in what it imports."""

    begun = interrupted = waits = False

    def take(self) -> None:
        """From now on, unless it is ignored, as in the background of a script."""
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        if not self.begun or (self.waits and self.interrupted):
            os.write(2, b"triptych: stopped by SIGINT\n")
            os._exit(INTERRUPTED)
        self.interrupted = True
        if not self.waits:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a first SIGINT waits until the end, and a second one ends the process."""
        before, self.waits = self.waits, True
        try:
            yield
        finally:
            self.waits = before
        self.check()

    def check(self) -> None:
        """Raises KeyboardInterrupt if one has come and was lost."""
        if self.interrupted:
            raise KeyboardInterrupt


keyboard = Keyboard()


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
    keyboard.check()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield lambda: noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
