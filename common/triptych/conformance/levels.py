"""Conformance: do a backend and the reference, and so any two backends, compute the same network?

`conform` checks structure and loaded parameters, input, forward (evaluation and training mode), gradients and optimiser
steps of one case on one backend, in float64 and in float32, against the NumPy reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from triptych.backend.contract import Backend, Native
from triptych.backend.execution import exact
from triptych.backend.precision import Flag, Value, values
from triptych.conformance.case import Case
from triptych.conformance.compare import Check, compare
from triptych.conformance.observe import (
    DTYPES,
    LEVELS,
    Observation,
    observe_backend,
    observe_reference,
)
from triptych.conformance.tolerance import Budgets, budgets
from triptych.conformance.updates import Steps, choose_steps
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture, Shape
from triptych.spec.shapes import output_shapes

ALL_LEVELS = ("structure", *LEVELS)
FLAGS = "precision flags"  # no level: what fails here keeps every level from being run
Build = Callable[[Architecture], Native]


@dataclass(frozen=True, eq=False)
class Judge:
    """A case with what the reference says of it; made once, used for every backend."""

    case: Case
    steps: Steps
    expected: Observation
    budgets: dict[str, Budgets]


@dataclass(eq=False)
class Report:
    """The checks of one backend on one case in one precision, and what was observed (for pairwise differences).

    `flags` are the precision flags as they were during the checks, `switched_off` those that had another value before.
    """

    architecture: str
    backend: str
    precision: str
    checks: list[Check]
    observed: Observation = field(default_factory=dict)
    flags: dict[str, Value] = field(default_factory=dict)
    switched_off: dict[str, Value] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Every level was compared, and every check passed."""
        levels = {check.level for check in self.checks}
        return levels >= set(ALL_LEVELS) and all(check.passed for check in self.checks)

    def worst(self, level: str) -> Check:
        """The check of `level` that comes nearest to its budget, or exceeds it most."""
        return max((check for check in self.checks if check.level == level), key=lambda check: check.ratio)

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if not check.passed]


def judge(case: Case) -> Judge:
    """Run the reference, exactly and perturbed. Raises ValueError for a case on which a fault could not be seen."""
    steps = choose_steps(case)
    expected = observe_reference(case, steps)
    logits = expected["forward eval"][case.architecture.layers[-1].name]
    if np.ptp(logits, axis=0).max() == 0 or np.ptp(logits, axis=1).max() == 0:
        raise ValueError(f"the reference's logits for '{case.architecture.name}' are constant: they would hide a fault")
    return Judge(case, steps, expected, budgets(case, steps, expected))


def conform(
    backend: Backend, judged: Judge, precision: str, *, device: str = "cpu", build: Build | None = None
) -> Report:
    """All levels of one backend in one precision ("fp64" or "fp32"), in exact arithmetic
    (`triptych.backend.precision`).

    `build` may plant another network (tests).
    """
    report = Report(judged.case.architecture.name, backend.name, precision, [])
    before = values(backend.precision_flags(device))
    with backend.precise(device):
        flags = backend.precision_flags(device)
        report.flags = values(flags)
        report.switched_off = {name: old for name, old in before.items() if report.flags.get(name) != old}
        report.checks += flag_failures(flags)
        if not report.checks:
            make = build or (
                lambda architecture: backend.build(architecture, device=device, execution=exact(precision))
            )
            _run_levels(report, backend, make(judged.case.architecture), judged)
    return report


def _run_levels(report: Report, backend: Backend, network: Native, judged: Judge) -> None:
    case = judged.case
    report.checks += structure(backend, network, case)
    if any(check.problem for check in report.checks):
        return  # without the same names and shapes there is nothing further to compare
    try:
        report.observed = observe_backend(backend, network, case, judged.steps, report.precision)
    except Exception as error:  # whatever a framework raises for a network that does not fit
        problem = f"the backend failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        report.checks.append(_failed("forward eval", "(run)", problem))
        return
    report.checks += output_shapes_match(case, report.observed)
    for level in LEVELS:
        allowed = judged.budgets[report.precision][level]
        report.checks += compare(level, judged.expected[level], report.observed[level], allowed)


def flag_failures(flags: Iterable[Flag]) -> list[Check]:
    """A failed check for each switch that makes arithmetic less exact."""
    return [_failed(FLAGS, flag.name, flag.problem) for flag in flags if not flag.exact]


def _failed(level: str, name: str, problem: str) -> Check:
    return Check(level, name, float("inf"), 0.0, 0.0, problem)


def structure(backend: Backend, network: Native, case: Case) -> list[Check]:
    """Names and shapes of every canonical parameter against the spec; if they fit, the bits of the case's parameters,
    whose weights are those of the shared start."""
    expected = {info.path: info.shape for info in parameters(case.architecture)}
    checks = _same_shapes(expected, {path: value.shape for path, value in backend.to_canonical(network).items()})
    if not all(check.passed for check in checks):
        return checks
    backend.from_canonical(network, case.parameters)
    return compare("structure", case.parameters, backend.to_canonical(network), dict.fromkeys(case.parameters, 0.0))


def output_shapes_match(case: Case, observed: Observation) -> list[Check]:
    """Names and output shapes of every layer in training mode, side classifiers included, against the spec."""
    expected = {path: (len(case.labels), *shape) for path, shape in output_shapes(case.architecture).items()}
    found = {path: value.shape for path, value in observed["forward train"].items()}
    return _same_shapes(expected, found)


def _same_shapes(expected: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[Check]:
    checks = []
    for path in dict.fromkeys((*expected, *found)):
        problem = ""
        if path not in found:
            problem = "is missing"
        elif path not in expected:
            problem = "is not in the spec"
        elif found[path] != expected[path]:
            problem = f"has the shape {found[path]}, expected {expected[path]}"
        checks.append(Check("structure", path, 0.0, 0.0, 0.0, problem))
    return checks


def pairwise(left: Report, right: Report, judged: Judge) -> dict[str, Check]:
    """By level, the largest difference between two backends relative to what both budgets together allow."""
    found = {}
    for level, allowed in judged.budgets[left.precision].items():
        if level not in left.observed or level not in right.observed:
            continue
        double = {name: 2 * budget for name, budget in allowed.items()}
        checks = compare(level, left.observed[level], right.observed[level], double)
        found[level] = max(checks, key=lambda check: check.ratio)
    return found


__all__ = ["ALL_LEVELS", "DTYPES", "FLAGS", "LEVELS", "Check", "Judge", "Report", "conform", "judge", "pairwise"]
