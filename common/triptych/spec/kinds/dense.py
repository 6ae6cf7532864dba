"""Fully connected layers."""

from triptych.spec.kinds.kind import Kind, ParameterInfo, SpecError, one_place, weight_and_bias
from triptych.spec.kinds.layer_pass import Conditions, Gradients, LayerPass
from triptych.spec.layers import Conv, Dense, Pair, Shape
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


KINDS = (Kind(Dense, _output, _macs, one_place, _arrays, _reference, _any_size, training_only=False),)
