"""The catalogue of mistakes that ports really make, layer kind by layer kind, as data.

Each is tried on the reference's own input: the one that reproduces what a framework put out *is* what it computes.
`{wrong}` and `{right}` in a text are the layer's record with and without the mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations

import numpy as np

from triptych.conformance.trials import Mistake, Trial, other_field, other_kind, other_output, other_value
from triptych.reference_ops import Array
from triptych.spec import (
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
    Pair,
    ReLU,
    Residual,
    Sigmoid,
)

# Convolution ---------------------------------------------------------------------------------------------------------


def _same_padding(trial: Trial) -> Trial | None:
    """TensorFlow's and JAX's SAME: the odd pixel goes below and right."""
    layer = trial.layer
    widths = []
    for size, kernel, stride in zip(trial.x.shape[2:], layer.kernel, layer.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        widths.append((total // 2, total - total // 2))
    if all(low == high for low, high in widths):
        return None
    x = np.pad(trial.x, ((0, 0), (0, 0), *widths))
    return replace(trial, layer=replace(layer, padding=(0, 0)), x=x)


def _padded(rows: int, columns: int) -> Callable[[Conv | MaxPool | AvgPool], Pair]:
    return lambda layer: (max(0, layer.padding[0] + rows), max(0, layer.padding[1] + columns))


_PADDING = tuple(
    other_field("the padding is {wrong.padding}, not {right.padding}", padding=padding)
    for padding in (
        (0, 0),
        lambda layer: (layer.kernel[0] // 2, layer.kernel[1] // 2),
        lambda layer: layer.padding[::-1],
        *(_padded(rows, columns) for rows, columns in ((-1, -1), (1, 1), (-1, 0), (0, -1), (1, 0), (0, 1))),
    )
)
_BIAS = (
    other_value("the bias is missing", "bias", lambda trial, bias: np.zeros_like(bias)),
    other_value("the bias is added twice", "bias", lambda trial, bias: 2 * bias),
    other_value("the bias is subtracted", "bias", lambda trial, bias: -bias),
)
_CONV = (
    *_PADDING,
    Mistake("SAME padding: at this stride the odd pixel goes below and right, not above and left", _same_padding),
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


# Dense ---------------------------------------------------------------------------------------------------------------


def _columns(order: tuple[int, int, int]) -> Callable[[Trial, Array], Array | None]:
    """The columns of a dense weight as if the map had been flattened in another order of its axes."""

    def make(trial: Trial, weight: Array) -> Array | None:
        if trial.map is None:
            return None
        maps = weight.reshape(len(weight), *trial.map)
        return maps.transpose(0, *(1 + axis for axis in order)).reshape(weight.shape)

    return make


def _rows_read_in(order: tuple[int, int, int]) -> Callable[[Trial, Array], Array | None]:
    """The inverse of `_columns`."""

    def make(trial: Trial, weight: Array) -> Array | None:
        if trial.map is None:
            return None
        maps = weight.reshape(len(weight), *(trial.map[axis] for axis in order))
        return maps.transpose(0, *(1 + int(axis) for axis in np.argsort(order))).reshape(weight.shape)

    return make


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


_HWC = "the map is flattened height-width-channels: the weight's columns are in another order"
_DENSE = (
    other_value(_HWC, "weight", _columns((1, 2, 0))),
    other_value(_HWC, "weight", _rows_read_in((1, 2, 0))),
    other_value("the weight is transposed", "weight", lambda t, w: w.T),
    other_value("an (in, out) weight is read as (out, in)", "weight", lambda t, w: w.T.reshape(w.shape)),
    *_BIAS,
    other_output("softmax is applied to the logits already", lambda t, y: softmax(y)),
    other_output("log-softmax is applied to the logits already", lambda t, y: np.log(softmax(y))),
    other_output("a ReLU follows", lambda t, y: np.maximum(y, 0)),
)

# Normalisation -------------------------------------------------------------------------------------------------------


def _batch_statistics(trial: Trial) -> Trial | None:
    mean, var = trial.x.mean((0, 2, 3)), trial.x.var((0, 2, 3))
    return replace(trial, train=False, values={**trial.values, "running_mean": mean, "running_var": var})


def _unbiased_statistics(trial: Trial) -> Trial | None:
    n = trial.x.size // trial.x.shape[1]
    var = trial.x.var((0, 2, 3)) * n / max(n - 1, 1)
    return replace(
        trial, train=False, values={**trial.values, "running_mean": trial.x.mean((0, 2, 3)), "running_var": var}
    )


def _swapped(first: str, second: str) -> Callable[[Trial], Trial | None]:
    def change(trial: Trial) -> Trial | None:
        if first not in trial.values or second not in trial.values:
            return None
        values = {**trial.values, first: trial.values[second], second: trial.values[first]}
        return replace(trial, values=values)

    return change


_NORM = (
    *(
        other_field("eps is {wrong.eps:g}, not {right.eps:g}", eps=eps)
        for eps in (1e-3, 1e-5, 1e-6, 2e-5, 1e-4, 1e-2, 1e-12, 0.0)
    ),
    other_value("gamma is fixed at 1", "weight", lambda t, gamma: np.ones_like(gamma)),
    other_value("beta is missing", "bias", lambda t, beta: np.zeros_like(beta)),
    Mistake("training mode for evaluation: the batch's statistics, not the running ones", _batch_statistics),
    Mistake("evaluation mode for training: the running statistics, not the batch's", lambda t: replace(t, train=False)),
    Mistake("the batch's variance is taken with n - 1", _unbiased_statistics),
    Mistake("the statistics count as constants in the backward pass", _batch_statistics),
    Mistake("gamma and beta are swapped", _swapped("weight", "bias")),
    Mistake("running mean and variance are swapped", _swapped("running_mean", "running_var")),
    other_value("the variance is used as a deviation", "running_var", lambda t, var: var**2),
)
_LRN = (
    Mistake(
        "constant factor {right.size} in the LRN term: alpha divided by n",
        lambda t: None if t.layer.divide_alpha else replace(t, layer=replace(t.layer, divide_alpha=True)),
    ),
    Mistake(
        "constant factor {right.size} in the LRN term: alpha not divided by n",
        lambda t: replace(t, layer=replace(t.layer, divide_alpha=False)) if t.layer.divide_alpha else None,
    ),
    other_field(
        "constant factor {right.size} in the LRN term: alpha divided by n twice",
        alpha=lambda layer: layer.alpha / layer.size if layer.divide_alpha else layer.alpha / layer.size**2,
    ),
    *(other_field("k is {wrong.k:g}, not {right.k:g}", k=k) for k in (1.0, 2.0, 0.0)),
    *(
        other_field(
            "the window is {wrong.size}, not {right.size}",
            size=lambda layer, by=by: max(1, layer.size + by),
            alpha=lambda layer, by=by: _same_coefficient(layer, by),
        )
        for by in (-2, 2)
    ),
    *(
        other_field(
            "the window is {wrong.size}, not {right.size}, and alpha divided by it",
            size=lambda layer, by=by: max(1, layer.size + by),
        )
        for by in (-2, 2)
    ),
    *(other_field("beta is {wrong.beta:g}, not {right.beta:g}", beta=beta) for beta in (0.75, 0.5, 1.0)),
    Mistake("the layer is missing", result=lambda t, y: t.x),
    Mistake("the window is off by one channel", result=lambda t, y: _shifted_lrn(t, -1)),
    Mistake("the window is off by one channel", result=lambda t, y: _shifted_lrn(t, 1)),
)


def _same_coefficient(layer: LocalResponseNorm, by: int) -> float:
    return layer.alpha * max(1, layer.size + by) / layer.size if layer.divide_alpha else layer.alpha


def _shifted_lrn(trial: Trial, by: int) -> Array:
    """The response norm with its window's centre moved by `by` channels."""
    layer, x = trial.layer, trial.x
    half, channels = layer.size // 2, x.shape[1]
    squares = np.pad(x * x, ((0, 0), (half + 1, half + 1), (0, 0), (0, 0)))
    energy = sum(squares[:, 1 + by + i : 1 + by + i + channels] for i in range(layer.size))
    return np.asarray(x * (layer.k + layer.coefficient * energy) ** -layer.beta)


