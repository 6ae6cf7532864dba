"""Fully connected layers, and the flatten in front of them."""

import math

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, no_arrays, no_macs, one_place, weight_and_bias
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.kinds.windows import whole_map
from triptych.spec.layers import Conv, Dense, Flatten, Pair, Shape
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.lazy import np


def _output(layer: Dense, shape: Shape, path: str) -> Shape:
    if len(shape) != 1:
        raise SpecError(path, f"needs a flat input, got {shape}: put a Flatten before it")
    if layer.units < 1:
        raise SpecError(path, f"has {layer.units} units, needs at least 1")
    return (layer.units,)


def _macs(layer: Dense, shape: Shape, output: Shape) -> int:
    return shape[0] * layer.units


def _arrays(layer: Dense, shape: Shape) -> tuple[ParameterInfo, ...]:
    return weight_and_bias((layer.units, shape[0]), (shape[0], layer.units), layer.bias)


def _reference(layer: Dense, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    weight, rounding = arrays["weight"], conditions.rounding
    y: Array = x @ weight.T + arrays["bias"] if layer.bias else x @ weight.T

    def backward(dy: Array) -> tuple[Array, Gradients]:
        gradients = {"weight": rounding(dy.T @ x, len(dy))}
        if layer.bias:
            gradients["bias"] = rounding(dy.sum(0), len(dy), largest(np.abs(dy).sum(0)))
        return rounding(dy @ weight, dy.shape[1]), gradients

    return LayerPass(rounding(y, x.shape[1]), backward)


def _any_size(layer: Dense, shape: Shape, flattened: Pair) -> tuple[Conv, Pair]:
    """A convolution whose kernel is the map that was flattened for it (Simonyan and Zisserman 2014, section 3.2)."""
    return Conv(layer.name, layer.units, flattened, bias=layer.bias), (1, 1)


def _flat(layer: Flatten, shape: Shape, path: str) -> Shape:
    return (math.prod(shape),)


def _flatten(layer: Flatten, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    return LayerPass(x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape), {}))


def _left_out(layer: Flatten, shape: Shape, flattened: Pair) -> tuple[None, Pair]:
    """The next dense layer becomes a convolution over the map; a flat input was flattened before."""
    return None, (shape[1], shape[2]) if len(shape) == 3 else flattened


KINDS = (
    Kind(Dense, _output, _macs, one_place, _arrays, _reference, _any_size, training_only=False),
    Kind(Flatten, _flat, no_macs, whole_map, no_arrays, _flatten, _left_out, training_only=False),
)
