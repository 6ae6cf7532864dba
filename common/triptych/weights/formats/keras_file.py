"""Keras's files: the model's JSON and its arrays, without Keras; every size and every link checked first.

| file | structure | arrays |
|---|---|---|
| `.h5`, `.hdf5` of Keras 1 to 3 | attribute `model_config` | `model_weights/LAYER/WEIGHT`, named by `weight_names` |
| `.keras` of Keras 2.12 to 3 (a zip) | `config.json` | `model.weights.h5` in it, as the next |
| `.weights.h5` of Keras 3 | none | `layers/CLASS_NUMBER/vars/INDEX`, nested models below |
| `.h5` of Keras 2's `save_weights` | none | as a whole model's, at the top |

Nothing is unpickled and no Lambda is looked into. Sources: keras/src/saving/saving_lib.py, keras/src/legacy/saving/.
"""

import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.spec.records import parse
from triptych.utils.errors import TriptychError
from triptych.utils.files import told
from triptych.utils.reading import ARCHIVE_ERRORS, is_archive, open_file
from triptych.weights.formats import keras_trial

_ROOM = 10  # nothing in a file may take more memory than this many times the file
_MOST_JSON = 1 << 26
_MOST_WEIGHTS = 1 << 15  # of one layer (a nested model is one)
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies", "_operations")  # Keras 3, 2.12, and between them

Weights: TypeAlias = "list[NDArray[Any]]"
Group: TypeAlias = Any  # h5py.Group


@dataclass(frozen=True)
class KerasFile:
    """A file's model as JSON (None for one that holds weights alone), the version of Keras, and the arrays of every
    layer in Keras's own order, by the names of the models around it and its own: `("vgg16", "block1_conv1")`. Where the
    file numbers layers by class, `by_class` says so, and the names are these."""

    source: str
    model: dict[str, Any] | None
    version: tuple[int, int]
    arrays: Mapping[tuple[str, ...], Weights]
    by_class: bool


def read(path: Path) -> KerasFile:
    """What the file holds. Raises TriptychError in one line for one that is damaged, larger than it may be, or points
    outside itself, and where h5py is not installed."""
    _h5py()
    with told(f"cannot read {path}"), open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
    keras_trial.try_out(path, size)
    return read_once(path)


def read_once(path: Path) -> KerasFile:
    """As `read`, without the trial: of a damaged file it may never return."""
    source = str(path)
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if is_archive(path):
                return _read_zip(file, source, size)
        with _opened(path, source) as file:
            return _read_hdf5(file, source, size)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise TriptychError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from None


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise TriptychError("Keras's files need h5py, which is not installed: pip install 'triptych[keras]'") from None
    return h5py


@contextmanager
def _opened(file: Path | io.BytesIO, source: str) -> Iterator[Group]:
    """The HDF5 file; what its library finds damaged is one line."""
    try:
        with _h5py().File(file, "r") as opened:
            yield opened
    except TriptychError:
        raise
    except FileNotFoundError:
        raise TriptychError(f"cannot read {source}: there is no such file") from None
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise TriptychError(f"{source} is no HDF5 file of Keras, or damaged: {reason}") from None


def _read_zip(file: BufferedReader, source: str, size: int) -> KerasFile:
    try:
        with zipfile.ZipFile(file) as archive:
            config = _member(archive, "config.json", _MOST_JSON, source)
            metadata = _member(archive, "metadata.json", 1 << 16, source)
            weights = _member(archive, "model.weights.h5", _ROOM * size, source)
    except ARCHIVE_ERRORS as error:
        raise TriptychError(f"{source} is damaged: {error}") from None
    version = _load_json(metadata, f"{source}: metadata.json").get("keras_version", "")
    model = _load_json(config, f"{source}: config.json")
    with _opened(io.BytesIO(weights), source) as file:
        return KerasFile(source, model, _version(version), _Arrays(source, _ROOM * size).by_class(file), True)


def _member(archive: zipfile.ZipFile, name: str, most: int, source: str) -> bytes:
    if name not in archive.namelist():
        raise TriptychError(f"{source} has no {name}; expected a .keras file as `model.save` writes it")
    with archive.open(name) as file:
        content = file.read(most + 1)  # what the header says of its size may lie
    if len(content) > most:
        raise TriptychError(f"{source}: {name} takes more than {most} bytes, which no network of this size does")
    return content


def _read_hdf5(file: Group, source: str, size: int) -> KerasFile:
    arrays = _Arrays(source, _ROOM * size)
    version = _version(_text(file.attrs.get("keras_version", ""), source))
    if "model_config" in file.attrs:
        model = _load_json(_text(file.attrs["model_config"], source), f"{source}: model_config")
        group = arrays.child(file, "model_weights") if "model_weights" in file else None
        return KerasFile(source, model, version, arrays.by_name(group) if group is not None else {}, False)
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return KerasFile(source, None, version, arrays.by_name(file), False)
    if any(container in file for container in _CONTAINERS):
        return KerasFile(source, None, version, arrays.by_class(file), True)
    raise TriptychError(f"{source} holds no model of Keras: neither model_config nor layer_names nor layers")


def _load_json(content: bytes | str, where: str) -> dict[str, Any]:
    try:
        loaded = parse(content) if len(content) <= _MOST_JSON else None
    except ValueError:
        loaded = None
    if not isinstance(loaded, dict):
        raise TriptychError(f"{where} is no JSON object of at most {_MOST_JSON >> 20} MiB; save the model again")
    return loaded


