"""What a certificate records of a network, against what the same checks give here.

Budgets and scales are the reference's, and the same but for what another processor rounds: the reference computes in
float64, in which an error is `UNIT_RATIO` of what float32 makes of it. A budget is twice the distance of two runs, and
each may be off by that share of it; a scale by the budget that float64 has. Differences are roundings, and depend on
the machine's kernels and threads: a recorded one may be `FACTOR` times larger or smaller than here, or apart by `SLACK`
of its budget; the mean of a level may be `FACTOR` times larger or smaller, and by nothing else.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isclose, sqrt

from triptych.conformance.compare import Check
from triptych.conformance.conform import FLAGS, Report
from triptych.conformance.dropped import PREFIX as DRAWN
from triptych.conformance.long_run import LongRun
from triptych.conformance.processes import SharedRun
from triptych.conformance.suite import Verdict
from triptych.conformance.tolerance import SAFETY, UNIT_RATIO, UNPERTURBED_RATIO

CLOSE = 2 * SAFETY * UNIT_RATIO  # relative, 7.5e-9: two runs, counted twice
FACTOR = 10.0
SLACK = 0.1
EQUAL = 1e-6  # of a budget: kernels that agree to the last bit here may differ by less elsewhere
SHOWN = 3  # reasons of one kind


def flags(old: Verdict, new: Verdict, *, same_versions: bool) -> Iterator[str]:
    """Flags that are not as recorded, of the reports that are on both sides; they are the process's, and so for every
    architecture the same."""
    here = {report.title: report for report in (*new.reports, *new.pairs)}
    for report in (report for report in (*old.reports, *old.pairs) if report.title in here):
        yield from flag_differences(report, here[report.title], same_versions=same_versions)


def differences(old: Verdict, new: Verdict, absent: Mapping[str, str]) -> Iterator[str]:
    """What is not as recorded, but for the backends that are `absent` here."""
    for name in ("weights", "inputs"):
        before, now = getattr(old, f"{name}_hash"), getattr(new, f"{name}_hash")
        if before != now:
            yield f"the {name} changed: SHA-256 {before[:12]}... in the certificate, {now[:12]}... here"
    same = (old.weights_hash, old.inputs_hash) == (new.weights_hash, new.inputs_hash)
    here = {report.title: report for report in (*new.reports, *new.pairs)}
    recorded = (*old.reports, *old.pairs)
    wanted = {report.title: report for report in recorded if not absent.keys() & set(report.backends)}
    for title in dict.fromkeys((*wanted, *here)):
        if title not in here:
            yield f"{title}: is in the certificate, but was not run"
        elif title not in wanted:
            yield f"{title}: was run, but is not in the certificate"
        else:
            reasons = report_differences(wanted[title], here[title], same_case=same)
            yield from (f"{title}: {reason}" for reason in reasons)
    if old.trajectory is not None and new.trajectory is not None and same:
        yield from _long_run_differences(old.trajectory, new.trajectory, absent)
    if old.processes is not None and new.processes is not None:
        yield from _shared_differences(old.processes, new.processes, absent)


def flag_differences(old: Report, new: Report, *, same_versions: bool) -> Iterator[str]:
    """Flags that are on, and flags with another value; with other versions, only those that both reports know."""
    left, right = old.precision_flags, new.precision_flags
    stuck = {check.tensor: check.text for check in new.at(FLAGS)}
    if right and not left and len(new.backends) == 1:
        yield f"{new.name}: no precision flag is recorded"
    for name in sorted(left.keys() | right.keys() if same_versions else left.keys() & right.keys()):
        before, now = left.get(name, "not there"), right.get(name, "not there")
        if name in stuck:
            yield f"{new.name}: the precision flag {name} {stuck[name]}"
        elif before != now:
            yield f"{new.name}: the precision flag {name} was {before}, here it is {now}"


def report_differences(old: Report, new: Report, *, same_case: bool) -> Iterator[str]:
    """Checks that fail now, and others than in the certificate; of the same case, figures that are others."""
    before, now = _by_place(old.checks), _by_place(new.checks)
    if not new.at(FLAGS):
        yield from some("fails here", [f"{where}: {check.text}" for where, check in now.items() if not check.passed])
    if stopped := [level for level in new.not_run if level not in old.not_run]:
        yield f"not run here: {', '.join(stopped)}: {new.not_run[stopped[0]]}"
        return
    if len(new.backends) == 1:  # of a pair only the worst tensor of each level is kept, which may be another one here
        yield from some("in the certificate only", [where for where in before if where not in now])
        yield from some("not in the certificate", [where for where in now if where not in before])
        yield from figures(before, now, new.precision) if same_case else ()
    elif same_case:
        yield from figures(_by_level(old.checks), _by_level(new.checks), new.precision)


def figures(old: Mapping[str, Check], new: Mapping[str, Check], precision: str) -> Iterator[str]:
    """Budgets, scales and differences, by place, that are not those of the checks made here."""
    both = {where: (old[where], new[where]) for where in old if where in new and new[where].passed}
    same = {where: pair for where, pair in both.items() if pair[0].tensor == pair[1].tensor}
    budgets = {where: (a.budget, b.budget, 0.0) for where, (a, b) in same.items()}
    scales = {where: (a.scale, b.scale, _rest(b, precision)) for where, (a, b) in same.items()}
    for what, values in (("another budget", budgets), ("another scale", scales)):
        changed = {w: (a, b) for w, (a, b, slack) in values.items() if not isclose(a, b, rel_tol=CLOSE, abs_tol=slack)}
        yield from some(
            what, [f"{where}: {a:.9e} in the certificate, {b:.9e} here" for where, (a, b) in changed.items()]
        )
    # What dropout draws is another in another version, and no rounding.
    shares = {w: (a.ratio, b.ratio) for w, (a, b) in both.items() if a.passed and not a.tensor.startswith(DRAWN)}
    apart = {where: pair for where, pair in shares.items() if not _near(*pair)}
    lines = [f"{where}: {a:.2e} of the budget in the certificate, {b:.2e} here" for where, (a, b) in apart.items()]
    yield from some(f"another difference, more than {FACTOR:g} times", lines)
    if apart:
        return
    for level in dict.fromkeys(check.level for check, _ in both.values()):
        sides = zip(*(shares[where] for where in shares if both[where][0].level == level), strict=True)
        means = [sqrt(sum(share**2 for share in side) / len(side)) for side in sides]
        if means and not means[1] / FACTOR <= means[0] <= means[1] * FACTOR + EQUAL:
            figures_of = f"{means[0]:.2e} of the budgets in the certificate, {means[1]:.2e} here"
            yield f"{level}: the differences are, all in all, {figures_of}"


def some(what: str, reasons: Sequence[str]) -> Iterator[str]:
    """The first reasons of one kind, and how many more there are."""
    yield from (f"{what}: {reason}" for reason in reasons[:SHOWN])
    if len(reasons) > SHOWN:
        yield f"{what}: {len(reasons) - SHOWN} more"


def place(level: str, tensor: str) -> str:
    """`gradient, 'conv1.weight'`."""
    return f"{level}, '{tensor}'"


def _rest(check: Check, precision: str) -> float:
    """What float64 may round in an array: where it is the rest of a cancellation, as much as its scale."""
    exact = check.tensor.startswith(DRAWN)  # its budget is one of a count
    return 0.0 if exact else check.budget * UNIT_RATIO / UNPERTURBED_RATIO[precision]


def _near(old: float, new: float) -> bool:
    return abs(old - new) <= SLACK or new / FACTOR <= old <= new * FACTOR


def _by_place(checks: Sequence[Check]) -> dict[str, Check]:
    return {place(check.level, check.tensor): check for check in checks}


def _by_level(checks: Sequence[Check]) -> dict[str, Check]:
    return {check.level: check for check in checks}


def _shared_differences(old: SharedRun, new: SharedRun, absent: Mapping[str, str]) -> Iterator[str]:
    """Training by several processes: which checks were made, in which precision, and whether they pass here. Figures
    are not compared: the order in which processes add is not the same each time."""
    before, now = ({run.backend: run for run in shared.runs if run.backend not in absent} for shared in (old, new))
    for name in dict.fromkeys((*before, *now)):
        title = f"{name}: {old.count} processes"
        made = [run and (run.precision, _by_place(run.checks).keys()) for run in (before.get(name), now.get(name))]
        if name in now:
            failed = [f"{where}: {c.text}" for where, c in _by_place(now[name].checks).items() if not c.passed]
            yield from (f"{title}: {reason}" for reason in some("fails here", failed))
        if made[0] != made[1]:
            yield f"{title}: other checks are recorded than are made here"


def _long_run_differences(old: LongRun, new: LongRun, absent: Mapping[str, str]) -> Iterator[str]:
    """The float64 trajectory by its figures; the float32 one is chaotic: only its verdict can be the same."""
    for name in [name for name in dict.fromkeys((*old.checks, *new.checks)) if name not in absent]:
        before, now = (_by_place(run.checks.get(name, ())) for run in (old, new))
        title = f"{name} fp64: trajectory"
        failed = [f"{where}: {check.text}" for where, check in now.items() if not check.passed]
        yield from (f"{title}: {reason}" for reason in some("fails here", failed))
        if before.keys() != now.keys():
            yield f"{title}: other checks are recorded than are made here"
        yield from (f"{title}: {reason}" for reason in figures(before, now, "fp64"))
    sides = [{(pair.left, pair.right): pair.verdict for pair in run.pairs} for run in (old, new)]
    for left, right in dict.fromkeys((*sides[0], *sides[1])):
        if not absent.keys() & {left, right}:
            there, here = (side.get((left, right), "not run") for side in sides)
            if there != here or here != "chaos":
                yield f"{left} - {right} fp32: trajectory: {there} in the certificate, {here} here"
