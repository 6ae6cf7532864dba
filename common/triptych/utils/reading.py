"""Reading what anybody may have put there: a file and nothing else, whole, and no more of it than it may have."""

import errno
import os
import stat
import struct
import zipfile
import zlib
from io import BufferedReader
from pathlib import Path

from triptych.utils import memory
from triptych.utils.errors import TriptychError

# What zipfile raises of a damaged archive; ValueError is of names that are no text.
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def open_file(path: Path) -> BufferedReader:
    """A file to read from. Raises OSError for anything else: a pipe may never answer, and a device may never end."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # a NUL in it
        raise OSError(errno.EINVAL, "no file can have this name") from None
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISREG(kind):
        return open(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is a pipe, a socket or a device, and no file")


def read_bounded(path: Path, most: int | None = None) -> bytes:
    """The content of a file. Raises TriptychError for one of more than `most` bytes, or than fit into memory, of which
    none are read, and OSError as `open_file` does."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is None:
            memory.check(size, f"reading {path}", "name the file that was meant")
        elif size > most:
            raise TriptychError(f"{path} has more than the {most:,} bytes that it may have")
        content = file.read(size + 1)
    if len(content) > size:
        raise TriptychError(f"{path} grows while it is read; wait until it is whole")
    return content


def holds(path: Path, content: bytes) -> bool:
    """Whether this is all that a file holds; of what cannot be read it is not."""
    try:
        return read_bounded(path, len(content)) == content
    except (OSError, TriptychError):
        return False


def is_archive(path: Path) -> bool:
    """Whether a file is a ZIP archive, as far as its end tells. Raises OSError as `open_file` does."""
    with open_file(path) as file:
        try:
            return zipfile.is_zipfile(file)
        except zipfile.BadZipFile:  # one that is said to have several parts
            return False
