"""Conformance of several backends on one architecture: every backend in both precisions, then every pair."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from multiprocessing import active_children, get_context, parent_process
from typing import Any

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.backend.registry import BACKENDS, installed, load
from triptych.conformance.case import Case, make_case
from triptych.conformance.chaos import Comparison, bug_or_chaos
from triptych.conformance.levels import ALL_LEVELS, Check, Judge, Report, conform, flag_failures, judge, pairwise
from triptych.conformance.trajectory import QUARTERS, follow, follow_reference, judge_trajectory, make_journey
from triptych.spec.analysis import primitives, totals
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError
from triptych.utils.process import cores, environment

PRECISIONS = ("fp64", "fp32")


@dataclass(frozen=True, eq=False)
class Verdict:
    """All that was found out about one architecture. `not_run` says which backends were left out, and why."""

    architecture: Architecture
    reports: list[Report]
    pairs: list[tuple[str, str, str, dict[str, Check]]]  # left, right, precision, worst check by level
    not_run: dict[str, str]
    case: Case | None = None

    @property
    def passed(self) -> bool:
        """At least one backend was run, and every check of every backend and pair passed."""
        pairs_passed = all(check.passed for *_, checks in self.pairs for check in checks.values())
        return bool(self.reports) and all(report.passed for report in self.reports) and pairs_passed

    def report(self, backend: str, precision: str) -> Report:
        """The report of one backend in one precision."""
        return next(r for r in self.reports if (r.backend, r.precision) == (backend, precision))


def run(
    architecture: Architecture,
    backends: Sequence[Backend],
    *,
    precisions: Sequence[str] = PRECISIONS,
    seed: int = 0,
    device: str = "cpu",
) -> Verdict:
    """Judge `architecture` on every backend and compare the backends with each other."""
    case = make_case(architecture, seed)
    judged = judge(case)
    reports, pairs = [], []
    for precision in precisions:
        found = [conform(backend, judged, precision, device=device) for backend in backends]
        pairs += compare_pairs(found, judged)
        for report in found:
            report.observed = {}  # megabytes per report, needed for the pairs only
        reports += found
    names = {backend.name for backend in backends}
    reasons = {name: "not asked for" if name in installed() else "not installed" for name in BACKENDS}
    not_run = {name: reason for name, reason in reasons.items() if name not in names}
    return Verdict(architecture, reports, pairs, not_run, case)


def run_many(
    architectures: Sequence[Architecture], backends: Sequence[Backend], *, jobs: int, **given: Any
) -> Iterator[Verdict]:
    """The verdicts of `run` in the order of the architectures; `jobs` processes share the work.

    Most of it is JAX's compiling, which keeps one core busy.
    """
    if jobs == 1:
        yield from (run(architecture, backends, **given) for architecture in architectures)
        return
    names = [backend.name for backend in backends]
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}  # for the new processes: this one has read it
    with environment(threads), ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_the_parent) as pool:
        try:
            heaviest_first = sorted(architectures, key=lambda a: -sum(1 for _ in primitives(a)))
            found = {a.name: pool.submit(_run_named, names, given, a) for a in heaviest_first}
            yield from (found[architecture.name].result() for architecture in architectures)
        except BaseException:  # an interrupt, too: nobody waits for what the others are at
            for process in active_children():
                process.terminate()
            raise


def _end_with_the_parent() -> None:
    """A process whose parent was killed ends; Ctrl-C, which reaches all of them, is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_named(names: Sequence[str], given: dict[str, Any], architecture: Architecture) -> Verdict:
    return run(architecture, [load(name) for name in names], **given)


@dataclass(frozen=True, eq=False)
class LongRun:
    """`steps` steps of training: every backend's checks in float64, and every pair's float32 runs."""

    architecture: Architecture
    steps: int
    checks: dict[str, list[Check]]
    pairs: list[Comparison]

    @property
    def passed(self) -> bool:
        """Every check passed, and no two float32 runs part more than rounding explains."""
        checks = [check for found in self.checks.values() for check in found]
        return bool(checks) and all(c.passed for c in checks) and all(pair.verdict == "chaos" for pair in self.pairs)


