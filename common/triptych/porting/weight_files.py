"""A file of weights as the canonical parameters of a network that is known: by the names of the spec, else by order
and shape, or by a mapping."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.backend.contract import PortParameter
from triptych.importers.layer_order import match_in_order
from triptych.importers.steps import Imported
from triptych.porting.matching import pair
from triptych.porting.pairing import write_proposal
from triptych.spec.layers import Architecture, Shape
from triptych.utils.errors import TriptychError, check_known
from triptych.weights.formats.endings import Ending, ending_of
from triptych.weights.layouts import Layout
from triptych.weights.naming import NAMINGS, NamedArrays

Arrays = dict[str, NDArray[Any]]
_COUNTERS = "num_batches_tracked"  # PyTorch's batch norms count batches, which nothing depends on


_WAY_OUT = "say what belongs together in a JSON file with --mapping"


@dataclass(frozen=True, eq=False)
class Read:
    """What a file had for an architecture: canonical arrays, the file's names that are in none of them, the canonical
    paths that it has nothing for, the naming that it has, and the dense layers whose columns were put in order.
    `names`: the file's name of an array by canonical path, in the file's order."""

    parameters: Arrays
    left_over: tuple[str, ...]
    missing: tuple[str, ...]
    naming: str
    permuted: Mapping[str, Shape]
    names: Mapping[str, str]
    named: NamedArrays | None = None


def read(
    path: Path,
    architecture: Architecture,
    *,
    mapping: Mapping[str, str] | None = None,
    flatten: str | None = None,
    allow_unmatched: bool = False,
    propose: Path | None = None,
) -> Read:
    """The parameters in a file, whichever naming it has; `mapping`: names in the file to the spec's paths.

    The mapping counts first, then names of the spec. A file of other names is matched by roles, order and shape.
    Raises TriptychError, with the first array, where that is ambiguous or does not fit; and for anything left over on
    either side, unless `allow_unmatched`: then arrays of the mapping's or the spec's names are taken, and the others
    are not. `propose`: a file for what is known of the pairs, as a mapping to edit; written in any case.
    """
    ending = ending_of(path)
    arrays = ending.read(path)
    counters = tuple(name for name in arrays if name.endswith(_COUNTERS))
    own = {name: array for name, array in arrays.items() if name not in counters}
    naming, named = _naming(ending, own, architecture, flatten)
    names = _proposed(path, ending, own, named, mapping or {}, allow_unmatched, propose)
    missing = tuple(path for path in named.infos if path not in names)
    constants = named.constants()
    left = tuple(name for name in own if name not in names.values() and name not in constants)
    if (missing or left) and not allow_unmatched:
        raise TriptychError(f"{_unmatched(path, architecture, len(names), left, missing)}; {_to_edit(propose)}")
    parameters = {}
    for canonical, name in names.items():
        parameters[canonical] = named.to_canonical(canonical, arrays[name])
        _check_shape(path, named, canonical, name, parameters[canonical].shape)
    place = {name: number for number, name in enumerate(arrays)}
    in_order = dict(sorted(names.items(), key=lambda pair: place[pair[1]]))
    return Read(parameters, (*left, *counters), missing, naming, named.permuted, in_order, named)


def _naming(ending: Ending, arrays: Arrays, architecture: Architecture, flatten: str | None) -> tuple[str, NamedArrays]:
    """That of the namings in which most of the spec's names are in the file."""
    candidates = {name: NamedArrays(architecture, NAMINGS[name], flatten) for name in ending.namings}
    best = max(candidates, key=lambda name: len(arrays.keys() & set(candidates[name].names.values())))
    return best, candidates[best]


def _proposed(
    path: Path,
    ending: Ending,
    arrays: Arrays,
    named: NamedArrays,
    mapping: Mapping[str, str],
    allow_unmatched: bool,
    propose: Path | None,
) -> dict[str, str]:
    """The file's name by canonical path, and the mapping to edit where one is asked for."""
    parameters, infos = _parameters(arrays, named), list(named.infos.values())
    try:
        names = _names(path, ending, arrays, named, mapping, allow_unmatched)
    except TriptychError as error:
        write_proposal(propose, parameters, infos, mapping, {})
        raise TriptychError(f"{error}; {_to_edit(propose)}") from None
    write_proposal(propose, parameters, infos, mapping, names)
    return names


def _to_edit(propose: Path | None) -> str:
    return "convert's --propose-mapping FILE writes one to edit" if propose is None else f"{propose} is one to edit"


def _names(
    path: Path, ending: Ending, arrays: Arrays, named: NamedArrays, mapping: Mapping[str, str], allow_unmatched: bool
) -> dict[str, str]:
    check_known(f"name of {path.name} in the mapping", mapping, arrays)
    check_known("parameter of the spec in the mapping", mapping.values(), named.infos)
    said = {canonical: name for name, canonical in mapping.items()}
    if len(said) < len(mapping):
        raise TriptychError("the mapping gives one parameter of the spec to two of the file")
    rest = {path: name for path, name in named.names.items() if path not in said and name not in mapping}
    there = said | {canonical: name for canonical, name in rest.items() if name in arrays}
    if len(there) < len(named.names) and not mapping and (alike := _alike(arrays, named)):
        return alike
    enough = len(named.names) if mapping else (len(named.names) + 1) // 2
    if len(there) >= enough or (there and allow_unmatched):
        return there
    if ending.ordered and not mapping:
        plain = {name.removeprefix("arg:").removeprefix("aux:"): name for name in arrays}
        in_order = {short: arrays[name] for short, name in plain.items()}
        _, found = match_in_order(in_order, named.architecture, named.naming.layout, str(path), _WAY_OUT)
        return {canonical: plain[short] for canonical, short in found.items()}
    return _paired(path, ending, arrays, named, mapping)


