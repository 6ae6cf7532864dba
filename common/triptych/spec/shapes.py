"""Output shapes, and with them the validation of an architecture: every error names the layer by its path."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    AvgPool,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Pair,
    Residual,
    Shape,
    join,
)
from triptych.utils.errors import TriptychError

SEARCH_LIMIT = 1024  # pixels; the largest resolution tried when looking for the smallest that works


class SpecError(TriptychError):
    """The architecture contradicts itself; `path` is the layer at which it does."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"layer '{path}': {problem}")
        self.path = path
        self.problem = problem


class TooSmallError(SpecError):
    """The map that reaches this layer is smaller than its window."""


def pooled_size(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    """The number of windows along one axis; with `ceil` a last one that starts wholly in the padding is dropped."""
    span = size + 2 * padding - kernel
    if not ceil:
        return span // stride + 1
    count = -(-span // stride) + 1
    return count - 1 if (count - 1) * stride >= size + padding else count


def overhang(layer: MaxPool | AvgPool, shape: Shape) -> Pair:
    """Rows and columns by which the last windows hang over the padded map (0 without `ceil`)."""
    output = layer_output(layer, shape, layer.name)
    rows, columns = (
        max(
            0,
            (output[1 + axis] - 1) * layer.stride[axis]
            + layer.kernel[axis]
            - shape[1 + axis]
            - 2 * layer.padding[axis],
        )
        for axis in (0, 1)
    )
    return rows, columns


def _windows(layer: Conv | MaxPool | AvgPool, shape: Shape, path: str) -> Pair:
    if len(shape) != 3:
        raise SpecError(path, f"needs a (channels, height, width) input, got {shape}")
    if min(*layer.kernel, *layer.stride) < 1 or min(layer.padding) < 0:
        raise SpecError(path, "kernel and stride must be at least 1, padding at least 0")
    ceil = not isinstance(layer, Conv) and layer.ceil
    if not isinstance(layer, Conv) and any(2 * p > k for p, k in zip(layer.padding, layer.kernel, strict=True)):
        raise SpecError(path, f"padding {layer.padding} is more than half of the kernel {layer.kernel}")
    if any(size + 2 * p < k for size, p, k in zip(shape[1:], layer.padding, layer.kernel, strict=True)):
        window = "x".join(map(str, layer.kernel))
        raise TooSmallError(path, f"its {window} window is larger than the {shape[1]}x{shape[2]} map it gets")
    rows, columns = (
        pooled_size(size, k, s, p, ceil)
        for size, k, s, p in zip(shape[1:], layer.kernel, layer.stride, layer.padding, strict=True)
    )
    return rows, columns


def _check_conv(layer: Conv, shape: Shape, path: str) -> None:
    if layer.channels < 1:
        raise SpecError(path, f"has {layer.channels} channels, needs at least 1")
    if layer.groups < 1 or shape[0] % layer.groups or layer.channels % layer.groups:
        raise SpecError(path, f"{layer.groups} groups do not divide {shape[0]} inputs and {layer.channels} outputs")


def _check_names(layers: tuple[Layer, ...], prefix: str) -> None:
    seen: set[str] = set()
    for layer in layers:
        path = join(prefix, layer.name)
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", layer.name):
            raise SpecError(path, f"'{layer.name}' is not a name (letters, digits and _, a letter first)")
        if layer.name in seen:
            raise SpecError(path, "the name stands twice at the same place; one would replace the other")
        seen.add(layer.name)


def run_shapes(layers: tuple[Layer, ...], shape: Shape, prefix: str, into: dict[str, Shape]) -> Shape:
    """The shape after `layers`; every record's output shape is added to `into` under its path."""
    _check_names(layers, prefix)
    for layer in layers:
        path = join(prefix, layer.name)
        if isinstance(layer, Auxiliary):  # what it puts out are its own logits; what it was given goes on
            if prefix:
                raise SpecError(path, "an auxiliary head must stand at the top level of the architecture")
            into[path] = run_shapes(layer.layers, shape, path, into)
        else:
            shape = into[path] = layer_output(layer, shape, path, into)
    return shape


def layer_output(layer: Layer, shape: Shape, path: str, into: dict[str, Shape] | None = None) -> Shape:
    """The output shape of one record on an input of `shape`.

    Raises SpecError, with the path of the layer that does not fit (TooSmallError where a larger input would).
    """
    into = {} if into is None else into
    match layer:
        case Conv():
            windows = _windows(layer, shape, path)
            _check_conv(layer, shape, path)
            return (layer.channels, *windows)
        case MaxPool() | AvgPool():
            return (shape[0], *_windows(layer, shape, path))
        case GlobalAvgPool():
            if len(shape) != 3:
                raise SpecError(path, f"needs a (channels, height, width) input, got {shape}")
            return (shape[0], 1, 1)
        case Flatten():
            features = 1
            for size in shape:
                features *= size
            return (features,)
        case Dense():
            if len(shape) != 1:
                raise SpecError(path, f"needs a flat input, got {shape}: put a Flatten before it")
            if layer.units < 1:
                raise SpecError(path, f"has {layer.units} units, needs at least 1")
            return (layer.units,)
        case LocalResponseNorm():
            if layer.size < 1 or layer.size % 2 == 0:
                raise SpecError(path, f"its window of {layer.size} channels must be odd")
            return shape
        case Dropout():
            if not 0 <= layer.rate < 1:
                raise SpecError(path, f"its rate {layer.rate} must be at least 0 and below 1")
            return shape
        case Block():
            return run_shapes(layer.layers, shape, path, into)
        case Branches():
            return _branches(layer, shape, path, into)
        case Residual():
            return _residual(layer, shape, path, into)
        case _:
            return shape


def _branches(layer: Branches, shape: Shape, path: str, into: dict[str, Shape]) -> Shape:
    _check_names(layer.branches, path)
    outputs = []
    for branch in layer.branches:
        output = layer_output(branch, shape, join(path, branch.name), into)
        into[join(path, branch.name)] = output
        outputs.append(output)
    if not outputs:
        raise SpecError(path, "has no branches")
    if any(output[1:] != outputs[0][1:] for output in outputs):
        raise SpecError(path, f"its branches end in different sizes: {outputs}")
    return (sum(output[0] for output in outputs), *outputs[0][1:])


def _residual(layer: Residual, shape: Shape, path: str, into: dict[str, Shape]) -> Shape:
    shortcut = shape
    if layer.shortcut is not None:
        shortcut = layer_output(layer.shortcut, shape, join(path, layer.shortcut.name), into)
        into[join(path, layer.shortcut.name)] = shortcut
    body = layer_output(layer.body, shape, join(path, layer.body.name), into)
    into[join(path, layer.body.name)] = body
    if body != shortcut:
        raise SpecError(path, f"its body ends in {body} but its shortcut in {shortcut}")
    return body


@lru_cache(maxsize=256)
def output_shapes(architecture: Architecture) -> dict[str, Shape]:
    """The output shape of every record by its path, without the batch. Treat the result as read-only.

    Raises SpecError for the first layer that does not fit; where the input is too small, with the smallest
    square resolution that works.
    """
    shapes: dict[str, Shape] = {}
    try:
        end = run_shapes(architecture.layers, architecture.input, "", shapes)
    except TooSmallError as error:
        smallest = smallest_resolution(architecture)
        way_out = f"the smallest resolution that works is {smallest}x{smallest}" if smallest else "none works"
        channels, height, width = architecture.input
        raise TooSmallError(error.path, f"{error.problem} (input {channels}x{height}x{width}); {way_out}") from None
    if end != (architecture.classes,):
        last = architecture.layers[-1].name if architecture.layers else architecture.name
        raise SpecError(last, f"the network ends in {end}, not in ({architecture.classes},)")
    return shapes


def smallest_resolution(architecture: Architecture) -> int | None:
    """The smallest square input, in pixels, that every layer takes; None where none up to 1024 is."""
    for size in range(1, SEARCH_LIMIT + 1):
        resized = replace(architecture, input=(architecture.input[0], size, size))
        try:
            run_shapes(resized.layers, resized.input, "", {})
        except SpecError:  # too small, or branches that differ at this size only
            continue
        return size
    return None
