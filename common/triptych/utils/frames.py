"""Where an error was raised: what the frames of its traceback hold."""

from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any


def frames(error: BaseException) -> list[FrameType]:
    """The frames that the error went through, the innermost first."""

    def walk(traceback: TracebackType | None) -> Iterator[FrameType]:
        while traceback is not None:
            yield traceback.tb_frame
            traceback = traceback.tb_next

    return list(walk(error.__traceback__))[::-1]


def line_in(error: BaseException, file: str) -> int:
    """The last line of a file that the error went through; 0 if it did not."""
    line, traceback = 0, error.__traceback__
    while traceback is not None:
        line = traceback.tb_lineno if traceback.tb_frame.f_code.co_filename == file else line
        traceback = traceback.tb_next
    return line


def selves(error: BaseException) -> list[Any]:
    """The objects whose methods the error went through, the innermost first."""
    return [frame.f_locals["self"] for frame in frames(error) if "self" in frame.f_locals]


def locals_in(error: BaseException, file: str, function: str) -> dict[str, Any]:
    """The variables of a function of a file that the error went through; empty if it did not."""
    found = (f for f in frames(error) if f.f_code.co_filename == file and f.f_code.co_name == function)
    return next((dict(frame.f_locals) for frame in found), {})
