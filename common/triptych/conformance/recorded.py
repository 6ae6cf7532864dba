"""What a certificate says against itself, before anything is run: nothing here is believed because it is written."""

from collections import Counter
from collections.abc import Iterator, Sequence

from triptych.backend.registry import BACKENDS
from triptych.conformance.certificate import Certificate, left_out
from triptych.conformance.compare import failures
from triptych.conformance.conform import Report
from triptych.conformance.rerun import place, some
from triptych.conformance.suite import NOT_ASKED, NOT_INSTALLED, Verdict


def faults(certificate: Certificate) -> Iterator[str]:
    """Of the file as a whole: architectures twice, what is not said to be left out."""
    names = Counter(certified.name for certified in certificate.architectures)
    yield from (f"{name}: is certified {count} times" for name, count in names.items() if count > 1)
    verdicts = [certified.verdict for certified in certificate.architectures]
    expected = left_out(verdicts, certificate.precisions)
    absent = [name for name in BACKENDS if name not in certificate.backends]
    yield from not_run_faults(certificate.not_run, absent, expected)
    if not certificate.precisions or len(set(certificate.precisions)) < len(certificate.precisions):
        yield "its precisions are none, or one twice"
    if len({verdict.trajectory and verdict.trajectory.steps for verdict in verdicts}) > 1:
        yield "its architectures were not all trained for the same number of steps"
    if len({verdict.processes and verdict.processes.count for verdict in verdicts}) > 1:
        yield "its architectures were not all trained by the same number of processes"
    if not certificate.architectures:
        yield "it certifies no architecture"


def not_run_faults(not_run: dict[str, str], absent: Sequence[str], expected: dict[str, str]) -> Iterator[str]:
    """What was left out and is not said to be, and the reverse; and reasons that nobody gives."""
    for name in dict.fromkeys((*absent, *expected, *not_run)):
        known = (NOT_ASKED, NOT_INSTALLED) if name in absent else (expected[name],) if name in expected else ()
        if name not in not_run:
            yield f"'{name}' was left out, and not_run does not say so"
        elif not known:
            yield f"'{name}' is said to be left out, and was not"
        elif not_run[name] not in known:
            yield f"'{name}' was left out because '{not_run[name]}'; expected {' or '.join(map(repr, known))}"


def verdict_faults(old: Verdict, backends: Sequence[str]) -> Iterator[str]:
    """What one verdict says against a pass."""
    reports = (*old.reports, *old.pairs)
    titles = Counter(report.title for report in reports)
    yield from (f"{title}: is recorded {count} times" for title, count in titles.items() if count > 1)
    if not old.reports:
        yield "no backend was run"
    yield from not_run_faults(old.not_run, [name for name in BACKENDS if name not in backends], {})
    for report in reports:
        yield from (f"{report.title}: {fault}" for fault in _report_faults(report))
    if old.trajectory is not None:
        checks = old.trajectory.checks
        failed = [f"{name}, '{c.tensor}': {c.text}" for name in checks for c in failures(checks[name])]
        failed += [f"{p.left} - {p.right}: {p.verdict}" for p in old.trajectory.pairs if p.verdict != "chaos"]
        yield from some("trajectory: the certificate records a failure", failed)
        yield from (f"trajectory: nothing is recorded of {name}" for name in backends if not checks.get(name))
    if old.processes is not None:
        runs = old.processes.runs
        failed = [f"{run.backend}, '{c.tensor}': {c.text}" for run in runs for c in failures(run.checks)]
        yield from some("processes: the certificate records a failure", failed)
        recorded = Counter(run.backend for run in runs if run.checks)
        yield from (f"processes: nothing is recorded of {name}" for name in backends if name not in recorded)
        yield from (f"processes: {name} is recorded {n} times" for name, n in recorded.items() if n > 1)


def _report_faults(report: Report) -> Iterator[str]:
    places = Counter((check.level, check.tensor) for check in report.checks if check.level != "structure")
    yield from (f"{place(*where)} is recorded {n} times" for where, n in places.items() if n > 1)
    failed = [f"{place(check.level, check.tensor)}: {check.text}" for check in report.failures]
    yield from some("the certificate records a failure", failed)
    yield from (f"{level} was not run: {reason}" for level, reason in report.not_run.items())
