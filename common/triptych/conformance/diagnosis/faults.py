"""The catalogue of faults that ports really make, layer kind by layer kind, as data.

Each is tried on the reference's own input: the one that reproduces what a framework put out *is* what it computes.
`{wrong}` and `{right}` in a text are the layer's record with and without the fault.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import permutations
from typing import Any, get_args

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_kind
from triptych.conformance.diagnosis.layer_faults import (
    CONV,
    DENSE,
    LRN,
    NORM,
    PADDING,
    SAME_PADDING,
    SHARES,
    one_sided,
    padded_with,
    same_padding,
)
from triptych.conformance.diagnosis.placement_faults import PAD, RESHAPE, SHUFFLE, SLICE, TRANSPOSED, UPSAMPLE, between
from triptych.conformance.diagnosis.value_faults import (
    ACTIVATIONS,
    AFFINE,
    CLIP,
    ELU,
    GELU,
    L2,
    MISSING,
    PRELU,
    SELU,
    SOFTMAX,
    SOFTPLUS,
)
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.composites import merge as merged
from triptych.spec.kinds.kind import Wire
from triptych.spec.kinds.layer_pass import exact
from triptych.utils.arrays import Array


def _window(layer: spec.MaxPool | spec.AvgPool) -> tuple[str, spec.Pair, spec.Pair, spec.Pair, bool]:
    return layer.name, layer.kernel, layer.stride, layer.padding, layer.ceil


def _wider(kernel: spec.Pair, padding: spec.Pair) -> Fault:
    """Kernel and padding, where both are others."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        layer = hypothesis.layer
        if layer.kernel == kernel or layer.padding == padding:
            return None
        return replace(hypothesis, layer=replace(layer, kernel=kernel, padding=padding))

    text = "the kernel is {wrong.kernel}, not {right.kernel}, and the padding is {wrong.padding}, not {right.padding}"
    return Fault(text, change)


_POOL = (
    other_field("the stride is {wrong.stride}, not {right.stride}", stride=(1, 1)),
    other_field("the stride is {wrong.stride}, not {right.stride}", stride=(2, 2)),
    other_field("floor for ceil: the last window is dropped", ceil=False),
    other_field("ceil for floor: there is one window more", ceil=True),
    *PADDING,
    other_field("the stride is {wrong.stride}, not {right.stride}", stride=lambda layer: layer.kernel),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=lambda layer: layer.stride),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=(2, 2)),
    _wider((3, 3), (1, 1)),
    _wider((2, 2), (0, 0)),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=(3, 3)),
)


def _ends(half: bool, ceil: bool) -> Fault:
    """Windows that end elsewhere: padding and rounding are both others, often to the same size."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        layer = hypothesis.layer
        padding = (layer.kernel[0] // 2, layer.kernel[1] // 2) if half else (0, 0)
        if padding == layer.padding or ceil == layer.ceil:
            return None
        return replace(hypothesis, layer=replace(layer, padding=padding, ceil=ceil))

    words = "ceil for floor" if ceil else "floor for ceil"
    return Fault(f"the padding is {{wrong.padding}}, not {{right.padding}}, and {words}", change)


def _sampled(row: int, column: int) -> Fault:
    """One value of every stride, where a window should be looked at."""

    def result(hypothesis: Hypothesis, y: Array) -> Array | None:
        rows, columns = hypothesis.layer.stride
        if (rows, columns) == (1, 1):
            return None  # all values are taken: the layer is missing
        return hypothesis.x[:, :, row::rows, column::columns][:, :, : y.shape[2], : y.shape[3]]

    place = "first" if (row, column) == (0, 0) else f"({row}, {column})th"
    return Fault(f"one value is taken for the window: the {place} of every stride", result=result)


def _resampled(hypothesis: Hypothesis, y: Array) -> Array | None:
    """Linear between the values, the outermost of which stay."""
    if y.shape == hypothesis.x.shape:
        return None  # all values stay: the layer is missing
    rows, columns = (
        between(np.linspace(0, old - 1, new), old) for new, old in zip(y.shape[2:], hypothesis.x.shape[2:], strict=True)
    )
    return np.asarray(rows @ hypothesis.x @ columns.T)


_SAMPLES = (
    *(_sampled(row, column) for row in (0, 1) for column in (0, 1)),
    Fault("the map is interpolated (bilinear, corners aligned), not pooled", result=_resampled),
)
_ENDS = tuple(_ends(half, ceil) for ceil in (True, False) for half in (False, True))


def _counting(fault: Fault) -> Fault:
    """Another padding that counts in the average, where the right one does not."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        made = None if hypothesis.layer.count_padding else fault.change(hypothesis)
        return made and replace(made, layer=replace(made.layer, count_padding=True))

    return Fault(f"{fault.text}; it counts in the average", change)


