"""One form of a check, and the comparison of two sets of named arrays, which passes nothing it could not compare."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import Shape
from triptych.utils.arrays import largest, largest_difference

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
# What somebody's code may raise. A network that exits must not end the process, with a status of its own.
STRANGERS = (Exception, SystemExit)


@dataclass(frozen=True)
class Check:
    """One comparison: the largest absolute difference of a `tensor` against its budget, and the expected tensor's
    largest value (`scale`). Where no difference can be stated it is None, and `problem` says why it failed."""

    DERIVED: ClassVar = ("passed", "ratio")

    level: str
    tensor: str
    difference: float | None
    budget: float
    scale: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """A difference is stated, is no negative number, and lies within the budget."""
        return not self.problem and self.difference is not None and 0 <= self.difference <= self.budget

    @property
    def ratio(self) -> float:
        """Difference over budget; infinite for a problem, and for any difference where none is allowed."""
        if self.problem or self.difference is None or (self.budget == 0 and self.difference):
            return math.inf
        return self.difference / self.budget if self.budget else 0.0

    @property
    def text(self) -> str:
        """By how much it differs and what was allowed, or the problem."""
        if self.problem or self.difference is None:
            return self.problem or "states no difference"
        return f"differs by {self.difference:.3e}, allowed {self.budget:.3e}"


Compare: TypeAlias = Callable[[str, Arrays, Arrays, Mapping[str, float]], list[Check]]


def worst(checks: Iterable[Check]) -> Check | None:
    """The check that comes nearest to its budget, or exceeds it most; None if there is none."""
    return max(checks, key=lambda check: check.ratio, default=None)


def failures(checks: Iterable[Check]) -> list[Check]:
    """The checks that did not pass, in their order."""
    return [check for check in checks if not check.passed]


def problem(level: str, tensor: str, text: str, scale: float = 0.0) -> Check:
    """A failed check that states no difference."""
    return Check(level, tensor, None, 0.0, scale, text)


def message(error: BaseException) -> str:
    """The kind of an error and the first line of what it says; where that says only that more comes, the next one, or
    of a traceback (MXNet's, of its own frames) the last."""
    first, *more = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    if more and first.endswith(":"):
        first = more[-1] if first.startswith("Traceback") else f"{first} {more[0]}"
    return f"{type(error).__name__}: {first}"


def compare(level: str, expected: Arrays, observed: Arrays, budgets: Mapping[str, float]) -> list[Check]:
    """One check per name of either set, in the order of `expected`; names that only `observed` has come last."""
    if not expected:
        return [problem(level, "(nothing)", "there is nothing to compare")]
    checks = [_compare_one(level, name, value, observed, budgets) for name, value in expected.items()]
    return checks + [problem(level, name, "is not in the reference") for name in observed if name not in expected]


def _compare_one(level: str, name: str, value: NDArray[Any], observed: Arrays, budgets: Mapping[str, float]) -> Check:
    if name not in observed:
        return problem(level, name, "is missing")
    other = np.asarray(observed[name])
    if value.shape != other.shape:
        return problem(level, name, f"has the shape {other.shape}, expected {value.shape}")
    if value.size == 0:
        return problem(level, name, "is empty")
    scale = largest(value)
    if not math.isfinite(scale):
        return problem(level, name, "the reference itself is not finite")
    if not math.isfinite(largest(other)):
        return problem(level, name, f"has {int((~np.isfinite(other)).sum())} values that are not finite", scale)
    if name not in budgets:
        return problem(level, name, "has no budget", scale)
    return Check(level, name, largest_difference(other, value), budgets[name], scale)


def as_arrays(shapes: Mapping[str, Shape]) -> dict[str, NDArray[np.int64]]:
    """Shapes by name as the arrays that `compare_shapes` takes."""
    return {name: np.array(shape, np.int64) for name, shape in shapes.items()}


def compare_shapes(level: str, expected: Arrays, observed: Arrays, budgets: Mapping[str, float]) -> list[Check]:
    """One check per name of either set of shapes; a wrong shape, a missing and an unknown name are problems."""

    def wrong(name: str) -> str:
        if name not in observed or name not in expected:
            return "is missing" if name in expected else "is not in the spec"
        shapes = [tuple(values[name].tolist()) for values in (observed, expected)]
        return "" if shapes[0] == shapes[1] else "has the shape {}, expected {}".format(*shapes)

    texts = {name: wrong(name) for name in (*expected, *observed)}
    return [problem(level, n, text) if text else Check(level, n, 0.0, 0.0, 0.0) for n, text in texts.items()]
