"""Convolution, and its transpose."""

import math

from triptych.spec.kinds.kind import (
    Kind,
    ParameterInfo,
    SpecError,
    TooSmallError,
    Window,
    as_is,
    extent,
    sliding,
    weight_and_bias,
)
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.kinds.windows import crop, need_map, need_window, num_windows, pad, places, windows
from triptych.spec.layers import Conv, ConvTranspose, Shape
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.lazy import np


def _output(layer: Conv, shape: Shape, path: str) -> Shape:
    need_window(layer, shape, path)
    _check_channels(layer, shape, path)
    return (layer.channels, *num_windows(layer, shape))


def _check_channels(layer: Conv | ConvTranspose, shape: Shape, path: str) -> None:
    if layer.channels < 1:
        raise SpecError(path, f"has {layer.channels} channels, needs at least 1")
    if layer.groups < 1 or shape[0] % layer.groups or layer.channels % layer.groups:
        raise SpecError(path, f"{layer.groups} groups do not divide {shape[0]} inputs and {layer.channels} outputs")
    if min(layer.dilation) < 1:
        raise SpecError(path, f"its dilation {layer.dilation} must be at least 1")


def _macs(layer: Conv, shape: Shape, output: Shape) -> int:
    return math.prod(output) * math.prod(layer.kernel) * (shape[0] // layer.groups)


def _arrays(layer: Conv, shape: Shape) -> tuple[ParameterInfo, ...]:
    area = math.prod(layer.kernel)
    inputs = shape[0] // layer.groups
    fans = (inputs * area, layer.channels * area)  # groups do not lower fan_out, as in every framework
    return weight_and_bias((layer.channels, inputs, *layer.kernel), fans, layer.bias)


def _reference(layer: Conv, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    weight, rounding = arrays["weight"], conditions.rounding
    inputs = np.split(pad(x, layer.padding), layer.groups, axis=1)
    weights = np.split(weight, layer.groups, axis=0)
    views = [windows(group, layer.kernel, layer.stride, layer.dilation) for group in inputs]
    groups: list[Array] = [np.tensordot(v, w, ((1, 4, 5), (1, 2, 3))) for v, w in zip(views, weights, strict=True)]
    y: Array = np.concatenate(groups, axis=3).transpose(0, 3, 1, 2)
    if layer.bias:
        y = y + arrays["bias"][:, None, None]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dys = np.split(dy, layer.groups, axis=1)
        dweights = [np.tensordot(d, v, ((0, 2, 3), (0, 2, 3))) for d, v in zip(dys, views, strict=True)]
        dinputs = [np.zeros_like(group) for group in inputs]
        for d, w, dinput in zip(dys, weights, dinputs, strict=True):
            for i, j, rows, columns in places(layer.kernel, layer.stride, dy.shape, layer.dilation):
                dinput[:, :, rows, columns] += np.tensordot(d, w[:, :, i, j], ((1,), (0,))).transpose(0, 3, 1, 2)
        dx = crop(np.concatenate(dinputs, axis=1), layer.padding, x)
        terms = dy.size // dy.shape[1]
        gradients = {"weight": rounding(np.concatenate(dweights, axis=0), terms)}
        if layer.bias:
            gradients["bias"] = rounding(dy.sum((0, 2, 3)), terms, largest(np.abs(dy).sum((0, 2, 3))))
        return rounding(dx, weight[:, 0].size // layer.groups), gradients

    return LayerPass(rounding(y, weight[0].size), backward)


def _transposed(layer: ConvTranspose, shape: Shape, path: str) -> Shape:
    need_map(shape, path)
    _check_channels(layer, shape, path)
    if min(*layer.kernel, *layer.stride) < 1 or min(*layer.padding, *layer.output_padding) < 0:
        raise SpecError(path, "kernel and stride must be at least 1, padding at least 0")
    # Where it is larger, frameworks refuse: the outermost rows would see no value at all.
    if any(o >= max(s, d) for o, s, d in zip(layer.output_padding, layer.stride, layer.dilation, strict=True)):
        raise SpecError(path, f"output padding {layer.output_padding} must be smaller than the stride {layer.stride}")
    sides = zip(shape[1:], layer.stride, layer.padding, extent(layer), layer.output_padding, strict=True)
    rows, columns = ((size - 1) * s - 2 * p + k + o for size, s, p, k, o in sides)
    if min(rows, columns) < 1:
        raise TooSmallError(
            path, f"its padding {layer.padding} leaves nothing of the {shape[1]}x{shape[2]} map it gets"
        )
    return (layer.channels, rows, columns)


def _transposed_macs(layer: ConvTranspose, shape: Shape, output: Shape) -> int:
    return math.prod(shape) * math.prod(layer.kernel) * (layer.channels // layer.groups)


def _transposed_window(layer: ConvTranspose, shape: Shape) -> Window:
    """Receptive field: the values of the input under which the kernel can lie; the stride in input pixels, which would
    be a fraction, stays."""
    rows, columns = (-(-k // s) for k, s in zip(extent(layer), layer.stride, strict=True))
    return (rows, columns), (1, 1)


def _transposed_arrays(layer: ConvTranspose, shape: Shape) -> tuple[ParameterInfo, ...]:
    """The fans are those that PyTorch counts, by the weight's shape."""
    area, outputs = math.prod(layer.kernel), layer.channels // layer.groups
    weight = ParameterInfo(
        "weight", (shape[0], outputs, *layer.kernel), "weight", None, True, outputs * area, shape[0] * area
    )
    return (weight, ParameterInfo("bias", (layer.channels,), "bias", 0.0)) if layer.bias else (weight,)


def _transposed_reference(layer: ConvTranspose, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Every value of the input adds its multiple of the kernel to the output."""
    weights, inputs = np.split(arrays["weight"], layer.groups), np.split(x, layer.groups, axis=1)
    rounding, terms = conditions.rounding, x.shape[1] // layer.groups * math.prod(layer.kernel)
    _, height, width = _transposed(layer, x.shape[1:], conditions.path)
    whole = [
        max((n - 1) * s + k, size + 2 * p)
        for n, s, k, size, p in zip(
            x.shape[2:], layer.stride, extent(layer), (height, width), layer.padding, strict=True
        )
    ]
    y = np.zeros((len(x), layer.channels, *whole), x.dtype)
    at = list(places(layer.kernel, layer.stride, x.shape, layer.dilation))
    for part, w, group in zip(np.split(y, layer.groups, axis=1), weights, inputs, strict=True):
        for i, j, rows, columns in at:
            part[:, :, rows, columns] += np.tensordot(group, w[:, :, i, j], ((1,), (0,))).transpose(0, 3, 1, 2)
    y = y[:, :, layer.padding[0] :, layer.padding[1] :][:, :, :height, :width]
    if layer.bias:
        y = y + arrays["bias"][:, None, None]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        spread = np.zeros((*dy.shape[:2], *whole), dy.dtype)
        (top, left) = layer.padding
        spread[:, :, top : top + height, left : left + width] = dy
        dxs, dweights = [], []
        for part, w, group in zip(np.split(spread, layer.groups, axis=1), weights, inputs, strict=True):
            views = np.stack([part[:, :, rows, columns] for _, _, rows, columns in at], -1)
            flat = w.reshape(*w.shape[:2], -1)
            dxs.append(np.tensordot(views, flat, ((1, 4), (1, 2))).transpose(0, 3, 1, 2))
            dweights.append(np.tensordot(group, views, ((0, 2, 3), (0, 2, 3))).reshape(w.shape))
        values = dy.size // dy.shape[1]
        gradients = {"weight": rounding(np.concatenate(dweights), x.size // x.shape[1])}
        if layer.bias:
            gradients["bias"] = rounding(dy.sum((0, 2, 3)), values, largest(np.abs(dy).sum((0, 2, 3))))
        return rounding(np.concatenate(dxs, axis=1), flat[0].size), gradients

    return LayerPass(rounding(y, terms), backward)


KINDS = (
    Kind(Conv, _output, _macs, sliding, _arrays, _reference, as_is, training_only=False),
    Kind(
        ConvTranspose,
        _transposed,
        _transposed_macs,
        _transposed_window,
        _transposed_arrays,
        _transposed_reference,
        as_is,
        training_only=False,
    ),
)