def _without_an_edge() -> Iterator[Fault]:
    """The average of a map that was cut off on one side."""
    for axis, word in ((2, "row"), (3, "column")):
        for place, which in ((-1, "last"), (0, "first")):

            def result(hypothesis: Hypothesis, y: Array, place: int = place, axis: int = axis) -> Array | None:
                x = hypothesis.x
                edge = x.shape[axis] - 1 if place else 0
                return None if x.shape[axis] == 1 else np.delete(x, edge, axis).mean((2, 3), keepdims=True)

            yield Fault(f"the {which} {word} is left out of the average", result=result)


def _in_training(text: str, make: Callable[[Any], Array]) -> Fault:
    """Another output of a dropout layer, which always has a mask, in training mode."""
    return Fault(text, result=lambda hypothesis, y: make(hypothesis) if hypothesis.train else None)


_DROPOUT = (
    _in_training("there is no dropout in training", lambda t: t.x),
    _in_training("nothing is dropped, all is scaled", lambda t: t.x / (1 - t.layer.rate)),
    _in_training("what is kept is not scaled by 1 / (1 - rate)", lambda t: t.x * t.mask),
    _in_training("what is kept is scaled by 1 - rate", lambda t: t.x * t.mask * (1 - t.layer.rate)),
    _in_training("what is kept is scaled by 1 / rate", lambda t: t.x * t.mask * (1 / (t.layer.rate or 1.0))),
    _in_training(
        "the mask is inverted: rate taken for the share that is kept", lambda t: t.x * ~t.mask / (1 - t.layer.rate)
    ),
    Fault(
        "the input is scaled by 1 - rate in evaluation",
        result=lambda t, y: None if t.train else t.x * (1 - t.layer.rate),
    ),
)
FAULTS: dict[type, tuple[Fault, ...]] = {
    **dict.fromkeys(get_args(spec.Elementwise), ACTIVATIONS),  # those with faults of their own stand below
    spec.Conv: CONV,
    spec.Dense: DENSE,
    spec.ConvTranspose: TRANSPOSED,
    spec.BatchNorm: (*NORM, MISSING),
    spec.LocalResponseNorm: LRN,
    spec.L2Normalize: L2,
    spec.Affine: AFFINE,
    spec.ReLU: (other_kind("a sigmoid is applied, not a ReLU", lambda layer: spec.Sigmoid(layer.name)), *ACTIVATIONS),
    spec.Sigmoid: (other_kind("a ReLU is applied, not a sigmoid", lambda layer: spec.ReLU(layer.name)), *ACTIVATIONS),
    spec.Clip: (*CLIP, *ACTIVATIONS),
    spec.PReLU: (*PRELU, *ACTIVATIONS),
    spec.Softmax: (*SOFTMAX, MISSING),
    spec.ELU: (*ELU, *ACTIVATIONS),
    spec.SELU: (*SELU, *ACTIVATIONS),
    spec.GELU: (*GELU, *ACTIVATIONS),
    spec.Softplus: (*SOFTPLUS, *ACTIVATIONS),
    spec.MaxPool: (
        other_kind("average for maximum pooling", lambda layer: spec.AvgPool(*_window(layer), True)),
        other_kind(
            "average for maximum pooling, padding not counted", lambda layer: spec.AvgPool(*_window(layer), False)
        ),
        Fault(SAME_PADDING, partial(same_padding, value=-np.inf)),
        padded_with(0.0, "the padding is made of zeros, which win where all else is negative"),
        *_POOL,
        *_ENDS,
        *_SAMPLES,
        *one_sided(-np.inf),
        MISSING,
    ),
    spec.AvgPool: (
        other_kind("maximum for average pooling", lambda layer: spec.MaxPool(*_window(layer))),
        other_field("padding does not count in the average", count_padding=False),
        other_field("padding counts in the average", count_padding=True),
        Fault(f"{SAME_PADDING}; it counts in the average", same_padding),
        *_POOL,
        *_ENDS,
        *map(_counting, (*PADDING, *_ENDS)),
        *_SAMPLES,
        *one_sided(),
        MISSING,
    ),
    spec.GlobalAvgPool: (
        Fault("maximum for average pooling", result=lambda t, y: t.x.max((2, 3), keepdims=True)),
        Fault("the sum for the average", result=lambda t, y: t.x.sum((2, 3), keepdims=True)),
        Fault(
            "the average is taken over the batch, too",
            result=lambda t, y: np.broadcast_to(y.mean(0, keepdims=True), y.shape),
        ),
        Fault(
            "the average is taken over the channels, too",
            result=lambda t, y: np.broadcast_to(y.mean(1, keepdims=True), y.shape),
        ),
        Fault("the first place is taken for the average", result=lambda t, y: t.x[..., :1, :1]),
        Fault(
            "the average is taken over the columns alone, row by row", result=lambda t, y: t.x.mean(3, keepdims=True)
        ),
        Fault(
            "the average is taken over the rows alone, column by column", result=lambda t, y: t.x.mean(2, keepdims=True)
        ),
        *_without_an_edge(),
        Fault("the median for the average", result=lambda t, y: np.median(t.x, (2, 3), keepdims=True)),
    ),
    spec.GlobalMaxPool: (Fault("average for maximum pooling", result=lambda t, y: t.x.mean((2, 3), keepdims=True)),),
    spec.Pad: PAD,
    spec.Slice: SLICE,
    spec.Upsample: UPSAMPLE,
    spec.ChannelShuffle: SHUFFLE,
    spec.Reshape: RESHAPE,
    spec.Flatten: (
        Fault(
            "the map is flattened height-width-channels", result=lambda t, y: t.x.transpose(0, 2, 3, 1).reshape(y.shape)
        ),
        Fault(
            "the map is flattened with height and width swapped",
            result=lambda t, y: t.x.transpose(0, 1, 3, 2).reshape(y.shape),
        ),
        Fault(
            "the map is flattened height-width-channels with height and width swapped",
            result=lambda t, y: t.x.transpose(0, 3, 2, 1).reshape(y.shape),
        ),
        *SHARES,
    ),
    spec.Dropout: _DROPOUT,
}
check_complete(FAULTS, __name__)


