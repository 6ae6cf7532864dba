"""The names of a file, taken apart where its program put them together: `stage1_unit2_conv1`, `layer1.0.conv1`,
`/layer1/layer1.0/conv1/Conv`, `resnetv10_stage1_conv0_fwd`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

Parts = tuple[str, ...]

_MOST_PARTS = 12
_LONGEST = 200  # characters of a name that are looked at
_SEPARATORS = re.compile(r"[/.]+")
_FORWARD = re.compile(r"_fwd(?=_|$)")  # what Gluon hangs on the name of a layer
_OPERATOR = re.compile(r"[A-Z][A-Za-z]+(_\d+)?")  # what PyTorch's ONNX exporter hangs on the path of a module


def name_parts(names: Sequence[str]) -> dict[str, Parts]:
    """Every name with its parts, from the outermost to the layer's own. Names are parted at `/` and `.`; in a file that
    has hardly any of those, at an underscore behind a part that has a number. Same names, same parts, in any order."""
    structured = sum(bool(_SEPARATORS.search(name)) for name in names) * 10 >= len(names)
    part = _at_separators if structured else _at_numbers
    parts = {name: part(_FORWARD.sub("", name[:_LONGEST]))[-_MOST_PARTS:] for name in names}
    return _without_operators(parts) if any(name.startswith("/") for name in names) else parts


def _at_separators(name: str) -> Parts:
    """A component that repeats those before it (`layer1/layer1.0`) counts without them."""
    components = [component for component in name.split("/") if component]
    bare = [second.removeprefix(f"{first}.") for first, second in pairwise(components)]
    return tuple(part for component in (components[:1] + bare) for part in _SEPARATORS.split(component) if part)


def _at_numbers(name: str) -> Parts:
    """`stage1_unit1_conv1` has three parts, `max_pool`, `conv1_1` and `flatten0_flatten0` one."""
    parts: list[str] = []
    words: list[str] = []
    for word in filter(None, name.split("_")):
        words.append(word)
        if any(map(str.isdigit, word)):
            parts.append("_".join(words))
            words = []
    if words:
        parts.append("_".join(words))
    if len(parts) > 1 and parts[-1].isdigit():
        parts[-2:] = ["_".join(parts[-2:])]
    return tuple(part for place, part in enumerate(parts) if part not in parts[:place][-1:])


def _without_operators(parts: dict[str, Parts]) -> dict[str, Parts]:
    """Without the operator's own name at the end, where the rest still says which layer it is."""
    short = {name: p[:-1] if len(p) > 1 and _OPERATOR.fullmatch(p[-1]) else p for name, p in parts.items()}
    shared = {p for p, count in counted(short.values(), lambda p: (p,)).items() if count > 1}
    return {name: parts[name] if p in shared else p for name, p in short.items()}


def counted(values: Iterable[Parts], keys: Callable[[Parts], Iterable[Parts]]) -> dict[Parts, int]:
    """How many of the values have each key."""
    counts: dict[Parts, int] = {}
    for value in values:
        for key in keys(value):
            counts[key] = counts.get(key, 0) + 1
    return counts


def beginnings(parts: Parts) -> list[Parts]:
    """All that `parts` begin with, themselves included."""
    return [parts[:length] for length in range(1, len(parts) + 1)]


def common(several: Iterable[Parts]) -> Parts:
    """What all of them begin with."""
    several = iter(several)
    shared = next(several, ())
    for parts in several:
        length = 0
        while length < min(len(shared), len(parts)) and shared[length] == parts[length]:
            length += 1
        shared = shared[:length]
    return shared
