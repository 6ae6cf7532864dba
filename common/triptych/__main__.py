"""The entry of the command line: `triptych` and `python -m triptych`."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

from triptych.utils import terminal
from triptych.utils.errors import TriptychError

OK, FAILED, BAD_INPUT = 0, 1, 2


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 a check failed, 2 bad usage or input (one line on stderr)."""
    from cyclopts import CycloptsError

    from triptych.cli import app, expand_json
    from triptych.utils import memory, remarks
    from triptych.utils.interrupt import Interrupted

    expanded = expand_json(sys.argv[1:] if arguments is None else arguments)
    try:
        with terminal.guarded(report="--json=-" in expanded), warnings_shown(), remarks.collected():
            status = app(expanded, exit_on_error=False, print_error=False, result_action="return_value")
            print(end="", flush=True)  # now, while an error is still ours to report; stdout may be closed
    except memory.OutOfMemoryError as error:
        give_up(str(error), at_once=arguments is None)
    except (TriptychError, CycloptsError) as error:
        sys.exit(complain(str(error)))
    except SystemExit as ended:  # no command of ours ends so: somebody's network, or what it calls
        sys.exit(complain(f"the code of a network ended the program ({ended.code!r}) before there was a result"))
    except Interrupted as interruption:
        print("triptych: " + terminal.one_line(str(interruption)), file=sys.stderr)
        sys.exit(interruption.exit_status)
    except KeyboardInterrupt:
        print("triptych: stopped by SIGINT", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        drop_output()
        sys.exit(141)
    except OSError as error:  # the disk is full, a folder has gone
        drop_output()
        sys.exit(complain(f"cannot read or write: {error}"))
    except Exception as error:
        from triptych.backend import registry

        if not registry.out_of_memory(error):
            raise
        give_up(memory.failed("what was asked for is too large", error), at_once=arguments is None)
    sys.exit(status if isinstance(status, int) else OK)


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Whoever has warnings be errors (PYTHONWARNINGS=error) has that of programs of her own: frameworks warn where they
    are imported, and would not be. Here they are shown, but for those that are for programmers."""
    with warnings.catch_warnings():
        if any(option.startswith("error") for option in sys.warnoptions):
            warnings.resetwarnings()
            for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning, SyntaxWarning):
                warnings.simplefilter("ignore", kind)
        yield


def drop_output() -> None:
    """What is still to be written goes nowhere, so that Python's own flush at the end has nothing to complain of."""
    with contextlib.suppress(OSError, AttributeError):  # there is no stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def give_up(message: str, *, at_once: bool) -> NoReturn:
    """The end where memory has ended. `at_once`: as a process of its own without the frameworks' own ends, which were
    seen to hang, or to crash, when they cannot get any."""
    status = complain(message)
    if at_once:
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def complain(message: str) -> int:
    """One line on stderr; the exit status for bad input."""
    print("triptych: " + terminal.one_line(message), file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    main()
