"""Comparators as other projects have them: each lets something through that is not equal."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from triptych.conformance.compare import Check, compare

Arrays = Mapping[str, np.ndarray]
Compare = Callable[[str, Arrays, Arrays, Mapping[str, float]], list[Check]]

BUDGET = 1e-6  # of a comparator that has one for everything


def filtered(change: Callable[[np.ndarray], np.ndarray]) -> Compare:
    """A comparator that changes both sets of arrays before it looks."""

    def mutant(level: str, expected: Arrays, observed: Arrays, budgets: Mapping[str, float]) -> list[Check]:
        changed = ({name: change(value) for name, value in arrays.items()} for arrays in (expected, observed))
        return compare(level, *changed, budgets)

    return mutant


def simple(difference: Callable[[np.ndarray, np.ndarray], float]) -> Compare:
    """A loop over the names of both sets, as one writes it in a minute."""

    def mutant(level: str, expected: Arrays, observed: Arrays, budgets: Mapping[str, float]) -> list[Check]:
        names = [name for name in expected if name in observed]
        return [
            Check(level, name, difference(expected[name], observed[name]), budgets.get(name, BUDGET), 1.0)
            for name in names
        ]

    return mutant


def truncating(expected: np.ndarray, observed: np.ndarray) -> float:
    count = min(expected.size, observed.size)
    return float(np.abs(expected.ravel()[:count] - observed.ravel()[:count]).max(initial=0.0))


def broadcasting(expected: np.ndarray, observed: np.ndarray) -> float:
    try:
        return float(np.abs(expected - observed).max(initial=0.0))
    except ValueError:
        return np.inf


def blind_to_nan(expected: np.ndarray, observed: np.ndarray) -> float:
    allowed = BUDGET * np.abs(expected).max(initial=1.0)
    return 0.0 if not broadcasting(expected, observed) > allowed else np.inf  # a comparison with NaN is false


def skipping_nan(expected: np.ndarray, observed: np.ndarray) -> float:
    return float(np.nanmax(np.abs(expected - observed), initial=0.0)) if expected.shape == observed.shape else np.inf


def empty_is_equal(level: str, expected: Arrays, observed: Arrays, budgets: Mapping[str, float]) -> list[Check]:
    return compare(level, expected, observed, budgets) if expected else [Check(level, "(nothing)", 0.0, 0.0, 0.0)]


def mean_of_both(expected: np.ndarray, observed: np.ndarray) -> float:
    return abs(float(np.mean(expected, dtype=np.float64) - np.mean(observed, dtype=np.float64)))


def mean_difference(expected: np.ndarray, observed: np.ndarray) -> float:
    return float(np.mean(np.abs(expected - observed))) if expected.shape == observed.shape else np.inf


# What it lets through: cases of `test_compare.py`, and a mutant of the catalogue that no other check would kill.
LEAKY: dict[str, tuple[Compare, set[str], str]] = {
    "NaN to zero": (filtered(np.nan_to_num), {"NaN on both sides"}, ""),
    "NaN is not larger": (simple(blind_to_nan), {"NaN found", "NaN expected", "NaN on both sides"}, "NaN in an output"),
    "NaN skipped": (simple(skipping_nan), {"NaN found", "NaN expected", "NaN on both sides"}, "NaN in a gradient"),
    "sorted": (
        filtered(lambda value: np.sort(value, axis=None)),
        {"permuted", "sorted", "wrong shape"},
        "images in another order",
    ),
    "magnitudes": (filtered(np.abs), {"the sign"}, ""),
    "mean for maximum": (simple(mean_of_both), {"permuted", "a constant"}, "images in another order"),
    "mean difference": (simple(mean_difference), {"one entry"}, "one value off"),
    "shapes cut to fit": (simple(truncating), {"truncated"}, "gradient cut short"),
    "broadcast": (simple(broadcasting), {"broadcastable", "empty array"}, ""),
    "common names only": (simple(broadcasting), {"missing name", "extra name", "renamed"}, "gradient missing"),
    "nothing is a pass": (simple(broadcasting), {"nothing to compare", "nothing expected"}, ""),
    "empty is equal": (empty_is_equal, {"nothing to compare", "nothing expected"}, "nothing to compare"),
    "a default budget": (simple(broadcasting), {"no budget"}, ""),
}
