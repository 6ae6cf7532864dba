"""Which operation of a port corresponds to which layer of the spec: an alignment in order, by value, kind and shape."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np

from triptych.backend.contract import Captured
from triptych.conformance.reference_run import ReferenceRun
from triptych.porting.matching import longest_alignment
from triptych.spec import layers as spec
from triptych.utils.arrays import Array
from triptych.utils.randomness import generator

# Kinds that may stand for each other, so that a sigmoid in place of a ReLU is compared, and found.
POOLS = dict.fromkeys(("MaxPool", "AvgPool", "GlobalAvgPool", "GlobalMaxPool"), "pool")
ACTIVATIONS = tuple(kind.__name__ for kind in get_args(spec.Elementwise))
WEIGHTED = ("Conv", "ConvTranspose", "Dense")  # of which none is there without being meant for a layer
CONVOLUTIONS = dict.fromkeys(("Conv", "ConvTranspose"), "convolution")
FAMILIES = dict.fromkeys(ACTIVATIONS, "activation") | POOLS | CONVOLUTIONS
SAME_VALUE, SAME_KIND, SAME_SHAPE, SAME_FAMILY = 12, 4, 3, 1
ALIKE = 1e-5  # of the length: such values are one computation, whatever its precision
CLOSER = (1e-6, 1e-9)  # of several that are alike, as with and without a small beta, the nearest is the layer


@dataclass(frozen=True, eq=False)
class Place:
    """A layer of the spec in the order of execution: its path, what it does (see `role_of`), and its output."""

    path: str
    kind: str
    value: Array

    @cached_property
    def mark(self) -> tuple[float, float]:
        return _mark(self.value)


def places_of(wanted: Sequence[spec.Shape], shapes: Sequence[spec.Shape]) -> list[int]:
    """Which of a network's outputs, of these shapes (with the batch), are the wanted ones: of each the first that has
    its shape and is not another one's; the first ones where some is not there."""
    places: list[int] = []
    for shape in wanted:
        alike = [p for p, own in enumerate(shapes) if tuple(own[1:]) == shape and p not in places]
        if not alike:
            return list(range(len(wanted)))
        places.append(alike[0])
    return places


def role_of(layer: spec.Layer) -> str:
    """What a layer does, as `backend.contract.Captured` has it: the name of its record, or how it merges."""
    match layer:
        case spec.Branches():
            return layer.merge
        case spec.Residual():
            return "add"
    return type(layer).__name__


def align(
    places: Sequence[Place], captured: Sequence[Captured], others: Callable[[str], Iterable[Array]] = lambda path: ()
) -> dict[str, int]:
    """The index of the captured operation by path, for the layers that have one: the longest alignment in order. An
    operation that puts out what the layer does *is* that layer, however it is written; else kind and shape tell. So
    is, for the first activation that none puts out, one that puts out what another would (`others`, of its path): a
    GELU written out in products has no kind to be known by."""
    marks = [_mark(operation.value) for operation in captured]
    by_size: dict[int, list[Place]] = {}
    for place in places:
        by_size.setdefault(place.value.size, []).append(place)

    def may_be(index: int) -> bool:
        operation = captured[index]
        near = by_size.get(operation.value.size, ())
        return bool(operation.kind) or any(_alike(place.mark, marks[index]) for place in near)

    kept = [index for index in range(len(captured)) if may_be(index)]
    twins = [_twins(place, captured, kept, marks) for place in places]

    lost = next((i for i, same in enumerate(twins) if not same and places[i].kind in ACTIVATIONS), -1)
    instead = _instead(others(places[lost].path), captured, kept, marks) if lost >= 0 else -1

    def score(i: int, j: int) -> int:
        if i == lost and instead >= 0:
            return (SAME_VALUE + SAME_SHAPE) * (kept[j] == instead)
        return 0 if twins[i] and kept[j] not in twins[i] else _match(places[i], captured[kept[j]], marks[kept[j]])

    pairs = {i: kept[j] for i, j in longest_alignment(len(places), len(kept), score).items()}
    taken = set(pairs.values())
    for i, same in enumerate(twins):  # branches may run in another order than the spec's
        free = [index for index in same if index not in taken]
        if i not in pairs and free:
            pairs[i] = free[0]
            taken.add(free[0])
    pairs |= _only_ones(places, captured, pairs, [index for index in kept if index not in taken])
    return {places[i].path: pairs[i] for i in sorted(pairs)}


def _only_ones(
    places: Sequence[Place], captured: Sequence[Captured], pairs: Mapping[int, int], free: Sequence[int]
) -> dict[int, int]:
    """The layers and operations that are left, of which there is one each of a kind and size: a wrong one in a branch
    that runs in another order than the spec's has no value to be known by."""
    left: dict[tuple[str, int], list[int]] = {}
    for i, place in enumerate(places):
        if i not in pairs and place.kind in WEIGHTED:
            left.setdefault((place.kind, place.value.size), []).append(i)
    others: dict[tuple[str, int], list[int]] = {}
    for index in free:
        others.setdefault((captured[index].kind, captured[index].value.size), []).append(index)
    return {here[0]: others[key][0] for key, here in left.items() if len(here) == len(others.get(key, ())) == 1}


