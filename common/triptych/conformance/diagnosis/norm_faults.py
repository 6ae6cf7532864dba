"""What ports get wrong in normalisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis, other_field, other_value
from triptych.reference.layers import Array
from triptych.spec.layers import LocalResponseNorm


def _batch_statistics(hypothesis: Hypothesis) -> Hypothesis | None:
    mean, var = hypothesis.x.mean((0, 2, 3)), hypothesis.x.var((0, 2, 3))
    return replace(hypothesis, train=False, values={**hypothesis.values, "running_mean": mean, "running_var": var})


def _unbiased_statistics(hypothesis: Hypothesis) -> Hypothesis | None:
    n = hypothesis.x.size // hypothesis.x.shape[1]
    var = hypothesis.x.var((0, 2, 3)) * n / max(n - 1, 1)
    return replace(
        hypothesis,
        train=False,
        values={**hypothesis.values, "running_mean": hypothesis.x.mean((0, 2, 3)), "running_var": var},
    )


def _swapped(first: str, second: str) -> Callable[[Hypothesis], Hypothesis | None]:
    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        if first not in hypothesis.values or second not in hypothesis.values:
            return None
        values = {**hypothesis.values, first: hypothesis.values[second], second: hypothesis.values[first]}
        return replace(hypothesis, values=values)

    return change


NORM = (
    *(
        other_field("eps is {wrong.eps:g}, not {right.eps:g}", eps=eps)
        for eps in (1e-3, 1e-5, 1e-6, 2e-5, 1e-4, 1e-2, 1e-12, 0.0)
    ),
    other_value("gamma is fixed at 1", "weight", lambda t, gamma: np.ones_like(gamma)),
    other_value("beta is missing", "bias", lambda t, beta: np.zeros_like(beta)),
    Fault("training mode for evaluation: the batch's statistics, not the running ones", _batch_statistics),
    Fault("evaluation mode for training: the running statistics, not the batch's", lambda t: replace(t, train=False)),
    Fault("the batch's variance is taken with n - 1", _unbiased_statistics),
    Fault("the statistics count as constants in the backward pass", _batch_statistics),
    Fault("gamma and beta are swapped", _swapped("weight", "bias")),
    Fault("running mean and variance are swapped", _swapped("running_mean", "running_var")),
    other_value("the variance is used as a deviation", "running_var", lambda t, var: var**2),
)
LRN = (
    Fault(
        "constant factor {right.size} in the LRN term: alpha divided by n",
        lambda t: None if t.layer.divide_alpha else replace(t, layer=replace(t.layer, divide_alpha=True)),
    ),
    Fault(
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
    Fault("the layer is missing", result=lambda t, y: t.x),
    Fault("the window is off by one channel", result=lambda t, y: _shifted_lrn(t, -1)),
    Fault("the window is off by one channel", result=lambda t, y: _shifted_lrn(t, 1)),
)


def _same_coefficient(layer: LocalResponseNorm, by: int) -> float:
    return layer.alpha * max(1, layer.size + by) / layer.size if layer.divide_alpha else layer.alpha


def _shifted_lrn(hypothesis: Hypothesis, by: int) -> Array:
    """The response norm with its window's centre moved by `by` channels."""
    layer, x = hypothesis.layer, hypothesis.x
    half, channels = layer.size // 2, x.shape[1]
    squares = np.pad(x * x, ((0, 0), (half + 1, half + 1), (0, 0), (0, 0)))
    energy = sum(squares[:, 1 + by + i : 1 + by + i + channels] for i in range(layer.size))
    return np.asarray(x * (layer.k + layer.coefficient * energy) ** -layer.beta)
