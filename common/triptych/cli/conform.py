"""`conform`: check backends against the reference and against each other."""

from __future__ import annotations

import builtins
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.options import (
    Backends,
    DeviceName,
    Flag,
    JsonFile,
    NetworkOptions,
    load_backends,
    whole,
    writable,
    write_json,
)

if TYPE_CHECKING:
    from triptych.conformance.levels import Check, Report
    from triptych.conformance.suite import LongRun, Verdict
    from triptych.zoo import Options

MOST_JOBS = 8  # each needs some gigabytes: the frameworks, and what JAX has compiled
DEFAULT_NETWORK = NetworkOptions()


def conform(
    *,
    arch: Annotated[str | None, Parameter(help="Architecture, or several with commas; vgg11 if left out.")] = None,
    all: Annotated[Flag, Parameter(help="Every architecture of the zoo.")] = False,
    backends: Backends = None,
    network: NetworkOptions = DEFAULT_NETWORK,
    precision: Annotated[str | None, Parameter(help="fp64 or fp32; both if left out.")] = None,
    device: DeviceName = "cpu",
    seed: Annotated[int, Parameter(converter=whole, help="Seed of parameters, images and masks.")] = 0,
    trajectory: Annotated[
        int | None,
        Parameter(converter=whole, help="Train so many steps too: float64 exactly, float32 bug or chaos (100, say)."),
    ] = None,
    jobs: Annotated[
        int | None, Parameter(converter=whole, help="Processes that share several architectures; one per core.")
    ] = None,
    certificate: Annotated[
        Path | None,
        Parameter(help="Write every check with what it needs to be run again.", validator=writable("--certificate")),
    ] = None,
    html: Annotated[
        Path | None, Parameter(help="Write the scoreboard, one page.", validator=writable("--html"))
    ] = None,
    json: JsonFile = None,
) -> int:
    """Check structure, forward, gradients and updates against the reference, and every pair of backends.

    Without size options the network is narrow and small but complete. Exit status 1 if a check fails.
    `verify` runs a certificate again.
    Example: triptych conform --arch vgg16 --backends torch,jax --certificate vgg16.json --html vgg16.html
    """
    from triptych import zoo
    from triptych.conformance import suite
    from triptych.utils.errors import TriptychError

    if all and arch is not None:
        raise TriptychError("give --arch or --all, not both")
    if precision not in (None, *suite.PRECISIONS):
        raise TriptychError(f"--precision '{precision}' cannot be judged; use fp64 or fp32")
    if trajectory is not None:
        suite.check_steps(trajectory)
    if jobs is not None and jobs < 1:
        raise TriptychError(f"--jobs {jobs} must be at least 1")
    files = [Path(file).absolute() for file in (certificate, html, json) if file is not None]
    if len(set(files)) < len(files):
        raise TriptychError("--certificate, --html and --json must be different files")
    names = list(zoo.registry()) if all else [name.strip() for name in ("vgg11" if arch is None else arch).split(",")]
    options = [chosen(name, network) for name in names]
    architectures = [zoo.build_with(name, option) for name, option in zip(names, options, strict=True)]
    loaded = load_backends(backends)
    precisions = suite.PRECISIONS if precision is None else (precision,)
    verdicts, long_runs = [], []
    given = {"precisions": precisions, "seed": seed, "device": device}
    shared = default_jobs(len(names), device) if jobs is None else jobs
    for architecture, verdict in zip(
        architectures, suite.run_many(architectures, loaded, jobs=shared, **given), strict=True
    ):
        verdicts.append(verdict)
        if json != "-":
            show(verdict)
        if trajectory is not None:
            run = suite.run_long(architecture, loaded, steps=trajectory, seed=seed, device=device)
            long_runs.append(run)
            if json != "-":
                show_long_run(run)
    if json is not None:
        travelled = [suite.long_run_dict(run) for run in long_runs] if long_runs else [None] * len(verdicts)
        values = zip(verdicts, travelled, strict=True)
        write_json(json, [suite.as_dict(verdict) | {"trajectory": long_run} for verdict, long_run in values])
    if certificate is not None:
        from triptych.conformance import certificate as certificates

        written = certificates.make(verdicts, options, loaded, precisions=precisions, seed=seed, device=device)
        certificates.write(certificate, written)
    if html is not None:
        from triptych.report import scoreboard

        scoreboard.write(
            html, verdicts, {b.name: b.versions() for b in loaded}, shlex.join(["triptych", *sys.argv[1:]])
        )
    passed = [verdict.passed for verdict in verdicts]
    if json != "-":
        print(f"{sum(passed)} of {len(passed)} architectures conform on {', '.join(b.name for b in loaded)}")
    return 0 if sum(passed) == len(passed) and builtins.all(run.passed for run in long_runs) else 1


