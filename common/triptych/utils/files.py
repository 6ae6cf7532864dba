"""Where data files lie, how files are written so that no half-written one is ever seen, and how they are checked."""

import contextlib
import errno
import fcntl
import hashlib
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from triptych.utils.errors import TriptychError
from triptych.utils.reading import open_file

TEMPORARY = ".tmp"
FULL = (errno.ENOSPC, errno.EDQUOT)


def cache_dir() -> Path:
    """The folder for downloads and decoded images: `$TRIPTYCH_DATA`, else `triptych` in the user's cache folder."""
    if chosen := os.environ.get("TRIPTYCH_DATA"):
        return expanded(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~") / ".cache") / "triptych"


def machine_cache(name: str) -> Path | None:
    """The folder `name` for what holds on this kind of processor alone, in the user's cache folder; None where there is
    no home folder. It is not made here."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or expanded("~") / ".cache") / "triptych" / name
    except TriptychError:
        return None
    facts = [platform.machine(), platform.processor()]
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        facts += [next((line for line in file if line.startswith(("flags", "Features"))), "")]
    return folder / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def expanded(path: str | Path) -> Path:
    """The path with the home folder for `~` or `~USER`. Raises TriptychError for a user, or a home folder, that is not
    known here."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0].removeprefix("~")
        if user:
            raise TriptychError(f"'{path}': there is no user '{user}' here; name the folder itself") from None
        raise TriptychError(
            "there is no home folder (HOME is not set, and this user has none); set HOME, or TRIPTYCH_DATA to a folder "
            "for data"
        ) from None


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes `path`, on the disk, when the block ends well and vanishes when it does not.
    What killed processes left of their own attempts is removed. Raises OSError where a pipe or a device is: it would be
    gone."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EEXIST, "there is something that is no file")
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, path.name)
    # In the same folder, because a rename across file systems is not atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY}")
    try:
        with _open_locked(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _open_locked(path: Path) -> IO[bytes]:
    """A new file, locked for as long as it is open, so that nobody takes it for a leftover."""
    while True:
        file = path.open("wb")
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # removed between the two, as a leftover


def leftovers(folder: Path, name: str = "") -> list[Path]:
    """What `atomic_write` of the file `name` (of any) has left in a folder, or has not finished yet."""
    begin = f".{name}." if name else "."
    return [path for path in folder.iterdir() if path.name.startswith(begin) and path.name.endswith(TEMPORARY)]


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove those that nobody is writing any more."""
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        for path in leftovers(folder, name):
            with contextlib.suppress(OSError), open_file(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, as `fsync` has a file's content."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told(
    what: str, way_out: str | Callable[[], str] = "", *, needed: int = 0, place: Path | None = None
) -> Iterator[None]:
    """Around work with files: an OSError within becomes a TriptychError that says `what`, why, and the `way_out` (as it
    is by then, where that is a function); of a full disk also how many bytes were `needed` and are free at `place`."""
    try:
        yield
    except OSError as error:
        full = error.errno in FULL and place is not None
        space = f"{needed:,} bytes were needed, {free_bytes(place):,} are free" if full and place else ""
        reason, way_out = error.strerror or str(error), way_out if isinstance(way_out, str) else way_out()
        raise TriptychError("; ".join(filter(None, (f"{what}: {reason}", space, way_out)))) from None


def free_bytes(place: Path) -> int:
    """What can still be written at `place`, which may not be there yet."""
    existing = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def probe(folder: Path) -> None:
    """Raises OSError if nothing can be written below `folder`, which need not be there yet; nothing is left behind."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    tempfile.TemporaryFile(dir=existing).close()


def check_hash(content: bytes, expected: str, what: str, way_out: str, algorithm: str = "sha256") -> None:
    """Raises TriptychError, which names `what` and both hashes, unless `content` has the `expected` one (hex)."""
    actual = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if actual != expected:
        raise TriptychError(
            f"{what} is damaged or not the original: {algorithm} of its content is {actual} ({len(content)} bytes), "
            f"expected {expected}; {way_out}"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` to `path`, or leave what was there. A pipe or a device, as /dev/null, is written to, not
    replaced by a file."""
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content)
        return
    with atomic_write(path) as file:
        file.write(content)
