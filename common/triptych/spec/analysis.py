"""What can be said about an architecture without running it: parameters, operations, memory, receptive field."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Pair,
    Residual,
    Shape,
    children,
    join,
)
from triptych.spec.shapes import output_shapes

Role: TypeAlias = Literal["weight", "bias", "scale", "shift", "running_mean", "running_var"]


@dataclass(frozen=True)
class ParameterInfo:
    """One canonical array. `role` tells conv and dense weights and biases from batch norm's gamma (`scale`),
    beta (`shift`) and running statistics, which no gradient reaches. The fans are those of a weight, else 0."""

    path: str
    shape: Shape
    role: Role
    fan_in: int = 0
    fan_out: int = 0

    @property
    def trained(self) -> bool:
        return not self.role.startswith("running")


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


def layer_parameters(layer: Layer, path: str, shape: Shape) -> tuple[ParameterInfo, ...]:
    """The canonical arrays of one primitive whose input is `shape`, in canonical order."""
    match layer:
        case Conv():
            area = math.prod(layer.kernel)
            weight: Shape = (layer.channels, shape[0] // layer.groups, *layer.kernel)
            fans = (weight[1] * area, layer.channels * area)  # groups do not lower fan_out, as in every framework
        case Dense():
            weight = (layer.units, shape[0])
            fans = (shape[0], layer.units)
        case BatchNorm():
            roles: tuple[tuple[str, Role], ...] = (("bias", "shift"),)
            if layer.gamma:
                roles = (("weight", "scale"), *roles)
            roles += (("running_mean", "running_mean"), ("running_var", "running_var"))
            return tuple(ParameterInfo(join(path, name), (shape[0],), role) for name, role in roles)
        case _:
            return ()
    found = [ParameterInfo(join(path, "weight"), weight, "weight", *fans)]
    if layer.bias:
        found.append(ParameterInfo(join(path, "bias"), (weight[0],), "bias"))
    return tuple(found)


def layer_macs(layer: Layer, shape: Shape, output: Shape) -> int:
    """Multiply-accumulates of one primitive on one image (0 for all but convolution and dense layers)."""
    match layer:
        case Conv():
            return math.prod(output) * math.prod(layer.kernel) * (shape[0] // layer.groups)
        case Dense():
            return shape[0] * layer.units
        case _:
            return 0


@dataclass(frozen=True)
class _Place:
    """Where an analysis stands: the shape here, and the receptive field and stride of one value of it."""

    shape: Shape
    field: Pair = (1, 1)
    stride: Pair = (1, 1)


def _window(place: _Place, kernel: Pair, stride: Pair) -> tuple[Pair, Pair]:
    field = (
        place.field[0] + (kernel[0] - 1) * place.stride[0],
        place.field[1] + (kernel[1] - 1) * place.stride[1],
    )
    return field, (place.stride[0] * stride[0], place.stride[1] * stride[1])


def _advance(layer: Layer, place: _Place, output: Shape) -> _Place:
    match layer:
        case Conv() | MaxPool() | AvgPool():
            field, stride = _window(place, layer.kernel, layer.stride)
        case Flatten() | GlobalAvgPool() if len(place.shape) == 3:
            whole = (place.shape[1], place.shape[2])
            field, stride = _window(place, whole, whole)
        case _:
            field, stride = place.field, place.stride
    return _Place(output, field, stride)


@lru_cache(maxsize=256)
def analyse(architecture: Architecture) -> tuple[LayerInfo, ...]:
    """Every record of the tree, a composite *before* what is in it, in the order of execution.

    A composite's receptive field is the largest over its branches. Raises SpecError as `output_shapes` does.
    """
    shapes = output_shapes(architecture)
    found: list[LayerInfo] = []

    def visit(layer: Layer, prefix: str, place: _Place, depth: int, auxiliary: bool) -> _Place:
        path = join(prefix, layer.name)
        auxiliary = auxiliary or isinstance(layer, Auxiliary)
        index = len(found)
        found.append(LayerInfo(path, layer, place.shape, shapes[path], 0, 0, (1, 1), (1, 1), depth, auxiliary))
        below = children(layer)
        if not below:
            end = _advance(layer, place, shapes[path])
            owned = sum(math.prod(p.shape) for p in layer_parameters(layer, path, place.shape) if p.trained)
            macs = layer_macs(layer, place.shape, shapes[path])
        else:
            ends, here = [place], place
            for child in below:
                start = place if isinstance(layer, Branches | Residual) else here
                here = visit(child, path, start, depth + 1, auxiliary)
                ends.append(here)
            inside = [info for info in found[index + 1 :] if info.depth == depth + 1]
            owned, macs = sum(i.parameters for i in inside), sum(i.macs for i in inside)
            end = place if isinstance(layer, Auxiliary) else _merge(layer, ends, here, shapes[path])
        found[index] = LayerInfo(
            path, layer, place.shape, shapes[path], owned, macs, end.field, end.stride, depth, auxiliary
        )
        return end

    place = _Place(architecture.input)
    for layer in architecture.layers:
        place = visit(layer, "", place, 0, False)
    return tuple(found)


def _merge(layer: Layer, ends: list[_Place], last: _Place, output: Shape) -> _Place:
    if not isinstance(layer, Branches | Residual):
        return _Place(output, last.field, last.stride)
    rows, columns = (max(end.field[axis] for end in ends) for axis in (0, 1))
    return _Place(output, (rows, columns), last.stride)


def parameters(architecture: Architecture) -> tuple[ParameterInfo, ...]:
    """Every canonical array of the architecture, in the order of execution."""
    return tuple(
        parameter for info in analyse(architecture) for parameter in layer_parameters(info.layer, info.path, info.input)
    )


@dataclass(frozen=True)
class Totals:
    """Sums over an architecture: trained parameters and, for one image, multiply-accumulates; the same of the
    auxiliary heads, which only training has; float32 activation bytes for one image (see `activation_bytes`)."""

    parameters: int
    macs: int
    auxiliary_parameters: int
    auxiliary_macs: int
    forward_bytes: int
    training_bytes: int


def totals(architecture: Architecture) -> Totals:
    """Totals of the network as it is evaluated, and what auxiliary heads add to it."""
    leaves = [info for info in analyse(architecture) if not children(info.layer)]
    main = [info for info in leaves if not info.auxiliary]
    side = [info for info in leaves if info.auxiliary]
    forward, training = activation_bytes(architecture)
    return Totals(
        sum(info.parameters for info in main),
        sum(info.macs for info in main),
        sum(info.parameters for info in side),
        sum(info.macs for info in side),
        forward,
        training,
    )


def activation_bytes(architecture: Architecture, itemsize: int = 4) -> tuple[int, int]:
    """Bytes of activations for one image, `itemsize` per value: `(forward, training)`.

    Forward is the largest sum of what must live at one moment (a layer's input and output, and what branches
    still need), nothing done in place, auxiliary heads left out. Training keeps the input and every layer's output
    until the backward pass, heads included.
    """
    shapes = output_shapes(architecture)
    peak = 0

    def live(layer: Layer, prefix: str, size: int, held: int, kept: bool) -> int:
        """The output's size. `held` lives elsewhere meanwhile; `kept`: the input is needed afterwards, too."""
        nonlocal peak
        path = join(prefix, layer.name)
        below = children(layer)
        output = math.prod(shapes[path])
        if isinstance(layer, Auxiliary):
            return size
        if isinstance(layer, Branches | Residual):
            kept_inside = kept or (isinstance(layer, Residual) and layer.shortcut is None)
            done = 0
            for child in below:
                done += live(child, path, size, held + done, kept_inside or child is not below[-1])
            peak = max(peak, held + done + output + (size if kept_inside else 0))
            return output
        first = size
        for number, child in enumerate(below):
            size = live(child, path, size, held + (first if kept and number else 0), kept and not number)
        if not below:
            peak = max(peak, held + size + output)
        return output

    size = math.prod(architecture.input)
    for layer in architecture.layers:
        size = live(layer, "", size, 0, False)
    kept = sum(math.prod(info.output) for info in analyse(architecture) if not children(info.layer))
    return peak * itemsize, (math.prod(architecture.input) + kept) * itemsize


def primitives(architecture: Architecture) -> Iterator[LayerInfo]:
    """The layers that compute, without the composites around them, in the order of execution."""
    return (info for info in analyse(architecture) if not children(info.layer))


def auxiliary_weights(architecture: Architecture) -> tuple[float, ...]:
    """The weights of the auxiliary classifiers' losses in the training loss, in their order."""
    return tuple(layer.weight for layer in architecture.layers if isinstance(layer, Auxiliary))
