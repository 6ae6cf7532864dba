"""Keras's files of weights (`.weights.h5`, `.h5` of `save_weights`) for a network that is named besides, such as one of
the zoo.

Layers are matched by name where the file has all of them, else by order: that of the file, or, in Keras 3's files,
which number layers class by class, of each class by itself. Every shape is checked, and matching by order is said.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers.steps import ImportRefusedError
from triptych.spec.analysis import LayerInfo, parameters
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Architecture
from triptych.weights import keras_places
from triptych.weights.formats.keras_file import KerasFile, class_name_in_file, read
from triptych.weights.naming import NAMINGS, NamedArrays

Arrays = Sequence[NDArray[Any]]


@dataclass(frozen=True)
class _Leaf:
    """A layer with arrays, in the order in which Keras has them."""

    place: LayerInfo
    infos: tuple[ParameterInfo, ...]


def load_weights(
    path: Path, architecture: Architecture, flatten: str | None = None
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """The canonical parameters, and a line where layers were matched by order. `flatten`: in which order a map was
    flattened, "hwc" (Keras's own) or "chw". Raises ImportRefusedError, which names the first layer and the shapes, for
    a file that belongs to another network."""
    file = read(path)
    named = NamedArrays(architecture, NAMINGS["keras"], flatten)
    leaves = [_Leaf(place, infos) for place, infos in keras_places.layers(architecture)]
    groups = _groups(file)
    matched = _by_name(leaves, groups)
    remarks: tuple[str, ...] = ()
    if matched is None:
        matched = _by_class(leaves, groups, file) if file.by_class else _in_order(leaves, list(groups.values()), file)
        remarks = (f"{path.name}: {len(leaves)} layers are matched by their order, not by name",)
    found: dict[str, NDArray[Any]] = {}
    for leaf, arrays in zip(leaves, matched, strict=True):
        found.update(_canonical(leaf, arrays, named, file.source))
    return {info.path: found[info.path] for info in parameters(architecture)}, remarks


def _groups(file: KerasFile) -> dict[str, Arrays]:
    """The arrays of each layer by its own name, in the file's order; a separable convolution as two."""
    groups: dict[str, Arrays] = {}
    parts = Counter(path[0] for path in file.arrays)  # several: a model in the model
    for path, arrays in sorted(file.arrays.items(), key=_number) if file.by_class else file.arrays.items():
        if file.by_class and len(path) > 1:
            raise ImportRefusedError(f"{file.source} has a model in the model, {path[0]!r}; give the whole model")
        name = path[0] if parts[path[0]] == 1 else path[-1]
        if len(arrays) > 1 and arrays[0].ndim == arrays[1].ndim == 4:
            groups[f"{name}_depthwise"], groups[f"{name}_pointwise"] = arrays[:1], arrays[1:]
        elif arrays:
            groups[name] = arrays
    return groups


def _number(item: tuple[tuple[str, ...], Any]) -> tuple[str, int]:
    name, number = _class_and_number(item[0][-1])
    return name, number


def _class_and_number(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.+?)_(\d{1,6})", name)
    return (match[1], int(match[2])) if match else (name, 0)


def _by_name(leaves: Sequence[_Leaf], groups: Mapping[str, Arrays]) -> list[Arrays] | None:
    """By the layers' paths (`block1.conv1` is `block1_conv1`), or by their own names where no two have the same."""
    calls: tuple[Callable[[str], str], ...] = (
        lambda path: path.replace(".", "_"),
        lambda path: path.rpartition(".")[2],
    )
    for call in calls:
        names = [call(leaf.place.path) for leaf in leaves]
        if len(set(names)) == len(names) == len(groups) and groups.keys() == set(names):
            return [groups[name] for name in names]
    return None


def _in_order(leaves: Sequence[_Leaf], groups: Sequence[Arrays], file: KerasFile) -> list[Arrays]:
    if len(groups) != len(leaves):
        raise ImportRefusedError(
            f"{file.source} has {len(groups)} layers with arrays, but the network {len(leaves)}: it belongs to another"
        )
    return list(groups)


def _by_class(leaves: Sequence[_Leaf], groups: Mapping[str, Arrays], file: KerasFile) -> list[Arrays]:
    by_class: dict[str, list[Arrays]] = {}
    for name, arrays in groups.items():
        own, part = (name.rpartition("_")[0], name.rpartition("_")[2]) if name.endswith("wise") else (name, "")
        by_class.setdefault(_class_and_number(own)[0] + part, []).append(arrays)
    separable = "separable_conv2ddepthwise" in by_class
    if separable and "depthwise_conv2d" in by_class:
        raise ImportRefusedError(f"{file.source} has separable and depthwise convolutions, whose order it does not say")
    wanted: dict[str, list[int]] = {}
    behind_depthwise = False
    for index, leaf in enumerate(leaves):
        name = class_name_in_file(keras_places.class_of(leaf.place), {})
        depthwise = name == "depthwise_conv2d"
        if depthwise and separable:
            name = "separable_conv2ddepthwise"
        elif separable and behind_depthwise:
            name = "separable_conv2dpointwise"
        behind_depthwise = depthwise
        wanted.setdefault(name, []).append(index)
    matched: list[Arrays] = [()] * len(leaves)
    for name in wanted.keys() | by_class.keys():
        indices, given = wanted.get(name, []), by_class.get(name, [])
        if len(indices) != len(given):
            raise ImportRefusedError(f"{file.source} has {len(given)} layers {name!r}, but the network {len(indices)}")
        for index, each in zip(indices, given, strict=True):
            matched[index] = each
    return matched


def _canonical(leaf: _Leaf, arrays: Arrays, named: NamedArrays, source: str) -> dict[str, NDArray[Any]]:
    shapes = [array.shape for array in arrays]
    place = f"{source}: layer {leaf.place.path!r} ({leaf.place.kind})"
    if len(arrays) != len(leaf.infos):
        raise ImportRefusedError(f"{place} has the arrays {shapes}, expected {len(leaf.infos)}: it belongs to another")
    found = {}
    for info, array in zip(leaf.infos, arrays, strict=True):
        value = named.to_canonical(info.path, array)
        if info.role == "slope" and value.size == math.prod(info.shape):
            value = value.reshape(info.shape)  # older files have them without the axes of a map
        if value.shape != info.shape:
            raise ImportRefusedError(
                f"{place} has an array {array.shape} for {info.path.rpartition('.')[2]} {info.shape}: the file belongs "
                "to another network"
            )
        found[info.path] = value
    return found
