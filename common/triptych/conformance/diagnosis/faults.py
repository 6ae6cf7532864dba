"""The catalogue of faults that ports really make, layer kind by layer kind, as data.

Each is tried on the reference's own input: the one that reproduces what a framework put out *is* what it computes.
`{wrong}` and `{right}` in a text are the layer's record with and without the fault.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_kind, other_output
from triptych.conformance.diagnosis.norm_faults import LRN, NORM
from triptych.conformance.diagnosis.weight_faults import CONV, DENSE, PADDING
from triptych.reference.layers import Array
from triptych.spec.layers import (
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Sigmoid,
)

_MISSING = other_output("the layer is missing", lambda t, y: t.x if t.x.shape == y.shape else None)
_ACTIVATIONS = (
    _MISSING,
    other_output("tanh is applied", lambda t, y: np.tanh(t.x)),
    other_output("a leaky ReLU is applied, slope 0.01", lambda t, y: np.where(t.x > 0, t.x, 0.01 * t.x)),
    other_output("a leaky ReLU is applied, slope 0.25", lambda t, y: np.where(t.x > 0, t.x, 0.25 * t.x)),
    other_output("ReLU6 is applied", lambda t, y: np.clip(t.x, 0, 6)),
    other_output("softplus is applied", lambda t, y: np.logaddexp(0, t.x)),
)


def _maximum(layer: AvgPool) -> Layer:
    return MaxPool(layer.name, layer.kernel, layer.stride, layer.padding, layer.ceil)


def _average(counted: bool) -> Callable[[MaxPool], Layer]:
    return lambda layer: AvgPool(layer.name, layer.kernel, layer.stride, layer.padding, layer.ceil, counted)


_POOL = (
    other_field("floor for ceil: the last window is dropped", ceil=False),
    other_field("ceil for floor: there is one window more", ceil=True),
    *PADDING,
    other_field("the stride is {wrong.stride}, not {right.stride}", stride=lambda layer: layer.kernel),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=lambda layer: layer.stride),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=(2, 2)),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=(3, 3)),
)


def _dropped(scale: Callable[[float], float]) -> Callable[[Hypothesis, Array], Array | None]:
    """Dropout with the layer's mask and another factor for what is kept."""

    def make(hypothesis: Hypothesis, y: Array) -> Array | None:
        return (
            None
            if hypothesis.mask is None or not hypothesis.train
            else hypothesis.x * hypothesis.mask * scale(hypothesis.layer.rate)
        )

    return make


_DROPOUT = (
    other_output("there is no dropout in training", lambda t, y: t.x if t.train else None),
    other_output("nothing is dropped, all is scaled", lambda t, y: t.x / (1 - t.layer.rate) if t.train else None),
    other_output("what is kept is not scaled by 1 / (1 - rate)", _dropped(lambda rate: 1.0)),
    other_output("what is kept is scaled by 1 - rate", _dropped(lambda rate: 1 - rate)),
    other_output("what is kept is scaled by 1 / rate", _dropped(lambda rate: 1 / rate if rate else 1.0)),
    other_output(
        "the mask is inverted: rate taken for the share that is kept",
        lambda t, y: t.x * ~t.mask / (1 - t.layer.rate) if t.mask is not None and t.train else None,
    ),
    other_output(
        "the input is scaled by 1 - rate in evaluation", lambda t, y: None if t.train else t.x * (1 - t.layer.rate)
    ),
)


def _flattened(order: tuple[int, int, int]) -> Callable[[Hypothesis, Array], Array | None]:
    def make(hypothesis: Hypothesis, y: Array) -> Array | None:
        x = hypothesis.x
        return x.transpose(0, *(1 + axis for axis in order)).reshape(len(x), -1) if x.ndim == 4 else None

    return make


FAULTS: dict[type, tuple[Fault, ...]] = {
    Conv: CONV,
    Dense: DENSE,
    BatchNorm: (*NORM, _MISSING),
    LocalResponseNorm: LRN,
    ReLU: (other_kind("a sigmoid is applied, not a ReLU", lambda layer: Sigmoid(layer.name)), *_ACTIVATIONS),
    Sigmoid: (other_kind("a ReLU is applied, not a sigmoid", lambda layer: ReLU(layer.name)), *_ACTIVATIONS),
    MaxPool: (
        other_kind("average for maximum pooling", _average(True)),
        other_kind("average for maximum pooling, padding not counted", _average(False)),
        *_POOL,
    ),
    AvgPool: (
        other_kind("maximum for average pooling", _maximum),
        other_field("padding does not count in the average", count_padding=False),
        other_field("padding counts in the average", count_padding=True),
        *_POOL,
    ),
    GlobalAvgPool: (
        other_output("maximum for average pooling", lambda t, y: t.x.max((2, 3), keepdims=True)),
        other_output("the sum for the average", lambda t, y: t.x.sum((2, 3), keepdims=True)),
    ),
    Flatten: (
        other_output("the map is flattened height-width-channels", _flattened((1, 2, 0))),
        other_output("the map is flattened with height and width swapped", _flattened((0, 2, 1))),
    ),
    Dropout: _DROPOUT,
}


def branch_orders(layer: Branches, parts: list[Array]) -> list[tuple[str, Array]]:
    """The branches' outputs concatenated in every other order, with what to say of it."""
    names = [branch.name for branch in layer.branches]
    orders = list(permutations(range(len(parts))))[1:] if len(parts) <= 6 else [tuple(range(len(parts)))[::-1]]
    return [
        (
            f"the branches are concatenated in the order {', '.join(names[i] for i in order)}",
            np.concatenate([parts[i] for i in order], axis=1),
        )
        for order in orders
    ]


def residual_scale(layer: Residual, body: Array, shortcut: Array, observed: Array) -> tuple[str, Array]:
    """The sum with the scale that fits best, with what to say of it."""
    scale = float(((observed - shortcut) * body).sum() / (body * body).sum())
    return f"the residual's scale is {scale:.6g}, not {layer.scale:g}", shortcut + scale * body


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
