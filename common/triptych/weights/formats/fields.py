"""Reading of binary files field by field: nothing is believed that the bytes which are left cannot hold.

A reader for somebody else's format asks a `Fields` for one field after the other. Whatever does not fit raises the one
error, which names the file, the part of it (an array), the field and the byte at which it stands.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError
from triptych.utils.reading import open_file

Bytes = NDArray[np.uint8]

MOST_DIMENSIONS = 32  # what NumPy 1 can hold; NumPy 2 holds 64


def map_file(path: Path, access: int = mmap.ACCESS_READ) -> Bytes:
    """All bytes of a file, memory-mapped and read-only, unless `access` is another of the module mmap. Raises
    TriptychError where that cannot be done.

    They stay readable when the file is renamed or removed, but not when it is cut short in place.
    """
    try:
        with open_file(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise TriptychError(f"{path} is empty; copy or save it again")
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=access), np.uint8)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or a file that became empty meanwhile
        raise TriptychError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


@dataclass
class Fields:
    """The bytes of a file and the place that is read next; `part` is what the next fields belong to, for messages."""

    file: str
    content: Bytes
    at: int = 0
    part: str = "the header"

    @property
    def left(self) -> int:
        """The bytes that are left."""
        return len(self.content) - self.at

    def error(self, field: str, at: int, problem: str) -> TriptychError:
        """The error of one field: `problem` says what it is and what was expected."""
        return TriptychError(
            f"{self.file}: {self.part}, {field} at byte {at} {problem}; the file is damaged, copy or save it again"
        )

    def integer(self, code: str, field: str) -> int:
        """One little-endian integer; `code` is of the module struct, without the byte order."""
        return self.integers(code, 1, field)[0]

    def integers(self, code: str, count: int, field: str) -> tuple[int, ...]:
        """`count` little-endian integers of one kind."""
        size = count * struct.calcsize(f"<{code}")
        at = self._advance(size, field)
        return struct.unpack_from(f"<{count}{code}", self.content.data, at)

    def count(self, code: str, smallest: int, what: str) -> int:
        """How many of `what` follow, each of which takes at least `smallest` bytes."""
        at = self.at
        number = self.integer(code, f"the number of {what}")
        if not 0 <= number * smallest <= self.left:
            raise self.error(f"the number of {what}", at, f"is {number:,}, with {self.left:,} bytes left in the file")
        return number

    def shape(self, count_code: str, code: str, field: str) -> tuple[int, ...]:
        """A number of dimensions, then each of them."""
        at = self.at
        ndim = self.integer(count_code, f"the number of dimensions of {field}")
        return self.dimensions(ndim, at, code, field)

    def dimensions(self, ndim: int, at: int, code: str, field: str) -> tuple[int, ...]:
        """A shape of `ndim` dimensions, which was read at byte `at`."""
        if not 0 <= ndim <= MOST_DIMENSIONS:
            limit = f"is {ndim}, expected 0 to {MOST_DIMENSIONS}"
            raise self.error(f"the number of dimensions of {field}", at, limit)
        at = self.at
        shape = self.integers(code, ndim, field)
        if any(size < 0 for size in shape):
            raise self.error(field, at, f"is {shape}, with a negative dimension")
        return shape

    def values(self, dtype: np.dtype[Any], shape: Sequence[int], field: str) -> NDArray[Any]:
        """An array in C order: a view into the file where it lies as the processor wants it, else a copy."""
        size = math.prod(shape) * dtype.itemsize
        at = self._advance(size, f"{field} of shape {tuple(shape)} and type {dtype.name}")
        raw = self.content[at : at + size]
        if dtype == np.bool_ and (raw > 1).any():
            raise self.error(field, at, "are booleans, but not all are 0 or 1")
        try:
            array = raw.view(dtype).reshape(shape)
        except (ValueError, OverflowError):  # nothing times more than an array can have
            raise self.error(field, at, f"has the shape {tuple(shape)}, which no array can have") from None
        return array if array.flags.aligned else array.copy()

    def raw(self, length: int, field: str) -> bytes:
        """`length` bytes as they are."""
        at = self._advance(length, field)
        return bytes(self.content[at : at + length])

    def text(self, length: int, field: str) -> str:
        """`length` bytes of UTF-8 without NUL."""
        at = self.at
        try:
            text = self.raw(length, field).decode()
        except UnicodeDecodeError as error:
            raise self.error(field, at + error.start, "is not UTF-8") from None
        if "\0" in text:
            raise self.error(field, at, "holds a zero byte")
        return text

    def end(self) -> None:
        """Raises TriptychError if anything is left."""
        if self.left:
            self.part = "the file"
            raise self.error("the end", self.at, f"is followed by {self.left:,} bytes more")

    def _advance(self, size: int, field: str) -> int:
        at = self.at
        if size > self.left:
            raise self.error(field, at, f"needs {size:,} bytes, {self.left:,} are left in the file")
        self.at += size
        return at
