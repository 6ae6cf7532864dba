"""A parameter file of Gluon's by itself, taken as the weights of a network that is known.

Gluon names arrays by their place in the block (`features.0.weight`), by the block's prefix and a counter
(`net0_conv0_weight`), or by that without the prefix, and none of these says what the spec calls the layer. What tells
is the order: a file lists its layers as the block registered them, which is the order of execution, but that a residual
unit has its body before its shortcut.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers.mxnet_network import read_arrays
from triptych.importers.steps import Imported
from triptych.spec import analysis
from triptych.spec.layers import Architecture, Auxiliary, BatchNorm, Layer, Residual, Shape, children, join
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import CANONICAL, GLUON

_ROLES = sorted({*GLUON.names.values(), *GLUON.aliases}, key=len, reverse=True)
Signature = tuple[tuple[str, Shape], ...]  # of a layer: its arrays and their shapes


@dataclass(frozen=True)
class _Layer:
    """A layer of the file or of the spec: its name there, and its arrays by canonical name, as names of the file or
    paths of the spec; `norm`: a batch norm."""

    name: str
    arrays: Mapping[str, str]
    signature: Signature
    norm: bool = False


def load(path: Path, architecture: Architecture) -> Imported:
    """`architecture` with its canonical parameters in a `.params` file, whichever of Gluon's names it has.

    By the names of the spec, if these are the file's, else in order. Auxiliary classifiers that the file does not have
    are left out, which is a remark. Raises TriptychError, with the first layer and its shapes, for a file of another
    network, and where two assignments would fit, or none but in another order.
    """
    arrays = read_arrays(path)
    remarks: tuple[str, ...] = ()
    if not _named(architecture) <= arrays.keys():
        file = _of_file(path, arrays)
        if without := _without_auxiliary(file, architecture):
            architecture, remarks = without, ("the file has no auxiliary classifier; the network is taken without",)
        assigned = _assigned(file, architecture, str(path))
        _check_no_shift(assigned, arrays, str(path))
        names = _names(assigned, str(path))
    else:
        names = {info.path: GLUON.native_path(info) for info in analysis.parameters(architecture)}
    for info in analysis.parameters(architecture):
        if (shape := arrays[names[info.path]].shape) != info.shape:
            raise TriptychError(
                f"{path} is not of '{architecture.name}': it has {shape} for '{info.path}', expected {info.shape}"
            )
    return Imported(architecture, {path: arrays[name] for path, name in names.items()}, remarks)


def _named(architecture: Architecture) -> set[str]:
    """What Gluon calls the arrays of a block that has the spec's names."""
    return {GLUON.native_path(info) for info in analysis.parameters(architecture)}


def _without_auxiliary(file: Sequence[_Layer], architecture: Architecture) -> Architecture | None:
    """The architecture without its auxiliary classifiers, if it has some and the file has all other layers alone."""
    layers = tuple(layer for layer in architecture.layers if not isinstance(layer, Auxiliary))
    if len(layers) == len(architecture.layers):
        return None
    bare = replace(architecture, layers=layers)
    here, there = (Counter(layer.signature for layer in layers) for layers in (_of_spec(bare, False), file))
    return bare if here == there else None


def _of_file(path: Path, arrays: Mapping[str, NDArray[Any]]) -> list[_Layer]:
    """The layers in the order of the file, which may list running statistics behind all else."""
    layers: dict[str, dict[str, str]] = {}
    for name in arrays:
        role = next((role for role in _ROLES if re.search(rf"(^|[._]){role}$", name)), None)
        if role is None:
            raise TriptychError(
                f"{path}: the name {name!r} does not tell what it is; Gluon's end in {', '.join(sorted(_ROLES))}"
            )
        layers.setdefault(name.removesuffix(role).rstrip("._"), {})[GLUON.canonical_name(role)] = name
    return [
        _Layer(
            layer,
            names,
            _signature({role: arrays[name].shape for role, name in names.items()}, "running_mean" in names),
            "running_mean" in names,
        )
        for layer, names in layers.items()
    ]


def _signature(shapes: Mapping[str, Shape], norm: bool) -> Signature:
    """Gluon has scale and shift of a batch norm in the file even where it fixes them, so they do not tell."""
    told = ("running_mean", "running_var") if norm else CANONICAL.values()
    return tuple(sorted((role, shape) for role, shape in shapes.items() if role in told))


