"""Which parameter of somebody's network is which of the spec: by order and shape, or by a mapping."""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from triptych.backend.contract import PortParameter
from triptych.conformance.compare import Check, problem
from triptych.spec import records
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.records import decode
from triptych.utils.errors import TriptychError, check_known
from triptych.utils.files import told

# What must agree: the shape, and the role wherever the port's parameters all tell theirs.
SLOPE = "slope"
MOST_BYTES = 16 << 20  # of a mapping's JSON
Keys = list[tuple[tuple[int, ...], str]]


def read_mapping(mapping: Path | Mapping[str, str] | None) -> dict[str, str]:
    """A mapping, or one in a JSON file. Raises TriptychError for a file that is none."""
    if not isinstance(mapping, Path):
        return dict(mapping or {})
    try:
        with told(f"cannot read the mapping {mapping}"):
            content = records.read(mapping, MOST_BYTES)
        return {name: path for name, path in decode(content, dict[str, str]).items() if path}
    except ValueError as error:
        raise TriptychError(f"the mapping {mapping} is not JSON: {error}") from None
    except TriptychError as error:
        raise TriptychError(f"{error}; a mapping is an object of names: {{'your.name': 'spec.path'}}") from None


def proposal(parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo], pairs: Mapping[str, str]) -> str:
    """A mapping to edit, as JSON: the pairs that are known, and of the rest whatever has the shape, in order. What has
    none is paired with nothing, and counts as not said."""
    by_name = {name: path for path, name in pairs.items()}
    free: dict[Any, list[str]] = {}
    for info in infos:
        if info.path not in pairs:
            free.setdefault((info.shape, _role(info)), []).append(info.path)
    for parameter in parameters:
        alike = [key for key in free if key[0] == parameter.shape and parameter.role in ("", key[1]) and free[key]]
        by_name.setdefault(parameter.name, free[alike[0]].pop(0) if alike else "")
    return json.dumps({parameter.name: by_name[parameter.name] for parameter in parameters}, indent=2) + "\n"


def pair(
    parameters: Sequence[PortParameter],
    infos: Sequence[ParameterInfo],
    mapping: Mapping[str, str],
    *,
    tried: bool = False,
) -> tuple[dict[str, str], Check | None]:
    """The port's name by canonical path, and the first parameter that has no partner, as a failed check. By names,
    where all of them are the spec's; by the order of use, where shapes and roles agree in it; by shape where that is
    unique; and where neither tells by `mapping`. `tried`: what is paired is going to be compared, so that layers of one
    shape may be paired in their order though others come in another one. Raises TriptychError if it is ambiguous, or if
    the mapping names what is not there."""
    names = {parameter.name: parameter for parameter in parameters}
    paths = {info.path: info for info in infos}
    check_known("parameter of your network in the mapping", mapping, names)
    check_known("parameter of the spec in the mapping", mapping.values(), paths)
    if len(set(mapping.values())) < len(mapping):
        raise TriptychError("the mapping gives one parameter of the spec to two of your network")
    pairs = {path: name for name, path in mapping.items()}
    if not mapping and (named := _by_names(parameters, infos)):
        return named, None
    left = [parameter for parameter in parameters if parameter.name not in mapping]
    wanted = [info for info in infos if info.path not in pairs]
    left = _by_elimination(left, wanted)
    told = all(parameter.role for parameter in left)
    slopes = any(parameter.role == SLOPE for parameter in left)
    have: Keys = [(parameter.shape, parameter.role if told else "") for parameter in left]
    need: Keys = [(info.shape, _role(info, slopes) if told else "") for info in wanted]
    if Counter(have) != Counter(need):
        return pairs, _first_unpaired(left, wanted, have, need) or _first_wrong_shape(pairs, names, paths)
    if not told:
        _refuse_twins(left, wanted)
    by_layer = _by_layer(left, wanted) if tried and told and not _in_order(have, need) else {}
    return pairs | (by_layer or _by_shape(left, wanted, have, need)), _first_wrong_shape(pairs, names, paths)


def _by_names(parameters: Sequence[PortParameter], infos: Sequence[ParameterInfo]) -> dict[str, str]:
    """All of them, if each is called as in the spec and has its shape; else none."""
    shapes = {info.path: info.shape for info in infos}
    paths = {_path(parameter): parameter for parameter in parameters}
    if paths.keys() != shapes.keys() or any(paths[path].shape != shape for path, shape in shapes.items()):
        return {}
    return {path: paths[path].name for path in shapes}


def _path(parameter: PortParameter) -> str:
    owner = owner_of(parameter.name)
    return f"{owner}.{parameter.role}" if owner and parameter.role else parameter.name


def owner_of(name: str) -> str:
    """The layer in a parameter's own name: `conv0` of `conv0_weight`, `batchnorm0` of `batchnorm0_running_mean`."""
    return re.sub(r"(^|[._/])((running|moving)_)?[^._/]*$", "", name)


