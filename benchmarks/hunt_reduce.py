"""From a network that fails to a smaller one that fails in the same way: fewer layers, smaller numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture, Dense, Flatten, Layer, Primitive, children, walk
from triptych.spec.records import canonical
from triptych.utils.errors import TriptychError


def reduce(architecture: Architecture, fails: Callable[[Architecture], bool], most: int = 120) -> Architecture:
    """The smallest found, after `most` questions at most. `fails` is asked of networks that the spec takes only; what
    it raises ends the search."""
    asked = {canonical(architecture)}
    questions = 0
    while True:
        for smaller in sorted(candidates(architecture), key=size):
            if questions == most:
                return architecture
            if size(smaller) >= size(architecture) or canonical(smaller) in asked or not fits(smaller):
                continue
            asked.add(canonical(smaller))
            questions += 1
            if fails(smaller):
                architecture = smaller
                break
        else:
            return architecture


def size(architecture: Architecture) -> tuple[int, int, float]:
    """What becomes smaller: the number of layers, of values in the input, and of all numbers of the spec together."""
    layers = [layer for _, layer in walk(architecture.layers)]
    return len(layers), math.prod(architecture.input), sum(map(_weight, layers)) + bool(architecture.classes)


def fits(architecture: Architecture) -> bool:
    """Whether the spec takes it, and it has a trained parameter, without which nothing can be judged."""
    try:
        return min(architecture.input) > 0 and any(array.trained for array in parameters(architecture))
    except (TriptychError, ValueError):
        return False


def candidates(architecture: Architecture) -> Iterator[Architecture]:
    """Every network that one step makes of it, whether it fits or not."""
    bare = tuple(layer for layer in architecture.layers if not isinstance(layer, Dense | Flatten))
    if architecture.classes:
        yield replace(architecture, classes=0)
        yield replace(architecture, classes=0, layers=bare)
    for layers in _shorter(architecture.layers):
        yield replace(architecture, layers=layers)
    for place, number in enumerate(architecture.input):
        for less in _less(number):
            yield replace(architecture, input=_with(architecture.input, place, less))


def _shorter(layers: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """Without one, with what is in one in its place, or with one made simpler."""
    for place, layer in enumerate(layers):
        before, behind = layers[:place], layers[place + 1 :]
        yield (*before, *behind)
        if is_dataclass(layer) and not isinstance(layer, Primitive):
            inside = children(layer) if hasattr(layer, "name") else ()
            yield (*before, *inside, *behind)
            for child in inside:
                yield (*before, child, *behind)
        for simpler in _simpler(layer):
            yield (*before, simpler, *behind)


def _simpler(record: Any) -> Iterator[Any]:
    """The record with one of its fields made simpler, or with one of those below it."""
    for field in fields(record) if is_dataclass(record) else ():
        value = getattr(record, field.name)
        if field.default is None and value is not None:
            yield replace(record, **{field.name: None})
        for simpler in _values(value):
            if simpler != value:
                yield replace(record, **{field.name: simpler})


def _values(value: Any) -> Iterator[Any]:
    match value:
        case bool():
            yield not value
        case int():
            yield from _less(value)
        case tuple() if value and all(isinstance(number, int) for number in value):
            for place, number in enumerate(value):
                yield from (_with(value, place, less) for less in _less(number))
        case tuple():
            yield from _shorter(value)
        case _ if is_dataclass(value):
            yield from _simpler(value)


def _less(number: int) -> list[int]:
    """Smaller numbers, the smallest first."""
    return sorted({n for n in (0, 1, 2, number // 2, number - 1) if 0 <= n < number})


def _with(numbers: tuple[int, ...], place: int, number: int) -> Any:
    return (*numbers[:place], number, *numbers[place + 1 :])


def _weight(layer: Layer) -> float:
    """The sum of a record's own numbers; a flag counts where it is set."""
    own = [getattr(layer, field.name) for field in fields(layer)]
    return sum(_sum(value) for value in own if not is_dataclass(value))


def _sum(value: Any) -> float:
    if isinstance(value, tuple):
        return sum(_sum(each) for each in value if not is_dataclass(each)) + len(value)
    return abs(value) if isinstance(value, int | float) else 0
