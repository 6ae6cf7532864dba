"""The comparison of two sets of named arrays. It has no way to pass what it could not compare."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.reference.layers import largest

Arrays = Mapping[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class Check:
    """One comparison: the largest absolute difference of tensor `name` against its budget, and the expected
    tensor's largest value (`scale`). `problem` says why it failed where no difference can be stated."""

    level: str
    name: str
    difference: float
    budget: float
    scale: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.difference <= self.budget

    @property
    def ratio(self) -> float:
        """Difference over budget; infinite for a problem, and for any difference where none is allowed."""
        if self.problem:
            return float("inf")
        if self.budget == 0:
            return 0.0 if self.difference == 0 else float("inf")
        return self.difference / self.budget


def compare(level: str, expected: Arrays, found: Arrays, budgets: Mapping[str, float]) -> list[Check]:
    """One check per name of either side, in the order of `expected`; names that only `found` has come last."""
    if not expected:
        return [Check(level, "(nothing)", float("inf"), 0.0, 0.0, "there is nothing to compare")]
    checks = [_compare_one(level, name, value, found, budgets) for name, value in expected.items()]
    return checks + [_failed(level, name, 0.0, "is not in the reference") for name in found if name not in expected]


def _failed(level: str, name: str, scale: float, problem: str) -> Check:
    return Check(level, name, float("inf"), 0.0, scale, problem)


def _compare_one(
    level: str, name: str, value: NDArray[np.floating[Any]], others: Arrays, budgets: Mapping[str, float]
) -> Check:
    if name not in others:
        return _failed(level, name, 0.0, "is missing")
    other = np.asarray(others[name])
    if value.shape != other.shape:
        return _failed(level, name, 0.0, f"has the shape {other.shape}, expected {value.shape}")
    if value.size == 0:
        return _failed(level, name, 0.0, "is empty")
    scale = largest(value)
    if not math.isfinite(scale):
        return _failed(level, name, scale, "the reference itself is not finite")
    if not math.isfinite(largest(other)):
        return _failed(level, name, scale, f"has {int((~np.isfinite(other)).sum())} values that are not finite")
    if name not in budgets:
        return _failed(level, name, scale, "has no budget")
    difference = np.subtract(other, value, dtype=np.float64)
    return Check(level, name, largest(difference), budgets[name], scale)
