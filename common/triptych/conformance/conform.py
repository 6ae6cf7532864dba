"""Conformance: do a backend and the reference, and so any two backends, compute the same network?

`conform` runs every level of one case on one backend, in float64 or in float32, against the NumPy reference.
"""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import ClassVar

from triptych.backend.contract import Backend
from triptych.backend.execution import Execution, exact
from triptych.backend.precision import Flag, Value, values
from triptych.conformance.compare import STRANGERS, Arrays, Check, compare, failures, message, problem, worst
from triptych.conformance.levels import LEVELS, Level, names
from triptych.conformance.low_precision import EXECUTIONS
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import BackendSubject, Build

FLAGS = "precision flags"  # no level: what fails here keeps every level from being run
PRECISIONS = ("fp64", "fp32")  # in which every level is judged; in those of `LOW` a step of the trainer


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
        return {level: reason for level in names(self.precision)[len(self.backends) - 1 :] if level not in compared}

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
) -> Report:
    """All levels of one backend in one precision ("fp64" or "fp32"), in exact arithmetic
    (`triptych.backend.precision`). `build` may plant another network (tests). Raises ValueError for a case on which a
    fault could not be seen."""
    [report], _ = conform_together([backend], run, precision, device=device, build=build, levels=levels)
    return report


def conform_together(
    backends: Sequence[Backend],
    run: ReferenceRun,
    precision: str,
    *,
    device: str = "cpu",
    build: Build | None = None,
    levels: Sequence[Level] = LEVELS,
) -> tuple[list[Report], list[Report]]:
    """What `conform` says of each of several backends, and the reports of their pairs. Row by row: what was observed is
    gone with the row, where all levels of three backends together are gigabytes."""
    run.budgets  # noqa: B018 (a case on which no fault could be seen is refused before anything is run)
    pairs: dict[tuple[str, str], list[Check]] = {pair: [] for pair in combinations([b.name for b in backends], 2)}
    with ExitStack() as guards:
        judged = [_Judged(backend, run, precision, device, build, guards) for backend in backends]
        for level in (level for level in levels if level.applies(run, precision)):
            for pair, check in _judge_row(judged, level, run, precision):
                pairs[pair].append(check)
    reports = [one.report() for one in judged]
    return reports, [Report(pair, precision, worst_of_levels(checks, precision)) for pair, checks in pairs.items()]


def _judge_row(
    judged: Sequence["_Judged"], level: Level, run: ReferenceRun, precision: str
) -> list[tuple[tuple[str, str], Check]]:
    seen = {one.backend.name: arrays for one in judged if (arrays := one.observed(level)) is not None}
    found = {pair: pair_check(level, run, precision, seen[pair[0]], seen[pair[1]]) for pair in combinations(seen, 2)}
    return [(pair, check) for pair, check in found.items() if check is not None]


class _Judged:
    """One backend while it is judged. Its guard against inexact arithmetic stays until `guards` ends."""

    def __init__(
        self,
        backend: Backend,
        run: ReferenceRun,
        precision: str,
        device: str,
        build: Build | None,
        guards: ExitStack,
    ) -> None:
        self.backend, self.precision = backend, precision
        self.before = values(backend.precision_flags(device))
        guards.enter_context(backend.precise(device))
        flags = backend.precision_flags(device)
        self.during, self.checks = values(flags), flag_failures(flags)
        self.ended = bool(self.checks)  # nothing is built then
        make = build or partial(backend.build, device=device, execution=execution_of(precision))
        self.subject = None if self.ended else BackendSubject(backend, make, run, precision, device)

    def observed(self, level: Level) -> Arrays | None:
        """Judge one row, if no earlier one stopped the run. Returns its arrays, if rounding may have changed them."""
        subject = self.subject
        if subject is None or self.ended:
            return None
        try:
            arrays = level.observed(subject)
        except STRANGERS as error:  # whatever a framework raises for a network that does not fit
            self.checks.append(problem(level.name, "(run)", f"the backend failed: {message(error)}"))
            self.ended = True
            return None
        expected = subject.expected(level, subject.run)
        made = level.checks(expected, arrays, level.allowed(subject.run, self.precision, expected))
        if level.needed:
            made = failures(made)  # of the names and shapes that are right, the values tell as well
        self.checks += made
        self.ended = level.needed and bool(made)
        return arrays if level.rounded and not self.ended else None

    def report(self) -> Report:
        """What was found."""
        switched_off = {name: old for name, old in self.before.items() if self.during.get(name) != old}
        return Report((self.backend.name,), self.precision, tuple(self.checks), self.during, switched_off)


def execution_of(precision: str) -> Execution:
    """In which a precision is judged."""
    return EXECUTIONS.get(precision) or exact(precision)


def flag_failures(flags: Iterable[Flag]) -> list[Check]:
    """A failed check for each switch that makes arithmetic less exact."""
    return [problem(FLAGS, flag.name, flag.problem) for flag in flags if not flag.exact]


def pair_check(level: Level, run: ReferenceRun, precision: str, left: Arrays, right: Arrays) -> Check | None:
    """Of one row, the largest difference between two backends relative to what both budgets together allow; None if the
    row has no array."""
    budgets = level.allowed(run, precision, level.expected(run) if level.budgets else {})
    return worst(compare(level.name, left, right, {name: 2 * budget for name, budget in budgets.items()}))


def worst_of_levels(checks: Sequence[Check], precision: str) -> tuple[Check, ...]:
    """Of each level the check nearest to its budget, or furthest beyond it."""
    found = (worst([check for check in checks if check.level == level]) for level in names(precision))
    return tuple(check for check in found if check is not None)
