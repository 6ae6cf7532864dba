"""Which layers see the values of a map that was flattened: in their arrays its order can be told."""

from __future__ import annotations

from collections.abc import Sequence

from triptych.spec.kinds import composite_of
from triptych.spec.kinds.composites import merged_shape
from triptych.spec.kinds.kind import SpecError, Wire
from triptych.spec.layers import (
    Affine,
    Architecture,
    BatchNorm,
    Dense,
    Flatten,
    Layer,
    LocalResponseNorm,
    PReLU,
    Primitive,
    Reshape,
    Shape,
    Slice,
    children,
    join,
)
from triptych.spec.shapes import output_shapes

_BY_PLACE = (Slice, Reshape, LocalResponseNorm)  # what they do to a value depends on where it stands


def flattened_maps(architecture: Architecture) -> dict[str, Shape]:
    """By path of a layer with arrays whose input is a flattened map, or goes through value by value from one, the
    `(channels, height, width)` of the map; those of one channel or one pixel have one order and are left out.

    Raises SpecError where a flattened map is cut or joined with others before a dense layer: then no permutation of
    arrays makes the other order of it.
    """
    maps: dict[str, Shape] = {}
    shapes = output_shapes(architecture)
    _visit_row(architecture.layers, "", architecture.input, None, shapes, maps)
    return maps


def _visit_row(
    layers: Sequence[Layer],
    prefix: str,
    shape: Shape,
    state: Shape | None,
    shapes: dict[str, Shape],
    maps: dict[str, Shape],
) -> None:
    for layer in layers:
        path = join(prefix, layer.name)
        state = _visit(layer, path, shape, state, shapes, maps)
        shape = shapes[path]


def _visit(
    layer: Layer, path: str, shape: Shape, state: Shape | None, shapes: dict[str, Shape], maps: dict[str, Shape]
) -> Shape | None:
    """What the output is a flattened map of (None: it is none), after noting what lies below."""
    if isinstance(layer, Primitive):
        return _through(layer, path, shape, state, shapes[path], maps)
    wiring = composite_of(layer).wiring(layer)
    ends: list[tuple[Shape, Shape | None]] = [(shape, state)]
    for child, wire in zip(children(layer), wiring.children, strict=True):
        child_path = join(path, child.name)
        source = _merged(wire, ends, path)
        ends.append((shapes[child_path], _visit(child, child_path, *source, shapes, maps)))
    return _merged(wiring.output, ends, path)[1]


def _through(
    layer: Layer, path: str, shape: Shape, state: Shape | None, output: Shape, maps: dict[str, Shape]
) -> Shape | None:
    if state is None:
        flattens = isinstance(layer, Flatten) or (isinstance(layer, Reshape) and len(output) == 1)
        return shape if flattens and len(shape) == 3 and shape[0] > 1 and shape[1] * shape[2] > 1 else None
    if isinstance(layer, _BY_PLACE):
        raise SpecError(path, "takes a flattened map apart, so the map's order cannot be changed (--flatten chw)")
    if isinstance(layer, Dense | BatchNorm | Affine | PReLU):
        maps[path] = state
    if isinstance(layer, Affine) and not layer.trained and max(len(layer.scale), len(layer.shift)) > 1:
        raise SpecError(path, "has constants for a flattened map, so its order cannot be changed (--flatten chw)")
    return None if isinstance(layer, Dense) else state


def _merged(wire: Wire, ends: Sequence[tuple[Shape, Shape | None]], path: str) -> tuple[Shape, Shape | None]:
    sources = [ends[i] for i in wire.sources]
    states = {state for _, state in sources}
    if states == {None}:
        return merged_shape(wire, [shape for shape, _ in sources], path), None
    if len(states) > 1 or (wire.merge == "concatenate" and len(sources) > 1):
        raise SpecError(path, "joins flattened maps, so their order cannot be changed (--flatten chw)")
    return sources[0]
