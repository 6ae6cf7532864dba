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
from typing import Any, ClassVar

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.backend.registry import BACKENDS, installed, load
from triptych.conformance.case import make_case
from triptych.conformance.chaos import RunDistance, bug_or_chaos
from triptych.conformance.compare import Check, failures, worst
from triptych.conformance.conform import PRECISIONS, Observed, Report, conform, flag_failures, pairwise
from triptych.conformance.inputs import everything
from triptych.conformance.levels import ALL_LEVELS
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.trajectory import QUARTERS, follow, follow_reference, judge_trajectory, make_trajectory
from triptych.spec.analysis import primitives, totals
from triptych.spec.layers import Architecture
from triptych.spec.records import arrays_digest, encode
from triptych.utils.errors import TriptychError, check_known
from triptych.utils.process import cores

MOST_JOBS = 8  # each needs some gigabytes: the frameworks, and what JAX has compiled


@dataclass(frozen=True)
class Verdict:
    """All that was learned of one architecture: a report per backend and precision, and per pair of backends. `not_run`
    says which backends were left out, and why. Hashes are SHA-256 of the parameters and of all else that the backends
    were given."""

    DERIVED: ClassVar = ("passed",)

    architecture: Architecture
    reports: tuple[Report, ...]
    pairs: tuple[Report, ...]
    not_run: dict[str, str]
    weights_hash: str = ""
    inputs_hash: str = ""

    @property
    def passed(self) -> bool:
        """At least one backend was run, and every check of every backend and pair passed."""
        return bool(self.reports) and all(report.passed for report in (*self.reports, *self.pairs))

    def report(self, backend: str, precision: str) -> Report:
        """The report of one backend in one precision."""
        return next(r for r in self.reports if (r.name, r.precision) == (backend, precision))


def run(
    architecture: Architecture,
    backends: Sequence[Backend],
    *,
    precisions: Sequence[str] = PRECISIONS,
    seed: int = 0,
    device: str = "cpu",
) -> Verdict:
    """Judge `architecture` on every backend and compare the backends with each other. Raises TriptychError for a
    precision that cannot be judged."""
    check_known("precision", precisions, PRECISIONS)
    reference = ReferenceRun(make_case(architecture, seed))
    reports: list[Report] = []
    pairs: list[Report] = []
    for precision in precisions:
        seen: dict[str, Observed] = {backend.name: {} for backend in backends}  # megabytes each: gone after the pairs
        for backend in backends:
            reports.append(conform(backend, reference, precision, device=device, observed=seen[backend.name]))
        for left, right in combinations(seen, 2):
            pairs.append(pairwise((left, right), precision, seen[left], seen[right], reference))
    reasons = {name: "not asked for" if name in installed() else "not installed" for name in BACKENDS}
    not_run = {name: reason for name, reason in reasons.items() if name not in [backend.name for backend in backends]}
    hashes = arrays_digest(reference.case.parameters), arrays_digest(everything(reference.case))
    return Verdict(architecture, tuple(reports), tuple(pairs), not_run, *hashes)


