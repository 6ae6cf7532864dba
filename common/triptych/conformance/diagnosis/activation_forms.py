"""Activations with a number in them: the one with which what was observed comes out, where all values share it."""

from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import expit, logit

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.relations import PER_NUMBER, number
from triptych.utils.arrays import Array, largest

AGREE = 1e-4  # of the number, to which the values of the middle half agree on it
Form = tuple[str, Callable[[Array, float], Array], Callable[[Array, Array], Array]]
# In words, of input and number, and the number of input and output; NaN where a value does not tell it.
FORMS: tuple[Form, ...] = (
    ("x * sigmoid({} x) is applied", lambda x, n: x * expit(n * x), lambda x, y: logit(y / x) / x),
    ("sigmoid({} x) is applied", lambda x, n: expit(n * x), lambda x, y: logit(y) / x),
    ("tanh({} x) is applied", lambda x, n: np.tanh(n * x), lambda x, y: np.arctanh(y) / x),
    ("{} tanh(x) is applied", lambda x, n: n * np.tanh(x), lambda x, y: y / np.tanh(x)),
    (
        "what is below 0 is multiplied by {}, what is above is as it is",
        lambda x, n: np.where(x > 0, x, n * x),
        lambda x, y: np.where(x < 0, y / x, np.nan),
    ),
    (
        "ELU is applied, alpha {}",
        lambda x, n: np.where(x > 0, x, n * np.expm1(np.minimum(x, 0))),
        lambda x, y: np.where(x < 0, y / np.expm1(np.minimum(x, 0)), np.nan),
    ),
    (
        "CELU is applied, alpha {}",
        lambda x, n: np.where(x > 0, x, n * np.expm1(np.minimum(x, 0) / n)),
        lambda x, y: np.full_like(x, -y.min()),
    ),
    (
        "what is above {} is as it is, the rest is 0",
        lambda x, n: np.where(x > n, x, 0.0),
        lambda x, y: np.full_like(x, x[y == 0].max() if (y == 0).any() else np.nan),
    ),
    ("a ReLU of x + {} is applied", lambda x, n: np.maximum(x + n, 0), lambda x, y: np.where(y > 0, y - x, np.nan)),
    ("the larger of x and {} is taken", np.maximum, lambda x, y: np.full_like(x, y.min())),
    ("the smaller of x and {} is taken", np.minimum, lambda x, y: np.full_like(x, y.max())),
    (
        "it is clipped to 0 .. {}",
        lambda x, n: np.clip(x, 0, max(n, 0)),
        lambda x, y: np.full_like(x, y.max()),
    ),
    (
        "it is clipped to -{0} .. {0}",
        lambda x, n: np.clip(x, -abs(n), abs(n)),
        lambda x, y: np.full_like(x, np.abs(y).max()),
    ),
    (
        "it is shrunk by {} towards 0 (softshrink)",
        lambda x, n: np.sign(x) * np.maximum(np.abs(x) - n, 0),
        lambda x, y: np.where(y != 0, np.abs(x) - np.abs(y), np.nan),
    ),
    (
        "a hard sigmoid of slope {} is applied",
        lambda x, n: np.clip(n * x + 0.5, 0, 1),
        lambda x, y: np.where((y > 0) & (y < 1), (y - 0.5) / x, np.nan),
    ),
    (
        "x times a hard sigmoid of slope {} is applied",
        lambda x, n: x * np.clip(n * x + 0.5, 0, 1),
        lambda x, y: np.where((y != 0) & (y != x), (y / x - 0.5) / x, np.nan),
    ),
)


def with_number(x: Array, right: Array, observed: Array, budget: float) -> Iterator[str]:
    """The activations, of what the layer was given, that put out what was observed."""
    if x.shape != observed.shape:
        return
    for text, of, tells in FORMS:
        with np.errstate(all="ignore"):
            told = tells(x, observed)
        told = told[np.isfinite(told)]
        if told.size < PER_NUMBER:
            continue
        low, middle, high = (float(value) for value in np.quantile(told, (0.25, 0.5, 0.75)))
        if not high - low <= AGREE * abs(middle):
            continue
        said = number(float(f"{middle:.4g}") if abs(float(f"{middle:.4g}") - middle) <= 1e-6 * abs(middle) else middle)
        with np.errstate(all="ignore"):
            made = [of(x, float(said)), of(x, middle)]
        if any(same(value, observed, budget) and largest(value - right) > budget for value in made):
            yield text.format(said)
