"""What ports get wrong in functions of each value: activations, factors, norms."""

from dataclasses import replace

import numpy as np
from scipy.special import log_softmax, softmax

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_kind, other_value
from triptych.spec import layers as spec
from triptych.spec.kinds.activations import SELU_ALPHA
from triptych.spec.kinds.layer_pass import per_channel
from triptych.utils.arrays import Array

MISSING = Fault("the layer is missing", result=lambda t, y: t.x if t.x.shape == y.shape else None)


def _named(text: str, record: spec.Elementwise) -> Fault:
    """Another activation in its place, and not one whose slope is nearly the right one."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        wrong, right = (getattr(layer, "slope", np.nan) for layer in (record, hypothesis.layer))
        return None if abs(wrong - right) < 1e-3 * right else replace(hypothesis, layer=record)

    return Fault(text, change)


# What is found in the place of any activation, in words. The right one itself is no fault, and explains nothing.
OTHER_ACTIVATIONS: tuple[tuple[str, spec.Elementwise], ...] = (
    ("a ReLU is applied", spec.ReLU("wrong")),
    ("a sigmoid is applied", spec.Sigmoid("wrong")),
    ("tanh is applied", spec.Tanh("wrong")),
    *(
        (f"a leaky ReLU is applied, slope {slope:g}", spec.LeakyReLU("wrong", slope))
        for slope in (0.01, 0.1, 0.2, 0.25, 0.3)
    ),
    ("a randomised leaky ReLU (RReLU) is applied", spec.LeakyReLU("wrong", (1 / 8 + 1 / 3) / 2)),  # in evaluation
    ("ReLU6 is applied", spec.Clip("wrong", 0.0, 6.0)),
    ("SiLU is applied", spec.SiLU("wrong")),
    ("hard-swish is applied", spec.HardSwish("wrong")),
    ("a hard sigmoid of slope 0.2 is applied", spec.HardSigmoid("wrong", 0.2)),
    ("a hard sigmoid of slope 1/6 is applied", spec.HardSigmoid("wrong")),
    ("softplus is applied", spec.Softplus("wrong")),
    ("softplus is applied, with a threshold of 20", spec.Softplus("wrong", 20.0)),
    ("softsign is applied", spec.Softsign("wrong")),
    ("ELU is applied", spec.ELU("wrong", 1.0)),
    ("GELU is applied", spec.GELU("wrong", approximate=False)),
    ("GELU is applied, in its tanh form", spec.GELU("wrong", approximate=True)),
    ("SELU is applied", spec.SELU("wrong")),
    ("Mish is applied", spec.Mish("wrong")),
)
ACTIVATIONS = (
    MISSING,
    *(_named(text, record) for text, record in OTHER_ACTIVATIONS),
    Fault("softmax over the channels is applied", result=lambda t, y: softmax(t.x, axis=1)),
    Fault("the absolute value is taken", result=lambda t, y: np.abs(t.x)),
    Fault("the square is taken", result=lambda t, y: t.x**2),
    Fault("what it puts out is squared", result=lambda t, y: y**2),
    Fault("the activation is applied with the other sign", result=lambda t, y: np.minimum(t.x, 0)),
)
ELU = (
    *(other_field("alpha is {wrong.alpha:g}, not {right.alpha:g}", alpha=alpha) for alpha in (1.0, 0.1, 0.2, 0.3, 0.5)),
    other_kind("SELU is applied, for ELU", lambda layer: spec.SELU(layer.name)),
)
SELU = (
    other_kind("the scale is missing: ELU with SELU's alpha", lambda layer: spec.ELU(layer.name, SELU_ALPHA)),
    Fault("alpha is 1, as ELU has it", result=lambda t, y: np.where(t.x > 0, y, y / SELU_ALPHA)),
)
GELU = (
    other_field("its tanh form is applied, not erf", approximate=True),
    other_field("it is computed by erf, not in its tanh form", approximate=False),
)
SOFTPLUS = (
    other_field("the threshold is 20", threshold=20.0),
    other_field("the threshold is missing", threshold=None),
    Fault("beta is 2", result=lambda t, y: np.logaddexp(0, 2 * t.x) / 2),
)
CLIP = (
    Fault("the upper bound is missing", result=lambda t, y: np.maximum(t.x, t.layer.low)),
    Fault("the lower bound is missing", result=lambda t, y: np.minimum(t.x, t.layer.high)),
)


def _shared(hypothesis: Hypothesis, y: Array) -> Array:
    """The first channel's slope for all."""
    return np.where(hypothesis.x > 0, hypothesis.x, hypothesis.values["weight"][0] * hypothesis.x)