def other_merges(layer: spec.Branches, parts: list[Array]) -> Iterator[tuple[str, Array]]:
    """The branches' outputs merged otherwise, with what to say of it."""
    words = {"concatenate": "concatenated", "add": "added", "multiply": "multiplied"}
    for merge in ("add", "multiply"):
        with suppress(ValueError):  # only maps of one size can be added
            if merge == layer.merge:
                continue
            text = f"the branches are {words[merge]}, not {words[layer.merge]}"
            yield text, merged(Wire(tuple(range(len(parts))), merge), parts, exact)[0]
    if layer.merge != "concatenate":
        for i, branch in enumerate(layer.branches):
            yield f"only branch '{branch.name}' is taken", parts[i]
            others = Wire(tuple(range(len(parts) - 1)), layer.merge)
            yield f"branch '{branch.name}' is left out", merged(others, [*parts[:i], *parts[i + 1 :]], exact)[0]
        return
    if len({part.shape for part in parts}) == 1:
        turns = np.stack(parts, axis=2)
        yield (
            "the branches' channels are interleaved, not one branch behind the other",
            turns.reshape(len(turns), -1, *turns.shape[3:]),
        )
    yield "the channels are concatenated in reverse order", np.concatenate(parts, axis=1)[:, ::-1]
    names = [branch.name for branch in layer.branches]
    for order in list(permutations(range(len(parts))))[1:] if len(parts) <= 6 else [range(len(parts))[::-1]]:
        text = f"the branches are concatenated in the order {', '.join(names[i] for i in order)}"
        yield text, np.concatenate([parts[i] for i in order], axis=1)


def other_sums(layer: spec.Residual, body: Array, shortcut: Array, observed: Array) -> Iterator[tuple[str, Array]]:
    """A residual summed otherwise, also with the scales that fit best, to three figures, and what to say of it."""
    right = layer.scale * body
    yield "the shortcut is missing", right
    scale = float(f"{float(((observed - shortcut) * body).sum() / (body * body).sum()):.3g}")
    yield f"the residual's scale is {scale:.6g}, not {layer.scale:g}", shortcut + scale * body
    yield "an activation (ReLU) comes before the addition, in the body", shortcut + np.maximum(right, 0)
    yield "an activation (ReLU) comes before the addition, on the shortcut", np.maximum(shortcut, 0) + right
    weight = float(f"{float(((observed - right) * shortcut).sum() / (shortcut * shortcut).sum()):.3g}")
    yield f"the shortcut is multiplied by {weight:.6g}", right + weight * shortcut
    yield "the shortcut is subtracted from the body", right - shortcut
    yield "body and shortcut are multiplied, not added", right * shortcut
    yield "the larger of body and shortcut is taken, not their sum", np.maximum(right, shortcut)


# What can be wrong with the images themselves, (N, C, H, W).
IMAGE_FAULTS: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("the images are in reverse order", lambda x: x[::-1]),
    ("the images are off by one in the batch", lambda x: np.roll(x, 1, axis=0)),
    ("the images are off by one in the batch", lambda x: np.roll(x, -1, axis=0)),
    ("the colours are in reverse order (BGR for RGB)", lambda x: x[:, ::-1]),
    ("the images are mirrored", lambda x: x[..., ::-1]),
    ("the images are upside down", lambda x: x[:, :, ::-1]),
    ("the images' rows and columns are swapped", lambda x: x.transpose(0, 1, 3, 2)),
    ("NHWC images are read as NCHW", lambda x: x.transpose(0, 2, 3, 1).reshape(x.shape)),
    ("the images are scaled by 255", lambda x: x * 255),
    ("the images are scaled by 1 / 255", lambda x: x / 255),
)
