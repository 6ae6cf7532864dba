"""What a library has to say about a command once it is over: begun by whoever uses the library, heard by `main`."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

Remarks = dict[str, Any]  # as JSON reports have them

_watched: set[str] | None = None  # names; None outside of a command
_stack = ExitStack()
_remarks: Remarks = {}


@contextmanager
def collected() -> Iterator[None]:
    """Around a command: what `watch` begins within ends here at the latest."""
    global _watched
    _watched = set()
    _remarks.clear()
    try:
        yield
    finally:
        _watched = None
        finish()


def watch(name: str, make: Callable[[Remarks], AbstractContextManager[None]]) -> None:
    """Open `make(remarks)` for the rest of the command, once for each `name`; at its end it adds to the remarks, or
    prints them. Without a command, as where triptych is a library, nothing is opened."""
    if _watched is not None and name not in _watched:
        _watched.add(name)
        _stack.enter_context(make(_remarks))


def finish() -> Remarks:
    """Ends what is watched, for a report that is about to be written; all that was said in this command."""
    _stack.close()
    return dict(_remarks)