def _by_layer(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> dict[str, str]:
    """Layers with arrays of the same roles and shapes in their order; nothing where they are not as many of a kind."""
    slopes = any(parameter.role == SLOPE for parameter in left)
    own: dict[str, dict[Any, str]] = {}
    for parameter in left:
        own.setdefault(owner_of(parameter.name), {})[parameter.role, parameter.shape] = parameter.name
    spec: dict[str, dict[Any, str]] = {}
    for info in wanted:
        spec.setdefault(info.path.rpartition(".")[0], {})[_role(info, slopes), info.shape] = info.path
    of_kind: dict[frozenset[Any], list[dict[Any, str]]] = {}
    for arrays in own.values():
        of_kind.setdefault(frozenset(arrays), []).append(arrays)
    pairs: dict[str, str] = {}
    for paths in spec.values():
        alike = of_kind.get(frozenset(paths))
        if not alike:
            return {}
        arrays = alike.pop(0)
        pairs |= {path: arrays[key] for key, path in paths.items()}
    return pairs


def _by_elimination(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> list[PortParameter]:
    """Where most parameters tell their role, those that do not have the only one that is missing for their shape."""
    told = [parameter for parameter in left if parameter.role]
    slopes = any(parameter.role == SLOPE for parameter in left)
    missing = Counter((i.shape, _role(i, slopes)) for i in wanted) - Counter((p.shape, p.role) for p in told)

    def role(parameter: PortParameter) -> str:
        roles = [role for shape, role in missing if shape == parameter.shape]
        return parameter.role or (roles[0] if len(roles) == 1 else "")

    return [replace(parameter, role=role(parameter)) for parameter in left] if told else list(left)


def longest_alignment(first: int, second: int, score: Callable[[int, int], int]) -> dict[int, int]:
    """Which of `second` things belongs to which of `first` things, in order, with the largest sum of scores; a score
    of 0 is no match."""
    best = [[0] * (second + 1) for _ in range(first + 1)]
    for i, j in product(reversed(range(first)), reversed(range(second))):
        match = score(i, j)
        best[i][j] = max(best[i + 1][j], best[i][j + 1], match + best[i + 1][j + 1] if match else 0)
    aligned: dict[int, int] = {}
    i = j = 0
    while i < first and j < second:
        match = score(i, j)
        if match and best[i][j] == match + best[i + 1][j + 1]:
            aligned[i] = j
            i, j = i + 1, j + 1
        elif best[i][j] == best[i][j + 1]:
            j += 1
        else:
            i += 1
    return aligned


def _role(info: ParameterInfo, slopes: bool = False) -> str:
    """As a port tells it; a PReLU's slopes (one per channel, as a batch norm's scale) where it tells them."""
    return SLOPE if slopes and info.role == SLOPE else info.path.rpartition(".")[2]


def _ambiguous(info: ParameterInfo, names: Sequence[str], why: str) -> TriptychError:
    return TriptychError(
        f"it is ambiguous which parameter is '{info.path}' {info.shape}: {', '.join(names[:4])} have its "
        f"shape, and {why}; say it in a JSON file with --mapping"
    )


def _refuse_twins(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> None:
    """Arrays of one layer and one shape (a batch norm's) come in no order that frameworks share: names have to tell."""
    count = Counter((info.path.rpartition(".")[0], info.shape) for info in wanted)
    for info in wanted:
        if count[info.path.rpartition(".")[0], info.shape] > 1:
            names = [parameter.name for parameter in left if parameter.shape == info.shape]
            raise _ambiguous(info, names, "not all names tell weight, bias, mean and variance")


def _by_shape(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo], have: Keys, need: Keys) -> dict[str, str]:
    by_key: dict[Any, list[str]] = {}
    for key, parameter in zip(have, left, strict=True):
        by_key.setdefault(key, []).append(parameter.name)
    in_order = _in_order(have, need)
    for key, info in zip(need, wanted, strict=True):
        if not in_order and len(by_key[key]) > 1:
            raise _ambiguous(info, by_key[key], "their order is not the spec's")
    return {info.path: by_key[key].pop(0) for key, info in zip(need, wanted, strict=True)}


def _in_order(have: Keys, need: Keys) -> bool:
    """Within a layer, frameworks order biases and statistics differently: only the weights' order tells."""
    return [key for key in have if len(key[0]) > 1] == [key for key in need if len(key[0]) > 1]


def _first_unpaired(
    left: Sequence[PortParameter], wanted: Sequence[ParameterInfo], have: Keys, need: Keys
) -> Check | None:
    missing, surplus = Counter(need) - Counter(have), Counter(have) - Counter(need)
    # Of several of one shape, what the order leaves out, weights first: frameworks order a batch norm's in other ways.
    in_order = longest_alignment(len(have), len(need), lambda i, j: int(have[i] == need[j])).values()
    for place in sorted(range(len(need)), key=lambda place: (place in in_order, len(need[place][0]) == 1)):
        info = wanted[place]
        if missing[need[place]]:
            alike = [(key, other) for key, other in zip(have, left, strict=True) if len(key[0]) == len(info.shape)]
            spare = [other.shape for key, other in alike if surplus[key]]
            near = spare and any(other.role == _role(info) for _, other in alike)
            instead = f"{spare[0]} in its place" if near else "nothing of this shape left"
            return problem("structure", info.path, f"the spec has {info.shape}, your network {instead}")
    by_use = sorted(zip(have, left, strict=True), key=lambda both: (bool(both[1].places), len(both[0][0]) == 1))
    for key, parameter in by_use:
        if surplus[key]:
            text = f"your network has {parameter.shape}, the spec nothing of this shape"
            return problem("structure", parameter.name, text)
    return None


def _first_wrong_shape(
    pairs: Mapping[str, str], names: Mapping[str, PortParameter], paths: Mapping[str, ParameterInfo]
) -> Check | None:
    for path, info in paths.items():
        if path in pairs and (shape := names[pairs[path]].shape) != info.shape:
            return problem("structure", path, f"the spec has {info.shape}, '{pairs[path]}' has {shape}")
    return None
