"""What ports get wrong in the arrays of convolutions and dense layers."""

from collections.abc import Callable, Mapping

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_value
from triptych.utils.arrays import Array

BIAS = (
    other_value("the bias is missing", "bias", lambda hypothesis, bias: np.zeros_like(bias)),
    other_value("the bias is added twice", "bias", lambda hypothesis, bias: 2 * bias),
    other_value("the bias is subtracted", "bias", lambda hypothesis, bias: -bias),
    other_value("the bias is one for all: the first one's", "bias", lambda t, bias: np.full_like(bias, bias[0])),
    other_value("the bias is one for all: the mean", "bias", lambda t, bias: np.full_like(bias, bias.mean())),
    other_value("the bias is in reverse order", "bias", lambda t, bias: bias[::-1]),
)


def _interleaved(hypothesis: Hypothesis, weight: Array) -> Array:
    """The outputs of the groups in turns: depthwise multipliers outside, as TensorFlow's weights have them inside."""
    groups = hypothesis.layer.groups
    return weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def _deinterleaved(hypothesis: Hypothesis, weight: Array) -> Array:
    groups = hypothesis.layer.groups
    return weight.reshape(-1, groups, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def _groups_reversed(hypothesis: Hypothesis, weight: Array) -> Array:
    groups = hypothesis.layer.groups
    return weight.reshape(groups, -1, *weight.shape[1:])[::-1].reshape(weight.shape)


Root = Callable[[Array, int, float], Array]  # of the variance, the fan-in, and an eps


def _standardised(text: str, root: Root, eps: float) -> Fault:
    """Weights less their mean, over their deviation, filter by filter (weight standardisation)."""

    def make(hypothesis: Hypothesis, weight: Array) -> Array:
        axes, inputs = tuple(range(1, weight.ndim)), weight[0].size
        variance = weight.var(axes, keepdims=True)
        return np.asarray((weight - weight.mean(axes, keepdims=True)) / root(variance, inputs, eps))

    return other_value(f"the weights are standardised, eps {eps:g} {text}", "weight", make)


ROOTS: Mapping[str, Root] = {
    "in the root": lambda variance, inputs, eps: np.sqrt(variance + eps),
    "beside the deviation": lambda variance, inputs, eps: np.sqrt(variance) + eps,
    "beside the deviation of n - 1": lambda variance, inputs, eps: (
        np.sqrt(variance * inputs / max(inputs - 1, 1)) + eps
    ),
    "in the root, and divided by the root of the fan-in": lambda variance, inputs, eps: np.sqrt(
        np.maximum(variance * inputs, eps)
    ),
}
# What a conversion may keep of a value in its place, array by array.
KEPT: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("the root of what should be kept (a deviation for a variance)", np.sqrt),
    ("the square of what should be kept (a variance for a deviation)", np.square),
    ("1 over what should be kept", np.reciprocal),
    ("1 over the root of what should be kept", lambda value: 1 / np.sqrt(value)),
    ("the logarithm of what should be kept", np.log),
    ("the exponential of what should be kept", np.exp),
    ("what should be kept, with the other sign", np.negative),
    ("zeros: it was not converted", np.zeros_like),
    ("ones: it was not converted", np.ones_like),
)
WEIGHT = (
    other_value("the groups' outputs are in another order (depthwise multiplier)", "weight", _interleaved),
    other_value("the groups' outputs are in another order (depthwise multiplier)", "weight", _deinterleaved),
    other_value("the groups are in reverse order", "weight", _groups_reversed),
    other_value("the kernel is flipped: convolution for cross-correlation", "weight", lambda t, w: w[:, :, ::-1, ::-1]),
    other_value("the kernel's rows and columns are swapped", "weight", lambda t, w: w.transpose(0, 1, 3, 2)),
    other_value("the weight's inputs and outputs are swapped", "weight", lambda t, w: w.transpose(1, 0, 2, 3)),
    other_value("the input channels are in reverse order (BGR for RGB)", "weight", lambda t, w: w[:, ::-1]),
    other_value("an HWIO weight is read as OIHW", "weight", lambda t, w: w.transpose(2, 3, 1, 0).reshape(w.shape)),
    other_value(
        "an OIHW weight is read as HWIO",
        "weight",
        lambda t, w: w.reshape(*w.shape[2:], w.shape[1], w.shape[0]).transpose(3, 2, 0, 1),
    ),
    other_value(
        "the weights' mean is subtracted", "weight", lambda t, w: w - w.mean(tuple(range(1, w.ndim)), keepdims=True)
    ),
    *(
        _standardised(text, root, eps)
        for eps in (1e-5, 0.0, 1e-6, 1e-8, 1e-10, 1e-4, 1e-3)
        for text, root in ROOTS.items()
    ),
)
