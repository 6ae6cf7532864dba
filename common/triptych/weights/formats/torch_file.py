"""PyTorch's `.pt` files of plain tensors (`torch.save(state_dict)`), read and written without PyTorch.

A ZIP archive, uncompressed: `data.pkl` describes the tensors, `data/0`, `data/1` ... are their bytes. Before PyTorch
1.6 it was five pickles (a magic number, the protocol, the machine, what describes the tensors, the keys of their bytes)
and the bytes behind them in the keys' order, each with the number of its values before it. Pickles are read as data
(`inert_pickle`): nothing that a file names is called. Source: torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, told
from triptych.utils.reading import ARCHIVE_ERRORS, open_file, read_bounded
from triptych.weights.formats.inert_pickle import Call, Name, Persistent, load, loads
from triptych.weights.formats.numpy_files import widened

Arrays = dict[str, NDArray[Any]]
T = TypeVar("T")

# PyTorch's storages by what they hold; bfloat16, which NumPy does not have, comes as float32 of the same values.
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_NAMES = {np.dtype(code): name for name, code in _STORAGES.items() if name != "BFloat16Storage"}
_DEEPEST, _MOST_PARTS = 20, 1_000_000  # of what is read: a part that is there twice counts twice
_MOST_TIMES = 10  # what an archive may hold, and what may be copied out of it, in units of its size
_REBUILD, _PARAMETER = (
    ("_rebuild_tensor_v2", "_rebuild_tensor"),
    ("_rebuild_parameter", "_rebuild_parameter_with_state"),
)
_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."  # a pickle of 0x1950a86a20f9469cfc6c
_WRAPPERS = ("state_dict", "model", "model_state_dict")


class Storages:
    """The bytes of a file's tensors by their key; `find` gives them, None where they are not there."""

    def __init__(self, path: Path, find: Callable[[str], bytes | memoryview | None]) -> None:
        self.path, self.find = path, find
        self.left = _MOST_TIMES * path.stat().st_size
        self.read: dict[str, bytes | memoryview] = {}

    def __getitem__(self, key: str) -> bytes | memoryview:
        if key not in self.read:
            found = self.find(key)
            if found is None:
                raise TriptychError(f"{self.path}: the tensors' bytes data/{key} are not there; copy or save it again")
            self.read[key] = found
        return self.read[key]

    def copied(self, size: int) -> None:
        """Raises TriptychError if, with so many bytes more, tensors that share a storage become too many copies."""
        self.left -= size
        if self.left < 0:
            raise TriptychError(f"{self.path}: its tensors have more than {_MOST_TIMES} times its size; refused")


def read(path: Path) -> Arrays:
    """The tensors of a state dict by name; one that stands in a checkpoint under `state_dict`, `model` or
    `model_state_dict`, or that is the only dict of tensors in it, is found there. Raises TriptychError for a whole
    module, for what is no file of torch.save, and for tensors that NumPy cannot hold."""

    def arrays(value: Any, storages: Storages) -> Arrays:
        return {name: _named_tensor(path, name, one, storages) for name, one in _state_dict(path, value).items()}

    return _opened(path, arrays)


def read_tree(path: Path) -> Any:
    """What was saved, if it is made of dicts, lists, tuples, numbers, texts and tensors. Raises TriptychError as `read`
    does, and for anything else in it."""
    parts = count()

    def tree(value: Any, storages: Storages, keys: tuple[str, ...] = ()) -> Any:
        if next(parts) > _MOST_PARTS or len(keys) > _DEEPEST:
            raise TriptychError(f"{path}: its parts are too many, or lie too deep in each other")
        entries = _entries(value)
        if entries is not None:
            return {key: tree(one, storages, (*keys, str(key))) for key, one in entries.items()}
        if isinstance(value, list | tuple):
            return type(value)(tree(one, storages, (*keys, str(place))) for place, one in enumerate(value))
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return _named_tensor(path, ".".join(keys), value, storages)

    return _opened(path, tree)


def _opened(path: Path, use: Callable[[Any, Storages], T]) -> T:
    """`use` of a file's pickle, with what gives its tensors' bytes."""
    try:
        with told(f"cannot read {path}"), open_file(path) as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return _read_pickles(path, read_bounded(path), use)
            with zipfile.ZipFile(file) as archive:
                return _read_archive(path, archive, use)
    except ARCHIVE_ERRORS as error:
        raise TriptychError(f"{path} is no file of torch.save: {str(error)[:100]}; save a state_dict()") from None