def run_long(
    architecture: Architecture, backends: Sequence[Backend], *, steps: int, seed: int = 0, device: str = "cpu"
) -> LongRun:
    """The trajectory level: against the reference in float64, against each other in float32. Nothing is run where a
    precision flag cannot be switched off: that is the one check of its backend."""
    check_steps(steps)
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend.precise(device))
        flags = {backend.name: flag_failures(backend.precision_flags(device)) for backend in backends}
        if any(flags.values()):
            return LongRun(architecture, steps, {name: failed for name, failed in flags.items() if failed}, [])
        return _run_long(architecture, backends, steps, seed, device)


def _run_long(architecture: Architecture, backends: Sequence[Backend], steps: int, seed: int, device: str) -> LongRun:
    journey = make_journey(make_case(architecture, seed), steps)
    expected = follow_reference(journey)
    checks = {}
    for backend in backends:
        network = backend.build(architecture, device=device, execution=exact("fp64", "full"))
        checks[backend.name] = judge_trajectory(expected, follow(backend, network, journey))
    return LongRun(architecture, steps, checks, bug_or_chaos(backends, journey, device=device))


def check_steps(steps: int) -> None:
    """Raises TriptychError for a number of steps in which the rates do not change three times."""
    if steps < len(QUARTERS):
        raise TriptychError(f"--trajectory {steps} must be at least {len(QUARTERS)} steps")


def compare_pairs(reports: Sequence[Report], judged: Judge) -> list[tuple[str, str, str, dict[str, Check]]]:
    """Every pair of backends in one precision."""
    return [
        (left.backend, right.backend, left.precision, pairwise(left, right, judged))
        for left, right in combinations(reports, 2)
    ]


def long_run_dict(run: LongRun) -> dict[str, Any]:
    """The long run as JSON has it."""
    return {
        "steps": run.steps,
        "passed": run.passed,
        "fp64": {name: check_dict(max(found, key=lambda check: check.ratio)) for name, found in run.checks.items()},
        "failures": {name: [check_dict(c) for c in found if not c.passed] for name, found in run.checks.items()},
        "fp32": [
            {
                "backends": [pair.left, pair.right],
                "verdict": pair.verdict,
                "ratio": pair.ratio,
                "first_step": pair.first_step,
                "undecided_from": pair.saturated_at,
            }
            for pair in run.pairs
        ],
    }


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON has it."""
    return {
        "arch": verdict.architecture.name,
        "input": list(verdict.architecture.input),
        "classes": verdict.architecture.classes,
        "parameters": totals(verdict.architecture).parameters,
        "passed": verdict.passed,
        "not_run": verdict.not_run,
        "backends": [report_dict(report) for report in verdict.reports],
        "pairs": [
            {
                "backends": [left, right],
                "precision": precision,
                "levels": {level: check_dict(check) for level, check in checks.items()},
            }
            for left, right, precision, checks in verdict.pairs
        ],
    }


def report_dict(report: Report) -> dict[str, Any]:
    """One backend in one precision; a level without checks was not run and is null."""
    levels = {check.level for check in report.checks}
    return {
        "backend": report.backend,
        "precision": report.precision,
        "passed": report.passed,
        "levels": {level: check_dict(report.worst(level)) if level in levels else None for level in ALL_LEVELS},
        "failures": [check_dict(check) for check in report.failures],
        "precision_flags": report.flags,
        "switched_off": report.switched_off,
    }


def check_dict(check: Check) -> dict[str, Any]:
    """One check; infinities, which JSON does not have, become null."""
    return {
        "level": check.level,
        "tensor": check.name,
        "passed": check.passed,
        "difference": finite(check.difference),
        "budget": check.budget,
        "ratio": finite(check.ratio),
        "problem": check.problem,
    }


def finite(value: float) -> float | None:
    """The number, or None if it is infinite."""
    return value if value != float("inf") else None
