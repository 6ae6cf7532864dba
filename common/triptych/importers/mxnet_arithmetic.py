"""What MXNet's operators that join tensors, scale and shift values, reduce maps, or pass values on are in the spec: a
table, a function for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from triptych.importers.mxnet_calls import Constant, SymbolCall
from triptych.importers.mxnet_layers import Convert
from triptych.importers.mxnet_tensors import SymbolTensor
from triptych.spec.layers import Affine, Block, GlobalAvgPool, Merge


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


def _with_constant(call: SymbolCall, merge: Merge) -> SymbolTensor:
    """A scale or a shift whose numbers are an array of the file, one for each channel or one for all."""
    constants = [given for given in call.inputs if isinstance(given, Constant)]
    if len(constants) != 1 or len(call.inputs) != 2:
        raise call.refused("takes several arrays of the file")
    name, array = constants[0].name, constants[0].array
    given = call.tensor(0 if call.inputs[1] is constants[0] else 1)
    places = (1,) * (len(given.shape) - 1)
    if array.shape not in {shape for n in {1, given.shape[0]} for shape in ((1, n, *places), (n, *places))} | {(1,)}:
        raise call.refused(f"takes the array {name!r} of shape {array.shape}, not one number for each channel")
    numbers = tuple(float(number) for number in array.ravel())
    call.building.remarks.append(f"the array {name!r} is a constant here; MXNet would train it")
    return call.add(Affine("", numbers) if merge == "multiply" else Affine("", shift=numbers), given)


def _difference(call: SymbolCall) -> SymbolTensor:
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


def _inverse(scalar: float) -> tuple[float, float]:
    return 1 / scalar if scalar else math.inf, 0.0


def _mean(call: SymbolCall) -> SymbolTensor:
    return _reduced(call, call.add(GlobalAvgPool(""), _over_the_map(call)))


def _sum(call: SymbolCall) -> SymbolTensor:
    given = _over_the_map(call)
    mean = call.add(GlobalAvgPool(""), given, part="mean")
    return _reduced(call, call.add(Affine("", (float(math.prod(given.shape[1:])),)), mean))


def _over_the_map(call: SymbolCall) -> SymbolTensor:
    """The input, if the reduction is over its rows and columns."""
    given, axes = call.image(), call.integers("axis")
    number = len(given.shape) + 1
    over = {axis % number for axis in axes}
    if call.node.values.get("exclude"):
        over = set(range(number)) - over
    if over != {2, 3} or call.node.values.get("initial") is not None:
        raise call.refused(f"reduces the axes {axes or 'all'}, and only rows and columns (2, 3) are taken")
    return given


def _reduced(call: SymbolCall, tensor: SymbolTensor) -> SymbolTensor:
    return tensor if call.integer("keepdims") else call.viewed(tensor, tensor.shape[:1], "")


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
    **dict.fromkeys(("mean", "_npi_mean"), _mean),
    "sum": _sum,
    **dict.fromkeys(("_copy", "_np_copy", "_npi_copy"), _as_it_is),
    "BlockGrad": _stopped,
    "Cast": _cast,
}
