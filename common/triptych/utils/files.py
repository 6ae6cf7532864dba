"""Where data files lie, how files are written so that no half-written one is ever seen, and how they are checked."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from triptych.utils.errors import TriptychError


def cache_dir() -> Path:
    """The folder for downloads and decoded images: `$TRIPTYCH_DATA`, else `triptych` in the user's cache folder."""
    if chosen := os.environ.get("TRIPTYCH_DATA"):
        return expanded(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or expanded("~") / ".cache") / "triptych"


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
    """A file to write to, which becomes `path` when the block ends well and vanishes when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename across file systems is not atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def told(what: str, way_out: str = "") -> Iterator[None]:
    """Around work with files: an OSError within becomes a TriptychError that says `what`, why, and the `way_out`."""
    try:
        yield
    except OSError as error:
        raise TriptychError("; ".join(filter(None, (f"{what}: {error.strerror}", way_out)))) from None


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


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a file. Raises TriptychError for one of more than `most` bytes, of which no more are read."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise TriptychError(f"{path} has more than the {most:,} bytes that it may have")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write all of `content` to `path`, or leave what was there."""
    with atomic_write(path) as file:
        file.write(content)
