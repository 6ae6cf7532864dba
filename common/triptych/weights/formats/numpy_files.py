"""NumPy's own files as MXNet 2 writes them for parameters: `.npy` (one array) and `.npz` (a zip archive of them).

Not by numpy.load: it copies, it unpickles where it is told to, it does not know bfloat16 (`<b2`), and it refuses
the malformed header of `format.npy` that MXNet 2 writes beside a sparse array (src/serialization/cnpy.cc). A sparse
array is a folder of the archive, as SciPy writes it: data, indices, [indptr], shape, format.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError
from triptych.utils.reading import ARCHIVE_ERRORS, open_file
from triptych.weights.formats.fields import MOST_DIMENSIONS, Bytes, Fields
from triptych.weights.formats.sparse import COMPRESSED_ROWS, INDEX_ARRAYS, ROWS, SparseArray, sparse_array

_NPY, _ZIPS = b"\x93NUMPY", (b"PK\x03\x04", b"PK\x05\x06")
_DIRECTORY_END = b"PK\x05\x06"
_MOST_HEADER = 1 << 16
_HEADER = re.compile(
    r"\{\s*'descr':\s*'(?P<order>[<>|=]?)(?P<type>\w+)',\s*'fortran_order':\s*(?P<fortran>True|False),"
    r"\s*'shape':\s*\((?P<shape>[0-9, ]*)\),?\s*\}\s*",
    re.ASCII,
)
_SIZE = re.compile(r" *[0-9]{1,18} *")
_TYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "b2")
_SPARSE_PARTS = ({"data", "indices", "shape", "format"}, {"data", "indices", "indptr", "shape", "format"})
# A compressed archive may unpack to this many times its size: weights do not compress, bombs do.
_MOST_EXPANSION = 4


def is_numpy_file(content: Bytes) -> bool:
    """Whether a file begins as one of NumPy's does."""
    return bytes(content[:6]) == _NPY or bytes(content[:4]) in _ZIPS


def read(path: Path, content: Bytes) -> dict[str, NDArray[Any] | SparseArray]:
    """The arrays of a mapped `.npz` by name, of a `.npy` under the name "0". Raises TriptychError."""
    if bytes(content[:6]) == _NPY:
        return {"0": _read_npy(Fields(str(path), content, part="array 0"))}
    members = _members(path, content)
    folders: dict[str, dict[str, NDArray[Any]]] = {}
    for name, array in members.items():
        folder, _, part = name.rpartition("/")
        folders.setdefault(folder, {})[part] = array
    named = [entry for folder, parts in folders.items() for entry in _named(path, folder, parts)]
    arrays = dict(named)
    if len(arrays) < len(named):
        twice = Counter(name for name, _ in named).most_common(1)[0][0]
        raise TriptychError(f"{path} holds two arrays of the name {twice!r}; save it again")
    return arrays


def _named(path: Path, folder: str, parts: dict[str, NDArray[Any]]) -> list[tuple[str, NDArray[Any] | SparseArray]]:
    """What the members of one folder are: one sparse array, or each of them one."""
    if set(parts) in _SPARSE_PARTS:
        return [(folder or "0", _sparse(path, folder, parts))]
    return [(f"{folder}/{part}" if folder else part, array) for part, array in parts.items()]


def widened(array: NDArray[np.uint16]) -> NDArray[np.float32]:
    """float32 of the bits of bfloat16, which are its upper half."""
    bits = array.astype("<u4")
    bits <<= 16
    return bits.view("<f4")


def _members(path: Path, content: Bytes) -> dict[str, NDArray[Any]]:
    try:
        _check_directory(content)
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            return _read_members(path, content, archive)
    except ARCHIVE_ERRORS as error:
        reason = str(error).encode("unicode_escape").decode()  # it can hold a name, and a name can hold anything
        raise TriptychError(f"{path}: the archive cannot be read ({reason}); copy or save it again") from None
    except OSError as error:
        raise TriptychError(f"cannot read {path}: {error.strerror or error}") from None


def _check_directory(content: Bytes) -> None:
    """An honest table of contents is less than half of the archive; zipfile makes far larger objects of its entries."""
    tail = bytes(content[-0xFFFF - 22 :])
    at = tail.rfind(_DIRECTORY_END)
    if at < 0 or len(tail) - at < 22:
        raise zipfile.BadZipFile("it has no table of contents, as if it were cut off")
    if 2 * int.from_bytes(tail[at + 12 : at + 16], "little") > len(content):
        raise zipfile.BadZipFile("its table of contents is too long")


