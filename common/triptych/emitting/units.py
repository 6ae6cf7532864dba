"""Which layers stand together so often that a person would give them a name: a convolution with its batch norm and
activation."""

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any, TypeAlias, get_args

from triptych.spec.layers import (
    Activation,
    Architecture,
    BatchNorm,
    Block,
    Conv,
    ConvTranspose,
    Dropout,
    Layer,
    Primitive,
    Softmax,
    children,
)

Unit: TypeAlias = tuple[type, ...]
FIRST: frozenset[type] = frozenset({Conv, ConvTranspose})
FOLLOWERS: frozenset[type] = frozenset({BatchNorm, Dropout, *get_args(Activation)}) - {Softmax}
OFTEN = 5  # places in the source at which a unit has to stand to be worth a function


def grouped(architecture: Architecture, infos: Mapping[str, Any]) -> frozenset[Unit]:
    """The kinds of the units that are worth a function: at many places of the source, or twice in a row."""
    rows = {signature(row): row for row in _rows(Block("", architecture.layers))}
    places: Counter[Unit] = Counter()
    repeated: set[Unit] = set()
    for row in rows.values():
        found = list(_units(row))
        places.update(unit for _, unit in found)
        for (start, unit), (after, other) in pairwise(found):
            alike = unit == other and after == start + len(unit)
            if alike and signature(row[start:after]) == signature(row[after : after + len(unit)]):
                repeated.add(unit)
    return frozenset(unit for unit, count in places.items() if count >= OFTEN or unit in repeated)


def signature(row: tuple[Layer, ...]) -> tuple[Any, ...]:
    """What a row is, but for numbers of channels and strides."""
    soft = {"name", "channels", "units", "stride", "groups"}
    return tuple(
        (type(layer).__name__, *((k, v) for k, v in vars(layer).items() if k not in soft))
        if isinstance(layer, Primitive)
        else (type(layer).__name__, signature(children(layer)))
        for layer in row
    )


def _rows(layer: Layer) -> Iterator[tuple[Layer, ...]]:
    below = children(layer)
    if below and not isinstance(layer, Primitive):
        yield below
    for child in below:
        yield from _rows(child)


def _units(row: tuple[Layer, ...]) -> Iterator[tuple[int, Unit]]:
    """Where a convolution stands with what follows it, and the kinds of these."""
    place = 0
    while place < len(row):
        end = place + 1
        if type(row[place]) in FIRST:
            while end < len(row) and type(row[end]) in FOLLOWERS:
                end += 1
            if end > place + 1:
                yield place, tuple(type(layer) for layer in row[place:end])
        place = end
