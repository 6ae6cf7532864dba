"""Where images lie: in memory while they are few, else in a mapped file, of which the system keeps in memory what is
used and drops what is not. Either way they are one uint8 array."""

import contextlib
import mmap
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from triptych.data.dataset import Images
from triptych.utils import memory
from triptych.utils.errors import TriptychError
from triptych.utils.files import cache_dir, told
from triptych.weights.formats import numpy_files
from triptych.weights.formats.fields import map_file

SHARE = 4  # a set that takes more than this part of the memory there is lies in a file
AHEAD = 2  # batches that are read before they are asked for
BLOCK = 4096  # images that are moved at a time

T = TypeVar("T")


def is_large(size: int) -> bool:
    """Whether so many bytes of images lie in a file."""
    free = memory.available()
    return free is not None and SHARE * size > free


def room(shape: tuple[int, ...], place: Path | None = None) -> Images:
    """Black images of this shape to be filled: in memory, or where they are large in a file without a name in `place`
    (the cache folder), which is gone with the array. Raises TriptychError where there is no space for that."""
    size = int(np.prod(shape, dtype=object))
    if not is_large(size):
        return np.zeros(shape, np.uint8)
    return mapped(shape, _place() if place is None else place)


def mapped(shape: tuple[int, ...], place: Path) -> Images:
    """The same, in a file in any case."""
    size = int(np.prod(shape, dtype=object))
    what = f"{memory.text_of(size)} of images are too many for the memory, and cannot be written to {place}"
    with told(what, needed=size, place=place):
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place) as file:
            file.truncate(size)
            _reserve(file.fileno(), size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8).reshape(shape)


def _reserve(descriptor: int, size: int) -> None:
    """Have the blocks of a file now: where the disk is full, writing into a mapped one would end the process."""
    with contextlib.suppress(AttributeError):  # a system without it
        os.posix_fallocate(descriptor, 0, size)


def _place() -> Path:
    try:
        return cache_dir()
    except TriptychError:
        return Path(tempfile.gettempdir())


def opened(file: Path) -> Images:
    """The array in an `.npy` file: read, or where it is large mapped, so that what is changed in it is not changed in
    the file. Raises TriptychError for what is none."""
    [array] = numpy_files.read(file, map_file(file, mmap.ACCESS_COPY)).values()
    images: Images = np.asarray(array)
    return images if is_large(images.nbytes) else images.copy()  # of its own: the file may be cut short


def without(images: Images, places: list[int]) -> Images:
    """The images without those at `places`; the others move up in the array itself, which is not to be used again."""
    kept = np.delete(np.arange(len(images)), places)
    for begin in range(places[0] if places else len(kept), len(kept), BLOCK):
        block = kept[begin : begin + BLOCK]
        images[begin : begin + len(block)] = images[block]
    return images[: len(kept)]


def is_mapped(images: Images) -> bool:
    """Whether they lie in a file."""
    base: object = images
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items in the same order, made by another thread before they are asked for."""
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        end = object()
        coming: deque[Future[object]] = deque(pool.submit(next, items, end) for _ in range(AHEAD))
        while (item := coming.popleft().result()) is not end:
            coming.append(pool.submit(next, items, end))
            yield item  # type: ignore[misc]
