"""The registry of layer kinds: one place for each, complete when it is imported.

To add a kind: its record in `triptych.spec.layers`, what it does in a file of this folder, its native layer in each
backend's `layers.py`. A record without a kind, a kind that says only half, and a backend that lacks a layer are errors
at import."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, get_args

from triptych.spec.kinds import (
    activations,
    composites,
    convolution,
    dense,
    normalisation,
    placement,
    pointwise,
    pooling,
)
from triptych.spec.kinds.kind import CompositeKind, Kind
from triptych.spec.layers import Composite, Layer, Primitive

K = TypeVar("K", Kind[Any], CompositeKind[Any])
_FAMILIES = (activations, convolution, dense, normalisation, placement, pointwise, pooling)


def collect(records: Sequence[type], kinds: Iterable[K]) -> dict[type, K]:
    """The kinds by their record, in the order of `records`. Raises TypeError if a record has none or two of them, and
    for a kind of another record."""
    by_record: dict[type, K] = {}
    for kind in kinds:
        if kind.record in by_record:
            raise TypeError(f"there are two kinds of {kind.record.__name__}")
        by_record[kind.record] = kind
    check_complete(by_record, "triptych.spec.kinds", records)
    return {record: by_record[record] for record in records}


def check_complete(table: Mapping[type, object], owner: str, records: Sequence[type] = get_args(Primitive)) -> None:
    """Raise TypeError unless `table`, which module `owner` holds, has exactly these records as its keys."""
    missing = [record.__name__ for record in records if record not in table]
    unknown = [record.__name__ for record in table if record not in records]
    if missing or unknown:
        raise TypeError(f"{owner} must have one entry per record of the spec; missing {missing}, unknown {unknown}")


KINDS: dict[type, Kind[Any]] = collect(get_args(Primitive), [kind for family in _FAMILIES for kind in family.KINDS])
COMPOSITES: dict[type, CompositeKind[Any]] = collect(get_args(Composite), composites.KINDS)


def kind_of(layer: Layer) -> Kind[Any]:
    """What is known of a primitive record's kind. Raises TypeError for a composite."""
    if type(layer) not in KINDS:
        raise TypeError(f"{type(layer).__name__} is no layer that computes by itself")
    return KINDS[type(layer)]


def composite_of(layer: Layer) -> CompositeKind[Any]:
    """What is known of a composite record's kind. Raises TypeError for a primitive."""
    if type(layer) not in COMPOSITES:
        raise TypeError(f"{type(layer).__name__} is no composite")
    return COMPOSITES[type(layer)]
