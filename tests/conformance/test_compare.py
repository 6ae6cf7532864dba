"""The comparator passes what is equal and nothing else; weaker ones, as other projects have them, are found out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest

from marks import needs_backend
from mutants import CATALOGUE, run
from mutants.comparators import BUDGET, LEAKY, Arrays, Compare
from mutants.networks import PLAIN, reference_run
from triptych.backend import registry
from triptych.conformance import levels
from triptych.conformance.compare import compare
from triptych.conformance.conform import conform
from triptych.spec.records import encode

VALUE = np.random.default_rng(0).standard_normal((4, 3))
OTHER = np.random.default_rng(1).standard_normal(5)
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


# what is wrong: expected, observed, budgets, and what the failed check says (nothing: the difference is too large)
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
    passed = set()
    for name, (expected, other, budgets, _) in REJECTED.items():
        with np.errstate(all="ignore"):
            if all(check.passed for check in comparator("level", expected, other, budgets)):
                passed.add(name)
    return passed


@pytest.mark.parametrize("case", REJECTED)
def test_rejects(case: str) -> None:
    expected, observed, budgets, problem = REJECTED[case]
    checks = compare("level", expected, observed, budgets)
    failed = [check for check in checks if not check.passed]
    assert failed
    assert failed[0].problem.startswith(problem) if problem else not failed[0].problem
    assert all(check.ratio > 1 for check in failed)
    if problem:
        assert failed[0].ratio == np.inf
        assert encode(failed[0])["ratio"] is None


def test_one_check_per_name_of_either_side() -> None:
    checks = compare("level", EXPECTED, {"b": OTHER, "c": OTHER}, BUDGETS)
    assert [(check.tensor, check.passed) for check in checks] == [("a", False), ("b", True), ("c", False)]
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


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:All-NaN")  # of a mutant
@pytest.mark.parametrize("mutant", LEAKY)
def test_weaker_comparators_are_found_out(mutant: str) -> None:
    comparator, lets_through, _ = LEAKY[mutant]
    assert lets_through <= survivors(comparator)


def test_the_comparator_lets_nothing_through() -> None:
    assert survivors(compare) == set()


def passes(fault: str, comparator: Compare) -> bool:
    """Whether conformance passes a backend with a fault, if it compares by `comparator`."""
    framework = registry.load(registry.installed()[0])
    with patch.object(levels, "compare", comparator):
        if fault in CATALOGUE:
            return run(CATALOGUE[fault], framework, "fp64").passed
        nothing = replace(levels.GRADIENT, expected=lambda run: {})  # a reference that says nothing of a level
        rows = [nothing if row is levels.GRADIENT else row for row in levels.LEVELS]
        return conform(framework, reference_run(PLAIN), "fp64", levels=rows).passed


@needs_backend
@pytest.mark.parametrize("mutant", [name for name, (*_, fault) in LEAKY.items() if fault])
def test_a_planted_fault_would_go_unnoticed(mutant: str) -> None:
    """With the weaker comparator in place, the test of that fault fails: the suite notices the change."""
    comparator, _, fault = LEAKY[mutant]
    assert passes(fault, comparator)
    assert not passes(fault, compare)
