"""How one of several processes ends."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from triptych.backend.group import Group
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted
from triptych.utils.leaving import leave

FAILED, BAD_INPUT = 1, 2
LOST = "lost the other processes"  # not the cause that a person is told, where there is another


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
