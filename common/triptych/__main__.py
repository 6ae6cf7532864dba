"""The entry of the command line: `triptych` and `python -m triptych`."""

import contextlib
import os
import sys

from triptych.utils.errors import TriptychError

OK, FAILED, BAD_INPUT = 0, 1, 2


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit: 0 success, 1 a check failed, 2 bad usage or input (one line on stderr)."""
    from cyclopts import CycloptsError

    from triptych.cli import app, expand_json
    from triptych.utils import remarks
    from triptych.utils.interrupt import Interrupted

    try:
        with remarks.collected():
            status = app(
                expand_json(sys.argv[1:] if arguments is None else arguments),
                exit_on_error=False,
                print_error=False,
                result_action="return_value",
            )
        print(end="", flush=True)  # now, while an error is still ours to report; stdout may be closed
    except (TriptychError, CycloptsError) as error:
        sys.exit(complain(str(error)))
    except SystemExit as ended:  # no command of ours ends so: somebody's network, or what it calls
        sys.exit(complain(f"the code of a network ended the program ({ended.code!r}) before there was a result"))
    except Interrupted as interruption:
        print(f"triptych: {interruption}", file=sys.stderr)
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
    sys.exit(status if isinstance(status, int) else OK)


def drop_output() -> None:
    """What is still to be written goes nowhere, so that Python's own flush at the end has nothing to complain of."""
    with contextlib.suppress(OSError, AttributeError):  # there is no stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(message: str) -> int:
    """One line on stderr; the exit status for bad input."""
    print("triptych: " + " ".join(message.split()), file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    main()
