"""The comparator passes what is equal and nothing else; weaker ones, as other projects have them, are found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from triptych.conformance.comparator import Check, compare
from triptych.conformance.suite import check_dict

Arrays = Mapping[str, np.ndarray]
Compare = Callable[[str, Arrays, Arrays, Mapping[str, float]], list[Check]]

VALUE = np.random.default_rng(0).standard_normal((4, 3))
OTHER = np.random.default_rng(1).standard_normal(5)
BUDGET = 1e-6
EXPECTED = {"a": VALUE, "b": OTHER}
BUDGETS = {"a": BUDGET, "b": BUDGET}


def planted(value: np.ndarray, number: float) -> np.ndarray:
    """A copy with one entry replaced."""
    copy = value.copy()
    copy.flat[1] = number
    return copy


def one_off(share: float) -> np.ndarray:
    """A copy of which one entry is off by `share` of the budget."""
    return planted(VALUE, VALUE.flat[1] + share * BUDGET)


# what is wrong: expected, found, budgets, and what the failed check says (nothing: the difference is too large)
REJECTED: dict[str, tuple[Arrays, Arrays, Mapping[str, float], str]] = {
    "NaN found": (EXPECTED, {"a": planted(VALUE, np.nan), "b": OTHER}, BUDGETS, "has 1 values that are not finite"),
    "NaN expected": (
        {"a": planted(VALUE, np.nan), "b": OTHER},
        EXPECTED,
        BUDGETS,
        "the reference itself is not finite",
    ),
    "NaN on both sides": (
        {"a": planted(VALUE, np.nan), "b": OTHER},
        {"a": planted(VALUE, np.nan), "b": OTHER},
        BUDGETS,
        "the reference itself is not finite",
    ),
    "infinity found": (EXPECTED, {"a": planted(VALUE, -np.inf), "b": OTHER}, BUDGETS, "has 1 values that are not"),
    "infinity on both sides": (
        {"a": planted(VALUE, np.inf), "b": OTHER},
        {"a": planted(VALUE, np.inf), "b": OTHER},
        BUDGETS,
        "the reference itself is not finite",
    ),
    "wrong shape": (EXPECTED, {"a": VALUE.T, "b": OTHER}, BUDGETS, "has the shape (3, 4), expected (4, 3)"),
    "broadcastable": ({"a": np.ones((4, 3))}, {"a": np.ones((1, 3))}, BUDGETS, "has the shape (1, 3), expected (4, 3)"),
    "truncated": (EXPECTED, {"a": VALUE[:3], "b": OTHER}, BUDGETS, "has the shape (3, 3)"),
    "missing name": (EXPECTED, {"b": OTHER}, BUDGETS, "is missing"),
    "extra name": ({"b": OTHER}, EXPECTED, BUDGETS, "is not in the reference"),
    "renamed": (EXPECTED, {"A": VALUE, "b": OTHER}, BUDGETS, "is missing"),
    "nothing to compare": ({}, {}, {}, "there is nothing to compare"),
    "nothing expected": ({}, EXPECTED, BUDGETS, "there is nothing to compare"),
    "empty array": ({"a": np.zeros((0, 3))}, {"a": np.zeros((0, 3))}, BUDGETS, "is empty"),
    "no budget": (EXPECTED, EXPECTED, {"a": BUDGET}, "has no budget"),
    "permuted": (EXPECTED, {"a": VALUE[[1, 0, 2, 3]], "b": OTHER}, BUDGETS, ""),
    "sorted": (EXPECTED, {"a": np.sort(VALUE), "b": OTHER}, BUDGETS, ""),
    "one entry": (EXPECTED, {"a": one_off(1.5), "b": OTHER}, BUDGETS, ""),
    "the sign": (EXPECTED, {"a": -VALUE, "b": OTHER}, BUDGETS, ""),
    "a constant": (EXPECTED, {"a": np.full_like(VALUE, VALUE.mean()), "b": OTHER}, BUDGETS, ""),
    "rounding beyond a budget of 0": (EXPECTED, {"a": one_off(1e-3), "b": OTHER}, {"a": 0.0, "b": 0.0}, ""),
}


def survivors(comparator: Compare) -> set[str]:
    """The cases that `comparator` should have rejected and did not."""
    found = set()
    for name, (expected, other, budgets, _) in REJECTED.items():
        with np.errstate(all="ignore"):
            if all(check.passed for check in comparator("level", expected, other, budgets)):
                found.add(name)
    return found


@pytest.mark.parametrize("case", REJECTED)
def test_rejects(case: str) -> None:
    expected, found, budgets, problem = REJECTED[case]
    checks = compare("level", expected, found, budgets)
    failed = [check for check in checks if not check.passed]
    assert failed
    assert failed[0].problem.startswith(problem) if problem else not failed[0].problem
    assert all(check.ratio > 1 for check in failed)
    if problem:
        assert failed[0].ratio == np.inf
        assert check_dict(failed[0])["ratio"] is None


def test_one_check_per_name_of_either_side() -> None:
    checks = compare("level", EXPECTED, {"b": OTHER, "c": OTHER}, BUDGETS)
    assert [(check.name, check.passed) for check in checks] == [("a", False), ("b", True), ("c", False)]
    assert {check.level for check in checks} == {"level"}


def test_passes_what_is_equal() -> None:
    for budgets in (BUDGETS, {"a": 0.0, "b": 0.0}):
        checks = compare("level", EXPECTED, {name: value.copy() for name, value in EXPECTED.items()}, budgets)
        assert [(c.passed, c.difference, c.ratio) for c in checks] == [(True, 0.0, 0.0)] * 2
    assert checks[0].scale == np.abs(VALUE).max()


@pytest.mark.parametrize(("share", "passed"), [(0.5, True), (1.0, True), (1.0 + 2**-52, False)])
def test_exactly_the_budget_passes(share: float, passed: bool) -> None:
    (check,) = compare("level", {"a": np.zeros(3)}, {"a": np.array([0.0, share, 0.0])}, {"a": 1.0})
    assert (check.passed, check.difference, check.ratio) == (passed, share, share)


def test_float32_is_compared_in_float64() -> None:
    expected = np.array([1.0 + 2.0**-30])
    (check,) = compare("level", {"a": expected}, {"a": expected.astype(np.float32)}, {"a": 1e-12})
    assert (check.passed, check.difference) == (False, 2.0**-30)


def filtered(change: Callable[[np.ndarray], np.ndarray]) -> Compare:
    """A comparator that changes both sides before it looks."""

    def mutant(level: str, expected: Arrays, found: Arrays, budgets: Mapping[str, float]) -> list[Check]:
        sides = ({name: change(value) for name, value in side.items()} for side in (expected, found))
        return compare(level, *sides, budgets)

    return mutant


def simple(difference: Callable[[np.ndarray, np.ndarray], float]) -> Compare:
    """A loop over the names of both sides, as one writes it in a minute."""

    def mutant(level: str, expected: Arrays, found: Arrays, budgets: Mapping[str, float]) -> list[Check]:
        names = [name for name in expected if name in found]
        return [
            Check(level, name, difference(expected[name], found[name]), budgets.get(name, BUDGET), 1.0)
            for name in names
        ]

    return mutant


def truncating(expected: np.ndarray, found: np.ndarray) -> float:
    count = min(expected.size, found.size)
    return float(np.abs(expected.ravel()[:count] - found.ravel()[:count]).max(initial=0.0))


def broadcasting(expected: np.ndarray, found: np.ndarray) -> float:
    try:
        return float(np.abs(expected - found).max(initial=0.0))
    except ValueError:
        return np.inf


def blind_to_nan(expected: np.ndarray, found: np.ndarray) -> float:
    return 0.0 if not broadcasting(expected, found) > BUDGET else np.inf  # a comparison with NaN is false


# a weaker comparator, and cases that it lets through
MUTANTS: dict[str, tuple[Compare, set[str]]] = {
    "NaN to zero": (filtered(np.nan_to_num), {"NaN on both sides"}),
    "sorted": (filtered(lambda value: np.sort(value, axis=None)), {"permuted", "sorted", "wrong shape"}),
    "magnitudes": (filtered(np.abs), {"the sign"}),
    "mean for maximum": (
        simple(lambda left, right: abs(float(np.mean(left) - np.mean(right)))),
        {"permuted", "a constant"},
    ),
    "mean difference": (
        simple(lambda left, right: float(np.mean(np.abs(left - right))) if left.shape == right.shape else np.inf),
        {"one entry"},
    ),
    "shapes cut to fit": (simple(truncating), {"truncated"}),
    "broadcast": (simple(broadcasting), {"broadcastable", "empty array"}),
    "common names only": (simple(broadcasting), {"missing name", "extra name", "renamed"}),
    "nothing is a pass": (simple(broadcasting), {"nothing to compare", "nothing expected"}),
    "NaN is not larger": (simple(blind_to_nan), {"NaN found", "NaN expected", "NaN on both sides"}),
    "a default budget": (simple(broadcasting), {"no budget"}),
}


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of a mutant
@pytest.mark.parametrize("mutant", MUTANTS)
def test_weaker_comparators_are_found_out(mutant: str) -> None:
    comparator, lets_through = MUTANTS[mutant]
    assert lets_through <= survivors(comparator)


def test_the_comparator_lets_nothing_through() -> None:
    assert survivors(compare) == set()
