"""Conformance of several backends on one architecture: every backend in both precisions, then every pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from typing import Any, ClassVar

from triptych.backend.contract import Backend
from triptych.backend.registry import BACKENDS, installed, load
from triptych.conformance import long_run
from triptych.conformance.case import make_case
from triptych.conformance.conform import PRECISIONS, Report, conform_together, execution_of
from triptych.conformance.inputs import everything
from triptych.conformance.levels import LOW, names
from triptych.conformance.long_run import LongRun
from triptych.conformance.low_precision import refuse_device
from triptych.conformance.processes import SharedRun, check_shared, run_shared
from triptych.conformance.processes import as_dict as processes_dict
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.sharpness import sharpness
from triptych.spec.analysis import primitives, totals
from triptych.spec.layers import Architecture
from triptych.spec.records import arrays_digest, encode
from triptych.utils.errors import TriptychError, check_known
from triptych.utils.process import begin_worker, cores

NOT_ASKED, NOT_INSTALLED = "not asked for", "not installed"  # why a backend or a precision was not run
MOST_JOBS = 8  # each needs some gigabytes: the frameworks, and what JAX has compiled
TASKS_PER_PROCESS = 6  # architectures; after 20 of the large ones a process that stays has 10 GB of compiled programs


@dataclass(frozen=True)
class Verdict:
    """All that was learned of one architecture: a report per backend and precision, and per pair of backends, the
    `trajectory` and training by several `processes` where they were asked for. `not_run` says which backends were left
    out, and why. Hashes are SHA-256 of the parameters and of all else that the backends were given."""

    DERIVED: ClassVar = ("passed",)

    architecture: Architecture
    reports: tuple[Report, ...]
    pairs: tuple[Report, ...]
    not_run: dict[str, str]
    weights_hash: str = ""
    inputs_hash: str = ""
    trajectory: LongRun | None = None
    processes: SharedRun | None = None

    @property
    def passed(self) -> bool:
        """At least one backend was run, and every check of every backend and pair passed, on all levels that were run:
        the one place where this is decided."""
        levels = bool(self.reports) and all(report.passed for report in (*self.reports, *self.pairs))
        return levels and all(asked is None or asked.passed for asked in (self.trajectory, self.processes))

    @property
    def levels(self) -> tuple[str, ...]:
        """Those of its precisions."""
        return tuple(dict.fromkeys(level for report in self.reports for level in names(report.precision)))

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
    steps: int | None = None,
    processes: int | None = None,
) -> Verdict:
    """Judge `architecture` on every backend and compare the backends with each other; where `steps` are asked for, over
    so many steps of training too, and where `processes` are, training by so many. Raises TriptychError for a precision,
    a number of steps, or processes of a network, that cannot be judged."""
    check_known("precision", precisions, (*PRECISIONS, *LOW))
    if processes is not None:
        check_shared(architecture)
    if steps is not None:
        long_run.check_steps(steps)
    reference = ReferenceRun(make_case(architecture, seed))
    reports: list[Report] = []
    pairs: list[Report] = []
    reasons = {name: NOT_ASKED if name in installed() else NOT_INSTALLED for name in BACKENDS}
    not_run = {name: reason for name, reason in reasons.items() if name not in [backend.name for backend in backends]}
    for precision in precisions:
        unable = {backend.name: reason for backend in backends if (reason := unable_to(backend, precision, device))}
        if unable and len(unable) == len(backends):
            raise TriptychError("; ".join(unable.values()))
        able = [backend for backend in backends if backend.name not in unable]
        alone, compared = conform_together(able, reference, precision, device=device)
        reports += alone
        pairs += compared
        not_run |= unable
    hashes = arrays_digest(reference.case.parameters), arrays_digest(everything(reference.case))
    trained = steps and long_run.run_long(architecture, backends, steps=steps, seed=seed, device=device)
    shared = processes and run_shared(backends, architecture, processes, seed)
    return Verdict(architecture, tuple(reports), tuple(pairs), not_run, *hashes, trained or None, shared or None)


def unable_to(backend: Backend, precision: str, device: str) -> str:
    """Why a backend computes nothing in a lower precision than float32; empty where it does."""
    if precision not in LOW:
        return ""
    try:
        refuse_device(precision, device)
        with backend.precise(device):
            backend.apply_execution(execution_of(precision), device)
    except TriptychError as error:
        return str(error)
    return ""


def run_many(
    architectures: Sequence[Architecture], backends: Sequence[Backend], *, jobs: int, **options: Any
) -> Iterator[Verdict]:
    """The verdicts of `run` in the order of the architectures; `jobs` processes share the work. Most of it is JAX's
    compiling, which keeps one core busy."""
    if jobs == 1:
        yield from (run(architecture, backends, **options) for architecture in architectures)
        return
    names = [backend.name for backend in backends]
    heaviest_first = sorted(architectures, key=lambda a: -sum(1 for _ in primitives(a)))
    left, done, size = list(architectures), dict[str, Verdict](), jobs * TASKS_PER_PROCESS
    for begin in range(0, len(heaviest_first), size):
        done |= _shared(heaviest_first[begin : begin + size], jobs, names, options)
        while left and left[0].name in done:
            yield done.pop(left.pop(0).name)


def _shared(
    architectures: Sequence[Architecture], jobs: int, names: Sequence[str], options: dict[str, Any]
) -> dict[str, Verdict]:
    """The verdicts of new processes by name. (A pool's own `max_tasks_per_child` hangs in Python 3.11.)"""
    with ProcessPoolExecutor(jobs, get_context("spawn"), begin_worker, (max(1, cores() // jobs),)) as pool:
        try:
            verdicts = {each.name: pool.submit(_run_named, names, options, each) for each in architectures}
            return {name: verdict.result() for name, verdict in verdicts.items()}
        except BaseException:  # an interrupt, too: nobody waits for what the others are at
            for process in active_children():
                process.terminate()
            raise


def run_all(
    architectures: Sequence[Architecture],
    backends: Sequence[Backend],
    *,
    jobs: int | None = None,
    device: str = "cpu",
    **options: Any,
) -> Iterator[Verdict]:
    """Every architecture's verdict, as `run` gives it. `jobs`: one per core of the CPU if left out."""
    if jobs is None:
        jobs = min(cores(), len(architectures), MOST_JOBS) if device == "cpu" else 1  # one device is not shared
    yield from run_many(architectures, backends, jobs=jobs, device=device, **options)


def _run_named(names: Sequence[str], options: dict[str, Any], architecture: Architecture) -> Verdict:
    return run(architecture, [load(name) for name in names], **options)


def as_dict(verdict: Verdict) -> dict[str, Any]:
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
        "trajectory": None if verdict.trajectory is None else long_run.as_dict(verdict.trajectory),
        "processes": None if verdict.processes is None else processes_dict(verdict.processes),
    }


def report_dict(report: Report) -> dict[str, Any]:
    """A report with the worst check of every level; a level that was not run is null."""
    return {
        "precision": report.precision,
        "passed": report.passed,
        "levels": {level: encode(report.worst(level)) for level in names(report.precision)},
        "failures": encode(report.failures),
        "sharpness": encode(sharpness(report)),
        "precision_flags": report.precision_flags,
        "switched_off": report.switched_off,
    }
