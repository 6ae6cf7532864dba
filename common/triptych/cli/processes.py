"""A command as several processes: started here, or as one of those that somebody has started."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted

if TYPE_CHECKING:
    from triptych.backend.contract import Backend
    from triptych.backend.group import Group

FAILED, BAD_INPUT = 1, 2
LOST = "lost the other processes"  # not the cause that a person is told, where there is another


def to_launch(backend: Backend, processes: int) -> bool:
    """Whether this process is to start `processes` others in its place. Raises TriptychError where somebody has
    started another number."""
    place = backend.place()
    if place is not None and processes != place.size:
        raise TriptychError(f"--processes {processes}, but the environment says that this is one of {place.size}")
    return place is None and processes > 1


def launch(backend: Backend, processes: int) -> int:
    """The same command line as so many processes; the exit status. Raises TriptychError with what one of them found
    wrong."""
    from triptych.training.distributed import launch as launcher

    with tempfile.TemporaryDirectory() as folder:
        try:
            launcher.launch(backend.members(processes, Path(folder)), ("-m", "triptych", *sys.argv[1:]), minor=LOST)
        except launcher.ProcessFailedError as error:
            print(f"triptych: {error}", file=sys.stderr)
            return 1
    return 0


@contextmanager
def one_of(group: Group) -> Iterator[None]:
    """Errors in here say which process they are of, and the loss of another process is one. Such a process ends at
    once, by `os._exit`: a framework would wait at its end for the others, which wait for this one."""
    if group.size == 1:
        yield
        return
    name = f"process {group.rank}: " if group.rank else ""
    try:
        yield
    except Interrupted as interruption:
        end(interruption.exit_status, f"{name}{interruption}")
    except TriptychError as error:
        end(BAD_INPUT, f"{name}{error}")
    except RuntimeError as error:
        if not group.lost(error):
            end_with_trace()
        end(FAILED, f"{name}{LOST}, so training was stopped; --resume goes on")
    except BaseException:
        end_with_trace()


def end(status: int, line: str) -> NoReturn:
    """Say why, and be gone."""
    print("triptych: " + " ".join(line.split()), file=sys.stderr)
    leave(status)


def end_with_trace() -> NoReturn:
    """The same of what nobody expected."""
    traceback.print_exc()
    leave(FAILED)


def leave(status: int) -> NoReturn:
    """Be gone without the ends of libraries."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
