"""What ports get wrong in layers with weights: convolution and dense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_output, other_value
from triptych.reference.layers import Array
from triptych.spec.layers import AvgPool, Conv, MaxPool, Pair


def _same_padding(hypothesis: Hypothesis) -> Hypothesis | None:
    """TensorFlow's and JAX's SAME: the odd pixel goes below and right."""
    layer = hypothesis.layer
    widths = []
    for size, kernel, stride in zip(hypothesis.x.shape[2:], layer.kernel, layer.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        widths.append((total // 2, total - total // 2))
    if all(low == high for low, high in widths):
        return None
    x = np.pad(hypothesis.x, ((0, 0), (0, 0), *widths))
    return replace(hypothesis, layer=replace(layer, padding=(0, 0)), x=x)


def _padded(rows: int, columns: int) -> Callable[[Conv | MaxPool | AvgPool], Pair]:
    return lambda layer: (max(0, layer.padding[0] + rows), max(0, layer.padding[1] + columns))


PADDING = tuple(
    other_field("the padding is {wrong.padding}, not {right.padding}", padding=padding)
    for padding in (
        (0, 0),
        lambda layer: (layer.kernel[0] // 2, layer.kernel[1] // 2),
        lambda layer: layer.padding[::-1],
        *(_padded(rows, columns) for rows, columns in ((-1, -1), (1, 1), (-1, 0), (0, -1), (1, 0), (0, 1))),
    )
)
_BIAS = (
    other_value("the bias is missing", "bias", lambda hypothesis, bias: np.zeros_like(bias)),
    other_value("the bias is added twice", "bias", lambda hypothesis, bias: 2 * bias),
    other_value("the bias is subtracted", "bias", lambda hypothesis, bias: -bias),
)
CONV = (
    *PADDING,
    Fault("SAME padding: at this stride the odd pixel goes below and right, not above and left", _same_padding),
    other_field("the stride's rows and columns are swapped", stride=lambda layer: layer.stride[::-1]),
    *_BIAS,
    other_value("the kernel is flipped: convolution for cross-correlation", "weight", lambda t, w: w[:, :, ::-1, ::-1]),
    other_value("the kernel's rows and columns are swapped", "weight", lambda t, w: w.transpose(0, 1, 3, 2)),
    other_value("the weight's inputs and outputs are swapped", "weight", lambda t, w: w.transpose(1, 0, 2, 3)),
    other_value("the input channels are in reverse order (BGR for RGB)", "weight", lambda t, w: w[:, ::-1]),
    other_value("an HWIO weight is read as OIHW", "weight", lambda t, w: w.transpose(2, 3, 1, 0).reshape(w.shape)),
    other_value("an OIHW weight is read as HWIO", "weight", lambda t, w: _read_as_hwio(w)),
)


def _read_as_hwio(weight: Array) -> Array:
    out, into, rows, columns = weight.shape
    return weight.reshape(rows, columns, into, out).transpose(3, 2, 0, 1)


def _columns(order: tuple[int, int, int]) -> Callable[[Hypothesis, Array], Array | None]:
    """The columns of a dense weight as if the map had been flattened in another order of its axes."""

    def make(hypothesis: Hypothesis, weight: Array) -> Array | None:
        if hypothesis.map is None:
            return None
        maps = weight.reshape(len(weight), *hypothesis.map)
        return maps.transpose(0, *(1 + axis for axis in order)).reshape(weight.shape)

    return make


def _rows_read_in(order: tuple[int, int, int]) -> Callable[[Hypothesis, Array], Array | None]:
    """The inverse of `_columns`."""

    def make(hypothesis: Hypothesis, weight: Array) -> Array | None:
        if hypothesis.map is None:
            return None
        maps = weight.reshape(len(weight), *(hypothesis.map[axis] for axis in order))
        return maps.transpose(0, *(1 + int(axis) for axis in np.argsort(order))).reshape(weight.shape)

    return make


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


_HWC = "the map is flattened height-width-channels: the weight's columns are in another order"
DENSE = (
    other_value(_HWC, "weight", _columns((1, 2, 0))),
    other_value(_HWC, "weight", _rows_read_in((1, 2, 0))),
    other_value("the weight is transposed", "weight", lambda t, w: w.T),
    other_value("an (in, out) weight is read as (out, in)", "weight", lambda t, w: w.T.reshape(w.shape)),
    *_BIAS,
    other_output("softmax is applied to the logits already", lambda t, y: softmax(y)),
    other_output("log-softmax is applied to the logits already", lambda t, y: np.log(softmax(y))),
    other_output("a ReLU follows", lambda t, y: np.maximum(y, 0)),
)