def _read_pickles(path: Path, content: bytes, use: Callable[[Any, Storages], T]) -> T:
    """A file of PyTorch before 1.6, or of `_use_new_zipfile_serialization=False`."""
    stream, source = io.BytesIO(content), str(path)
    (_, _), (_, _), (machine, _), (value, referred), (keys, _) = (load(stream, source) for _ in range(5))
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise TriptychError(f"{path} was written on a machine of the other byte order; save it again on this one")
    sizes = dict(_stored(path, each) for each in referred)
    rest, at, found = memoryview(content), stream.tell(), dict[str, memoryview]()
    for key in keys if isinstance(keys, list) else ():
        (count,) = struct.unpack_from("<q", rest, at)
        size = sizes.get(str(key), 0) * count
        if not 0 <= size <= len(rest) - at - 8 or str(key) not in sizes:
            raise TriptychError(f"{path}: the bytes of its tensors end too early; copy or save it again")
        found[str(key)] = rest[at + 8 : at + 8 + size]
        at += 8 + size
    return use(value, Storages(path, found.get))


def _stored(path: Path, referred: Persistent) -> tuple[str, int]:
    """A storage's key, and the bytes of each of its values."""
    match referred.identifier:
        case ("storage", Name(name=kind), str(key), _, int(), None) if kind in _STORAGES:
            return key, np.dtype(_STORAGES[kind]).itemsize
        case ("storage", Name(name=kind), *_):
            raise TriptychError(
                f"{path} holds a {kind} (or a part of one), which is not supported; save net.state_dict()"
            )
    raise TriptychError(f"{path} is no state dict of torch.save; save net.state_dict()")


def _read_archive(path: Path, archive: zipfile.ZipFile, use: Callable[[Any, Storages], T]) -> T:
    infos = archive.infolist()
    if sum(info.file_size for info in infos) > _MOST_TIMES * path.stat().st_size:
        raise TriptychError(f"{path} holds more than {_MOST_TIMES} times its size; refused")
    members = {info.filename.partition("/")[2]: info for info in infos}
    if "data.pkl" not in members or "constants.pkl" in members:
        raise TriptychError(f"{path} is no state dict of torch.save; save net.state_dict()")
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
        raise TriptychError(f"{path} was written on a machine of the other byte order; save it again on this one")

    def find(key: str) -> bytes | None:
        return archive.read(members[f"data/{key}"]) if f"data/{key}" in members else None

    return use(loads(archive.read(members["data.pkl"]), str(path)), Storages(path, find))


def _named_tensor(path: Path, name: str, value: Any, storages: Storages) -> NDArray[Any]:
    try:
        return _tensor(value, storages)
    except (TypeError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise TriptychError(f"{path}: {name!r} is no plain tensor ({str(error)[:80]})") from None


def _state_dict(path: Path, value: Any) -> dict[str, Any]:
    entries = _entries(value)
    if entries is not None and (inner := _wrapped(entries)) is not None:
        entries = inner
    if entries is None or not all(isinstance(name, str) for name in entries):
        raise TriptychError(f"{path} is no state dict: it holds {_called(value)}; save net.state_dict()")
    return {name: tensor for name, tensor in entries.items() if name != "_metadata"}


def _wrapped(checkpoint: Mapping[Any, Any]) -> dict[Any, Any] | None:
    """The state dict in a checkpoint: under a usual name, else the one dict in it that holds tensors alone."""
    for key in _WRAPPERS:
        if (usual := _entries(checkpoint.get(key))) is not None:
            return usual
    inside = [entries for value in checkpoint.values() if (entries := _entries(value))]
    dicts = [entries for entries in inside if all(map(_is_tensor, entries.values()))]
    return dicts[0] if len(dicts) == 1 and not any(map(_is_tensor, checkpoint.values())) else None


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Call) and value.name in (*_REBUILD, *_PARAMETER)


def _entries(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Call) and value.what == Name("collections", "OrderedDict"):
        return value.entries
    return value if isinstance(value, dict) else None


