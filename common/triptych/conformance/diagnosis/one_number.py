"""Steps with one number in them, done to a layer's input or weight: the number is searched for, and has to be exact."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from triptych.conformance.diagnosis.relations import line
from triptych.utils.arrays import Array, largest

FAMILIES: dict[str, Callable[[Array, float], Array]] = {
    "it is clipped to -{0} .. {0}": lambda v, c: np.clip(v, -c, c),
    "it is clipped to 0 .. {}": lambda v, c: np.clip(v, 0, c),
    "it is at least {}": np.maximum,
    "it is at most {}": np.minimum,
    "what is less than {} in magnitude is 0 in it": lambda v, c: np.where(np.abs(v) < c, 0.0, v),
    "it is shrunk by {} towards 0": lambda v, c: np.sign(v) * np.maximum(np.abs(v) - c, 0),
    "tanh of {} times it is taken": lambda v, c: np.tanh(c * v),
}
OUT = ", and what comes out is "
GRID = 40  # numbers at first, between a thousandth of the largest value and all of it
NEAR = 1e-3  # of what was to be explained: the search is worth going on


def searched(
    value: Array, right: Array, observed: Array, budget: float, made_by: Callable[[Array], Array], scaled: bool = False
) -> Iterator[str]:
    """The families of which a number gives what was observed, or something on a line with it, in words; `made_by`: what
    a layer makes of the value; `scaled`: a factor of the value is a family, too, where a layer is not linear."""
    start = largest(observed - right)
    families: dict[str, Callable[[Array, float], Array]] = FAMILIES
    if scaled:
        families = {**FAMILIES, "it is multiplied by {}": np.multiply}
    for text, of in families.items():
        made = partial(_made, value, of, made_by)
        with np.errstate(all="ignore"):
            found = _nearest(partial(_away, made, observed), largest(value), start)
            for number in _short(found) if found else ():
                behind = line(made(number), observed, budget)
                if behind is not None and line(made(number), right, budget) is None:
                    yield OUT.join(filter(None, (text.format(f"{number:.6g}"), behind)))
                    break


def _made(value: Array, of: Callable[[Array, float], Array], made_by: Callable[[Array], Array], number: float) -> Array:
    return made_by(np.asarray(of(value, number)))


def _away(make: Callable[[float], Array], observed: Array, logarithm: float) -> float:
    """The largest distance that is left with the best factor."""
    made = make(float(np.exp(logarithm)))
    square = float((made * made).sum())
    factor = float((made * observed).sum()) / square if square else 0.0
    return largest(factor * made - observed)


def _nearest(away: Callable[[float], float], most: float, start: float) -> float:
    """The number with which least is left; 0 where that is not little."""
    grid = np.log(most * np.geomspace(1e-3, 10.0, GRID))
    distances = [away(each) for each in grid]
    at = int(np.argmin(distances))
    if not distances[at] <= 0.5 * start:
        return 0.0
    bounds = grid[max(at - 1, 0)], grid[min(at + 1, GRID - 1)]
    found = minimize_scalar(away, bounds=bounds, method="bounded", options={"xatol": 1e-12, "maxiter": 80})
    return float(np.exp(found.x)) if found.fun <= NEAR * start else 0.0


def _short(found: float) -> Iterator[float]:
    """The numbers that people write near to one: few digits, or a fraction of small numbers."""
    yield from (float(f"{found:.{digits}g}") for digits in range(1, 8))
    yield from (round(found * n) / n for n in range(2, 17) if abs(round(found * n) / n - found) < 1e-5 * found)
