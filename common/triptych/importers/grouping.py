"""Which layers of a row become a Block: all of one prefix, if they stand next to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from triptych.importers.name_parts import Parts
from triptych.spec.layers import Layer


class Item(NamedTuple):
    """A record of a row. `parts`: of its name, behind the prefix of the row (None where it has another prefix, or
    nothing is known); of a composite, what its leaves have in common. `leaves`: how many in it have a name that says
    where they belong; the others may stand between. `fixed`: stays in no Block."""

    layer: Layer
    parts: Parts | None
    leaves: int
    leaf: bool
    fixed: bool


@dataclass
class _Span:
    """From the first to the last place of a prefix in the row, and what has the prefix."""

    first: int
    last: int = 0
    items: list[Item] = field(default_factory=list)


def groups(items: Sequence[Item], leaves: Mapping[str, int]) -> Iterator[tuple[str | None, Sequence[Item]]]:
    """The row, parted: a prefix and the items of its Block, or None and one item. `leaves`: how many leaves of the
    network have each prefix; where some are not in the run, no Block has its name."""
    telling = [0, *accumulate(bool(item.leaves or item.fixed) for item in items)]  # so many before each place
    spans = {
        span.first: (key, span)
        for key, span in _spans(items).items()
        if telling[span.last + 1] - telling[span.first] == sum(bool(item.leaves) for item in span.items)
        and sum(item.leaves for item in span.items) == leaves[key]
        and _is_worth_it(span.items)
    }
    place = 0
    while place < len(items):
        key, end = None, place + 1
        if place in spans:
            key, span = spans[place]
            end = span.last + 1
        yield key, items[place:end]
        place = end


def _spans(items: Sequence[Item]) -> dict[str, _Span]:
    spans: dict[str, _Span] = {}
    for place, item in enumerate(items):
        if item.parts and item.leaves and not item.fixed:
            span = spans.setdefault(item.parts[0], _Span(place))
            span.last = place
            span.items.append(item)
    return spans


def _is_worth_it(items: Sequence[Item]) -> bool:
    """More than one, and one of them at least has a name behind the prefix."""
    return len(items) > 1 and any(not item.leaf or (item.parts and len(item.parts) > 1) for item in items)