def _called(value: Any) -> str:
    return f"a {value.name}" if isinstance(value, Call) and value.name else f"a {type(value).__name__}"


def _tensor(value: Any, storages: Storages) -> NDArray[Any]:
    """The array that a call of PyTorch's describes. Raises ValueError for other calls."""
    if isinstance(value, Call) and value.name in _PARAMETER:
        value = value.arguments[0]
    if not isinstance(value, Call) or value.name not in _REBUILD or value.what.module != "torch._utils":
        raise ValueError(f"it is {_called(value)}")
    storage, offset, shape, strides = value.arguments[:4]
    if not isinstance(storage, Persistent):
        raise ValueError("it has no storage")
    _, kind, key, *_ = storage.identifier
    if kind.name not in _STORAGES:
        raise ValueError(f"its type, {kind.name}, is not supported")
    dtype = np.dtype(_STORAGES[kind.name])
    stored = np.frombuffer(storages[str(key)], dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min((offset, *shape, *strides), default=0) < 0 or (math.prod(shape) and last >= len(stored)):
        raise ValueError("it reaches out of its storage")
    if math.prod(shape) > len(stored):
        raise ValueError("it repeats its storage")
    view = np.lib.stride_tricks.as_strided(
        stored[offset:], shape, [stride * dtype.itemsize for stride in strides], writeable=False
    )
    if not view.flags.c_contiguous or kind.name == "BFloat16Storage":
        storages.copied(view.nbytes)
    array = np.ascontiguousarray(view).reshape(shape)
    return widened(array) if kind.name == "BFloat16Storage" else array


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `torch.load(path, weights_only=True)` gives as a dict of tensors, the same bits. Raises TriptychError
    for a type that PyTorch has not, and where the file cannot be written."""
    write_tree(path, arrays)


def write_tree(path: Path, tree: Mapping[Any, Any]) -> None:
    """The same of dicts, lists, tuples, numbers, texts and arrays in each other."""
    arrays: list[NDArray[Any]] = []
    pickled = b"".join((b"\x80\x02", *_pickled(tree, "it", arrays), b"."))
    with told(f"cannot write {path}"), atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{_FOLDER}/data.pkl", pickled)
        archive.writestr(f"{_FOLDER}/byteorder", "little")
        for number, array in enumerate(arrays):
            with archive.open(f"{_FOLDER}/data/{number}", "w", force_zip64=True) as member:
                little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                member.write(little.reshape(-1).view(np.uint8).data)
        archive.writestr(f"{_FOLDER}/version", "3\n")


_FOLDER = "archive"


def _pickled(value: Any, name: str, arrays: list[NDArray[Any]]) -> Iterator[bytes]:
    """Protocol 2, as torch.save writes it; a tensor is a call that rebuilds it. `arrays` is filled on the way."""
    match value:
        case np.ndarray():
            yield from _tensor_pickled(value, name, len(arrays))
            arrays.append(value)
        case Mapping():
            yield _ORDERED_DICT + b"("
            for key, one in value.items():
                yield from _pickled(key, str(key), arrays)
                yield from _pickled(one, str(key), arrays)
            yield b"u"
        case list() | tuple():
            yield b"](" if isinstance(value, list) else b"("
            for one in value:
                yield from _pickled(one, name, arrays)
            yield b"e" if isinstance(value, list) else b"t"
        case None:
            yield b"N"
        case bool():
            yield b"\x88" if value else b"\x89"
        case int():
            yield _integer(value)
        case float():
            yield b"G" + struct.pack(">d", value)
        case _:
            yield _text(value)


def _tensor_pickled(array: NDArray[Any], name: str, number: int) -> Iterator[bytes]:
    if array.dtype not in _NAMES:
        raise TriptychError(f"'{name}' is of type {array.dtype}, which PyTorch has not")
    strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
    yield b"ctorch._utils\n_rebuild_tensor_v2\n(("
    yield _text("storage") + f"ctorch\n{_NAMES[array.dtype]}\n".encode() + _text(str(number)) + _text("cpu")
    yield _integer(array.size) + b"tQ" + _integer(0) + _tuple(array.shape) + _tuple(strides) + b"\x89"
    yield _ORDERED_DICT + b"tR"


_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple(values: Iterable[int]) -> bytes:
    return b"(" + b"".join(map(_integer, values)) + b"t"
