"""What can be said about an architecture without running it: parameters, operations, receptive field, totals."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from triptych.spec.kinds import composite_of, kind_of
from triptych.spec.kinds.composites import merged_shape
from triptych.spec.kinds.kind import ParameterInfo, Window, Wire
from triptych.spec.layers import Architecture, Auxiliary, Layer, Pair, Primitive, Shape, children, join, walk
from triptych.spec.shapes import output_shapes


@dataclass(frozen=True)
class LayerInfo:
    """One record of the tree. `receptive_field` and `stride` are in input pixels (rows, columns); `macs` counts
    multiply-accumulates of convolution and dense layers for one image; composites state the sum of their layers."""

    path: str
    layer: Layer
    input: Shape
    output: Shape
    parameters: int
    macs: int
    receptive_field: Pair
    stride: Pair
    depth: int
    auxiliary: bool

    @property
    def kind(self) -> str:
        return type(self.layer).__name__


@dataclass(frozen=True)
class Totals:
    """Sums over an architecture: trained parameters and, for one image, multiply-accumulates; the same of the
    auxiliary classifiers, which only training has; float32 activation bytes for one image (see `activation_bytes`)."""

    parameters: int
    macs: int
    auxiliary_parameters: int
    auxiliary_macs: int
    forward_bytes: int
    training_bytes: int


@dataclass(frozen=True)
class _Place:
    """Where an analysis stands: the shape here, and the receptive field and stride of one value of it."""

    shape: Shape
    field: Pair = (1, 1)
    stride: Pair = (1, 1)

    def through(self, window: Window, output: Shape) -> "_Place":
        """Behind a layer with this window."""
        (rows, columns), (down, right) = window
        field = (self.field[0] + (rows - 1) * self.stride[0], self.field[1] + (columns - 1) * self.stride[1])
        return _Place(output, field, (self.stride[0] * down, self.stride[1] * right))


@lru_cache(maxsize=256)
def analyse(architecture: Architecture) -> tuple[LayerInfo, ...]:
    """Every record of the tree, a composite *before* what is in it, in the order of execution. A composite's receptive
    field is the largest over what it joins. Raises SpecError as `output_shapes` does."""
    shapes = output_shapes(architecture)
    infos: list[LayerInfo] = []
    place = _Place(architecture.input)
    for layer in architecture.layers:
        end, below = _visit(layer, "", place, 0, isinstance(layer, Auxiliary), shapes)
        infos += below
        place = place if isinstance(layer, Auxiliary) else end
    return tuple(infos)


def _visit(
    layer: Layer, prefix: str, place: _Place, depth: int, auxiliary: bool, shapes: dict[str, Shape]
) -> tuple[_Place, list[LayerInfo]]:
    """The place behind `layer`, and what is known of it and of all below."""
    path = join(prefix, layer.name)
    infos: list[LayerInfo] = []
    if isinstance(layer, Primitive):
        kind = kind_of(layer)
        end = place.through(kind.window(layer, place.shape), shapes[path])
        count = sum(math.prod(info.shape) for info in kind.arrays(layer, place.shape) if info.trained)
        macs = kind.macs(layer, place.shape, end.shape)
    else:
        wiring = composite_of(layer).wiring(layer)
        ends, count, macs = [place], 0, 0
        for child, wire in zip(children(layer), wiring.children, strict=True):
            source = _merged(wire, [ends[i] for i in wire.sources], join(path, child.name))
            end, below = _visit(child, path, source, depth + 1, auxiliary, shapes)
            ends.append(end)
            infos += below
            count, macs = count + below[0].parameters, macs + below[0].macs
        end = _merged(wiring.output, [ends[i] for i in wiring.output.sources], path)
    field, stride = (place.field, place.stride) if isinstance(layer, Auxiliary) else (end.field, end.stride)
    info = LayerInfo(path, layer, place.shape, end.shape, count, macs, field, stride, depth, auxiliary)
    return end, [info, *infos]


def _merged(wire: Wire, places: Sequence[_Place], path: str) -> _Place:
    """Where several places meet: the largest of the receptive fields, and the stride that goes with the largest map (a
    map of one pixel counts at every place of it)."""
    rows, columns = (max(place.field[axis] for place in places) for axis in (0, 1))
    largest = max(reversed(places), key=lambda place: math.prod(place.shape[1:]))
    return _Place(merged_shape(wire, [place.shape for place in places], path), (rows, columns), largest.stride)


def layer_parameters(layer: Layer, path: str, shape: Shape) -> tuple[ParameterInfo, ...]:
    """The canonical arrays of one record whose input is `shape`, in canonical order; none for a composite."""
    if not isinstance(layer, Primitive):
        return ()
    return tuple(replace(info, path=join(path, info.path)) for info in kind_of(layer).arrays(layer, shape))


def parameters(architecture: Architecture) -> tuple[ParameterInfo, ...]:
    """Every canonical array of the architecture, in the order of execution."""
    infos = analyse(architecture)
    return tuple(array for info in infos for array in layer_parameters(info.layer, info.path, info.input))


def primitives(architecture: Architecture) -> Iterator[LayerInfo]:
    """The layers that compute, without the composites around them, in the order of execution."""
    return (info for info in analyse(architecture) if isinstance(info.layer, Primitive))


def auxiliary_weights(architecture: Architecture) -> tuple[float, ...]:
    """What the loss of each auxiliary classifier is multiplied by in the training loss, in the order of execution."""
    return tuple(layer.weight for layer in architecture.layers if isinstance(layer, Auxiliary))


def weight_layers(architecture: Architecture) -> int:
    """How deep a network is by the papers' count: its convolution and dense layers, auxiliary classifiers left out."""
    return sum(info.macs > 0 for info in primitives(architecture) if not info.auxiliary)


