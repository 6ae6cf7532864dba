"""Composites: how the layers in them hang together."""

from collections.abc import Sequence
from typing import Any

from triptych.spec.kinds.kind import CompositeKind, Pull, RunChild, SpecError, Wiring
from triptych.spec.kinds.layer_pass import Rounding
from triptych.spec.layers import Auxiliary, Block, Branches, Residual, Shape
from triptych.utils.arrays import Array
from triptych.utils.lazy import np


def _in_a_row(layer: Block | Auxiliary) -> Wiring:
    count = len(layer.layers)
    return Wiring(tuple(range(count)), (count,))


def _last(layer: Block | Auxiliary, shapes: Sequence[Shape], path: str) -> Shape:
    return shapes[-1]


def _row(layer: Block | Auxiliary, x: Array, run: RunChild, rounding: Rounding) -> tuple[Array, Pull]:
    pulls = []
    for child in layer.layers:
        x, pull = run(child, x)
        pulls.append(pull)

    def pull_all(dy: Array) -> Array:
        for pull in reversed(pulls):
            dy = pull(dy)
        return dy

    return x, pull_all


def _side_by_side(layer: Branches) -> Wiring:
    count = len(layer.branches)
    return Wiring((0,) * count, tuple(range(1, count + 1)))


def _concatenated(layer: Branches, shapes: Sequence[Shape], path: str) -> Shape:
    if not shapes:
        raise SpecError(path, "has no branches")
    if any(shape[1:] != shapes[0][1:] for shape in shapes):
        raise SpecError(path, f"its branches end in different sizes: {list(shapes)}")
    return (sum(shape[0] for shape in shapes), *shapes[0][1:])


def _branches(layer: Branches, x: Array, run: RunChild, rounding: Rounding) -> tuple[Array, Pull]:
    ends = [run(branch, x) for branch in layer.branches]
    edges = np.cumsum([y.shape[1] for y, _ in ends])[:-1]

    def pull(dy: Array) -> Array:
        slices = np.split(dy, edges, axis=1)
        return np.asarray(np.sum([pull(dy) for (_, pull), dy in zip(ends, slices, strict=True)], axis=0))

    return np.concatenate([y for y, _ in ends], axis=1), pull


def _body_and_shortcut(layer: Residual) -> Wiring:
    return Wiring((0,), (0, 1)) if layer.shortcut is None else Wiring((0, 0), (1, 2))


def _sum(layer: Residual, shapes: Sequence[Shape], path: str) -> Shape:
    shortcut, body = shapes
    if body != shortcut:
        raise SpecError(path, f"its body ends in {body} but its shortcut in {shortcut}")
    return body


def _residual(layer: Residual, x: Array, run: RunChild, rounding: Rounding) -> tuple[Array, Pull]:
    body, pull_body = run(layer.body, x)
    shortcut, pull_shortcut = (x, lambda dy: dy) if layer.shortcut is None else run(layer.shortcut, x)
    y = rounding(shortcut + layer.scale * body, 1)
    return y, lambda dy: rounding(pull_shortcut(dy) + pull_body(layer.scale * dy), 1)


KINDS: tuple[CompositeKind[Any], ...] = (
    CompositeKind(Block, _in_a_row, _last, _row),
    CompositeKind(Auxiliary, _in_a_row, _last, _row),
    CompositeKind(Branches, _side_by_side, _concatenated, _branches),
    CompositeKind(Residual, _body_and_shortcut, _sum, _residual),
)
