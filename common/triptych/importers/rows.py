"""Rows of layers while a graph is folded, and the branches and residuals that rows are made into."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from triptych.importers.steps import Step
from triptych.spec.layers import (
    Affine,
    Block,
    Branches,
    Conv,
    ConvTranspose,
    Dense,
    Layer,
    Merge,
    Primitive,
    Residual,
)
from triptych.utils.errors import TriptychError

MOST_NESTED = 40  # branches within branches; what walks a tree is recursive, and nobody reads a deeper one


class Item(NamedTuple):
    """A record in a row; how many composites lie in each other in it, and its number of primitives."""

    layer: Layer
    depth: int = 0
    size: int = 1


Row = list[Item]


class NoTreeError(Exception):
    """No tree is worth making: more branches lie within each other than anybody could read."""


def own_row(step: Step) -> Row:
    """The step's own layer; a composite comes whole, and has its step's name."""
    if isinstance(step.layer, Block) and not step.layer.layers:
        return []
    if len(step.inputs) > 1 and not isinstance(step.layer, Primitive):
        raise TriptychError(f"step {step.name!r} merges, and holds more than one layer; make it two steps")
    layer = replace(step.layer, name=step.name)
    return [Item(layer, 0 if isinstance(layer, Primitive) else 1)]


def composite(layer: Layer, rows: Iterable[Row]) -> Item:
    """A record around these rows. Raises NoTreeError where too many lie in each other."""
    items = [item for row in rows for item in row]
    depth = 1 + max((item.depth for item in items), default=0)
    if depth > MOST_NESTED:
        raise NoTreeError
    return Item(layer, depth, sum(item.size for item in items))


def joined_rows(name: str, merge: Merge, rows: list[Row]) -> Layer:
    """What rows from one place into one merge are: a residual, if one of two in a sum is a shortcut, else branches."""
    if merge == "add" and len(rows) == 2:
        first, second = sorted(rows, key=_size)
        if _is_shortcut(first) and _size(first) < _size(second):
            return _residual(name, first, second)
    return Branches(name, tuple(_block("", row) for row in rows), merge)


def _size(row: Row) -> int:
    return sum(item.size for item in row)


def _is_shortcut(row: Row) -> bool:
    """The identity, or a projection: at most one layer with a kernel, and no branches."""
    weighted = sum(isinstance(item.layer, Conv | ConvTranspose | Dense) for item in row)
    return weighted <= 1 and all(isinstance(item.layer, Primitive) for item in row)


def _residual(name: str, shortcut: Row, body: Row) -> Residual:
    scale = 1.0
    match body[-1].layer:
        case Affine(scale=(number,), shift=(0.0,), trained=False) if len(body) > 1:
            scale, body = number, body[:-1]
    return Residual(name, _block("body", body), _block("shortcut", shortcut) if shortcut else None, scale)


def _block(name: str, row: Row) -> Block:
    return Block(name, tuple(item.layer for item in row))