# Activations, pooling, the rest --------------------------------------------------------------------------------------

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
    *_PADDING,
    other_field("the stride is {wrong.stride}, not {right.stride}", stride=lambda layer: layer.kernel),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=lambda layer: layer.stride),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=(2, 2)),
    other_field("the kernel is {wrong.kernel}, not {right.kernel}", kernel=(3, 3)),
)


def _dropped(scale: Callable[[float], float]) -> Callable[[Trial, Array], Array | None]:
    """Dropout with the layer's mask and another factor for what is kept."""

    def make(trial: Trial, y: Array) -> Array | None:
        return None if trial.mask is None or not trial.train else trial.x * trial.mask * scale(trial.layer.rate)

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


def _flattened(order: tuple[int, int, int]) -> Callable[[Trial, Array], Array | None]:
    def make(trial: Trial, y: Array) -> Array | None:
        x = trial.x
        return x.transpose(0, *(1 + axis for axis in order)).reshape(len(x), -1) if x.ndim == 4 else None

    return make


MISTAKES: dict[type, tuple[Mistake, ...]] = {
    Conv: _CONV,
    Dense: _DENSE,
    BatchNorm: (*_NORM, _MISSING),
    LocalResponseNorm: _LRN,
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
IMAGE_MISTAKES: tuple[tuple[str, Callable[[Array], Array]], ...] = (
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
