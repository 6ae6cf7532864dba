"""The scoreboard of `conform`: architectures by backends by levels, each cell its worst ratio to the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from triptych import __version__
from triptych.backend.registry import BACKENDS
from triptych.conformance.levels import ALL_LEVELS, Check
from triptych.conformance.suite import PRECISIONS, Verdict
from triptych.report.page import write_page

PAIRS = "pairs"  # the column group of what two backends differ by
NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """One number of the table: its text, its class (`pass`, `fail` or `absent`), and what a pointer shows."""

    text: str
    kind: str
    title: str


def write(path: Path, verdicts: Sequence[Verdict], versions: Mapping[str, Mapping[str, str]], command: str) -> None:
    """One self-contained page."""
    reports = [report for verdict in verdicts for report in verdict.reports]
    failures = [(r.architecture, r.backend, r.precision, c) for r in reports for c in r.failures[:5]]
    passed = sum(verdict.passed for verdict in verdicts)
    write_page(
        path,
        "scoreboard.html",
        title="Conformance scoreboard",
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        command=command,
        summary=f"{passed} of {len(verdicts)} architectures conform.",
        precisions=PRECISIONS,
        groups=[(name, levels_of(name)) for name in (*BACKENDS, PAIRS)],
        rows=[(verdict, row(verdict)) for verdict in verdicts],
        failures=failures,
        not_run={name: why for verdict in verdicts for name, why in verdict.not_run.items()},
        versions=versions,
        flags=flag_rows(verdicts),
    )


def levels_of(group: str) -> Sequence[str]:
    """The levels that a column group has: two backends are not compared in structure."""
    return ALL_LEVELS[1:] if group == PAIRS else ALL_LEVELS


def row(verdict: Verdict) -> list[tuple[Cell, ...]]:
    """The cells of one architecture in the order of the columns, each a number per precision."""
    return [
        tuple(cell(worst(verdict, group, precision, level), level) for precision in PRECISIONS)
        for group in (*BACKENDS, PAIRS)
        for level in levels_of(group)
    ]


def worst(verdict: Verdict, group: str, precision: str, level: str) -> Check | None:
    """The check nearest to its budget, or furthest beyond it; None if the level was not run."""
    if group == PAIRS:
        found = [checks[level] for _, _, of, checks in verdict.pairs if of == precision and level in checks]
    else:
        reports = [r for r in verdict.reports if (r.backend, r.precision) == (group, precision)]
        found = [check for report in reports for check in report.checks if check.level == level]
    return max(found, key=lambda check: check.ratio, default=None)


def cell(check: Check | None, level: str) -> Cell:
    """A ratio above 1 and a problem are failures."""
    if check is None:
        return Cell(NOT_RUN, "absent", "")
    detail = check.problem or f"differs by {check.difference:.2e}, allowed {check.budget:.2e}"
    title, kind = f"{check.name}: {detail}", "pass" if check.passed else "fail"
    if check.problem or check.ratio == float("inf"):
        return Cell("FAIL", "fail", title)
    if level == ALL_LEVELS[0]:
        return Cell("equal", kind, "names and shapes are those of the spec")
    return Cell(f"{check.ratio:.2g}" if check.ratio >= 0.01 or check.ratio == 0 else "<.01", kind, title)


def flag_rows(verdicts: Sequence[Verdict]) -> list[tuple[str, str, str, str]]:
    """Backend, precision flag, its value before and during the checks: those that had to be changed, and those that
    could not be."""
    found: dict[tuple[str, str, str, str], None] = {}
    for report in (report for verdict in verdicts for report in verdict.reports):
        wrong = {check.name for check in report.failures if check.name in report.flags}
        for name in (*report.switched_off, *wrong):
            during = str(report.flags.get(name))
            found[report.backend, name, str(report.switched_off.get(name, during)), during] = None
    return list(found)
