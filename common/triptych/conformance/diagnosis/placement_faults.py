"""What ports get wrong in layers that move values, and in transposed convolution."""

from dataclasses import replace

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_kind, other_value
from triptych.spec import layers as spec
from triptych.utils.arrays import Array


def _sides(order: tuple[int, int, int, int], text: str) -> Fault:
    return other_field(text, padding=lambda layer: tuple(layer.padding[i] for i in order))


PAD = (
    _sides((1, 0, 3, 2), "the padding is on the wrong side: above for below, left for right"),
    _sides((1, 0, 2, 3), "the padding of the rows is on the wrong side"),
    _sides((0, 1, 3, 2), "the padding of the columns is on the wrong side"),
    _sides((2, 3, 0, 1), "the padding of rows and columns is swapped"),
    other_field("the padded value is 0, not {right.value:g}", value=0.0),
    *(
        other_field("the padding is made by {wrong.mode}, not by {right.mode}", mode=mode)
        for mode in ("constant", "edge", "reflect")
    ),
    Fault("nothing is padded", result=lambda t, y: t.x),
)


def _moved(by: int) -> Fault:
    return other_field(
        "the slice is off by one", start=lambda layer: layer.start + by, stop=lambda layer: layer.stop + by
    )


def _other_end(hypothesis: Hypothesis) -> Hypothesis:
    """As many from the other end."""
    layer, axis = hypothesis.layer, {"channels": 1, "rows": 2, "columns": 3}[hypothesis.layer.axis]
    size = hypothesis.x.shape[axis]
    return replace(hypothesis, layer=replace(layer, start=size - layer.stop, stop=size - layer.start))


SLICE = (
    _moved(1),
    _moved(-1),
    Fault("the slice is counted from the other end", _other_end),
    *(
        other_field("the slice is along the {wrong.axis}, not the {right.axis}", axis=axis)
        for axis in ("channels", "rows", "columns")
    ),
)


def between(places: Array, size: int) -> Array:
    """The matrix that takes values at these places of `size` ones, linear between them."""
    lower = np.minimum(places.astype(int), size - 1)
    weights = np.zeros((len(places), size))
    np.add.at(weights, (np.arange(len(places)), lower), 1 - (places - lower))
    np.add.at(weights, (np.arange(len(places)), np.minimum(lower + 1, size - 1)), places - lower)
    return weights


def _corners_aligned(hypothesis: Hypothesis, y: Array) -> Array:
    """Linear between the outermost values, which stay where they are."""
    rows, columns = (
        between(np.linspace(0, n - 1, n * f), n)
        for n, f in zip(hypothesis.x.shape[2:], hypothesis.layer.factor, strict=True)
    )
    return np.asarray(rows @ hypothesis.x @ columns.T)


UPSAMPLE = (
    other_field("values are repeated, not interpolated", mode="nearest"),
    other_field("values are interpolated, not repeated", mode="bilinear"),
    Fault("the corners are aligned", result=_corners_aligned),
    other_field("the factors of rows and columns are swapped", factor=lambda layer: layer.factor[::-1]),
)
SHUFFLE = (
    Fault(
        "the channels are shuffled back: groups and channels per group are swapped",
        lambda t: replace(t, layer=replace(t.layer, groups=t.x.shape[1] // t.layer.groups)),
    ),
    Fault("the channels are not shuffled", result=lambda t, y: t.x),
)
RESHAPE = (
    Fault(
        "the values are taken in height-width-channels order",
        result=lambda t, y: t.x.transpose(0, 2, 3, 1).reshape(y.shape),
    ),
    Fault(
        "the values are put in height-width-channels order",
        result=lambda t, y: t.x.reshape(len(y), *y.shape[2:], y.shape[1]).transpose(0, 3, 1, 2),
    ),
)


def _before(hypothesis: Hypothesis, y: Array) -> Array | None:
    """The rows and columns of the output padding above and left: one place further down and right."""
    rows, columns = hypothesis.layer.output_padding
    if (rows, columns) == (0, 0):
        return None
    moved = np.roll(y, (rows, columns), (2, 3))
    bias = hypothesis.values.get("bias", np.zeros(y.shape[1]))[:, None, None]
    moved[:, :, :rows] = bias
    moved[:, :, :, :columns] = bias
    return moved


TRANSPOSED = (
    Fault("the output padding is above and left, not below and right", result=_before),
    other_field("the output padding is missing", output_padding=(0, 0)),
    other_field("the padding is {wrong.padding}, not {right.padding}", padding=(0, 0)),
    other_field("the dilation is ignored", dilation=(1, 1)),
    other_value("the kernel is flipped", "weight", lambda t, w: w[:, :, ::-1, ::-1]),
    other_value("the kernel's rows and columns are swapped", "weight", lambda t, w: w.transpose(0, 1, 3, 2)),
    other_value("the weight's inputs and outputs are swapped", "weight", lambda t, w: w.transpose(1, 0, 2, 3)),
    other_value("the bias is missing", "bias", lambda t, bias: np.zeros_like(bias)),
    other_kind("a nearest upsampling stands in its place", lambda layer: spec.Upsample(layer.name, layer.stride)),
)
