"""MXNet's parameter files (`.params`, `nd.save`, `export`, `save_parameters`), read and written with NumPy alone.

Little endian, no padding, C order:

    file  := u64 0x112 | u64 reserved | u64 n | n arrays | u64 k | k names (u64 length, bytes); k = n, or 0: a list
    V2    := u32 0xF993FAC9 | i32 storage | [sparse: shape] | shape | i32 device, i32 number | i32 type
             | [sparse: i32 type, shape for each index array] | values | [sparse: each index array]
    V3    := V2 with the magic 0xF993FACA and the shapes of NumPy: no dimensions are a scalar
    V1    := u32 0xF993FAC8 | shape | i32 device, i32 number | i32 type | values
    V0    := u32 number of dimensions | u32 each | then as V1
    shape := i32 number of dimensions | i64 each

Source: apache/mxnet src/ndarray/ndarray.cc of 1.9.1. MXNet 2 writes NumPy's own files instead (`numpy_files`).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write
from triptych.weights.formats import numpy_files
from triptych.weights.formats.fields import MOST_DIMENSIONS, Fields, map_file
from triptych.weights.formats.sparse import COMPRESSED_ROWS, INDEX_ARRAYS, ROWS, SparseArray, sparse_array

Array = NDArray[Any] | SparseArray
Arrays = dict[str, Array]

_FILE, _V1, _V2, _V3 = 0x112, 0xF993FAC8, 0xF993FAC9, 0xF993FACA
_BFLOAT16 = 12
# mshadow's type flags (3rdparty/mshadow/mshadow/base.h); MXNet 1 itself has the first eight and bfloat16.
_TYPES = dict(enumerate(("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?", "<i2", "<u2", "<u4", "<u8", "<u2")))
_FLAGS = {np.dtype(_TYPES[flag]): flag for flag in range(8)}
_STORAGE = {0: "", 1: ROWS, 2: COMPRESSED_ROWS}
_SMALLEST_ARRAY = 20  # V0 of one dimension, which is 0


def read(path: Path) -> Arrays:
    """The arrays of an MXNet parameter file by name; where the file holds a list, "0", "1" and so on.

    Dense arrays are read-only views into the memory-mapped file where their place in it allows, else copies. bfloat16,
    which NumPy does not have, comes as float32 of the same values. Sparse arrays stay small: `numpy.asarray` makes
    any entry dense, as MXNet's `tostype('default')` does. Devices are ignored. An array that was saved before it had
    values is refused, as are two of one name. Raises TriptychError, which names the array, the field and the byte.
    """
    content = map_file(path)
    if numpy_files.is_numpy_file(content):
        return numpy_files.read(path, content)
    fields = Fields(str(path), content)
    _read_header(fields)
    arrays = []
    number = fields.count("Q", _SMALLEST_ARRAY, "arrays")
    for index in range(number):
        fields.part = f"array {index} of {number}"
        arrays.append(_read_array(fields))
    names = _read_names(fields, number)
    fields.end()
    return dict(zip(names, arrays, strict=True))


def read_record(content: bytes, source: str) -> NDArray[Any]:
    """One array by itself, as MXNet pickles it; `source` names it in messages. Raises TriptychError as `read` does."""
    fields = Fields(source, np.frombuffer(content, np.uint8), part="the array")
    array = _read_array(fields)
    fields.end()
    return np.asarray(array)


def record(array: NDArray[Any]) -> bytes:
    """One array by itself, as MXNet pickles it. Raises TriptychError as `write` does."""
    return _array_header("the array", array) + bytes(_little_endian(array).data)


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write dense arrays as MXNet 1.x does (V2, on the CPU), for `mx.nd.load`: the same bits, in the same order.

    Raises TriptychError for what MXNet 1.x has no place for: a scalar, a type it does not know, a name that is no
    UTF-8 or holds a zero byte; and where the file cannot be written.
    """
    headers = {name: _array_header(name, np.asarray(array)) for name, array in arrays.items()}
    names = [_encoded(name) for name in arrays]
    try:
        with atomic_write(path) as file:
            file.write(struct.pack("<QQQ", _FILE, 0, len(arrays)))
            for name, array in arrays.items():
                file.write(headers[name])
                file.write(_little_endian(np.asarray(array)).data)
            file.write(struct.pack("<Q", len(names)))
            for encoded in names:
                file.write(struct.pack("<Q", len(encoded)) + encoded)
    except OSError as error:
        raise TriptychError(f"cannot write {path}: {error.strerror or error}") from None


def split_prefixes(arrays: Mapping[str, Array]) -> tuple[Arrays, Arrays]:
    """Arguments and auxiliary states of an exported file, whose names begin with `arg:` and `aux:`, without these.

    A name without either is an argument: `save_parameters` writes none. Raises TriptychError if a name occurs twice.
    """
    auxiliary = {name[4:]: array for name, array in arrays.items() if name.startswith("aux:")}
    arguments = {name.removeprefix("arg:"): array for name, array in arrays.items() if not name.startswith("aux:")}
    if len(arguments.keys() | auxiliary.keys()) < len(arrays):
        twice = Counter(name.removeprefix("arg:").removeprefix("aux:") for name in arrays).most_common(1)[0][0]
        raise TriptychError(f"{twice!r} is there twice, with and without 'arg:' or 'aux:'; leave one of them out")
    return arguments, auxiliary


