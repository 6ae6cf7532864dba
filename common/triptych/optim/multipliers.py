"""Multipliers of the learning rate and of the weight decay, for the parameters whose paths match a pattern."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError

FORM = "write for example 'conv*:rate=0.1 *.bias:rate=2,decay=0'"


class Factors(NamedTuple):
    """What the learning rate and the weight decay of a parameter are multiplied by."""

    rate: float = 1.0
    decay: float = 1.0


@dataclass(frozen=True)
class Multiplier:
    """Parameters whose canonical path matches `pattern` (as file names do) have `rate` times the learning rate and
    `decay` times the weight decay. Of several that match, all multiply. Raises TriptychError for a rate that is not
    above 0 (`--freeze` keeps still) and a decay that is not at least 0."""

    pattern: str
    rate: float = 1.0
    decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.rate < math.inf:
            raise TriptychError(f"--multipliers {self.pattern}: rate {self.rate} must be above 0; --freeze keeps still")
        if not 0 <= self.decay < math.inf:
            raise TriptychError(f"--multipliers {self.pattern}: decay {self.decay} must be a number of at least 0")


def factors_of(multipliers: Sequence[Multiplier], architecture: Architecture) -> dict[str, Factors]:
    """The factors of every parameter that can be trained, by path. Raises TriptychError for a pattern that matches
    none of them."""
    paths = [info.path for info in parameters(architecture) if info.trained]
    for one in multipliers:
        if not any(fnmatchcase(path, one.pattern) for path in paths):
            raise TriptychError(
                f"--multipliers '{one.pattern}' matches no parameter of '{architecture.name}'; they are named as "
                f"'{paths[0]}', ..., '{paths[-1]}' (a layer's: 'LAYER.*')"
            )
    matching = {path: [one for one in multipliers if fnmatchcase(path, one.pattern)] for path in paths}
    return {
        path: Factors(math.prod((m.rate for m in own), start=1.0), math.prod((m.decay for m in own), start=1.0))
        for path, own in matching.items()
    }


def parse(text: str) -> tuple[Multiplier, ...]:
    """`conv1.*,conv2.*:rate=0.1 *.bias:rate=2,decay=0`: patterns with commas, then what they are multiplied by; entries
    with spaces between. Raises TriptychError otherwise."""
    found: list[Multiplier] = []
    for entry in text.split():
        patterns, mark, settings = entry.rpartition(":")
        pairs = [part.partition("=")[::2] for part in settings.split(",")]
        if not mark or not patterns or any(name not in Factors._fields for name, _ in pairs):
            raise TriptychError(f"--multipliers '{entry}' does not say what is multiplied by what: {FORM}")
        if len({name for name, _ in pairs}) < len(pairs):
            raise TriptychError(f"--multipliers '{entry}' says one thing twice: {FORM}")
        try:
            values = {name: float(value) for name, value in pairs}
        except ValueError:
            raise TriptychError(f"--multipliers '{entry}' has what is no number: {FORM}") from None
        found += [Multiplier(pattern, **values) for pattern in patterns.split(",") if pattern]
    return tuple(found)


def text_of(factors: Mapping[str, Factors]) -> str:
    """What `parse` takes for these factors by path, rates before decays, in patterns as short as they can be. Of each
    path one pattern matches at most for either."""
    entries = []
    for place, name in enumerate(Factors._fields):
        for factor in dict.fromkeys(own[place] for own in factors.values()):
            wanted = {path for path, own in factors.items() if own[place] == factor != 1}
            patterns = ",".join(_patterns(wanted, list(factors)))
            entries += [f"{patterns}:{name}={repr(factor).removesuffix('.0')}"] * bool(wanted)
    return " ".join(entries)


def _patterns(wanted: set[str], paths: Sequence[str]) -> list[str]:
    """Patterns that match the wanted paths and no other, each once: the widest first."""
    found = []
    left = set(wanted)
    for pattern in _candidates(paths):
        matched = {path for path in paths if fnmatchcase(path, pattern)}
        if matched and matched <= left:
            found.append(pattern)
            left -= matched
    return found


def _candidates(paths: Sequence[str]) -> list[str]:
    """All parameters, blocks from the outermost, layers and arrays of one name, a parameter."""
    parts = [path.split(".") for path in paths]
    blocks = {f"{'.'.join(part[:depth])}.*": depth for part in parts for depth in range(1, len(part))}
    ends = {f"*.{'.'.join(part[-depth:])}": depth for part in parts for depth in range(1, len(part))}
    return ["*", *sorted(ends, key=lambda end: ends[end]), *sorted(blocks, key=lambda block: blocks[block]), *paths]
