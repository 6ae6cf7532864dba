"""In which form a batch norm that is not right computes: its line for every channel tells root, eps, gamma, beta."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.hypothesis import Hypothesis
from triptych.spec.kinds.layer_pass import all_but_channels
from triptych.utils.arrays import Array

# What is divided by, of variance and eps, and eps of that.
ROOTS: dict[str, tuple[Callable[[Array, float], Array], Callable[[Array, Array], Array]]] = {
    "": (lambda v, e: np.sqrt(v + e), lambda v, d: d * d - v),
    "eps is added to the deviation, outside the root": (lambda v, e: np.sqrt(v) + e, lambda v, d: d - np.sqrt(v)),
    "it is divided by the variance, not its root": (lambda v, e: v + e, lambda v, d: d - v),
    "it is multiplied by the deviation, not divided": (
        lambda v, e: 1 / np.sqrt(v + e),
        lambda v, d: np.where(d > 0, d, np.nan) ** -2.0 - v,
    ),
    "it is not divided by the deviation": (lambda v, e: np.ones_like(v), lambda v, d: 0 * v),
}
GAMMAS: dict[str, Callable[[Array], Array]] = {
    "": lambda g: g,
    "gamma is fixed at 1": np.ones_like,
    "gamma counts from 0: 1 is added to it": lambda g: 1 + g,
    "gamma is the logarithm of the factor": np.exp,
    "gamma has the other sign": np.negative,
    "gamma is applied twice": np.square,
    "it is divided by gamma": np.reciprocal,
}
BETAS: dict[str, Callable[[Array, Array], Array]] = {
    "": lambda b, g: b,
    "beta is missing": lambda b, g: 0 * b,
    "beta is subtracted": lambda b, g: -b,
    "beta is added before gamma": lambda b, g: b * g,
    "beta is added twice": lambda b, g: 2 * b,
}
MEANS: dict[str, Callable[[Array], Array]] = {
    "": lambda m: m,
    "the mean is not subtracted": lambda m: 0 * m,
    "the mean is added": lambda m: -m,
}


def forms(right: Hypothesis, observed: Array, budget: float) -> Iterator[str]:
    """The forms that give what was observed, those with the fewest departures first; any eps, that all channels share,
    is fitted."""
    x, layer = right.x, right.layer
    if x.shape != observed.shape or not {"running_mean", "running_var"} <= right.values.keys():
        return
    axes, n = all_but_channels(x), x.size // x.shape[1]
    m, v = x.mean(axes), x.var(axes)
    batch = {"": (m, v), "the batch's variance is taken with n - 1": (m, v * n / max(n - 1, 1))}
    kept = right.values["running_mean"], right.values["running_var"]
    wrong = "the running statistics are used" if right.train else "the batch's statistics are used"
    statistics = {**batch, wrong: kept} if right.train else {"": kept, wrong: (m, v)}
    shape = (1, -1, *[1] * (x.ndim - 2))
    ones = np.ones_like(kept[0])
    gamma, beta = right.values.get("weight", ones), right.values.get("bias", 0 * ones)
    found = []
    for (which, (mean, var)), parts in product(statistics.items(), product(ROOTS, GAMMAS, BETAS, MEANS)):
        root, of_gamma, of_beta, of_mean = parts
        centred = x - MEANS[of_mean](mean).reshape(shape)
        factor, shift = GAMMAS[of_gamma](gamma), BETAS[of_beta](beta, GAMMAS[of_gamma](gamma))
        eps = _eps(ROOTS[root][1], centred, observed, factor, shift, var, layer.eps)
        if eps is None:
            continue
        with np.errstate(all="ignore"):
            scale = (factor / ROOTS[root][0](var, eps)).reshape(shape)
        if same(scale * centred + shift.reshape(shape), observed, budget):
            other = abs(eps / layer.eps - 1) > 1e-3 if layer.eps else eps > 0
            said = [*filter(None, (which, *parts)), *[f"eps is {eps:.3g}, not {layer.eps:g}"] * other]
            found.append((len(said), "; ".join(said)))
    yield from (text for count, text in sorted(found) if text and count == min(found)[0])


def _eps(
    of: Callable[[Array, Array], Array],
    centred: Array,
    observed: Array,
    factor: Array,
    shift: Array,
    var: Array,
    usual: float,
) -> float | None:
    """The eps with which the channels' own factors come out, if they share one."""
    axes, shape = all_but_channels(centred), (1, -1, *[1] * (centred.ndim - 2))
    with np.errstate(all="ignore"):
        slope = ((observed - shift.reshape(shape)) * centred).sum(axes) / (centred * centred).sum(axes)
        eps = of(var, factor / slope)
    if not np.isfinite(eps).all() or eps.min() < -1e-9 * max(1.0, float(var.max())):
        return None
    middle = max(float(np.median(eps)), 0.0)
    if np.ptp(eps) > max(1e-2 * middle, 1e-7 * float(var.max())):
        return None
    return usual if abs(middle - usual) < 1e-3 * usual else middle
