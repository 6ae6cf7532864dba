"""Arrays of a network that is known, under names that do not say what the spec calls them.

What tells is the order: frameworks list layers as they were registered, which is the order of execution, but that a
residual unit may have its body before its shortcut.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from triptych.spec import analysis
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Architecture, Auxiliary, BatchNorm, Layer, Residual, Shape, children, join
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import CANONICAL, Layout

Signature = tuple[tuple[str, Shape], ...]  # of a layer: its arrays and their shapes


@dataclass(frozen=True)
class _Layer:
    """A layer of the file or of the spec: its name there, and its arrays by canonical name, as names of the file or
    paths of the spec; `norm`: a batch norm."""

    name: str
    arrays: Mapping[str, str]
    signature: Signature
    norm: bool = False


def match_in_order(
    arrays: Mapping[str, NDArray[Any]], architecture: Architecture, layout: Layout, source: str, way_out: str
) -> tuple[Architecture, dict[str, str]]:
    """The name in `arrays` of every canonical array of the architecture, which is returned without its auxiliary
    classifiers if `arrays` has none; `arrays` lists layers as a framework registers them, and names their arrays as
    `layout` does. `source` and `way_out` stand in messages. Raises TriptychError, with the first layer and its shapes,
    for another network, and where two assignments would fit, or none but in another order."""
    file = _of_file(arrays, layout, source)
    architecture = _without_auxiliary(file, architecture) or architecture
    assigned = _assigned(file, architecture, source, way_out)
    _check_no_shift(assigned, arrays, source, way_out)
    return architecture, _names(assigned, source)


def _without_auxiliary(file: Sequence[_Layer], architecture: Architecture) -> Architecture | None:
    """The architecture without its auxiliary classifiers, if it has some and the file has all other layers alone."""
    layers = tuple(layer for layer in architecture.layers if not isinstance(layer, Auxiliary))
    if len(layers) == len(architecture.layers):
        return None
    bare = replace(architecture, layers=layers)
    here, there = (Counter(layer.signature for layer in layers) for layers in (_of_spec(bare, False), file))
    return bare if here == there else None


def _of_file(arrays: Mapping[str, NDArray[Any]], layout: Layout, source: str) -> list[_Layer]:
    """The layers in the order of the file, which may list running statistics behind all else."""
    layers: dict[str, dict[str, str]] = {}
    roles = sorted({*layout.names.values(), *layout.aliases}, key=len, reverse=True)
    for name in arrays:
        role = next((role for role in roles if re.search(rf"(^|[._]){role}$", name)), None)
        if role is None:
            raise TriptychError(
                f"{source}: the name {name!r} does not tell what it is; names end in {', '.join(sorted(roles))}"
            )
        layers.setdefault(name.removesuffix(role).rstrip("._"), {})[layout.canonical_name(role)] = name
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


def orders(architecture: Architecture) -> tuple[tuple[ParameterInfo, ...], ...]:
    """The canonical arrays in the order of execution, and as a network has them that runs (or registers) the body of a
    residual unit before its shortcut."""
    infos = analysis.parameters(architecture)
    places = {path: place for place, (path, _) in enumerate(_walk(architecture.layers, "", True))}
    return infos, tuple(sorted(infos, key=lambda info: places[info.path.rpartition(".")[0]]))


def _walk(layers: Sequence[Layer], prefix: str, body_first: bool) -> Iterator[tuple[str, Layer]]:
    for layer in layers:
        path, below = join(prefix, layer.name), children(layer)
        yield path, layer
        yield from _walk(below[::-1] if body_first and isinstance(layer, Residual) else below, path, body_first)


def _assigned(
    file: Sequence[_Layer], architecture: Architecture, source: str, way_out: str
) -> list[tuple[_Layer, _Layer]]:
    """Every layer of the spec and that of the file. Gluon's order is tried, and that of execution."""
    orders = [_of_spec(architecture, body_first) for body_first in (True, False)]
    _check_alike(file, orders[1], architecture.name, source)
    fitting = [dict(zip((layer.name for layer in order), file, strict=True)) for order in orders if _same(order, file)]
    if not fitting:
        here, there = next(pair for pair in zip(orders[0], file, strict=True) if pair[0].signature != pair[1].signature)
        raise TriptychError(
            f"{source} has the layers of '{architecture.name}', but in another order, which is ambiguous: where "
            f"'{here.name}' {_shapes(here)} is due stands {there.name!r} {_shapes(there)}; {way_out}"
        )
    for layer in orders[1]:
        names = list(dict.fromkeys(assignment[layer.name].name for assignment in fitting))
        if len(names) > 1:
            raise TriptychError(
                f"{source}: it is ambiguous whether {names[0]!r} or {names[1]!r} is '{layer.name}' of "
                f"'{architecture.name}', both have {_shapes(layer)}; {way_out}"
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


def _check_no_shift(
    assigned: Sequence[tuple[_Layer, _Layer]], arrays: Mapping[str, NDArray[Any]], source: str, way_out: str
) -> None:
    """A scale that Gluon fixes is 1 whatever the file holds, but a shift that it does not train counts."""
    for layer, given in assigned:
        if layer.norm and "bias" in given.arrays and "bias" not in layer.arrays and arrays[given.arrays["bias"]].any():
            name = given.arrays["bias"]
            raise TriptychError(f"{source}: {name!r} is not 0, but '{layer.name}' has no shift; {way_out}")


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
