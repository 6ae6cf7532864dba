"""The scoreboard of `conform`: architectures by backends by levels, each cell its worst ratio to the budget."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from triptych.backend.registry import BACKENDS
from triptych.conformance import compare
from triptych.conformance.compare import Check
from triptych.conformance.conform import PRECISIONS
from triptych.conformance.levels import ALL_LEVELS
from triptych.conformance.sharpness import Sharpness, sharpness
from triptych.conformance.suite import Verdict
from triptych.report.page import write_page

PAIRS = "pairs"  # the column group of what two backends differ by
# The column groups with their levels: two backends are not compared in structure.
GROUPS = [*((name, ALL_LEVELS) for name in BACKENDS), (PAIRS, ALL_LEVELS[1:])]


def write(path: Path, verdicts: Sequence[Verdict], versions: Mapping[str, Mapping[str, str]], command: str) -> None:
    """One self-contained page."""
    failures = [(v.architecture.name, r.title, c) for v in verdicts for r in v.reports for c in r.failures[:5]]
    passed = sum(verdict.passed for verdict in verdicts)
    write_page(
        path,
        "scoreboard.html",
        title="Conformance scoreboard",
        command=command,
        summary=f"{passed} of {len(verdicts)} architectures conform.",
        precisions=PRECISIONS,
        groups=GROUPS,
        cells=[(group, level) for group, levels in GROUPS for level in levels],
        verdicts=verdicts,
        worst=worst,
        share=share,
        levels=ALL_LEVELS[1:],
        told=told,
        failures=failures,
        not_run={name: why for verdict in verdicts for name, why in verdict.not_run.items()},
        versions=versions,
        flags=flag_rows(verdicts),
    )


def worst(verdict: Verdict, group: str, precision: str, level: str) -> Check | None:
    """The check nearest to its budget, or furthest beyond it; None if the level was not run."""
    reports = verdict.pairs if group == PAIRS else [report for report in verdict.reports if report.name == group]
    of_reports = (report.worst(level) for report in reports if report.precision == precision)
    return compare.worst(filter(None, of_reports))


def share(check: Check | None) -> str:
    """What a cell says: the share of the budget in two digits, "equal" for names and shapes, or FAIL."""
    if check is None:
        return "not run"
    if check.problem or check.ratio == float("inf"):
        return "FAIL"
    if check.level == ALL_LEVELS[0]:
        return "equal"
    return f"{check.ratio:.2g}" if check.ratio >= 0.01 or check.ratio == 0 else "<.01"


def told(verdict: Verdict, precision: str) -> dict[str, Sharpness]:
    """By level, what the budgets in a precision can tell; they are the reference's, so any backend's report says it."""
    reports = (report for report in verdict.reports if report.precision == precision)
    return next(({of.level: of for of in sharpness(report)} for report in reports), {})


def flag_rows(verdicts: Sequence[Verdict]) -> list[tuple[str, str, str, str]]:
    """Backend, precision flag, its value before and during the checks: those that had to be changed, and those that
    could not be."""
    rows: dict[tuple[str, str, str, str], None] = {}
    for report in (report for verdict in verdicts for report in verdict.reports):
        wrong = {check.tensor for check in report.failures if check.tensor in report.precision_flags}
        for name in (*report.switched_off, *wrong):
            during = str(report.precision_flags.get(name))
            rows[report.name, name, str(report.switched_off.get(name, during)), during] = None
    return list(rows)
