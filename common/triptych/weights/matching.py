"""Which parameter of somebody's network is which of the spec: by order and shape, or by a mapping."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.backend.contract import PortParameter
from triptych.conformance.compare import Check, problem
from triptych.spec.kinds.kind import ParameterInfo
from triptych.utils.errors import TriptychError, unknown


def read_mapping(mapping: Path | Mapping[str, str] | None) -> dict[str, str]:
    """A mapping, or one in a JSON file. Raises TriptychError for a file that is none."""
    if not isinstance(mapping, Path):
        return dict(mapping or {})
    try:
        content = json.loads(mapping.read_text())
    except OSError as error:
        raise TriptychError(f"cannot read the mapping {mapping}: {error.strerror}") from None
    except ValueError as error:
        raise TriptychError(f"the mapping {mapping} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise TriptychError(f"the mapping {mapping} must be an object of names: {{'your.name': 'spec.path'}}")
    return content


def pair(
    own: Sequence[PortParameter], infos: Sequence[ParameterInfo], mapping: Mapping[str, str]
) -> tuple[dict[str, str], Check | None]:
    """The port's name by canonical path, and the first parameter that has no partner, as a failed check.

    By the order of use, where shapes and roles agree in it; by shape where that is unique; and where neither tells by
    `mapping`. Raises TriptychError if it is ambiguous, or if the mapping names what is not there.
    """
    names = {parameter.name: parameter for parameter in own}
    paths = {info.path: info for info in infos}
    for name, path in mapping.items():
        if name not in names:
            raise unknown("parameter of your network in the mapping", name, names)
        if path not in paths:
            raise unknown("parameter of the spec in the mapping", path, paths)
    if len(set(mapping.values())) < len(mapping):
        raise TriptychError("the mapping gives one parameter of the spec to two of your network")
    pairs = {path: name for name, path in mapping.items()}
    left = [parameter for parameter in own if parameter.name not in mapping]
    wanted = [info for info in infos if info.path not in pairs]
    if _same_multiset(left, wanted):
        _refuse_twins(left, wanted)
        return pairs | _by_shape(left, wanted), _first_wrong_shape(pairs, names, paths)
    return pairs, _first_unpaired(left, wanted) or _first_wrong_shape(pairs, names, paths)


def _role(path: str) -> str:
    return path.rpartition(".")[2]


def _keys(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> tuple[list[Any], list[Any]]:
    """What must agree: the shape, and the role wherever the port's parameters all tell theirs."""
    told = all(parameter.role for parameter in left)
    return (
        [(p.shape, p.role if told else "") for p in left],
        [(i.shape, _role(i.path) if told else "") for i in wanted],
    )


def _same_multiset(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> bool:
    one, other = _keys(left, wanted)
    return Counter(one) == Counter(other)


def _refuse_twins(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> None:
    """Arrays of one layer and one shape (a batch norm's) come in no order that frameworks share: names have to tell."""
    if all(parameter.role for parameter in left):
        return
    count = Counter((info.path.rpartition(".")[0], info.shape) for info in wanted)
    for info in wanted:
        if count[info.path.rpartition(".")[0], info.shape] > 1:
            names = [parameter.name for parameter in left if parameter.shape == info.shape]
            raise TriptychError(
                f"it is ambiguous which parameter is '{info.path}' {info.shape}: {', '.join(names[:4])} have its "
                "shape, and not all names tell weight, bias, mean and variance; say it in a JSON file with --mapping"
            )


def _by_shape(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> dict[str, str]:
    one, other = _keys(left, wanted)
    by_key: dict[Any, list[str]] = {}
    for key, parameter in zip(one, left, strict=True):
        by_key.setdefault(key, []).append(parameter.name)
    in_order = sorted(one, key=str) == sorted(other, key=str) and _layer_order(one) == _layer_order(other)
    for key, info in zip(other, wanted, strict=True):
        if not in_order and len(by_key[key]) > 1:
            raise TriptychError(
                f"it is ambiguous which parameter is '{info.path}' {info.shape}: {', '.join(by_key[key][:4])} have its "
                "shape, and their order is not the spec's; say it in a JSON file with --mapping"
            )
    return {info.path: by_key[key].pop(0) for key, info in zip(other, wanted, strict=True)}


def _layer_order(keys: Sequence[Any]) -> list[Any]:
    """The weights in their order; within a layer, frameworks order biases and statistics differently."""
    return [key for key in keys if len(key[0]) > 1]


def _first_unpaired(left: Sequence[PortParameter], wanted: Sequence[ParameterInfo]) -> Check | None:
    one, other = _keys(left, wanted)
    missing = Counter(other) - Counter(one)
    # Of several of one shape, what the order leaves out, weights first: frameworks order a batch norm's in other ways.
    found = _in_common(other, one)
    for place in sorted(range(len(wanted)), key=lambda place: (place in found, len(other[place][0]) == 1)):
        key, info = other[place], wanted[place]
        if missing[key]:
            near = next((p for p in left if len(p.shape) == len(key[0]) and p.role == _role(info.path)), None)
            surplus = Counter(one) - Counter(other)
            spare = [p.shape for k, p in zip(one, left, strict=True) if surplus[k] and len(p.shape) == len(key[0])]
            text = f"the spec has {info.shape}, your network " + (
                f"{spare[0]} in its place" if spare and near else "nothing of this shape left"
            )
            return problem("structure", info.path, text)
    for key, parameter in zip(one, left, strict=True):
        if (Counter(one) - Counter(other))[key]:
            return problem(
                "structure", parameter.name, f"your network has {parameter.shape}, the spec nothing of this shape"
            )
    return None


def _in_common(left: Sequence[Any], right: Sequence[Any]) -> set[int]:
    """The places in `left` of the longest common subsequence."""
    longest = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            skip = max(longest[i + 1][j], longest[i][j + 1])
            longest[i][j] = longest[i + 1][j + 1] + 1 if left[i] == right[j] else skip
    found, i, j = set(), 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j]:
            found.add(i)
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


def _first_wrong_shape(
    pairs: Mapping[str, str], names: Mapping[str, PortParameter], paths: Mapping[str, ParameterInfo]
) -> Check | None:
    for path, info in paths.items():
        if path in pairs and names[pairs[path]].shape != info.shape:
            return problem(
                "structure", path, f"the spec has {info.shape}, '{pairs[path]}' has {names[pairs[path]].shape}"
            )
    return None
