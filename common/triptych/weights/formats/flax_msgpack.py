"""Flax's `.msgpack` files (`flax.serialization.to_bytes`, `msgpack_serialize`), read and written without Flax.

Nested maps whose leaves are arrays: extension 1 of `[shape, type, bytes]`. Source: flax/serialization.py. Paths are
joined by `/` here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError, require_package
from triptych.utils.files import told, write_atomically
from triptych.weights.formats.fields import map_file
from triptych.weights.formats.numpy_files import widened

Arrays = dict[str, NDArray[Any]]

OPTIMIZER = "opt_state"  # where a TrainState has optax's
_ARRAY = 1  # Flax's extension type
_MOST_ENTRIES = 100_000
_LARGEST = 1 << 30  # bytes of an array; Flax writes larger ones in pieces
_TYPES = {"float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "bool"}
_WRONG = (ValueError, TypeError, KeyError, OverflowError, RecursionError, AttributeError)


def read(path: Path, *, state: bool = False) -> Arrays:
    """The arrays by their `/`-joined paths; of a TrainState those of its network, or, with `state`, of its optimizer.
    bfloat16 comes as float32 of the same values. Raises TriptychError for what is no such file, and for leaves that are
    no arrays of numbers."""
    require_package("msgpack", "jax", f"{path.name}")
    import msgpack

    content = map_file(path)
    entries = 0

    def counted(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
        nonlocal entries
        entries += 1 + len(pairs)
        if entries > _MOST_ENTRIES:
            raise TriptychError(f"{path} has more than {_MOST_ENTRIES:,} entries; refused")
        return dict(pairs)

    try:
        tree = msgpack.unpackb(content.data, ext_hook=_array, object_pairs_hook=counted, max_array_len=0)
        whole = is_train_state(tree)
        return dict(_leaves(path, tree[OPTIMIZER] if whole and state else network_in(tree), ()))
    except (*_WRONG, msgpack.exceptions.UnpackException) as error:
        problem = str(error).splitlines()[0][:100] if str(error) else type(error).__name__
        raise TriptychError(
            f"{path} is no msgpack file of Flax ({problem}); write it with flax.serialization"
        ) from None


def is_train_state(tree: Any) -> bool:
    """Whether nested maps are of a `flax.training.train_state.TrainState`, or one that was made of it."""
    return isinstance(tree, dict) and "params" in tree and OPTIMIZER in tree


def network_in(tree: Any) -> Any:
    """Nested maps without what a TrainState has beside its network."""
    if not is_train_state(tree):
        return tree
    return {name: value for name, value in tree.items() if name not in (OPTIMIZER, "step")}


def _leaves(path: Path, tree: Any, prefix: tuple[str, ...]) -> Any:
    if isinstance(tree, np.ndarray):
        yield "/".join(prefix), tree
        return
    if not isinstance(tree, dict):
        raise TriptychError(f"{path}: '{'/'.join(prefix)}' is a {type(tree).__name__}, expected arrays only")
    for key, value in tree.items():
        yield from _leaves(path, value, (*prefix, str(key)))


def _array(code: int, content: bytes) -> NDArray[Any]:
    import msgpack

    if code != _ARRAY:
        raise ValueError(f"extension {code} is no array")
    shape, name, raw = msgpack.unpackb(content, max_array_len=32)
    if name not in _TYPES or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"an array of type {name!r}")
    values = np.frombuffer(raw, np.uint16 if name == "bfloat16" else np.dtype(name).newbyteorder("<"))
    values = values.reshape(shape)
    return widened(values) if name == "bfloat16" else values


def write(path: Path, arrays: Mapping[str, NDArray[Any]], empty: Iterable[str] = ()) -> None:
    """Write what `flax.serialization.msgpack_restore` gives as nested dicts, the same bits. `empty`: paths of dicts
    with nothing in them. Raises TriptychError for an array of a GiB or more, and where the file cannot be written."""
    require_package("msgpack", "jax", f"{path.name}")
    import msgpack

    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        if math.prod(array.shape) * array.dtype.itemsize >= _LARGEST:
            raise TriptychError(f"'{name}' has a GiB or more, which Flax keeps in pieces; write an .npz instead")
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        packed = msgpack.packb((array.shape, array.dtype.name, raw), use_bin_type=True)
        place[last] = msgpack.ExtType(_ARRAY, packed)
    for name in empty:
        place = tree
        for folder in name.split("/"):
            place = place.setdefault(folder, {})
    with told(f"cannot write {path}"):
        write_atomically(path, msgpack.packb(tree, use_bin_type=True))
