"""One writer at a time: a lock on a file that the kernel releases with the process, however that ends."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from triptych.utils.errors import TriptychError
from triptych.utils.files import told


class Lock:
    """A lock that is held, at most until the end of a `with`; the file at `path` goes with it."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file

    def __enter__(self) -> Path:
        """The folder that it is in."""
        return self.path.parent

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the next one in; a second call does nothing."""
        if not self.file.closed:
            with contextlib.suppress(OSError):  # the folder has gone, or has become read-only
                self.path.unlink()  # while it is held: whoever opened it in between looks again
            self.file.close()


def acquire(path: Path, what: str) -> Lock:
    """The lock of the file `path`, which is made. Raises TriptychError, which names `what` is locked and the process
    that holds it, if another one does, in this process or in any other."""
    while True:
        with told(f"{what} cannot be written"):
            file = open(path, "a+b", opener=_open)  # noqa: SIM115  # open for as long as the lock is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(file.fileno()).st_nlink:  # released, and with it removed, since it was opened
                file.close()
                continue
        except OSError as error:
            raise _refusal(file, what, error) from None
        with contextlib.suppress(OSError):  # on a full disk it is locked all the same
            file.truncate(0)
            file.write(str(os.getpid()).encode())
            file.flush()
        return Lock(path, file)


def _open(path: str, flags: int) -> int:
    """Not through a link, which may lead to a file that is somebody's and would be emptied; nor a pipe's end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def _refusal(file: IO[bytes], what: str, error: OSError) -> TriptychError:
    with file:
        if not isinstance(error, BlockingIOError):
            return TriptychError(f"{what} cannot be locked: {error.strerror}; a network folder may offer no locks")
        file.seek(0)
        holder = file.read(20).decode(errors="replace")
        return TriptychError(f"{what} is in use by process {holder or '?'}; wait for its end, or stop it first")