def counts(architecture: Architecture) -> tuple[int, int, int, int]:
    """Trained parameters and multiply-accumulates of the network as it is evaluated, and what auxiliary classifiers add
    to each."""
    sums = {False: [0, 0], True: [0, 0]}
    for info in primitives(architecture):
        sums[info.auxiliary][0] += info.parameters
        sums[info.auxiliary][1] += info.macs
    (parameters, macs), (auxiliary_parameters, auxiliary_macs) = sums[False], sums[True]
    return parameters, macs, auxiliary_parameters, auxiliary_macs


def totals(architecture: Architecture) -> Totals:
    """`counts` and the bytes of activations."""
    return Totals(*counts(architecture), *activation_bytes(architecture))


def activation_bytes(architecture: Architecture, itemsize: int = 4) -> tuple[int, int]:
    """Bytes of activations for one image, `itemsize` per value: `(forward, training)`. Forward is the largest sum of
    what must live at one moment (a layer's input and output, and what is still needed later), nothing done in place,
    auxiliary classifiers left out. Training keeps the input and every layer's output until the backward pass, auxiliary
    classifiers included."""
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
    wiring = composite_of(layer).wiring(layer)
    last_use = {
        source: place for place, wire in enumerate((*wiring.children, wiring.output)) for source in wire.sources
    }
    last_use |= {0: len(wiring.children) + 1} if kept else {}
    alive, peak = {0: size}, 0
    for place, (child, wire) in enumerate(zip(children(layer), wiring.children, strict=True)):
        sizes = {source: alive[source] for source in wire.sources}
        later = sum(values for source, values in sizes.items() if last_use[source] > place)
        others, child_path = held + sum(alive.values()) - sum(sizes.values()), join(path, child.name)
        if len(wire.sources) == 1:
            peak = max(peak, _peak(child, child_path, sum(sizes.values()), others, later > 0, shapes))
        else:
            merged = sum(sizes.values()) if wire.merge == "concatenate" else max(sizes.values())
            peak = max(peak, others + sum(sizes.values()) + merged)
            peak = max(peak, _peak(child, child_path, merged, others + later, False, shapes))
        alive[place + 1] = math.prod(shapes[child_path])
        alive = {source: values for source, values in alive.items() if last_use.get(source, -1) > place}
    if len(wiring.output.sources) > 1:
        peak = max(peak, held + sum(alive.values()) + output)
    return peak
