"""Output shapes, and with them the validation of an architecture: every error names the layer by its path."""

import re
from functools import lru_cache

from triptych.spec.kinds import composite_of, kind_of
from triptych.spec.kinds.composites import check_graph, merged_shape
from triptych.spec.kinds.kind import SpecError, TooSmallError
from triptych.spec.layers import Architecture, Auxiliary, Graph, Layer, Primitive, Shape, children, join, outputs

SEARCH_LIMIT = 1024  # pixels; the largest resolution tried when looking for the smallest that works


def layer_output(layer: Layer, shape: Shape, path: str, into: dict[str, Shape] | None = None) -> Shape:
    """The output shape of one record on an input of `shape`; those of the records in it are added to `into`, by path.
    Raises SpecError, with the path of the layer that does not fit (TooSmallError where a larger input would)."""
    if isinstance(layer, Primitive):
        return kind_of(layer).output(layer, shape, path)
    into = {} if into is None else into
    below = children(layer)
    _check_names(below, path)
    if isinstance(layer, Graph):
        check_graph(layer, path)
    wiring = composite_of(layer).wiring(layer)
    shapes = [shape]
    for child, wire in zip(below, wiring.children, strict=True):
        child_path = join(path, child.name)
        if isinstance(child, Auxiliary):
            raise SpecError(child_path, "an auxiliary head must stand at the top level of the architecture")
        if isinstance(child, Graph) and len(child.outputs) > 1:
            raise SpecError(child_path, "a graph with several outputs must be the last record of the top level")
        merged = merged_shape(wire, [shapes[i] for i in wire.sources], child_path)
        into[child_path] = layer_output(child, merged, child_path, into)
        shapes.append(into[child_path])
    return merged_shape(wiring.output, [shapes[i] for i in wiring.output.sources], path)


def run_shapes(layers: tuple[Layer, ...], shape: Shape, into: dict[str, Shape]) -> Shape:
    """The shape after `layers`, those of an architecture's top level, on an input of `shape`. Every record's output
    shape is added to `into` under its path; an auxiliary classifier's are its own logits. Raises SpecError as
    `layer_output` does."""
    _check_names(layers, "")
    for layer in layers:
        if isinstance(layer, Graph) and len(layer.outputs) > 1 and layer is not layers[-1]:
            raise SpecError(layer.name, "a graph with several outputs must be the last record of the top level")
        output = into[layer.name] = layer_output(layer, shape, layer.name, into)
        shape = shape if isinstance(layer, Auxiliary) else output
    return shape


def _check_names(layers: tuple[Layer, ...], prefix: str) -> None:
    seen: set[str] = set()
    for layer in layers:
        path = join(prefix, layer.name)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", layer.name):
            raise SpecError(path, f"'{layer.name}' is not a name (letters, digits and _, a letter first)")
        if layer.name in seen:
            raise SpecError(path, "the name stands twice at the same place; one would replace the other")
        seen.add(layer.name)


@lru_cache(maxsize=256)
def output_shapes(architecture: Architecture) -> dict[str, Shape]:
    """The output shape of every record by its path, without the batch. Treat the result as read-only. Raises SpecError
    for the first layer that does not fit; where the input is too small, with the smallest square resolution that
    works."""
    shapes: dict[str, Shape] = {}
    try:
        end = run_shapes(architecture.layers, architecture.input, shapes)
    except TooSmallError as error:
        smallest = smallest_resolution(architecture)
        way_out = f"the smallest resolution that works is {smallest}x{smallest}" if smallest else "none works"
        channels, height, width = architecture.input
        raise TooSmallError(error.path, f"{error.problem} (input {channels}x{height}x{width}); {way_out}") from None
    last = architecture.layers[-1].name if architecture.layers else architecture.name
    if not architecture.layers or (architecture.classes and end != (architecture.classes,)):
        raise SpecError(last, f"the network ends in {end}, not in ({architecture.classes},)")
    if architecture.classes and len(outputs(architecture)) > 1:
        raise SpecError(last, "a network with several outputs has no classes (0)")
    return shapes


def smallest_resolution(architecture: Architecture) -> int | None:
    """The smallest square input, in pixels, that every layer takes; None where none up to 1024 is."""
    for size in range(1, SEARCH_LIMIT + 1):
        try:
            run_shapes(architecture.layers, (architecture.input[0], size, size), {})
        except SpecError:  # too small, or branches that differ at this size only
            continue
        return size
    return None
