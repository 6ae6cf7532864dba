"""Two sides on one case: what differs between them, by the judge's budgets, and what is reported of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from triptych.conformance.compare import Check, compare
from triptych.conformance.reference_run import Arrays, Truth
from triptych.conformance.subjects import ReferenceSide, Side
from triptych.conformance.tolerance import FLOAT64_SHARE, allowance
from triptych.reference.layers import largest
from triptych.reference.rounding import FLOAT32_UNIT

BATCH = 2  # images: enough for a fault to show, half the time of four
MODES = ("resynchronised", "accumulated")
PHASES = ("structure", "data", "forward eval", "forward train", "backward", "update")
WITHOUT_PERTURBATION = {"fp64": FLOAT64_SHARE, "fp32": FLOAT32_UNIT}


@dataclass(frozen=True)
class Difference:
    """Where the sides part: `layer` by its path in the spec, `phase`, and the tensor that shows it. A fault in the
    images is the first layer's, one in the loss the last layer's.

    `at_fault`: the sides that depart from the reference. `cause`: the mistake that reproduces what was observed, or
    empty. `note`: what else a reader should know.
    """

    layer: str
    phase: str
    check: Check
    at_fault: tuple[str, ...]
    cause: str = ""
    note: str = ""


@dataclass(frozen=True)
class Result:
    """What was compared, and the first difference, or None where the sides agree. `not_run`: what was left out, and
    why; `notes`: what was found out about the sides."""

    left: str
    right: str
    architecture: str
    mode: str
    precision: str
    phases: tuple[str, ...]
    difference: Difference | None
    not_run: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two sides on one truth."""

    left: Side
    right: Side
    truth: Truth

    @property
    def factor(self) -> float:
        """How many budgets two sides may part by: one each, but the reference needs none."""
        return 1.0 if isinstance(self.right, ReferenceSide) else 2.0

    def failures(
        self, level: str, order: Iterable[str], left: Arrays, right: Arrays, perturbed: Callable[[], list[Arrays]]
    ) -> list[Check]:
        """What differs between the sides, in the order of the computation."""
        expected = {name: right[name] for name in dict.fromkeys((*order, *right)) if name in right}
        share = WITHOUT_PERTURBATION[self.truth.precision]
        failed = only_failed(compare(level, expected, left, {n: share * largest(v) for n, v in expected.items()}))
        if not failed or all(check.problem for check in failed):
            return failed
        others = perturbed()
        budgets = {
            name: self.factor * allowance(value, [run[name] for run in others])[self.truth.precision]
            for name, value in expected.items()
            if name in others[0]
        }
        return only_failed(compare(level, expected, left, budgets))

    def at_fault(self, check: Check, truth: Arrays, arrays: Mapping[str, Arrays]) -> tuple[str, ...]:
        """Which sides depart from the reference in the tensor of a failed check."""
        name, budget = check.name, check.budget / self.factor
        right = {name: truth[name]} if name in truth else {}
        found = {side: {k: v for k, v in own.items() if k == name} for side, own in arrays.items()}
        wrong = {side: only_failed(compare("", right, own, {name: budget})) for side, own in found.items()}
        return tuple(side for side, checks in wrong.items() if any(c.problem or not check.problem for c in checks))

    def run(self, work: Callable[[Side], Any], layer: str, phase: str) -> dict[str, Any]:
        """What both sides make of a piece of work. Raises SideFailedError with what a framework raises."""
        found = {}
        for side in (self.left, self.right):
            try:
                found[side.name] = work(side)
            except Exception as error:
                first = str(error).splitlines()[0] if str(error) else ""
                check = Check(
                    phase, layer or "(whole pass)", float("inf"), 0.0, 0.0, f"failed: {type(error).__name__}: {first}"
                )
                raise SideFailedError(Difference(layer, phase, check, (side.name,))) from error
        return found


class SideFailedError(Exception):
    """A framework raised an error; `args[0]` is the difference to report."""


def only_failed(checks: list[Check]) -> list[Check]:
    """Those that did not pass."""
    return [check for check in checks if not check.passed]