def run_many(
    architectures: Sequence[Architecture], backends: Sequence[Backend], *, jobs: int, **options: Any
) -> Iterator[Verdict]:
    """The verdicts of `run` in the order of the architectures; `jobs` processes share the work. Most of it is JAX's
    compiling, which keeps one core busy."""
    if jobs == 1:
        yield from (run(architecture, backends, **options) for architecture in architectures)
        return
    from unittest.mock import patch

    names = [backend.name for backend in backends]
    threads = {"OMP_NUM_THREADS": str(max(1, cores() // jobs))}  # for the new processes: this one has read it
    with patch.dict(os.environ, threads), ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_the_parent) as pool:
        try:
            heaviest_first = sorted(architectures, key=lambda a: -sum(1 for _ in primitives(a)))
            verdicts = {a.name: pool.submit(_run_named, names, options, a) for a in heaviest_first}
            yield from (verdicts[architecture.name].result() for architecture in architectures)
        except BaseException:  # an interrupt, too: nobody waits for what the others are at
            for process in active_children():
                process.terminate()
            raise


def run_with_steps(
    architectures: Sequence[Architecture],
    backends: Sequence[Backend],
    *,
    jobs: int | None = None,
    steps: int | None = None,
    device: str = "cpu",
    seed: int = 0,
    precisions: Sequence[str] = PRECISIONS,
) -> Iterator[tuple[Verdict, LongRun | None]]:
    """Every architecture's verdict, and where `steps` are asked for, its long run. `jobs`: one per core of the CPU if
    left out."""
    if jobs is None:
        jobs = min(cores(), len(architectures), MOST_JOBS) if device == "cpu" else 1  # one device is not shared
    verdicts = run_many(architectures, backends, jobs=jobs, precisions=precisions, seed=seed, device=device)
    for architecture, verdict in zip(architectures, verdicts, strict=True):
        long_run = steps and run_long(architecture, backends, steps=steps, seed=seed, device=device)
        yield verdict, long_run or None


def _end_with_the_parent() -> None:
    """A process whose parent was killed ends; Ctrl-C, which reaches all of them, is the parent's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run_named(names: Sequence[str], options: dict[str, Any], architecture: Architecture) -> Verdict:
    return run(architecture, [load(name) for name in names], **options)


@dataclass(frozen=True, eq=False)
class LongRun:
    """`steps` steps of training: every backend's checks in float64, and every pair's float32 runs."""

    architecture: Architecture
    steps: int
    checks: dict[str, list[Check]]
    pairs: list[RunDistance]

    @property
    def passed(self) -> bool:
        """Every check passed, and no two float32 runs diverge more than rounding explains."""
        checks = [check for of_backend in self.checks.values() for check in of_backend]
        return bool(checks) and not failures(checks) and all(pair.verdict == "chaos" for pair in self.pairs)


def run_long(
    architecture: Architecture, backends: Sequence[Backend], *, steps: int, seed: int = 0, device: str = "cpu"
) -> LongRun:
    """The trajectory level: against the reference in float64, against each other in float32. Nothing is run where a
    precision flag cannot be switched off: that is the one check of its backend."""
    check_steps(steps)
    with ExitStack() as stack:
        for backend in backends:
            stack.enter_context(backend.precise(device))
        checks = {backend.name: flag_failures(backend.precision_flags(device)) for backend in backends}
        if any(checks.values()):
            return LongRun(architecture, steps, {name: failed for name, failed in checks.items() if failed}, [])
        trajectory = make_trajectory(make_case(architecture, seed), steps)
        expected = follow_reference(trajectory)
        for backend in backends:
            network = backend.build(architecture, device=device, execution=exact("fp64", "full"))
            checks[backend.name] = judge_trajectory(expected, follow(backend, network, trajectory))
        return LongRun(architecture, steps, checks, bug_or_chaos(backends, trajectory, device=device))


def check_steps(steps: int) -> None:
    """Raises TriptychError for a number of steps in which the rates do not change three times."""
    if steps < len(QUARTERS):
        raise TriptychError(f"--trajectory {steps} must be at least {len(QUARTERS)} steps")


def long_run_dict(run: LongRun) -> dict[str, Any]:
    """The long run as JSON has it."""
    return {
        "steps": run.steps,
        "passed": run.passed,
        "fp64": {name: encode(worst(checks)) for name, checks in run.checks.items()},
        "failures": {name: encode(failures(checks)) for name, checks in run.checks.items()},
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


def as_dict(verdict: Verdict, long_run: LongRun | None = None) -> dict[str, Any]:
    """The verdict as `conform --json` has it: of every level the worst check."""
    return {
        "arch": verdict.architecture.name,
        "input": list(verdict.architecture.input),
        "classes": verdict.architecture.classes,
        "parameters": totals(verdict.architecture).parameters,
        "passed": verdict.passed,
        "not_run": verdict.not_run,
        "backends": [{"backend": report.name} | report_dict(report) for report in verdict.reports],
        "pairs": [{"backends": list(pair.backends)} | report_dict(pair) for pair in verdict.pairs],
        "trajectory": None if long_run is None else long_run_dict(long_run),
    }


def report_dict(report: Report) -> dict[str, Any]:
    """A report with the worst check of every level; a level that was not run is null."""
    return {
        "precision": report.precision,
        "passed": report.passed,
        "levels": {level: encode(report.worst(level)) for level in ALL_LEVELS},
        "failures": encode(report.failures),
        "precision_flags": report.precision_flags,
        "switched_off": report.switched_off,
    }