PRELU = (
    Fault("the slope is shared: the first channel's counts for all", result=_shared),
    other_value("the slope is the mean of all channels'", "weight", lambda t, w: np.full_like(w, w.mean())),
    other_value("the slopes are in reverse order", "weight", lambda t, w: w[::-1]),
    other_value("the slopes are subtracted", "weight", lambda t, w: -w),
)


def _over(axes: tuple[int, ...], text: str) -> Fault:
    def result(hypothesis: Hypothesis, y: Array) -> Array | None:
        return softmax(hypothesis.x, axis=axes) if max(axes) < hypothesis.x.ndim else None

    return Fault(text, result=result)


SOFTMAX = (
    _over((0,), "softmax is taken over the batch"),
    _over((2,), "softmax is taken over the rows, not the channels"),
    _over((3,), "softmax is taken over the columns, not the channels"),
    _over((2, 3), "softmax is taken over the map, not the channels"),
    _over((1, 2, 3), "softmax is taken over the whole image, not the channels"),
    Fault("log-softmax is applied", result=lambda t, y: log_softmax(t.x, axis=1)),
    Fault("softmax is applied twice", result=lambda t, y: softmax(y, axis=1)),
)


def _line(hypothesis: Hypothesis) -> tuple[Array, Array]:
    layer, values = hypothesis.layer, hypothesis.values
    scale, shift = values.get("weight", np.array(layer.scale)), values.get("bias", np.array(layer.shift))
    return per_channel(scale, hypothesis.x), per_channel(shift, hypothesis.x)


AFFINE = (
    MISSING,
    Fault("the scale is missing", result=lambda t, y: t.x + _line(t)[1]),
    Fault("the shift is missing", result=lambda t, y: t.x * _line(t)[0]),
    Fault("the shift comes before the scale", result=lambda t, y: (t.x + _line(t)[1]) * _line(t)[0]),
    Fault("it divides by the scale", result=lambda t, y: t.x / _line(t)[0] + _line(t)[1]),
    Fault("the shift is subtracted", result=lambda t, y: t.x * _line(t)[0] - _line(t)[1]),
    Fault("the scale is added, not multiplied", result=lambda t, y: t.x + _line(t)[0] + _line(t)[1]),
    Fault("the scale is subtracted, not multiplied", result=lambda t, y: t.x - _line(t)[0] + _line(t)[1]),
)


def _norm_over(axes: str, over: tuple[int, ...]) -> Fault:
    """The layer's own norm over other axes."""
    return Fault(f"the norm is taken over the {axes}", result=lambda t, y: t.x / _norm(t, over))


def _norm(hypothesis: Hypothesis, axes: tuple[int, ...]) -> Array:
    """Over other axes, with the layer's eps."""
    layer, squares = hypothesis.layer, (hypothesis.x**2).sum(axes, keepdims=True)
    return np.maximum(np.sqrt(squares), layer.eps) if layer.bound else np.asarray(np.sqrt(squares + layer.eps))


L2 = (
    MISSING,
    other_field("the norm is taken over the whole image", whole=True),
    other_field("the norm is taken over the channels", whole=False),
    *(other_field("eps is {wrong.eps:g}, not {right.eps:g}", eps=eps) for eps in (0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-5)),
    other_field("eps bounds the norm, it is not added to the squares", bound=True),
    other_field("eps is added to the squares, it does not bound the norm", bound=False),
    Fault(
        "eps is added to the norm, not to the squares",
        result=lambda t, y: t.x / (np.linalg.norm(t.x, axis=1, keepdims=True) + t.layer.eps),
    ),
    _norm_over("rows and columns", (2, 3)),
    _norm_over("rows", (2,)),
    _norm_over("columns", (3,)),
    _norm_over("batch", (0,)),
    Fault("it divides by the sum of squares", result=lambda t, y: t.x / (t.x * t.x).sum(1, keepdims=True)),
    Fault("it divides by the sum of magnitudes", result=lambda t, y: t.x / np.abs(t.x).sum(1, keepdims=True)),
)