def _text(value: Any, source: str) -> str:
    value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    if not isinstance(value, str):
        raise TriptychError(f"{source}: an attribute is a {type(value).__name__}, expected text")
    return value


def _version(text: object) -> tuple[int, int]:
    parts = text.split(".") if isinstance(text, str) else []
    numbers = [int(part) for part in parts[:2] if part.isdecimal() and len(part) < 5]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (2, 0)


class _Arrays:
    """Reads arrays, together of at most `most` bytes, by links that stay in the file."""

    def __init__(self, source: str, most: int) -> None:
        self.source, self.most, self.left = source, most, most

    def by_name(self, group: Group) -> dict[tuple[str, ...], Weights]:
        """A group for each layer; the arrays of a nested model stand in its one group, their paths hold the layer."""
        arrays: dict[tuple[str, ...], Weights] = {}
        for layer in self._names(group, "layer_names"):
            inner = self.child(group, layer)
            for path in self._names(inner, "weight_names"):
                value = self._array(self._descend(inner, path))
                within = [part for part in path.split("/")[:-1] if part != layer]
                arrays.setdefault((layer, *within[-1:]), []).append(value)
        return arrays

    def by_class(self, file: Group) -> dict[tuple[str, ...], Weights]:
        """`layers/conv2d_1/vars/0`: the second Conv2D's first array."""
        arrays: dict[tuple[str, ...], Weights] = {}
        waiting: list[tuple[tuple[str, ...], Group]] = [((), file)]
        seen: set[int] = set()  # a group may hold itself by a hard link
        while waiting:
            path, group = waiting.pop()
            address = _h5py().h5o.get_info(group.id).addr
            if address in seen:
                raise TriptychError(f"{self.source}: the group {'/'.join(path)[:60]!r} stands there twice")
            seen.add(address)
            for container in (name for name in _CONTAINERS if name in group):
                layers = self.child(group, container)
                waiting.extend(((*path, layer), self.child(layers, layer)) for layer in self._inside(layers))
            if path and "vars" in group:
                variables = self.child(group, "vars")
                numbers = sorted(name for name in self._inside(variables) if name.isdecimal() and len(name) < 6)
                arrays[path] = [self._array(self.child(variables, name)) for name in sorted(numbers, key=int)]
        return arrays

    def _names(self, group: Group, key: str) -> Iterator[str]:
        """The names in an attribute; HDF5 holds 64 kB of one, so Keras goes on in key0, key1, ..."""
        keys = [key] if key in group.attrs else []
        while f"{key}{len(keys)}" in group.attrs and keys != [key]:
            keys.append(f"{key}{len(keys)}")
        for each in keys:
            values = np.asarray(group.attrs[each]).ravel()
            if len(values) > _MOST_WEIGHTS:
                raise TriptychError(
                    f"{self.source}: {key} has {len(values)} entries, expected {_MOST_WEIGHTS} or fewer"
                )
            yield from (_text(value, self.source) for value in values.tolist())

    def _descend(self, group: Group, path: str) -> Any:
        for part in path.split("/"):
            group = self.child(group, part)
        return group

    def _inside(self, group: Any) -> list[str]:
        """The names in a group. Raises for an array in its place, and for a name that is no UTF-8."""
        names: list[Any] = list(group) if isinstance(group, _h5py().Group) else [None]
        if not all(isinstance(name, str) for name in names):
            raise TriptychError(f"{self.source}: {group.name!r} is no group of names, though it stands for one")
        return names

    def child(self, group: Group, name: str) -> Any:
        """What is called `name` directly in a group. Raises for what is not there and for a link that is not hard."""
        h5py = _h5py()
        inside = isinstance(group, h5py.Group) and name not in ("", ".", "..") and "/" not in name
        link = group.get(name, getlink=True) if inside else None
        if link is None:
            raise TriptychError(f"{self.source}: {name[:80]!r} is not in the file, though it names it; save it again")
        if not isinstance(link, h5py.HardLink):
            raise TriptychError(f"{self.source}: {name!r} is a soft or external link; Keras writes none, save it again")
        return group[name]

    def _array(self, dataset: Any) -> NDArray[Any]:
        if not isinstance(dataset, _h5py().Dataset):
            raise TriptychError(f"{self.source}: {dataset.name!r} is no array, though the file names it as one")
        if dataset.external or dataset.is_virtual:
            raise TriptychError(f"{self.source}: the array {dataset.name!r} lies outside of the file; save it again")
        if dataset.dtype.kind not in "fiu" or dataset.dtype.itemsize > 8:
            raise TriptychError(
                f"{self.source}: {dataset.name!r} is of type {dataset.dtype}, expected float32 or like it"
            )
        self.left -= dataset.nbytes
        if self.left < 0:
            raise TriptychError(f"{self.source}: its arrays take more than {self.most} bytes, ten times the file")
        array = np.asarray(dataset[()])
        return array if array.dtype.kind == "f" else array.astype(np.float32)


def class_name_in_file(class_name: str, used: dict[str, int]) -> str:
    """What Keras 3 calls a layer in its file: the class in snake case, numbered from the second (keras naming.py)."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
    used[name] = used.get(name, -1) + 1
    return f"{name}_{used[name]}" if used[name] else name
