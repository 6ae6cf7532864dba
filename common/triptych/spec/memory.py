"""How many bytes an execution keeps alive, from the shapes alone."""

from __future__ import annotations

import math

from triptych.spec.kinds import composite_of
from triptych.spec.layers import Architecture, Auxiliary, Layer, Primitive, Shape, children, join, walk
from triptych.spec.shapes import output_shapes


def activation_bytes(architecture: Architecture, itemsize: int = 4) -> tuple[int, int]:
    """Bytes of activations for one image, `itemsize` per value: `(forward, training)`.

    Forward is the largest sum of what must live at one moment (a layer's input and output, and what is still needed
    later), nothing done in place, auxiliary classifiers left out. Training keeps the input and every layer's output
    until the backward pass, auxiliary classifiers included.
    """
    shapes = output_shapes(architecture)
    size = math.prod(architecture.input)
    kept = sum(math.prod(shapes[path]) for path, layer in walk(architecture.layers) if isinstance(layer, Primitive))
    peak, training = 0, size + kept
    for layer in architecture.layers:
        if not isinstance(layer, Auxiliary):
            peak = max(peak, _peak(layer, layer.name, size, 0, False, shapes))
            size = math.prod(shapes[layer.name])
    return peak * itemsize, training * itemsize


def _peak(layer: Layer, path: str, size: int, held: int, kept: bool, shapes: dict[str, Shape]) -> int:
    """The most values alive while `layer` runs on an input of `size`. `held` values live elsewhere meanwhile; `kept`:
    the input is needed afterwards, too."""
    output = math.prod(shapes[path])
    if isinstance(layer, Primitive):
        return held + size + output
    sources, joined = composite_of(layer).wiring(layer)
    sizes, peak = [size], 0
    for i, (child, source) in enumerate(zip(children(layer), sources, strict=True)):
        needed = {*sources[i + 1 :], *joined} | ({0} if kept else set())
        others = sum(value for j, value in enumerate(sizes) if j in needed and j != source)
        child_path = join(path, child.name)
        peak = max(peak, _peak(child, child_path, sizes[source], held + others, source in needed, shapes))
        sizes.append(math.prod(shapes[child_path]))
    if len(joined) > 1:
        peak = max(peak, held + sum(sizes[i] for i in {*joined} | ({0} if kept else set())) + output)
    return peak
