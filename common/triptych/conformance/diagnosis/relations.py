"""What a difference is, told by fit: how observed values come of the right ones, in a small grammar.

A step (values moved, channels in another order, a function of each value), and behind it a line `a y + b`, fitted. The
simplest that gives what was observed, to rounding, is told; of several that are as simple all are.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.steps import steps
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator

PER_NUMBER = 4  # values for each number that is fitted: fewer would fit anything
ROUND = 1e-9  # of a fitted number: nearer to a short one, it is that
ANY_ORDER = "its channels are in another order: "
SHOWN = 4  # of a list of numbers


def number(value: float) -> str:
    """A fitted number, to what is known of it."""
    short = f"{value:.4g}"
    return short if abs(float(short) - value) <= ROUND * abs(value) else f"{value:.6g}"


def line(made: Array, observed: Array, budget: float, ones: Array | None = None) -> str | None:
    """By what factor and sum one becomes the other: "" where they are equal, None where no line fits. `ones`: what
    becomes of a 1 that is added, if not a 1 everywhere."""
    if same(made, observed, budget):
        return ""
    if made.shape != observed.shape or not np.isfinite(made).all() or made.size < 2 * PER_NUMBER:
        return None
    added = np.ones(made.shape) if ones is None else ones
    alone, shift = _factor(made, observed), _factor(added, observed - made)
    if same(alone * made, observed, budget):
        return f"multiplied by {number(alone)}"
    if same(made + shift * added, observed, budget):
        return f"{number(shift)} is added"
    design = np.stack([made.ravel(), added.ravel()], axis=1)
    (factor, shift), _, rank, sizes = np.linalg.lstsq(design, observed.ravel(), rcond=None)
    if rank < 2 or sizes[1] < 1e-8 * sizes[0]:
        return None  # a constant: a line would fit anything
    if abs(factor) * largest(made) > budget and same(factor * made + shift * added, observed, budget):
        return f"multiplied by {number(factor)}, and {number(shift)} is added"
    return None


def _factor(made: Array, observed: Array) -> float:
    square = float((made * made).sum())
    return float((made * observed).sum()) / square if square else 0.0


def relations(right: Array, observed: Array, budget: float, with_factor: bool = False) -> Iterator[tuple[int, str]]:
    """How the observed values come of the right ones, in words, and how simple that is: 0 is simplest. A constant
    factor alone is left out (see `causes.looks_like`), but for -1, if not asked for."""
    if right.shape != observed.shape or not np.isfinite(observed).all() or not largest(observed):
        return
    if same(-right, observed, budget):
        yield 0, "its sign is the other one: a factor of -1"
        return
    plain = line(right, observed, budget)
    if plain and (with_factor or "added" in plain):
        yield 0, f"it is {plain}" if plain.startswith("multiplied") else plain
    if order := channel_order(right, observed, budget):
        yield (3 if ANY_ORDER in order else 1), order
    yield from fitted(right, right, observed, budget, lambda step: step(right), "")
    if power := _power(right, observed, budget):
        yield 2, power


def fitted(
    like: Array,
    right: Array,
    observed: Array,
    budget: float,
    made_by: Callable[[Callable[[Array], Array]], Array],
    what: str,
    ones: Array | None = None,
) -> Iterator[tuple[int, str]]:
    """The steps, on an array `like` this, with which something is made that is what was observed, or on a line with it;
    `made_by`: what a step makes; `what`: of which it is told, if not of the output; `ones`: see `line`."""
    for text, step in steps(like.ndim):
        try:
            with np.errstate(all="ignore"):
                made = made_by(step)
        except (ValueError, IndexError, TriptychError):
            continue
        if made.shape != observed.shape or line(made, right, budget, ones) is not None:
            continue  # it does nothing here, or what a line does as well: SELU where nothing is below 0
        behind = line(made, observed, budget, ones)
        if behind is not None:
            yield 1 + bool(behind), ", ".join(filter(None, (f"{what}{text}", behind)))


def simplest(found: Iterator[tuple[int, str]]) -> list[str]:
    """All that are as simple as the simplest."""
    known = list(found)
    return [text for cost, text in known if cost == min(known)[0]]


def channel_order(right: Array, observed: Array, budget: float) -> str:
    """Which channel stands in the place of which."""
    if right.ndim < 2 or right.shape != observed.shape or right.shape[1] < 2:
        return ""
    one, other = (np.moveaxis(x, 1, 0).reshape(x.shape[1], -1) for x in (right, observed))
    ways = generator(0, "diagnosis", str(one.shape[1])).standard_normal((one.shape[1], 4))
    far = np.abs((one @ ways)[:, None] - (other @ ways)[None]).max(2)
    order = far.argmin(0)
    if not same(right[:, order], observed, budget):
        return ""
    if len({one[i].tobytes() for i in range(len(one))}) < len(one):
        return ""  # channels that are alike, as those of zeros, have no order
    return _order_text([int(i) for i in order])


def _order_text(order: list[int]) -> str:
    count = len(order)
    moved = [i for i in range(count) if order[i] != i]
    if not moved:
        return ""
    if len(set(order)) < count:
        said = ", ".join(f"{order[i]} for {i}" for i in moved[:SHOWN])
        return f"channels stand in the place of others: {said}"
    if order == list(range(count))[::-1]:
        return ""  # said among the moves
    if len(moved) == 2:
        return f"channels {moved[0]} and {moved[1]} are exchanged"
    if all((b - a) % count == 1 for a, b in pairwise(order)):
        by = -order[0] % count
        return "" if by in (1, 2, count - 1, count - 2) else f"its channels are rolled by {by}"  # said among the moves
    for groups in (g for g in range(2, count) if count % g == 0):
        blocks = np.arange(count).reshape(groups, -1)
        if order == blocks.T.ravel().tolist():
            return f"its channels are shuffled, in {groups} groups"
        if order == blocks[::-1].ravel().tolist():
            return f"its {groups} groups of channels are in reverse order"
        if order == blocks[:, ::-1].ravel().tolist():
            return f"its channels are in reverse order in each of {groups} groups"
    said = ", ".join(map(str, order[: 2 * SHOWN]))
    return f"{ANY_ORDER}{said}{', ...' * (count > 2 * SHOWN)}"


def _power(right: Array, observed: Array, budget: float) -> str:
    """A power of the magnitudes, with their sign, times a factor."""
    known = np.abs(right) > 1e-6 * largest(right)
    if known.sum() < 2 * PER_NUMBER or not (observed[known] != 0).all():
        return ""
    one, other = np.log(np.abs(right[known])), np.log(np.abs(observed[known]))
    if not np.ptp(one) > 1e-3:
        return ""
    power, shift = np.polyfit(one, other, 1)
    if abs(power - 1) < 1e-3:
        return ""
    value = np.exp(shift) * np.abs(right) ** power
    for sign in (np.sign(right), 1.0):
        if same(sign * value, observed, budget):
            factor = "" if abs(np.exp(shift) - 1) < ROUND else f", multiplied by {number(float(np.exp(shift)))}"
            return f"it is raised to the power {number(float(power))}{factor}"
    return ""


def by_channel(right: Array, observed: Array, budget: float) -> str:
    """A line for every channel, or a factor for every image: a description, and no cause."""
    if right.shape != observed.shape or right.ndim < 2:
        return ""
    axes = (0, *range(2, right.ndim))
    if right.size // right.shape[1] < 2 * PER_NUMBER:
        return ""
    centre, other = right.mean(axes, keepdims=True), observed.mean(axes, keepdims=True)
    energy = ((right - centre) ** 2).sum(axes, keepdims=True)
    factors = ((right - centre) * observed).sum(axes, keepdims=True) / np.maximum(energy, 1e-300)
    shifts = other - factors * centre
    if not same(factors * right + shifts, observed, budget):
        return ""
    said = ", ".join(f"{a:.4g} y + {b:.4g}" for a, b in zip(factors.ravel(), shifts.ravel(), strict=True))
    return f"it is changed channel by channel, each by its own line: {said}"[:200]