def _read_header(fields: Fields) -> None:
    magic = fields.integer("Q", "the magic number")
    if magic != _FILE:
        raise TriptychError(
            f"{fields.file} is no MXNet parameter file: it begins with {bytes(fields.content[:8])!r}; "
            f"expected {_FILE:#x} (MXNet 1.x) or a file of NumPy (MXNet 2)"
        )
    fields.integer("Q", "the reserved field")


def _read_array(fields: Fields) -> Array:
    at = fields.at
    magic = fields.integer("I", "the magic number")
    if magic in (_V2, _V3):
        return _read_with_storage(fields, magic)
    if magic == _V1:
        shape = fields.shape("i", "q", "the shape")
    elif magic > MOST_DIMENSIONS:
        raise fields.error("the magic number", at, f"is {magic:#x}, which begins no array of MXNet's")
    else:  # V0 has no magic number, its number of dimensions stands there
        shape = fields.dimensions(magic, at, "I", "the shape")
    _refuse_empty(fields, at, shape)
    return _values(fields, _read_type(fields), shape, "the values")


def _read_with_storage(fields: Fields, magic: int) -> Array:
    at = fields.at
    flag = fields.integer("i", "the storage type")
    if flag not in _STORAGE or (magic == _V3 and flag):
        raise fields.error("the storage type", at, f"is {flag}, expected {'0' if magic == _V3 else '0 to 2'}")
    storage = _STORAGE[flag]
    if storage:
        fields.shape("i", "q", "the stored shape")  # not believed: MXNet sometimes writes one that is out of date
    at = fields.at
    shape = fields.shape("i", "q", "the shape")
    if magic == _V2:
        _refuse_empty(fields, at, shape)
    flag = _read_type(fields)
    return _read_sparse(fields, storage, shape, flag) if storage else _values(fields, flag, shape, "the values")


def _read_sparse(fields: Fields, storage: str, shape: tuple[int, ...], flag: int) -> SparseArray:
    descriptions = []
    for what in INDEX_ARRAYS[storage]:
        index_flag = _type_flag(fields, f"the type of the {what}")
        descriptions.append((index_flag, fields.shape("i", "q", f"the shape of the {what}")))
    stored = descriptions[-1][1] + (shape[1:] if storage == ROWS else ())
    at = fields.at
    values = _values(fields, flag, stored, "the values")
    indices = [
        _values(fields, index_flag, index_shape, f"the {what}")
        for what, (index_flag, index_shape) in zip(INDEX_ARRAYS[storage], descriptions, strict=True)
    ]
    try:
        return sparse_array(storage, shape, values, *indices)
    except ValueError as error:
        raise fields.error(f"the {storage} array", at, str(error)) from None


def _refuse_empty(fields: Fields, at: int, shape: tuple[int, ...]) -> None:
    if not shape:
        raise fields.error("the shape", at, "has no dimensions: the array was saved before it had values")


def _read_type(fields: Fields) -> int:
    fields.integers("i", 2, "the device")
    return _type_flag(fields, "the type")


def _type_flag(fields: Fields, field: str) -> int:
    at = fields.at
    flag = fields.integer("i", field)
    if flag not in _TYPES:
        raise fields.error(field, at, f"is {flag}, expected 0 to {max(_TYPES)}")
    return flag


def _values(fields: Fields, flag: int, shape: tuple[int, ...], field: str) -> NDArray[Any]:
    array = fields.values(np.dtype(_TYPES[flag]), shape, field)
    return numpy_files.widened(array) if flag == _BFLOAT16 else array


def _read_names(fields: Fields, number: int) -> list[str]:
    fields.part = "the names"
    at = fields.at
    named = fields.count("Q", 8, "names")
    if not named:
        return [str(index) for index in range(number)]
    if named != number:
        raise fields.error("the number of names", at, f"is {named}, with {number} arrays")
    names: dict[str, None] = {}
    for index in range(number):
        fields.part = f"the name of array {index} of {number}"
        at = fields.at
        name = fields.text(fields.count("Q", 1, "bytes of the name"), "the name")
        if name in names:
            raise fields.error("the name", at, f"is {name!r}, which another array has")
        names[name] = None
    return list(names)


def _array_header(name: str, array: NDArray[Any]) -> bytes:
    flag = _FLAGS.get(array.dtype.newbyteorder("<"))
    if flag is None:
        known = ", ".join(dtype.name for dtype in _FLAGS)
        raise TriptychError(f"MXNet has no type for {name!r}, which is {array.dtype}; convert it to one of {known}")
    if not array.ndim or array.ndim > MOST_DIMENSIONS:
        raise TriptychError(
            f"MXNet's files have no place for {name!r} of shape {array.shape}; "
            f"give it at least 1 and at most {MOST_DIMENSIONS} dimensions"
        )
    return struct.pack(f"<Iii{array.ndim}qiii", _V2, 0, array.ndim, *array.shape, 1, 0, flag)


def _little_endian(array: NDArray[Any]) -> NDArray[Any]:
    """A flat array of the same values, since a memory view of one without values or of several dimensions fails."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


def _encoded(name: str) -> bytes:
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise TriptychError(f"the name {name!r} is not UTF-8; rename the array") from None
    if b"\0" in encoded:
        raise TriptychError(f"the name {name!r} holds a zero byte; rename the array")
    return encoded
