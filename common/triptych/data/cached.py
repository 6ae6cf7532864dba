"""The images of class folders, decoded once: the array is kept in the user's cache folder."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triptych.data import decoded, storage
from triptych.data.dataset import Images
from triptych.data.decoded import PLAIN, Reading, Size
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, cache_dir

MOST_NOTE = 1 << 20  # bytes of what is written beside the array
FORMAT = 3  # of the cache; a change of how images are decoded needs another number


def _key(paths: Sequence[Path], folder: Path) -> str:
    """Changes when a file is added, removed, renamed, replaced or changed: by its size, its number and its times, of
    which that of the last change to the file (ctime) is the system's own and cannot be set."""
    digest = hashlib.sha256(f"{FORMAT}".encode())
    for path in paths:
        stat = path.stat()
        known = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
        digest.update(f"{path.relative_to(folder)}\0{known}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _hash(images: Images) -> str:
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(np.ascontiguousarray(images).reshape(-1).data)
    return digest.hexdigest()


def _read_cache(file: Path, key: str) -> tuple[Images, list[int]] | None:
    """What is cached for `key`, and the numbers of the files that are not in it; None if nothing is, or it is damaged
    in any way."""
    try:
        note = records.decode(records.read(file.with_suffix(".json"), MOST_NOTE), dict[str, str])
        if note["key"] != key:
            return None
        bad = [int(number) for number in note["bad"].split()]
        images = storage.opened(file)
        return (images, bad) if images.dtype == np.uint8 and _hash(images) == note["sha256"] else None
    except (OSError, EOFError, ValueError, KeyError, TriptychError):
        return None


def _write_cache(file: Path, key: str, images: Images, bad: Sequence[int]) -> None:
    """Array first, note last: a process killed in between leaves an entry whose hashes do not fit."""
    try:
        with atomic_write(file) as array:
            np.save(array, images, allow_pickle=False)
        with atomic_write(file.with_suffix(".json")) as note:
            written = {"key": key, "sha256": _hash(images), "bad": " ".join(map(str, bad))}
            note.write(json.dumps(written).encode())
    except OSError:
        return  # a cache that cannot be written costs time, nothing else


def _place() -> Path:
    """Where entries lie; where there is no home folder, a place that holds none and takes none."""
    try:
        return cache_dir() / "folders"
    except TriptychError:
        return Path(os.devnull) / "folders"


def load(
    paths: Sequence[Path], folder: Path, size: Size | None = None, reading: Reading = PLAIN
) -> tuple[Images, list[int]]:
    """The images of the files that can be read, as `decode` gives them, from the cache if no file in `folder` has
    changed since; and the numbers of the others. Raises TriptychError, with all of those in one line, unless they are
    to be left out."""
    # One entry per folder, size and reading, so that a new version replaces the old.
    named = f"{folder.resolve()}\0{size}" + (f"\0{reading}" if reading != PLAIN else "")
    name = hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()[:16]
    file, key = _place() / f"{name}.npy", _key(paths, folder)
    cached = _read_cache(file, key)
    if cached is not None:
        return cached
    images, bad = decoded.decode_kept(paths, size, reading)
    if _key(paths, folder) != key:  # a file was replaced while it was read
        return images, bad
    _write_cache(file, key, images, bad)
    if storage.is_mapped(images):  # its own file takes as much of the disk
        return _read_cache(file, key) or (images, bad)
    return images, bad
