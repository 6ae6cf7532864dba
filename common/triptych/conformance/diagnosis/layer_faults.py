"""What ports get wrong in layers that compute with arrays or constants: convolution, dense, normalisation."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
from scipy.special import log_softmax, softmax

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_value
from triptych.conformance.diagnosis.weight_faults import BIAS, WEIGHT
from triptych.spec.kinds.layer_pass import all_but_channels
from triptych.spec.layers import AvgPool, Conv, LocalResponseNorm, MaxPool, Pair, Shape
from triptych.utils.arrays import Array


def same_padding(hypothesis: Hypothesis, value: float = 0.0) -> Hypothesis | None:
    """TensorFlow's and JAX's SAME: the odd pixel goes below and right."""
    layer = hypothesis.layer
    widths = []
    for size, kernel, stride in zip(hypothesis.x.shape[2:], layer.kernel, layer.stride, strict=True):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        widths.append((total // 2, total - total // 2))
    if all(low == high for low, high in widths):
        return None
    x = np.pad(hypothesis.x, ((0, 0), (0, 0), *widths), constant_values=value)
    return replace(hypothesis, layer=replace(layer, padding=(0, 0)), x=x)


def even_padding(hypothesis: Hypothesis) -> Hypothesis | None:
    """SAME where as much goes above and left as below and right."""
    layer = hypothesis.layer
    sizes = zip(hypothesis.x.shape[2:], layer.kernel, layer.stride, strict=True)
    totals = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size, kernel, stride in sizes]
    padding = (totals[0] // 2, totals[1] // 2)
    if any(total % 2 for total in totals) or padding == layer.padding:
        return None
    return replace(hypothesis, layer=replace(layer, padding=padding))


def _shifted(hypothesis: Hypothesis) -> Hypothesis | None:
    """Windows at a stride that begin one pixel further below and right."""
    if hypothesis.layer.stride == (1, 1):
        return None
    x = np.pad(hypothesis.x[:, :, 1:, 1:], ((0, 0), (0, 0), (0, 1), (0, 1)))
    return replace(hypothesis, x=x)


def _averaged(hypothesis: Hypothesis) -> Hypothesis | None:
    """The mean of every stride's pixels, and then no stride."""
    (rows, columns), (n, c, h, w) = hypothesis.layer.stride, hypothesis.x.shape
    if (rows, columns) == (1, 1) or h % rows or w % columns:
        return None
    x = hypothesis.x.reshape(n, c, h // rows, rows, w // columns, columns).mean((3, 5))
    return replace(hypothesis, layer=replace(hypothesis.layer, stride=(1, 1)), x=x)


def _padded(rows: int, columns: int) -> Callable[[Conv | MaxPool | AvgPool], Pair]:
    return lambda layer: (max(0, layer.padding[0] + rows), max(0, layer.padding[1] + columns))


def _padded_by(mode: Literal["reflect", "edge", "wrap"], text: str) -> Fault:
    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        layer = hypothesis.layer
        if layer.padding == (0, 0):
            return None
        widths = [(size, size) for size in layer.padding]
        x = np.pad(hypothesis.x, ((0, 0), (0, 0), *widths), mode=mode)
        return replace(hypothesis, layer=replace(layer, padding=(0, 0)), x=x)

    return Fault(text, change)


def _sides(above: int, below: int, value: float, text: str) -> Fault:
    """Other amounts above and left than below and right."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        x = np.pad(hypothesis.x, ((0, 0), (0, 0), *[(above, below)] * 2), constant_values=value)
        return replace(hypothesis, layer=replace(hypothesis.layer, padding=(0, 0)), x=x)

    return Fault(f"the padding is {text}: above and left {above}, below and right {below}", change)


def one_sided(value: float = 0.0) -> tuple[Fault, ...]:
    """Every padding that is not the same on both sides, up to 3."""
    pairs = [(above, below) for above in range(4) for below in range(4) if above != below]
    return tuple(_sides(above, below, value, "not {right.padding} on all sides") for above, below in pairs)


def padded_with(value: float, text: str) -> Fault:
    """The padding has a value of its own."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        layer = hypothesis.layer
        if layer.padding == (0, 0):
            return None
        widths = [(size, size) for size in layer.padding]
        x = np.pad(hypothesis.x, ((0, 0), (0, 0), *widths), constant_values=value)
        return replace(hypothesis, layer=replace(layer, padding=(0, 0)), x=x)

    return Fault(text, change)


SAME_PADDING = "SAME padding, the odd pixel below and right: the padding is SAME, not {right.padding}"
_PADDED = "the padding is {wrong.padding}, not {right.padding}"
PADDING = (
    *(
        other_field(_PADDED, padding=padding)
        for padding in (
            (0, 0),
            lambda layer: (layer.kernel[0] // 2, layer.kernel[1] // 2),
            lambda layer: layer.padding[::-1],
            *(_padded(rows, columns) for rows, columns in ((-1, -1), (1, 1), (-1, 0), (0, -1), (1, 0), (0, 1))),
        )
    ),
    Fault(_PADDED, even_padding),
)
CONV = (
    *PADDING,
    other_field("the dilation is ignored", dilation=(1, 1)),
    other_field(
        "the dilation is {wrong.dilation}, not {right.dilation}, and the padding {wrong.padding}",
        dilation=(2, 2),
        padding=lambda layer: (2 * layer.padding[0], 2 * layer.padding[1]),
    ),
    other_field(
        "the dilation is {wrong.dilation}, not {right.dilation}, and the padding {wrong.padding}",
        dilation=(1, 1),
        padding=lambda layer: tuple(pad // by for pad, by in zip(layer.padding, layer.dilation, strict=True)),
    ),
    Fault(SAME_PADDING, same_padding),
    Fault("its windows begin a pixel further below and right (x[:, :, 1::2, 1::2])", _shifted),
    Fault("the map is averaged over the stride before it (ResNet-D's shortcut)", _averaged),
    _padded_by("reflect", "the map is padded by reflection, not by zeros"),
    _padded_by("edge", "the map is padded by its edge values (replicate), not by zeros"),
    _padded_by("wrap", "the map is padded from its other side (circular), not by zeros"),
    *one_sided(),
    *(padded_with(value, f"the map is padded by {value:g}, not by zeros") for value in (1.0, -1.0, 0.5, 255.0)),
    *(other_field("the stride is {wrong.stride}, not {right.stride}", stride=(n, n)) for n in (1, 2)),
    other_field("the stride's rows and columns are swapped", stride=lambda layer: layer.stride[::-1]),
    *BIAS,
    *WEIGHT,
)


def channels_last(columns: Array, shape: Shape) -> Array:
    """`(N, channels * height * width)` with its columns in height-width-channels order; `shape` is the map's."""
    return columns.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(columns), -1)


def channels_first(columns: Array, shape: Shape) -> Array:
    """Columns in height-width-channels order in the spec's order again; `shape` is the map's (C, H, W)."""
    channels, height, width = shape
    maps = columns.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(maps.reshape(len(columns), -1))


SHARES = (
    Fault("softmax is applied to the logits already", result=lambda t, y: softmax(y, axis=1)),
    Fault("log-softmax is applied to the logits already", result=lambda t, y: log_softmax(y, axis=1)),
)
_HWC = "the map is flattened height-width-channels: the weight's columns are in another order"
DENSE = (
    other_value(_HWC, "weight", lambda t, w: None if t.map is None else channels_last(w, t.map)),
    other_value(_HWC, "weight", lambda t, w: None if t.map is None else channels_first(w, t.map)),
    other_value("the weight is transposed", "weight", lambda t, w: w.T),
    other_value("an (in, out) weight is read as (out, in)", "weight", lambda t, w: w.T.reshape(w.shape)),
    *BIAS,
    *SHARES,
    Fault("a ReLU follows", result=lambda t, y: np.maximum(y, 0)),
)


def _batch_statistics(hypothesis: Hypothesis, unbiased: bool = False) -> Hypothesis:
    x = hypothesis.x
    n, axes = x.size // x.shape[1], all_but_channels(x)
    factor = n / max(n - 1, 1) if unbiased else 1.0
    statistics = {"running_mean": x.mean(axes), "running_var": factor * x.var(axes)}
    return replace(hypothesis, train=False, values={**hypothesis.values, **statistics})


def _swapped(hypothesis: Hypothesis, first: str, second: str) -> Hypothesis:
    values = hypothesis.values
    return replace(hypothesis, values={**values, first: values[second], second: values[first]})


def _resized(by: int, scaled: bool) -> dict[str, Callable[[LocalResponseNorm], float]]:
    """A window of another size; `scaled`: with an alpha that leaves the coefficient as it was."""

    def alpha(layer: LocalResponseNorm) -> float:
        share = max(1, layer.size + by) / layer.size
        if layer.divide_alpha:
            return layer.alpha * share if scaled else layer.alpha
        return layer.alpha if scaled else layer.alpha / share

    return {"size": lambda layer: max(1, layer.size + by), "alpha": alpha}


def _fixed_gamma(eps: float) -> Fault:
    """MXNet's symbols have both by default."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        gamma = hypothesis.values["weight"]
        if hypothesis.layer.eps == eps:
            return None
        values = {**hypothesis.values, "weight": np.ones_like(gamma)}
        return replace(hypothesis, layer=replace(hypothesis.layer, eps=eps), values=values)

    return Fault(f"gamma is fixed at 1, and eps is {eps:g}, not {{right.eps:g}}", change)


def _other_norm(text: str, shape_of: Callable[[Shape], tuple[int, ...] | None], axes: tuple[int, ...]) -> Fault:
    """Mean and deviation over other `axes` of the input in another shape, with the layer's own eps, gamma and beta."""

    def result(hypothesis: Hypothesis, y: Array) -> Array | None:
        x, values = hypothesis.x, hypothesis.values
        shape = shape_of(x.shape) if x.ndim == 4 else None
        if shape is None:
            return None
        parts = x.reshape(shape)
        variance = parts.var(axes, keepdims=True) + hypothesis.layer.eps
        made = ((parts - parts.mean(axes, keepdims=True)) / np.sqrt(variance)).reshape(x.shape)
        gamma, beta = values.get("weight", np.ones(x.shape[1])), values.get("bias", np.zeros(x.shape[1]))
        return np.asarray(made * gamma[:, None, None] + beta[:, None, None])

    return Fault(f"it is {text}, not a batch norm", result=result)


def _in_groups(groups: int) -> Fault:
    """A group norm; a layer norm of an image where it is one group."""

    def shape_of(shape: Shape) -> tuple[int, ...] | None:
        n, channels, *rest = shape
        return (n, groups, channels // groups, *rest) if groups < channels and channels % groups == 0 else None

    what = (
        f"a group norm of {groups} groups" if groups > 1 else "a layer norm over each image (a group norm of 1 group)"
    )
    return _other_norm(what, shape_of, (2, 3, 4))


OTHER_NORMS = (
    _other_norm("an instance norm (each image and channel by itself)", lambda shape: shape, (2, 3)),
    _other_norm("a layer norm over the channels, place by place", lambda shape: shape, (1,)),
    *map(_in_groups, (1, 2, 3, 4, 6, 8, 16, 32)),
)
EPS = (1e-3, 1e-5, 1e-6, 2e-5, 1e-4, 1e-2, 1e-7, 1e-8, 1e-12, 0.0)
NORM = (
    *(other_field("eps is {wrong.eps:g}, not {right.eps:g}", eps=eps) for eps in EPS),
    *map(_fixed_gamma, EPS),
    other_value("gamma is fixed at 1", "weight", lambda t, gamma: np.ones_like(gamma)),
    other_value("beta is missing", "bias", lambda t, beta: np.zeros_like(beta)),
    Fault("training mode for evaluation: the batch's statistics, not the running ones", _batch_statistics),
    Fault("evaluation mode for training: the running statistics, not the batch's", lambda t: replace(t, train=False)),
    Fault("the batch's variance is taken with n - 1", partial(_batch_statistics, unbiased=True)),
    Fault("the statistics count as constants in the backward pass", _batch_statistics),
    Fault("gamma and beta are swapped", lambda t: _swapped(t, "weight", "bias")),
    Fault("running mean and variance are swapped", lambda t: _swapped(t, "running_mean", "running_var")),
    other_value("gamma is one for all: the mean", "weight", lambda t, gamma: np.full_like(gamma, gamma.mean())),
    other_value("the mean is not subtracted", "running_mean", lambda t, mean: np.zeros_like(mean)),
    other_value("the variance is used as a deviation", "running_var", lambda t, var: var**2),
    *OTHER_NORMS,
)
LRN = (
    other_field("constant factor {right.size} in the LRN term: alpha divided by n", divide_alpha=True),
    other_field("constant factor {right.size} in the LRN term: alpha not divided by n", divide_alpha=False),
    other_field(
        "constant factor {right.size} in the LRN term: alpha divided by n twice",
        alpha=lambda layer: layer.alpha / layer.size if layer.divide_alpha else layer.alpha / layer.size**2,
    ),
    *(other_field("k is {wrong.k:g}, not {right.k:g}", k=k) for k in (1.0, 2.0, 0.0)),
    *(
        other_field("the window is {wrong.size}, not {right.size}" + also, **_resized(by, scaled))
        for also, scaled in (("", True), (", and alpha divided by it", False))
        for by in (-2, 2)
    ),
    *(other_field("beta is {wrong.beta:g}, not {right.beta:g}", beta=beta) for beta in (0.75, 0.5, 1.0)),
    Fault("the layer is missing", result=lambda t, y: t.x),
    Fault("it sums magnitudes, not squares", result=lambda t, y: _lrn(t, np.abs(t.x))),
    Fault("the window is off by one channel", result=lambda t, y: _shifted_lrn(t, -1)),
    Fault("the window is off by one channel", result=lambda t, y: _shifted_lrn(t, 1)),
    Fault("the window is off: it ends at its channel", result=lambda t, y: _shifted_lrn(t, -(t.layer.size // 2))),
    Fault("the window is off: it begins at its channel", result=lambda t, y: _shifted_lrn(t, t.layer.size // 2)),
)


def _shifted_lrn(hypothesis: Hypothesis, by: int) -> Array:
    """The response norm with its window's centre moved by `by` channels."""
    return _lrn(hypothesis, hypothesis.x**2, by)


def _lrn(hypothesis: Hypothesis, summed: Array, by: int = 0) -> Array:
    """The response norm of other values' sums."""
    layer, x = hypothesis.layer, hypothesis.x
    half, channels = layer.size // 2, x.shape[1]
    summed = np.pad(summed, ((0, 0), (2 * half, 2 * half), (0, 0), (0, 0)))
    energy = sum(summed[:, half + by + i : half + by + i + channels] for i in range(layer.size))
    return np.asarray(x * (layer.k + layer.coefficient * energy) ** -layer.beta)