def _alike(arrays: Arrays, named: NamedArrays) -> dict[str, str]:
    """By names whose words are all in one of the spec's, in their order (`backbone.conv1.weight` in
    `backbone_body.conv1.weight`), but for words that stand before all of them (`module.`); none, unless that gives
    every array its one partner, of its shape."""
    if len(arrays) != len(named.infos):
        return {}
    words = {name: _words(name) for name in arrays}
    by_end: dict[tuple[str, ...], list[str]] = {}
    for path, name in named.names.items():
        by_end.setdefault(_words(name)[-2:], []).append(path)
    columns = zip(*(each[:-2] for each in words.values()), strict=False)
    common = len(list(takewhile(lambda column: len(set(column)) == 1, columns)))
    for before in range(common + 1):
        pairs: dict[str, str] = {}
        for name, each in words.items():
            found = [path for path in by_end.get(each[-2:], ()) if _within(each[before:], _words(named.names[path]))]
            if len(found) == 1:
                pairs[found[0]] = name
        if len(pairs) == len(arrays):
            layout = named.naming.layout
            fit = (layout.canonical_shape(arrays[name].shape) == named.infos[p].shape for p, name in pairs.items())
            return pairs if all(fit) else {}
    return {}


def _words(name: str) -> tuple[str, ...]:
    """The name in words; what the array is, such as `running_mean`, is one."""
    layer, _, own = name.replace("/", ".").rpartition(".")
    return (*re.findall("[a-z0-9]+", layer.lower()), own)


def _within(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether all words of `part` are in `whole`, in their order."""
    rest = iter(whole)
    return all(word in rest for word in part)


def _paired(
    path: Path, ending: Ending, arrays: Arrays, named: NamedArrays, mapping: Mapping[str, str]
) -> dict[str, str]:
    """By the mapping, and what it leaves by roles and shapes; by order where files of this kind keep one."""
    parameters = _parameters(arrays, named)
    pairs, wrong = pair(parameters, list(named.infos.values()), mapping)
    if wrong is not None:
        raise TriptychError(
            f"{path} does not fit '{named.architecture.name}': '{wrong.tensor}': {wrong.problem}; {_WAY_OUT}"
        )
    left = [parameter for parameter in parameters if parameter.name not in mapping]
    twins = [key for key, count in Counter((each.shape, each.role) for each in left).items() if count > 1]
    if twins and not ending.ordered:
        alike = [each.name for each in left if (each.shape, each.role) == twins[0]]
        raise TriptychError(
            f"{path} has other names than '{named.architecture.name}', and it is ambiguous which of "
            f"{some(tuple(alike))} is which: they have one shape, {twins[0][0]}; {_WAY_OUT}"
        )
    return pairs


def _parameters(arrays: Arrays, named: NamedArrays) -> list[PortParameter]:
    layout = named.naming.layout
    return [
        PortParameter(name, layout.canonical_shape(array.shape), _role(name, layout)) for name, array in arrays.items()
    ]


def _role(name: str, layout: Layout) -> str:
    """`weight`, `bias`, `running_mean` or `running_var`, where the end of a name tells it."""
    known = sorted({*layout.names.values(), *layout.aliases}, key=len, reverse=True)
    role = next((role for role in known if re.search(rf"(^|[._/:]){role}$", name)), "")
    return layout.canonical_name(role) if role else ""


def _check_shape(path: Path, named: NamedArrays, canonical: str, name: str, shape: Shape) -> None:
    expected = named.infos[canonical].shape
    if shape != expected:
        raise TriptychError(
            f"{path} does not fit '{named.architecture.name}': {name!r} is {shape} in the spec's axes, expected "
            f"{expected} for '{canonical}'"
        )


def _unmatched(
    path: Path, architecture: Architecture, matched: int, left: tuple[str, ...], missing: tuple[str, ...]
) -> str:
    parts = [f"{matched} arrays match"]
    parts += [f"{len(missing)} of the network are not there ({some(missing)})"] if missing else []
    parts += [f"{len(left)} of the file are left over ({some(left)})"] if left else []
    return f"{path} does not fit '{architecture.name}': {', '.join(parts)}; --allow-unmatched converts what matches"


def some(names: tuple[str, ...]) -> str:
    """The first names, and that there are more."""
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def on_order(naming: str, permuted: Mapping[str, Shape], how: str) -> tuple[str, ...]:
    """A remark where a flattened map's order was changed: in which layers, and the other possibility."""
    if not permuted:
        return ()
    layers = ", ".join(f"'{path}' ({'x'.join(map(str, shape))})" for path, shape in list(permuted.items())[:3])
    return (
        f"{how} as {naming}: the flattened map's order in {layers} is height, width, channels, as a network of its own "
        "flattens; --flatten chw where it flattens channels first, as triptych's own does",
    )


def on_custom(naming: str, layers: tuple[str, ...]) -> tuple[str, ...]:
    """A remark where the framework itself has no such layer."""
    text = f"written as {naming}, which has no class for {some(layers)}: load_weights needs a custom class for each"
    return (text,) if layers else ()


def imported(path: Path, architecture: Architecture) -> Imported:
    """The network with the parameters in a file. Raises TriptychError as `read` does."""
    found = read(path, architecture)
    return Imported(architecture, found.parameters, on_order(found.naming, found.permuted, "read"))