def _read_members(path: Path, content: Bytes, archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    allowed = _MOST_EXPANSION * len(content)
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name in arrays:
            raise TriptychError(f"{path} holds two arrays of the name {name!r}; save it again")
        allowed -= member.file_size
        if allowed < 0:
            raise TriptychError(
                f"{path}: array {name!r} and those before it unpack to more than {_MOST_EXPANSION} times the file; "
                "save it again with numpy.savez, which does not compress"
            )
        fields = Fields(str(path), _unpacked(content, archive, member), part=f"array {name!r}")
        arrays[name] = _read_npy(fields, name.rpartition("/")[2] == "format")
    return arrays


def _unpacked(content: Bytes, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Bytes:
    """The bytes of a member: where it is stored as it is, a view of the mapped file. Its checksum is compared."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise zipfile.BadZipFile(f"{member.filename!r} is compressed in a way that NumPy does not use")
    if member.compress_type == zipfile.ZIP_DEFLATED or member.flag_bits & 1:
        with archive.open(member) as file:
            return np.frombuffer(file.read(member.file_size), np.uint8)
    local = Fields(archive.filename or "", content, member.header_offset + 26, f"member {member.filename!r}")
    start = sum(local.integers("H", 2, "the lengths of its name")) + member.header_offset + 30
    unpacked = content[start : start + member.file_size]
    if zlib.crc32(unpacked.data) != member.CRC:
        raise zipfile.BadZipFile(f"the checksum of {member.filename!r} is wrong")
    return unpacked


def _header(fields: Fields) -> str:
    at = fields.at
    if fields.raw(6, "the magic number") != _NPY:
        raise fields.error("the magic number", at, "is not that of an .npy file")
    version = fields.integer("B", "the version")
    fields.integer("B", "the minor version")
    at = fields.at
    length = fields.integer("H" if version == 1 else "I", "the length of the header")
    if version not in (1, 2, 3) or length > _MOST_HEADER:
        raise fields.error("the header", at, f"has version {version} and {length:,} bytes")
    return fields.raw(length, "the header").decode("latin1")


def _read_npy(fields: Fields, may_be_text: bool = False) -> NDArray[Any]:
    """The one array. Where it may be text and its header describes no numbers, its bytes, whatever the header says."""
    at = fields.at
    header = _header(fields)
    match = _HEADER.fullmatch(header)
    if match is None or match["type"] not in _TYPES:
        if may_be_text:
            return fields.values(np.dtype(np.uint8), (fields.left,), "the text")
        raise fields.error("the header", at, f"is {header.strip()[:100]!r}, which describes no array of numbers")
    array = _described(fields, match)
    fields.end()
    return widened(array) if match["type"] == "b2" else array


def _described(fields: Fields, match: re.Match[str]) -> NDArray[Any]:
    sizes = match["shape"].rstrip(", ").split(",") if match["shape"].strip(", ") else []
    if len(sizes) > MOST_DIMENSIONS or not all(_SIZE.fullmatch(size) for size in sizes):
        limit = f"expected at most {MOST_DIMENSIONS} numbers of at most 18 digits"
        raise fields.error("the shape in the header", 0, f"is ({match['shape'][:60]}), {limit}")
    shape = [int(size) for size in sizes]
    dtype = np.dtype((">" if match["order"] == ">" else "<") + match["type"].replace("b2", "u2"))
    fortran = match["fortran"] == "True"
    array = fields.values(dtype, shape[::-1] if fortran else shape, "the values")
    return (array.T if fortran else array).astype(dtype.newbyteorder("="), copy=False)


def _sparse(path: Path, name: str, parts: dict[str, NDArray[Any]]) -> SparseArray:
    storage = bytes(parts["format"]).decode("latin1").replace("\0", "")
    indices = [parts[part] for part in ("indptr", "indices") if part in parts]
    try:
        if len(indices) != len(INDEX_ARRAYS.get(storage, ())):
            raise ValueError(f"has the format {storage[:20]!r}, expected '{ROWS}' or '{COMPRESSED_ROWS}'")
        return sparse_array(storage, _shape(parts["shape"]), parts["data"], *indices)
    except ValueError as error:
        raise TriptychError(f"{path}: array {name!r} {error}; save it again") from None


def _shape(array: NDArray[Any]) -> tuple[int, ...]:
    if array.dtype.name not in ("int32", "int64") or array.ndim != 1 or not 0 < len(array) <= MOST_DIMENSIONS:
        raise ValueError(f"has a shape of type {array.dtype} and shape {array.shape}, expected a row of integers")
    if (array < 0).any():
        raise ValueError("has a shape with a negative dimension")
    return tuple(array.tolist())
