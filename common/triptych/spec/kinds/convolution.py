"""Convolution."""

import math

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, as_is, sliding, weight_and_bias
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.kinds.windows import crop, need_window, num_windows, pad, places, windows
from triptych.spec.layers import Conv, Shape
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.lazy import np


def _output(layer: Conv, shape: Shape, path: str) -> Shape:
    need_window(layer, shape, path)
    if layer.channels < 1:
        raise SpecError(path, f"has {layer.channels} channels, needs at least 1")
    if layer.groups < 1 or shape[0] % layer.groups or layer.channels % layer.groups:
        raise SpecError(path, f"{layer.groups} groups do not divide {shape[0]} inputs and {layer.channels} outputs")
    return (layer.channels, *num_windows(layer, shape))


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
    views = [windows(group, layer.kernel, layer.stride) for group in inputs]
    groups: list[Array] = [np.tensordot(v, w, ((1, 4, 5), (1, 2, 3))) for v, w in zip(views, weights, strict=True)]
    y: Array = np.concatenate(groups, axis=3).transpose(0, 3, 1, 2)
    if layer.bias:
        y = y + arrays["bias"][:, None, None]

    def backward(dy: Array) -> tuple[Array, Gradients]:
        dys = np.split(dy, layer.groups, axis=1)
        dweights = [np.tensordot(d, v, ((0, 2, 3), (0, 2, 3))) for d, v in zip(dys, views, strict=True)]
        dinputs = [np.zeros_like(group) for group in inputs]
        for d, w, dinput in zip(dys, weights, dinputs, strict=True):
            for i, j, rows, columns in places(layer.kernel, layer.stride, dy.shape):
                dinput[:, :, rows, columns] += np.tensordot(d, w[:, :, i, j], ((1,), (0,))).transpose(0, 3, 1, 2)
        dx = crop(np.concatenate(dinputs, axis=1), layer.padding, x)
        terms = dy.size // dy.shape[1]
        gradients = {"weight": rounding(np.concatenate(dweights, axis=0), terms)}
        if layer.bias:
            gradients["bias"] = rounding(dy.sum((0, 2, 3)), terms, largest(np.abs(dy).sum((0, 2, 3))))
        return rounding(dx, weight[:, 0].size // layer.groups), gradients

    return LayerPass(rounding(y, weight[0].size), backward)


KINDS = (Kind(Conv, _output, _macs, sliding, _arrays, _reference, as_is, training_only=False),)
