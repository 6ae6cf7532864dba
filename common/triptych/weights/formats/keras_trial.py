"""A first reading of an HDF5 file in a process of its own: on some damaged files HDF5's library never returns (a heap
of zeros is enough) or ends the process, and nothing within a process can end such a call."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from triptych.utils.errors import TriptychError

SECONDS = 5  # of processor time, for a small file
_PER_SECOND = 10_000_000  # bytes of a larger one that may take a second more


def try_out(path: Path, size: int) -> None:
    """Raises TriptychError for a file of `size` bytes whose reading does not end, or ends the process. What it says
    itself is left to the reading that follows."""
    seconds = SECONDS + size // _PER_SECOND
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __name__, str(path), str(seconds)]
    end = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode
    judge(path, end, seconds)


def judge(path: Path, end: int, seconds: int) -> None:
    """What the way says in which the process ended."""
    if end >= 0:
        return
    how = f"does not end in {seconds} seconds" if -end == signal.SIGXCPU else f"ends the process (signal {-end})"
    raise TriptychError(f"{path} is damaged: reading it {how}; copy it again, or save the model again")


def attempt(path: Path, seconds: int) -> None:
    """In the process of its own: read all of the file, for so many seconds at most."""
    from triptych.weights.formats import keras_file

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    with contextlib.suppress(TriptychError):
        keras_file.read_once(path)


if __name__ == "__main__":
    attempt(Path(sys.argv[1]), int(sys.argv[2]))
