"""Where do two subjects diverge? The first layer, by its path in the spec, and the level.

*Accumulated*: whole passes, in the order of execution; gradients in reverse. *Resynchronised*: every layer alone,
given what the reference's layer was given, so that a later difference is not blamed on an earlier one; then whole
passes, which show what no layer alone does (wiring, the images themselves).
Budgets are those of `triptych.conformance.tolerance`; perturbed executions run only where they decide.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance import tolerance
from triptych.conformance.case import make_case
from triptych.conformance.compare import Arrays, Check, compare, failures
from triptych.conformance.conform import PRECISIONS
from triptych.conformance.diagnosis.explain import Difference, Finding, SubjectFailedError, attempt
from triptych.conformance.levels import EXACT, FORWARD_EVAL, FORWARD_TRAIN, GRADIENT, LEVELS, Level, layers_alone
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import BackendSubject, ReferenceSubject, Subject
from triptych.conformance.updates import UPDATES
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError, check_known
from triptych.utils.process import return_large_memory
from triptych.utils.shelf import select

FULL = tuple(level for level in LEVELS if EXACT[0] in level.precisions)  # rows of one's own are for any precision
BATCH = 2  # images: enough for a fault to show, half the time of four
MODES = ("resynchronised", "accumulated")
REFERENCE = "reference"


@dataclass(frozen=True)
class Located:
    """What was compared, and the first difference, or None where the subjects agree. `not_run`: what was left out, and
    why; `notes`: what was learned of the subjects."""

    left: str
    right: str
    arch: str
    mode: str
    precision: str
    levels: tuple[str, ...]
    difference: Difference | None
    not_run: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def locate(
    left: Subject,
    right: Subject,
    mode: str = MODES[0],
    *,
    updates: Sequence[str] = UPDATES,
    levels: Sequence[Level] = FULL,
) -> Located:
    """The first difference between two subjects of one reference run, level by level; `updates`: the optimisers whose
    steps are compared. Budgets are for the left one's precision."""
    if left.run.case.large:
        return_large_memory()
    search = _Search(left, right, alone=mode == MODES[0])
    rows = [level for level in levels if not level.optimizer or level.optimizer in updates]
    try:
        with left.exact(), right.exact():
            difference = next(filter(None, map(search.difference, search.steps(rows))), None)
    except SubjectFailedError as failed:
        difference = failed.difference
    names = tuple(dict.fromkeys(level.name for level in rows))
    left_out = [level.optimizer for level in levels if level not in rows]
    not_run = {f"update: {', '.join(left_out)}": "give --optimizers all"} if left_out else {}
    name = left.run.case.architecture.name
    return Located(left.name, right.name, name, mode, left.precision, names, difference, not_run, left.notes)


def locate_backends(
    left: str,
    right: str,
    architecture: Architecture,
    mode: str = MODES[0],
    *,
    updates: Sequence[str] = UPDATES,
    precision: str = "fp64",
    device: str = "cpu",
    seed: int = 0,
) -> Located:
    """The first difference between two backends by name, or between one and the `reference` as the right one. Raises
    TriptychError for a backend, a device, a precision, a mode or an optimiser that is not there."""
    if left in (right, REFERENCE):
        raise TriptychError(f"'{left}' and '{right}': name two, a backend first; the reference is the second")
    for what, wanted, known in (("precision", [precision], PRECISIONS), ("mode", [mode], MODES)):
        check_known(what, wanted, known)
    check_known("update", updates, UPDATES)
    loaded = {name: registry.load(name) for name in (left, right) if name != REFERENCE}
    run = ReferenceRun(make_case(architecture, seed, BATCH))

    def subject(name: str) -> Subject:
        if name == REFERENCE:
            return ReferenceSubject(run)
        build = partial(loaded[name].build, device=device, execution=exact(precision))
        return BackendSubject(loaded[name], build, run, precision, device)

    with ExitStack() as stack:  # what `build` sets for the process is as it was afterwards, too
        for backend in loaded.values():
            stack.enter_context(backend.precise(device))
        return locate(subject(left), subject(right), mode, updates=updates)


