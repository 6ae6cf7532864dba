"""ONNX's sums and products: of two maps a merge; with a constant, a bias, or a scale and shift for every channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np

from triptych.importers.activations import LARGEST
from triptych.importers.network_builder import Tensor, axes_of, permuted, with_axes
from triptych.importers.onnx_call import Array, Convert, OnnxCall, as_number
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import (
    Affine,
    Clip,
    Conv,
    ConvTranspose,
    Dense,
    HardSigmoid,
    HardSwish,
    Layer,
    Merge,
    ReLU,
    Sigmoid,
    SiLU,
)


def add(call: OnnxCall) -> Tensor:
    """`Add`: also the bias of a convolution or dense layer that has none."""
    place, constant = _constant(call)
    if constant is None:
        return _merged(call, "add")
    x, shift = _per_channel(call, place, constant)
    if shift.size > 1 and call.single(1 - place) and (biased := _with_bias(call, x, shift)):
        return biased
    return _affine(call, x, np.ones(1), shift)


def subtract(call: OnnxCall) -> Tensor:
    """`Sub`."""
    place, constant = _constant(call)
    if constant is None:
        name = f"{call.name}_negative"
        negative = call.network.pointwise(name, Affine(name, (-1.0,)), call.tensor(1))
        return call.network.merge(call.name, (call.tensor(0), negative), "add")
    x, shift = _per_channel(call, place, constant)
    return _affine(call, x, np.full(1, -1.0 if place == 0 else 1.0), shift if place == 0 else -shift)


def multiply(call: OnnxCall) -> Tensor:
    """`Mul`: also SiLU and hard swish, where PyTorch's exporter has written them out."""
    place, constant = _constant(call)
    if constant is None:
        return _gated(call) or _merged(call, "multiply")
    x, scale = _per_channel(call, place, constant)
    return _affine(call, x, scale, np.zeros(1))


def divide(call: OnnxCall) -> Tensor:
    """`Div` by a constant."""
    place, constant = _constant(call)
    if constant is None or place == 0 or not np.all(constant):
        raise ImportRefusedError("divides by something that is no constant other than 0")
    x, divisor = _per_channel(call, place, constant)
    return _affine(call, x, 1 / divisor, np.zeros(1))


def negative(call: OnnxCall) -> Tensor:
    """`Neg`."""
    return call.network.pointwise(call.name, Affine(call.name, (-1.0,)), call.x)


def bound(upper: bool, call: OnnxCall) -> Tensor:
    """`Min` and `Max` of a map and a number, of which that of 0 is ReLU, and of two maps."""
    place, constant = _constant(call)
    if constant is None:
        return call.network.larger(call.name, call.tensors, -1.0 if upper else 1.0)
    if constant.size != 1:
        raise ImportRefusedError("is of a map and a constant that is no number; expected one, or two maps")
    x, number = call.tensor(1 - place), as_number(constant)
    layer: Layer = Clip(call.name, -LARGEST, number) if upper else Clip(call.name, number, LARGEST)
    return call.network.pointwise(call.name, ReLU(call.name) if number == 0 and not upper else layer, x)


def total(mean: bool, call: OnnxCall) -> Tensor:
    """`Sum` and `Mean` of any number of maps."""
    tensors = call.tensors
    y = call.network.merge(call.name, tensors, "add") if len(tensors) > 1 else tensors[0]
    if not mean:
        return y
    name = f"{call.name}_mean"
    return call.network.pointwise(name, Affine(name, (1 / len(tensors),)), y)


def _constant(call: OnnxCall) -> tuple[int, Array | None]:
    """Which of the two inputs is constant, and its value."""
    if len(call.values) != 2:
        raise ImportRefusedError(f"has {len(call.values)} inputs, expected 2")
    for place, value in enumerate(call.values):
        if value is not None and not isinstance(value, Tensor):
            return place, value
    return -1, None


def _merged(call: OnnxCall, merge: Merge) -> Tensor:
    a, b = (call.network.as_map(x, call.name) for x in call.tensors)
    if len(a.source_shape) != len(b.source_shape):
        raise ImportRefusedError(f"takes {a.source_shape} and {b.source_shape}, which do not broadcast image by image")
    orders = {axes_of(x) for x in (a, b)} if len(a.source_shape) == 3 else set()
    if len(orders) == 1:  # laid out alike, of different sizes perhaps
        plain = [Tensor(x.step, x.shape) for x in (a, b)]
        return with_axes(call.network.merge(call.name, plain, merge), orders.pop())
    return call.network.merge(call.name, (a, b), merge)


def _per_channel(call: OnnxCall, place: int, constant: Array) -> tuple[Tensor, Array]:
    """The other input, and the constant with one value, or one for every canonical channel, in float64."""
    x = call.network.as_map(call.tensor(1 - place), call.name)
    rank = len(x.source_shape)
    shape = (1,) * (rank + 1 - constant.ndim) + constant.shape
    if constant.size == 1 and len(shape) == rank + 1:
        return x, constant.astype(np.float64).ravel()
    sizes = shape[1:]
    if len(shape) != rank + 1 or shape[0] != 1 or rank not in (1, 3):
        raise ImportRefusedError(f"takes {x.source_shape} (without the batch) and a constant {constant.shape}")
    if rank == 1:
        values = constant.astype(np.float64).ravel()
        if len(values) != x.shape[0]:
            raise ImportRefusedError(f"takes {x.source_shape} and a constant {constant.shape}, which do not broadcast")
        return x, permuted(values, x)
    channels = axes_of(x).index(0)
    if any(size != 1 for axis, size in enumerate(sizes) if axis != channels) or sizes[channels] != x.shape[0]:
        raise ImportRefusedError(
            f"takes a map {x.source_shape} and a constant {constant.shape}, expected one value, or one for every "
            "channel"
        )
    return x, constant.astype(np.float64).ravel()


def _affine(call: OnnxCall, x: Tensor, scale: Array, shift: Array) -> Tensor:
    layer = Affine(call.name, tuple(scale.tolist()), tuple(shift.tolist()))
    return call.network.pointwise(call.name, layer, x)


def _with_bias(call: OnnxCall, x: Tensor, bias: Array) -> Tensor | None:
    """The layer before, with the bias that it lacks; None if it is none that has one."""
    step = call.network.last(x)
    if step is None or not isinstance(step.layer, Conv | ConvTranspose | Dense) or step.layer.bias:
        return None
    arrays = {**step.arrays, "bias": bias.astype(step.arrays["weight"].dtype)}
    call.network.replace(step, replace(step, layer=replace(step.layer, bias=True), arrays=arrays))
    return x


_GATES: Mapping[type, Callable[[str], Layer]] = {Sigmoid: SiLU, HardSigmoid: HardSwish}


def _gated(call: OnnxCall) -> Tensor | None:
    """`x * sigmoid(x)` as one layer, where nobody else takes the sigmoid."""
    for place in (0, 1):
        x, gate = call.tensor(1 - place), call.tensor(place)
        step = call.network.last(gate)
        if step is None or type(step.layer) not in _GATES or step.inputs != (x.step,) or not call.single(place):
            continue
        if isinstance(step.layer, HardSigmoid) and not np.allclose((step.layer.slope, step.layer.offset), (1 / 6, 0.5)):
            continue
        call.network.replace(step, replace(step, layer=_GATES[type(step.layer)](step.name)))
        return gate
    return None


CONVERTERS: Mapping[str, Convert] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Sum": partial(total, False),
    "Mean": partial(total, True),
    "Neg": negative,
    "Min": partial(bound, True),
    "Max": partial(bound, False),
}
