"""Conformance: do a backend and the reference, and so any two backends, compute the same network?

`conform` runs every level of one case on one backend, in float64 or in float32, against the NumPy reference.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from numpy.typing import NDArray

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.backend.precision import Flag, Value, values
from triptych.conformance.compare import STRANGERS, Check, compare, failures, message, problem, worst
from triptych.conformance.levels import ALL_LEVELS, LEVELS, Level
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import BackendSubject, Build
from triptych.conformance.tolerance import Budgets

FLAGS = "precision flags"  # no level: what fails here keeps every level from being run
PRECISIONS = ("fp64", "fp32")
Observed = dict[str, dict[str, NDArray[Any]]]  # by level, then by name


@dataclass(frozen=True)
class Report:
    """The checks of one backend on one case in one precision; or those of a pair of backends, of which only the one
    nearest to its budget is kept per level. `precision_flags` are as they were during the checks, `switched_off` those
    that had another value before."""

    DERIVED: ClassVar = ("passed", "not_run")

    backends: tuple[str, ...]
    precision: str
    checks: tuple[Check, ...]
    precision_flags: dict[str, Value] = field(default_factory=dict)
    switched_off: dict[str, Value] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`torch`, or `torch - jax`."""
        return " - ".join(self.backends)

    @property
    def title(self) -> str:
        """`torch fp32`, `torch - jax fp64`."""
        return f"{self.name} {self.precision}"

    @property
    def passed(self) -> bool:
        """Every level was compared, and every check passed."""
        return not self.not_run and not self.failures

    @property
    def not_run(self) -> dict[str, str]:
        """By level, why nothing was compared. Two backends are not compared in structure."""
        compared = {check.level for check in self.checks}
        reason = "a precision flag is on" if FLAGS in compared else "an earlier level stopped the run"
        return {level: reason for level in ALL_LEVELS[len(self.backends) - 1 :] if level not in compared}

    @property
    def failures(self) -> list[Check]:
        """The checks that did not pass."""
        return failures(self.checks)

    def at(self, level: str) -> list[Check]:
        """The checks of one level."""
        return [check for check in self.checks if check.level == level]

    def worst(self, level: str) -> Check | None:
        """The check of `level` nearest to its budget, or furthest beyond it; None if the level was not run."""
        return worst(self.at(level))


def conform(
    backend: Backend,
    run: ReferenceRun,
    precision: str,
    *,
    device: str = "cpu",
    build: Build | None = None,
    levels: Sequence[Level] = LEVELS,
    observed: Observed | None = None,
) -> Report:
    """All levels of one backend in one precision ("fp64" or "fp32"), in exact arithmetic
    (`triptych.backend.precision`). `build` may plant another network (tests); `observed` is filled with the arrays that
    `pairwise` compares. Raises ValueError for a case on which a fault could not be seen."""
    before = values(backend.precision_flags(device))
    with backend.precise(device):
        flags = backend.precision_flags(device)
        checks = flag_failures(flags)
        if not checks:
            make = build or partial(backend.build, device=device, execution=exact(precision))
            subject = BackendSubject(backend, make, run, precision, device)
            checks = run_levels(subject, levels, {} if observed is None else observed)
    during = values(flags)
    switched_off = {name: old for name, old in before.items() if during.get(name) != old}
    return Report((backend.name,), precision, tuple(checks), during, switched_off)


def run_levels(subject: BackendSubject, levels: Sequence[Level], observed: Observed) -> list[Check]:
    """The checks of all rows; `observed` is filled with those of the subject's arrays that rounding may change."""
    checks: list[Check] = []
    subject.run.budgets  # noqa: B018 (a case on which no fault could be seen is refused before anything is run)
    for level in (level for level in levels if level.wanted(subject.run, subject.precision)):
        try:
            arrays = level.observed(subject)
        except STRANGERS as error:  # whatever a framework raises for a network that does not fit
            checks.append(problem(level.name, "(run)", f"the backend failed: {message(error)}"))
            break
        expected = subject.expected(level, subject.run)
        made = level.checks(expected, arrays, level.allowed(subject.run, subject.precision, expected))
        if level.needed:
            made = failures(made)  # of the names and shapes that are right, the values tell as well
        checks += made
        if level.needed and made:
            break
        if level.rounded:
            observed.setdefault(level.name, {}).update(arrays)
    return checks


def flag_failures(flags: Iterable[Flag]) -> list[Check]:
    """A failed check for each switch that makes arithmetic less exact."""
    return [problem(FLAGS, flag.name, flag.problem) for flag in flags if not flag.exact]


def pairwise(backends: tuple[str, str], precision: str, left: Observed, right: Observed, run: ReferenceRun) -> Report:
    """By level, the largest difference between two backends relative to what both budgets together allow."""
    checks = []
    for level in (level for level in ALL_LEVELS if level in left and level in right):
        double: Budgets = {}
        for row in (row for row in LEVELS if row.name == level and row.wanted(run, precision)):
            budgets = row.allowed(run, precision, row.expected(run) if row.budgets else {})
            double |= {name: 2 * budget for name, budget in budgets.items()}
        checks.append(worst(compare(level, left[level], right[level], double)))
    return Report(backends, precision, tuple(filter(None, checks)))
