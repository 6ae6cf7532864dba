"""Every other value of the fields of a layer's record, one at a time, then two: what the catalogue leaves out."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from itertools import combinations, product
from typing import Any

from triptych.spec.layers import AvgPool, Conv, ConvTranspose, LocalResponseNorm, MaxPool

PAIRS: Mapping[str, range] = {
    "kernel": range(1, 8),
    "stride": range(1, 5),
    "padding": range(5),
    "output_padding": range(3),
    "dilation": range(1, 5),
}
KINDS = (Conv, ConvTranspose, MaxPool, AvgPool)
GIVEN = ("name", "channels", "bias", "groups")  # what the arrays say, or nothing computes with


def _values(layer: Any, name: str) -> Iterator[Any]:
    right = getattr(layer, name)
    if isinstance(right, bool):
        yield not right
    elif name in PAIRS and not (name == "kernel" and isinstance(layer, Conv | ConvTranspose)):
        numbers = PAIRS[name]
        yield from (value for value in ((n, n) for n in numbers) if value != right)
        yield from ((n, right[1]) for n in numbers if n not in right)
        yield from ((right[0], n) for n in numbers if n not in right)
    elif name == "size":
        yield from (n for n in (1, 3, 5, 7, 9) if n != right)


def other_fields(layer: Any) -> Iterator[tuple[str, Any]]:
    """In words, and the record with other values."""
    if not isinstance(layer, (*KINDS, LocalResponseNorm)):
        return
    names = [field.name for field in fields(layer) if field.name not in GIVEN]
    for name in names:
        for value in _values(layer, name):
            yield _said(layer, {name: value})
    for one, other in combinations(names, 2):
        for first, second in product(_values(layer, one), _values(layer, other)):
            if all(not isinstance(each, tuple) or each[0] == each[1] for each in (first, second)):
                yield _said(layer, {one: first, other: second})


def _said(layer: Any, values: Mapping[str, Any]) -> tuple[str, Any]:
    texts = [f"the {name.replace('_', ' ')} is {value}, not {getattr(layer, name)}" for name, value in values.items()]
    return ", and ".join(texts), replace(layer, **values)