def default_jobs(architectures: int, device: str) -> int:
    """One process per core for several architectures on the CPU; a single device is not shared."""
    from triptych.utils.process import cores

    return min(cores(), architectures, MOST_JOBS) if device == "cpu" else 1


def chosen(name: str, network: NetworkOptions) -> Options:
    """The options of the architecture: those of conformance size, or as the command line says."""
    from triptych.conformance.case import conformance_options

    return conformance_options(name) if network == DEFAULT_NETWORK else network.options(name)


def show(verdict: Verdict) -> None:
    """The worst check of every level as a table: difference, and its ratio to the budget."""
    from triptych.conformance.levels import ALL_LEVELS
    from triptych.report.tables import print_table

    shape = "x".join(map(str, verdict.architecture.input))
    columns = ("backend", "precision", "result", *ALL_LEVELS)
    rows = [
        (
            report.backend,
            report.precision,
            "pass" if report.passed else "FAIL",
            *(cell(report, level) for level in ALL_LEVELS),
        )
        for report in verdict.reports
    ]
    for left, right, precision, checks in verdict.pairs:
        result = "pass" if checks and all(check.passed for check in checks.values()) else "FAIL"
        cells = (figures(checks[level]) if level in checks else "" for level in ALL_LEVELS)
        rows.append((f"{left} - {right}", precision, result, *cells))
    print_table(columns, rows, title=f"{verdict.architecture.name}, {shape}: largest difference (share of its budget)")
    for report in verdict.reports:
        for check in report.failures[:5]:
            print(f"  {report.backend} {report.precision}: {check.level}, '{check.name}': {describe(check)}")
        if len(report.failures) > 5:
            print(f"  {report.backend} {report.precision}: {len(report.failures) - 5} more failures (see --json)")
    for name, reason in verdict.not_run.items():
        print(f"  {name}: not run ({reason})")
    print()


def show_long_run(run: LongRun) -> None:
    """A row per backend for float64, a row per pair for float32."""
    from triptych.conformance.trajectory import BUDGET
    from triptych.report.tables import print_table

    rows = []
    for name, checks in run.checks.items():
        worst = max(checks, key=lambda check: check.ratio)
        verdict = "pass" if builtins.all(check.passed for check in checks) else "FAIL"
        rows.append((name, "fp64", verdict, worst.problem or f"{worst.name}: {figures(worst)}"))
    for pair in run.pairs:
        note = f"{pair.ratio:.1f} times what one unit in the last place does to one backend"
        note += "" if pair.first_step is None else f", beyond it from step {pair.first_step}"
        note += "" if pair.saturated_at is None else f"; undecided from step {pair.saturated_at}"
        rows.append((f"{pair.left} - {pair.right}", "fp32", pair.verdict, note))
    title = f"{run.architecture.name}, {run.steps} training steps (float64: budget {BUDGET:g} of the scale)"
    print_table(("backend", "precision", "result", "worst"), rows, title=title)
    print()


def cell(report: Report, level: str) -> str:
    """One level of one backend."""
    checks = [check for check in report.checks if check.level == level]
    if not checks:
        return "not run"
    worst = report.worst(level)
    if worst.problem:
        return "FAIL"
    if level == "structure":
        return f"{len(checks)} equal"
    return figures(worst)


def figures(check: Check) -> str:
    """Difference, and share of the budget."""
    return f"{check.difference:.1e} ({check.ratio:.2f})"


def describe(check: Check) -> str:
    """Why a check failed."""
    return check.problem or f"differs by {check.difference:.3e}, allowed {check.budget:.3e}"