def _twins(
    place: Place, captured: Sequence[Captured], kept: Sequence[int], marks: Sequence[tuple[float, float]]
) -> list[int]:
    """The operations of its kind, or of none, that put out what a layer does, those of its kind first. One of another
    kind may only hand it on: what a dropout is given, in place of what it makes of it; but an activation that is
    written out ends in a sum or a product."""
    same = [index for index in kept if _is_twin(place, captured[index], marks[index])]
    ends = ("add", "multiply") if place.kind in ACTIVATIONS else ()
    alike = [index for index in same if captured[index].kind in ("", place.kind, *ends)]
    return sorted(alike, key=lambda index: captured[index].kind != place.kind)


def _instead(
    values: Iterable[Array], captured: Sequence[Captured], kept: Sequence[int], marks: Sequence[tuple[float, float]]
) -> int:
    """The last operation that puts out one of these values, -1 for none: before x * sigmoid(x) comes the sigmoid."""
    known = [(value.size, _mark(value)) for value in values]

    def puts_out(index: int) -> bool:
        return any(captured[index].value.size == size and _alike(mark, marks[index]) for size, mark in known)

    return max(filter(puts_out, kept), default=-1)


def _is_twin(place: Place, operation: Captured, mark: tuple[float, float]) -> bool:
    return place.value.size == operation.value.size and _alike(place.mark, mark)


def first_other_shape(
    run: ReferenceRun, captured: Sequence[Captured], before: str
) -> tuple[str, tuple[int, ...]] | None:
    """The first layer before another one whose output has another shape, and that shape; None where none has."""
    nodes = [(path, role_of(layer)) for path, layer in run.nodes(False)]
    nodes = nodes[: [path for path, _ in nodes].index(before)]
    shapes = [run.outputs(False)[path].shape for path, _ in nodes]
    kept = [each for each in captured if each.kind]

    def score(i: int, j: int) -> int:
        return (nodes[i][1] == kept[j].kind) * (SAME_KIND + SAME_SHAPE * (shapes[i] == kept[j].value.shape))

    for i, j in sorted(longest_alignment(len(nodes), len(kept), score).items()):
        if shapes[i] != kept[j].value.shape:
            return nodes[i][0], kept[j].value.shape
    return None


def first_unseen(places: Sequence[Place], captured: Sequence[Captured]) -> str:
    """The first layer that puts out what no operation does; empty for none."""
    marks = [(operation.value.size, _mark(operation.value)) for operation in captured]

    def seen(place: Place) -> bool:
        return any(size == place.value.size and _alike(place.mark, mark) for size, mark in marks)

    return next((place.path for place in places if not seen(place)), "")


def turn_to_channels_first(places: Sequence[Place], captured: Sequence[Captured]) -> None:
    """Maps that are a layer's in the other order of axes, in the spec's: code may change between the two."""
    marks, shapes = [place.mark for place in places], {place.value.shape for place in places}
    last = (0, 1, 2, 3)  # what is no layer's, a fault's output, has the axes of what came before it
    for operation in captured:
        value = operation.value
        mark_of = _mark(value) if value.ndim == 4 else None
        if mark_of is None:
            continue
        if any(_alike(mark, mark_of) for mark in marks):
            last = (0, 1, 2, 3)
            continue
        tried = [axes for axes in ((0, 3, 1, 2), (0, 2, 3, 1)) if _is_known(_mark(value.transpose(axes)), marks)]
        if not tried and last != (0, 1, 2, 3) and value.transpose(last).shape in shapes:
            tried = [last]
        if tried:
            last = tried[0]
            operation.value = value.transpose(last)
            operation.gradient = None if operation.gradient is None else operation.gradient.transpose(last)


def _is_known(mark: tuple[float, float], marks: Sequence[tuple[float, float]]) -> bool:
    return any(_alike(each, mark) for each in marks)


def _match(place: Place, operation: Captured, mark: tuple[float, float]) -> int:
    """How well an operation fits a layer; 0 if it does not."""
    same_shape = place.value.size == operation.value.size
    related = FAMILIES.get(place.kind, place.kind) == FAMILIES.get(operation.kind, operation.kind)
    same_kind = SAME_KIND * (place.kind == operation.kind)
    if _is_twin(place, operation, mark):
        return SAME_VALUE + SAME_SHAPE + same_kind + sum(_alike(place.mark, mark, share) for share in CLOSER)
    return SAME_FAMILY + same_kind + SAME_SHAPE * same_shape if related else 0


def _mark(value: Array) -> tuple[float, float]:
    """The length of an array, and its projection on a random direction: what other values do not share."""
    flat = np.asarray(value, np.float64).ravel()
    direction = generator(0, "alignment", str(flat.size)).random(flat.size) - 0.5
    return float(np.linalg.norm(flat)), float(flat @ direction)


def _alike(one: tuple[float, float], other: tuple[float, float], share: float = ALIKE) -> bool:
    return all(abs(a - b) <= share * max(one[0], 1e-300) for a, b in zip(one, other, strict=True))