def _of_spec(architecture: Architecture, body_first: bool) -> list[_Layer]:
    inputs = {info.path: info.input for info in analysis.analyse(architecture)}
    layers = []
    for path, layer in _walk(architecture.layers, "", body_first):
        infos = analysis.layer_parameters(layer, path, inputs[path])
        if infos:
            names = {info.path.rpartition(".")[2]: info.path for info in infos}
            norm = isinstance(layer, BatchNorm)
            shapes = {info.path.rpartition(".")[2]: info.shape for info in infos}
            layers.append(_Layer(path, names, _signature(shapes, norm), norm))
    return layers


def _walk(layers: Sequence[Layer], prefix: str, body_first: bool) -> Iterator[tuple[str, Layer]]:
    for layer in layers:
        path, below = join(prefix, layer.name), children(layer)
        yield path, layer
        yield from _walk(below[::-1] if body_first and isinstance(layer, Residual) else below, path, body_first)


def _assigned(file: Sequence[_Layer], architecture: Architecture, source: str) -> list[tuple[_Layer, _Layer]]:
    """Every layer of the spec and that of the file. Gluon's order is tried, and that of execution."""
    orders = [_of_spec(architecture, body_first) for body_first in (True, False)]
    _check_alike(file, orders[1], architecture.name, source)
    fitting = [dict(zip((layer.name for layer in order), file, strict=True)) for order in orders if _same(order, file)]
    if not fitting:
        here, there = next(pair for pair in zip(orders[0], file, strict=True) if pair[0].signature != pair[1].signature)
        raise TriptychError(
            f"{source} has the layers of '{architecture.name}', but in another order, which is ambiguous: where "
            f"'{here.name}' {_shapes(here)} is due stands {there.name!r} {_shapes(there)}; take -symbol.json with it"
        )
    for layer in orders[1]:
        names = list(dict.fromkeys(assignment[layer.name].name for assignment in fitting))
        if len(names) > 1:
            raise TriptychError(
                f"{source}: it is ambiguous whether {names[0]!r} or {names[1]!r} is '{layer.name}' of "
                f"'{architecture.name}', both have {_shapes(layer)}; take -symbol.json with it"
            )
    return [(layer, fitting[0][layer.name]) for layer in orders[1]]


def _names(assigned: Sequence[tuple[_Layer, _Layer]], source: str) -> dict[str, str]:
    """The file's name of every canonical array."""
    names = {}
    for layer, given in assigned:
        for role, path in layer.arrays.items():
            if role not in given.arrays:
                raise TriptychError(f"{source}: {given.name!r} lacks the {role} that '{layer.name}' has")
            names[path] = given.arrays[role]
    return names


def _check_no_shift(assigned: Sequence[tuple[_Layer, _Layer]], arrays: Mapping[str, NDArray[Any]], source: str) -> None:
    """A scale that Gluon fixes is 1 whatever the file holds, but a shift that it does not train counts."""
    for layer, given in assigned:
        if layer.norm and "bias" in given.arrays and "bias" not in layer.arrays and arrays[given.arrays["bias"]].any():
            name = given.arrays["bias"]
            raise TriptychError(
                f"{source}: {name!r} is not 0, but '{layer.name}' has no shift; take -symbol.json with it"
            )


def _same(order: Sequence[_Layer], file: Sequence[_Layer]) -> bool:
    return [layer.signature for layer in order] == [layer.signature for layer in file]


def _check_alike(file: Sequence[_Layer], spec: Sequence[_Layer], name: str, source: str) -> None:
    """Raises TriptychError for the first layer that only one of them has."""
    have, need = (Counter(layer.signature for layer in layers) for layers in (file, spec))
    missing = next((layer for layer in spec if need[layer.signature] > have[layer.signature]), None)
    surplus = next((layer for layer in file if have[layer.signature] > need[layer.signature]), None)
    if missing or surplus:
        lacks = f"nothing for '{missing.name}' {_shapes(missing)}" if missing else ""
        has = f"{surplus.name!r} {_shapes(surplus)} for nothing" if surplus else ""
        raise TriptychError(f"{source} is not of '{name}': it has {' and '.join(filter(None, (lacks, has)))}")


def _shapes(layer: _Layer) -> str:
    return f"({', '.join(f'{role} {shape}' for role, shape in layer.signature)})"
