"""What MXNet's operators that join tensors, scale and shift values, reduce maps, or pass values on are in the spec: a
table, a function for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from triptych.importers.activations import LARGEST
from triptych.importers.moves import larger_of_two, over_channels
from triptych.importers.mxnet_calls import Constant, SymbolCall
from triptych.importers.mxnet_layers import Convert
from triptych.importers.mxnet_tensors import SymbolTensor
from triptych.importers.torch_maps import axes_along, numbered, pooled_channels, pooled_rows
from triptych.spec.layers import (
    Affine,
    AvgPool,
    Block,
    Clip,
    GlobalAvgPool,
    GlobalMaxPool,
    Layer,
    MaxPool,
    Merge,
    Pair,
    ReLU,
)


def _concat(call: SymbolCall) -> SymbolTensor:
    tensors = [call.tensor(number) for number in range(len(call.inputs))]
    key = "axis" if "axis" in call.node.values else "dim"
    axis = call.node.values[key]
    if not isinstance(axis, int):
        raise call.refused(f"has the {key} None")
    if call.axis(axis, tensors[0].shape) != 0:
        raise call.refused(f"joins along axis {axis}, and only 1, the channels, is taken")
    return tensors[0] if len(tensors) == 1 else call.add(Block("", ()), *tensors)


def _joined(merge: Merge) -> Convert:
    def convert(call: SymbolCall) -> SymbolTensor:
        if any(isinstance(given, Constant) for given in call.inputs):
            return _with_constant(call, merge)
        tensors = [call.tensor(number) for number in range(len(call.inputs))]
        return tensors[0] if len(tensors) == 1 else call.add(Block("", ()), *tensors, merge=merge)

    return convert


def _with_constant(call: SymbolCall, merge: Merge | Literal["divide", "subtract"]) -> SymbolTensor:
    """A scale or a shift whose numbers are an array of the file, one for each channel or one for all."""
    constants = [given for given in call.inputs if isinstance(given, Constant)]
    if len(constants) != 1 or len(call.inputs) != 2:
        raise call.refused("takes several arrays of the file")
    given = call.tensor(0 if call.inputs[1] is constants[0] else 1)
    values = _numbers(call, given, constants[0])
    if merge == "divide" and not values.all():
        raise call.refused(f"divides by the array {constants[0].name!r}, which holds 0")
    if merge in ("add", "subtract"):
        return call.add(Affine("", shift=tuple((values if merge == "add" else -values).tolist())), given)
    return call.add(Affine("", tuple((1 / values if merge == "divide" else values).tolist())), given)


def _shifted(call: SymbolCall, given: SymbolTensor, constant: Constant) -> SymbolTensor:
    return call.add(Affine("", shift=tuple(_numbers(call, given, constant).tolist())), given)


def _numbers(call: SymbolCall, given: SymbolTensor, constant: Constant) -> NDArray[np.float64]:
    """An array of the file as one number for each channel of a tensor, or one for all."""
    name, array, places = constant.name, constant.array, (1,) * (len(given.shape) - 1)
    if array.shape not in {shape for n in {1, given.shape[0]} for shape in ((1, n, *places), (n, *places))} | {(1,)}:
        raise call.refused(f"takes the array {name!r} of shape {array.shape}, not one number for each channel")
    if not constant.fixed:
        call.building.remarks.append(f"the array {name!r} is a constant here; MXNet would train it")
    return array.astype(np.float64).ravel()


def _difference(call: SymbolCall) -> SymbolTensor:
    if isinstance(call.inputs[1], Constant):
        return _with_constant(call, "subtract")
    if isinstance(call.inputs[0], Constant):
        minus = call.add(Affine("", (-1.0,)), call.tensor(1), part="minus")
        return _shifted(call, minus, call.inputs[0])
    minus = call.add(Affine("", (-1.0,)), call.tensor(1), part="minus")
    return call.add(Block("", ()), call.tensor(0), minus, merge="add")


def _scalar(affine: Callable[[float], tuple[float, float]]) -> Convert:
    """Of `affine(scalar)`, the scale and the shift."""

    def convert(call: SymbolCall) -> SymbolTensor:
        scale, shift = affine(call.number("scalar"))
        if not (math.isfinite(scale) and math.isfinite(shift)):
            raise call.refused(f"has the scalar {call.number('scalar'):g}")
        return call.each_value(Affine("", (scale,), (shift,)))

    return convert


def _larger(call: SymbolCall, sign: float = 1.0) -> SymbolTensor:
    """The larger of two maps at every place; the smaller is that of both with the other sign, with the other sign."""
    if any(isinstance(given, Constant) for given in call.inputs):
        raise call.refused("is of a map and an array of the file")
    pair = [call.tensor(number) for number in range(2)]
    shape = pair[0].shape
    if pair[1].shape != shape:
        raise call.refused(f"takes {shape} and {pair[1].shape}, and only two maps of one shape are taken")
    if sign < 0:
        pair = [call.add(Affine("", (sign,)), each, part="minus") for each in pair]
    joined = call.add(Block("", ()), *pair, part="pair")
    return call.row((*larger_of_two(shape), *[Affine("", (sign,))] * (sign < 0)), joined)


def _inverse(scalar: float) -> tuple[float, float]:
    return 1 / scalar if scalar else math.inf, 0.0


def _reduction(
    whole: Callable[[str], Layer], pool: Callable[[str, Pair, Pair], Layer], *, summed: bool = False
) -> Convert:
    """Over rows and columns, one of them, or the channels. A sum is the mean times the number of its terms."""

    def convert(call: SymbolCall) -> SymbolTensor:
        given, keep = _straight(call), bool(call.integer("keepdims"))
        base, over = call.building.shapes[given.step], _reduced_axes(call, given)
        shape = tuple(1 if axis in over else size for axis, size in enumerate(given.shape) if keep or axis not in over)
        order = numbered(base).reshape(given.shape) if given.order is None else given.order.astype(np.intp)
        if over and (channels := pooled_channels(order, base, over, shape)) is not None:
            layers: list[Layer] = list(over_channels(AvgPool if whole is GlobalAvgPool else MaxPool, base))
            layers += [Affine("sum", (float(base[0]),))] * summed
            return _as_ordered(call.row(layers, SymbolTensor(given.step, base)), channels)
        found = pooled_rows(order, base, over, shape) if over else None
        if found is None:
            axes = call.integers("axis") or "all"
            raise call.refused(f"reduces the axes {axes}, and only rows, columns (2, 3), both, or channels are taken")
        kernel, order = found
        layer = whole("") if kernel == base[1:] else pool("", kernel, kernel)
        made = call.add(layer, SymbolTensor(given.step, base), part="mean" if summed else "")
        if summed:
            made = call.add(Affine("", (float(math.prod(kernel)),)), made)
        return _as_ordered(made, order)

    return convert


def _as_ordered(made: SymbolTensor, order: NDArray[np.intp]) -> SymbolTensor:
    """The output of a step as MXNet has it."""
    moved = not np.array_equal(order.ravel(), np.arange(order.size))
    return SymbolTensor(made.step, order.shape, order.astype(np.int32) if moved else None)


def _straight(call: SymbolCall) -> SymbolTensor:
    """The input; one whose channels are mixed as the output of a step."""
    given = call.any_tensor()
    base = call.building.shapes[given.step]
    mixed = given.order is not None and given.shape == base and axes_along(given.order.astype(np.intp), base) is None
    return call.plain(given) if mixed else given


def _reduced_axes(call: SymbolCall, given: SymbolTensor) -> set[int]:
    """The axes of a reduction, counted from 0 behind the batch; none where the batch is among them."""
    number = len(given.shape) + 1
    over = {axis % number for axis in call.integers("axis") if -number <= axis < number}
    if call.node.values.get("exclude"):
        over = set(range(number)) - over
    whole = not call.integers("axis") or 0 in over or call.node.values.get("initial") is not None
    return set() if whole else {axis - 1 for axis in over}


def _quotient(call: SymbolCall) -> SymbolTensor:
    """By an array of the file."""
    if not isinstance(call.inputs[1], Constant):
        raise call.refused("divides by what it computes of the images")
    return _with_constant(call, "divide")


def _bound(upper: bool) -> Convert:
    """The least or the largest of each value and a number; the larger of it and 0 is ReLU."""

    def convert(call: SymbolCall) -> SymbolTensor:
        number = call.number("scalar")
        layer: Layer = Clip("", -LARGEST, number) if upper else Clip("", number, LARGEST)
        return call.each_value(ReLU("") if number == 0 and not upper else layer)

    return convert


def _as_it_is(call: SymbolCall) -> SymbolTensor:
    return call.any_tensor()


def _stopped(call: SymbolCall) -> SymbolTensor:
    call.building.remarks.append(f"gradients go through {call.node.name!r} (BlockGrad) here; MXNet stops them")
    return call.any_tensor()


def _cast(call: SymbolCall) -> SymbolTensor:
    if call.text("dtype") not in ("float16", "float32", "float64", "bfloat16"):
        raise call.refused(f"rounds to {call.text('dtype')}")
    return call.any_tensor()


_PLUS = _scalar(lambda scalar: (1.0, scalar))
_MINUS = _scalar(lambda scalar: (1.0, -scalar))
_FROM = _scalar(lambda scalar: (-1.0, scalar))
_TIMES = _scalar(lambda scalar: (scalar, 0.0))
_OVER = _scalar(_inverse)

ARITHMETIC: Mapping[str, Convert] = {
    **dict.fromkeys(("Concat", "_npi_concatenate"), _concat),
    **dict.fromkeys(("elemwise_add", "broadcast_add", "_npi_add", "add_n"), _joined("add")),
    **dict.fromkeys(("elemwise_mul", "broadcast_mul", "_npi_multiply"), _joined("multiply")),
    **dict.fromkeys(("elemwise_sub", "broadcast_sub", "_npi_subtract"), _difference),
    **dict.fromkeys(("_plus_scalar", "_npi_add_scalar"), _PLUS),
    **dict.fromkeys(("_minus_scalar", "_npi_subtract_scalar"), _MINUS),
    **dict.fromkeys(("_rminus_scalar", "_npi_rsubtract_scalar"), _FROM),
    **dict.fromkeys(("_mul_scalar", "_npi_multiply_scalar"), _TIMES),
    **dict.fromkeys(("_div_scalar", "_npi_true_divide_scalar"), _OVER),
    **dict.fromkeys(("negative", "_npi_negative"), lambda call: call.each_value(Affine("", (-1.0,)))),
    **dict.fromkeys(("broadcast_div", "elemwise_div"), _quotient),
    **dict.fromkeys(("broadcast_maximum", "_maximum"), _larger),
    **dict.fromkeys(("broadcast_minimum", "_minimum"), lambda call: _larger(call, -1.0)),
    "_maximum_scalar": _bound(upper=False),
    "_minimum_scalar": _bound(upper=True),
    **dict.fromkeys(("mean", "_npi_mean"), _reduction(GlobalAvgPool, AvgPool)),
    **dict.fromkeys(("sum", "_np_sum"), _reduction(GlobalAvgPool, AvgPool, summed=True)),
    **dict.fromkeys(("max", "_np_max"), _reduction(GlobalMaxPool, MaxPool)),
    **dict.fromkeys(("_copy", "_np_copy", "_npi_copy"), _as_it_is),
    "BlockGrad": _stopped,
    "Cast": _cast,
}