@dataclass(frozen=True, eq=False)
class _Search:
    """Two subjects of one reference run; `alone`: every layer is compared by itself before a whole pass."""

    left: Subject
    right: Subject
    alone: bool

    @property
    def factor(self) -> float:
        """How many budgets two subjects may differ by: one each, but the reference needs none."""
        return 1.0 if isinstance(self.right, ReferenceSubject) else 2.0

    def steps(self, rows: Sequence[Level]) -> Iterator[Level]:
        """The rows in the order of the search."""
        for row in (row for row in rows if row.wanted(self.left.run, self.left.precision)):
            if self.alone:
                yield from layers_alone(self.left.run, row)
            yield row

    def difference(self, level: Level) -> Difference | None:
        """What differs at one level, explained."""
        difference = self._difference(level)
        return None if difference is None else self.left.retry(difference, lambda: self._difference(level))

    def _difference(self, level: Level) -> Difference | None:
        if level is not FORWARD_EVAL and not level.layer:
            for subject in (self.left, self.right):
                subject.release(training=level is not FORWARD_TRAIN)
        subjects = (self.left, self.right)
        judged = [subject for subject in subjects if not isinstance(subject, ReferenceSubject)]
        seen = {s.name: attempt(s, partial(level.observed, s), level.name, level.layer) for s in judged}
        expected = self.left.expected(level, self.left.run)
        observed = {subject.name: seen.get(subject.name, expected) for subject in subjects}
        failed, at_fault = self._judge(level, expected, observed)
        if not failed:
            return None
        one = next((subject for subject in subjects if subject.name in at_fault), self.left)
        arrays = observed[one.name]
        return level.explain(Finding(one.run, one, level.name, failed, expected, arrays, at_fault, self.alone))

    def _judge(
        self, level: Level, expected: Arrays, observed: dict[str, Arrays]
    ) -> tuple[list[Check], tuple[str, ...]]:
        """The checks that failed, and which subjects depart from the reference."""
        if level.rounded:
            failed = self._failures(level, expected, *observed.values())
            return failed, self._at_fault(failed[0], expected, observed) if failed else ()
        by_subject = {name: failures(level.checks(expected, arrays, {})) for name, arrays in observed.items()}
        at_fault = tuple(name for name, failed in by_subject.items() if failed)
        return by_subject[at_fault[0]] if at_fault else [], at_fault

    def _failures(self, level: Level, expected: Arrays, left: Arrays, right: Arrays) -> list[Check]:
        """What differs between the subjects, in the order of the computation."""
        target = select(right, [name for name in dict.fromkeys((*expected, *right)) if name in right])
        if level.budgets is not None:
            failed: list[Check] = []
            for rule in filter(None, (level.least, level.budgets)):
                allowed = rule(self.left.run, self.left.precision, expected)
                scaled = {name: self.factor * most for name, most in allowed.items()}
                failed = failures(level.checks(target, left, scaled))
                if not failed:
                    break
            return failed
        sums = self.left.run.sum_errors if level.name == GRADIENT.name else {}
        allowed = tolerance.unperturbed(self.left.precision, target, sums)
        failed = failures(level.checks(target, left, allowed))
        if not failed or all(check.problem for check in failed):
            return failed
        perturbed = (self.left.expected(level, run) for run in self.left.run.perturbed())
        for budgets in tolerance.growing(target, perturbed):
            allowed = {name: self.factor * budget for name, budget in budgets[self.left.precision].items()}
            failed = failures(level.checks(target, left, allowed))
            if not failed:
                break
        return failed

    def _at_fault(self, check: Check, expected: Arrays, observed: dict[str, Arrays]) -> tuple[str, ...]:
        """Which subjects depart from the reference in the tensor of a failed check."""
        name, budget = check.tensor, check.budget / self.factor
        right = {name: expected[name]} if name in expected else {}
        faulty = []
        for subject, arrays in observed.items():
            if not right and name not in arrays:
                continue  # what the reference does not have is missing by right
            failed = failures(compare("", right, {k: v for k, v in arrays.items() if k == name}, {name: budget}))
            if any(other.problem or not check.problem for other in failed):
                faulty.append(subject)
        return tuple(faulty)
