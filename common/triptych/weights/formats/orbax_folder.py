"""Checkpoints of Orbax (folders), read and written by Orbax itself, which brings JAX: it is imported when one is there.

Only arrays come out. What a folder says of their sizes is held against its own size before anything is read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError, require_package
from triptych.utils.files import told
from triptych.weights.formats.flax_msgpack import network_in
from triptych.weights.formats.numpy_files import widened

Arrays = dict[str, NDArray[Any]]

_ROOM = 10  # arrays may take this many times the folder, and
_SPARE = 1 << 20  # bytes more
_MOST_ENTRIES = 100_000
_TREE = "_METADATA"  # in the folder of a tree of arrays
_ITEM = "default"  # where a CheckpointManager's step has it


def read(path: Path) -> Arrays:
    """The arrays by their `/`-joined paths, those of an `nnx.State` without the `value` at their end, of a TrainState
    those of its network. bfloat16 comes as float32 of the same values. Raises TriptychError for what is no checkpoint,
    is damaged, or holds anything else."""
    require_package("orbax", "jax", f"{path.name}")
    folder = _folder(path)
    import orbax.checkpoint as orbax

    try:
        with _silent(), orbax.PyTreeCheckpointer() as checkpointer:
            item = checkpointer.metadata(folder).item_metadata
            if item is None:
                raise TriptychError(f"{path} is damaged: Orbax cannot read what its {_TREE} says of the arrays")
            told_of = item.tree
            _check_sizes(path, folder, told_of)
            wanted = _mapped(told_of, lambda _: orbax.RestoreArgs(restore_type=np.ndarray))
            leaves = dict(_leaves(network_in(checkpointer.restore(folder, restore_args=wanted))))
    except TriptychError:
        raise
    except Exception as error:  # JAX, TensorStore and Orbax each have their own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise TriptychError(f"{path} is no checkpoint of Orbax, or damaged: {reason}") from None
    arrays = {name: _array(path, name, value) for name, value in leaves.items()}
    states = bool(arrays) and all(name.endswith("/value") for name in arrays)
    return {name.removesuffix("/value") if states else name: array for name, array in arrays.items()}


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `StandardCheckpointer().restore(path)` gives as nested dicts, the same bits. Raises TriptychError
    where there is something already, and where the folder cannot be written."""
    require_package("orbax", "jax", f"{path.name}")
    if path.exists():
        raise TriptychError(f"{path} is there already; name another folder, or remove it")
    import orbax.checkpoint as orbax

    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        place = tree
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = np.ascontiguousarray(array).reshape(array.shape)
    with told(f"cannot write {path}"), orbax.StandardCheckpointer() as checkpointer:
        checkpointer.save(path.absolute(), tree)


@contextmanager
def _silent() -> Iterator[None]:
    """Orbax logs what it cannot read, before it fails with it."""
    logger = logging.getLogger("absl")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _folder(path: Path) -> Path:
    """Where the tree is: the folder itself, or a step of a CheckpointManager's."""
    folders = (path.absolute(), path.absolute() / _ITEM)
    found = next((folder for folder in folders if (folder / _TREE).is_file()), None)
    if found is None:
        inner = sorted(folder.name for folder in path.iterdir()) if path.is_dir() else []
        steps = [name for name in inner if name.isdecimal()]
        items = [name for name in inner if (path / name / _TREE).is_file()]
        way_out = f"name one of its items, {path / items[0]}" if items else f"it has no {_TREE}"
        way_out = f"name one of its steps, {path / max(steps, key=int)}" if steps else way_out
        raise TriptychError(f"{path} is no checkpoint of Orbax; {way_out}")
    return found


def _check_sizes(path: Path, folder: Path, tree: Any) -> None:
    """Raises TriptychError for arrays, or pieces in which they are kept, that take far more than the folder."""
    most = _ROOM * sum(file.lstat().st_size for file in folder.rglob("*")) + _SPARE
    taken = 0
    for number, (_, leaf) in enumerate(_leaves(tree)):
        shape = getattr(leaf, "shape", None) or ()
        storage = getattr(leaf, "storage", None)
        pieces = (getattr(storage, "chunk_shape", None) or (), getattr(storage, "write_shape", None) or ())
        taken += 8 * max(math.prod(each) for each in (shape, *pieces))
        if taken > 2 * most or number > _MOST_ENTRIES:  # of 8 bytes each, where most have 4
            raise TriptychError(f"{path} has more entries, or larger ones, than a folder of its size has; refused")


def _mapped(tree: Any, made: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _mapped(value, made) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_mapped(value, made) for value in tree]
    return made(tree)


def _leaves(tree: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else None
    if pairs is None:
        yield "/".join(prefix), tree
        return
    for key, value in pairs:
        yield from _leaves(value, (*prefix, str(key)))


def _array(path: Path, name: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":
        return widened(array.view(np.uint16))
    if array.dtype.kind not in "fiub":
        raise TriptychError(f"{path}: '{name}' is a {type(value).__name__}, expected arrays of numbers only")
    return array
