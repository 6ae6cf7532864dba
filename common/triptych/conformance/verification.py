"""A certificate judged again: everything in it is run, and whatever is not as it says is a reason to refuse it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import zip_longest
from math import isclose
from typing import Any, ClassVar

from triptych import __version__, zoo
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.conformance import suite
from triptych.conformance.certificate import Certificate, Certified, describe, own_digest
from triptych.conformance.compare import Check
from triptych.conformance.conform import FLAGS, Report
from triptych.conformance.suite import Verdict
from triptych.spec.layers import Architecture, walk
from triptych.spec.records import digest
from triptych.utils.errors import TriptychError

BUDGET_CLOSE = 1e-6  # relative: the reference's sums may come from another BLAS
SHOWN = 3  # reasons of one kind


@dataclass
class Verification:
    """`reasons` refuse the certificate, `notes` do not. `not_run`: backends that cannot be run here, and why."""

    DERIVED: ClassVar = ("passed",)

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    checks: int = 0  # that were made again

    @property
    def passed(self) -> bool:
        """Every part was run again, and nothing differs."""
        return not self.reasons and not self.not_run and self.checks > 0


def verify(certificate: Certificate) -> Verification:
    """Run the certificate again: same specs, seed, backends, device and precisions."""
    result = Verification()
    if own_digest(certificate) != certificate.digest:
        result.reasons.append("the file is not as it was written: its digest does not fit its content")
    backends = available(certificate, result)
    result.notes += version_notes(certificate, backends)
    run = partial(suite.run, precisions=certificate.precisions, seed=certificate.seed, device=certificate.device)
    for old in certificate.architectures:
        result.reasons += [f"{old.name}: {fault}" for fault in (*recorded_faults(old.verdict), *spec_faults(old))]
        if not backends:
            continue
        try:
            new = run(old.verdict.architecture, backends)
        except (TriptychError, ValueError) as error:
            result.reasons.append(f"{old.name}: cannot be run: {error}")
        else:
            result.checks += sum(len(report.checks) for report in (*new.reports, *new.pairs))
            result.reasons += differences(old.name, old.verdict, new, result)
    if not certificate.architectures:
        result.reasons.append("it certifies no architecture")
    result.reasons = list(dict.fromkeys(result.reasons))  # a flag is on for every architecture
    return result


def available(certificate: Certificate, result: Verification) -> list[Backend]:
    """The certificate's backends that can be run here; for the others, why not."""
    loaded = []
    for name in certificate.backends:
        try:
            framework = registry.load(name)
            describe(framework, certificate.device)
        except TriptychError as error:
            result.not_run[name] = str(error)
        else:
            loaded.append(framework)
    return loaded


def version_notes(certificate: Certificate, backends: Sequence[Backend]) -> Iterator[str]:
    """Other versions may be right to use; the checks tell."""
    pairs = [("triptych", certificate.triptych, __version__)]
    for framework in backends:
        old, new = certificate.backends[framework.name].versions, framework.versions()
        pairs += [(package, old.get(package, "none"), new.get(package, "none")) for package in sorted({*old, *new})]
    yield from (f"{package} {old} in the certificate, {new} here" for package, old, new in pairs if old != new)


def recorded_faults(old: Verdict) -> Iterator[str]:
    """What the certificate itself says against a pass."""
    reports = (*old.reports, *old.pairs)
    titles = Counter(report.title for report in reports)
    yield from (f"{title}: is recorded {count} times" for title, count in titles.items() if count > 1)
    if not old.reports:
        yield "no backend was run"
    for report in reports:
        places = Counter((check.level, check.tensor) for check in report.checks if check.level != "structure")
        yield from (f"{report.title}: {_place(*place)} is recorded {n} times" for place, n in places.items() if n > 1)
        failed = [f"{_place(check.level, check.tensor)}: {check.text}" for check in report.failures]
        yield from _some(f"{report.title}: the certificate records a failure", failed)
        yield from (f"{report.title}: {level} was not run: {reason}" for level, reason in report.not_run.items())


def spec_faults(old: Certified) -> Iterator[str]:
    """Whether the spec in the file is the one that was judged, and the one that the zoo has."""
    spec = old.verdict.architecture
    if digest(spec) != old.spec_hash:
        yield "the spec in the file is not the one that was judged: its hash differs"
    if old.options is None:
        if spec.name != old.name:
            yield f"the spec in the file is that of '{spec.name}'"
        return
    try:
        today = zoo.build_with(old.name, old.options)
    except TriptychError as error:
        yield f"the zoo does not build it: {error}"
        return
    if today != spec:
        yield "the spec changed: " + next(spec_differences(spec, today), "its layers are joined in another way")


def spec_differences(old: Architecture, new: Architecture) -> Iterator[str]:
    """Every field in which two specs differ, by layer."""
    left, right = list(walk(old.layers)), list(walk(new.layers))
    for before, now in zip_longest((path for path, _ in left), (path for path, _ in right)):
        if before != now:
            yield f"layer '{before}' in the certificate is '{now}' in the zoo"
            return
    yield from _field_differences(old, new, "")
    for (path, before), (_, now) in zip(left, right, strict=True):
        yield from _field_differences(before, now, f"layer '{path}': ")


def _field_differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if type(old) is not type(new):
        yield f"{where}{type(old).__name__} in the certificate, {type(new).__name__} in the zoo"
        return
    for name in (f.name for f in fields(old) if f.name not in ("layers", "branches", "body", "shortcut", "nodes")):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"{where}{name} is {before} in the certificate, {now} in the zoo"


def differences(arch: str, old: Verdict, new: Verdict, result: Verification) -> Iterator[str]:
    """What is not as recorded, but for the backends that cannot be run here."""
    for name in ("weights", "inputs"):
        before, now = getattr(old, f"{name}_hash"), getattr(new, f"{name}_hash")
        if before != now:
            yield f"{arch}: the {name} changed: SHA-256 {before[:12]}... in the certificate, {now[:12]}... here"
    same = (old.weights_hash, old.inputs_hash) == (new.weights_hash, new.inputs_hash)
    here = {report.title: report for report in (*new.reports, *new.pairs)}
    recorded = (*old.reports, *old.pairs)
    wanted = {report.title: report for report in recorded if not result.not_run.keys() & set(report.backends)}
    for title in dict.fromkeys((*wanted, *here)):
        if title not in here:
            yield f"{arch}: {title}: is in the certificate, but was not run"
        elif title not in wanted:
            yield f"{arch}: {title}: was run, but is not in the certificate"
        else:
            yield from flag_differences(wanted[title], here[title], same_versions=not result.notes)
            reasons = report_differences(wanted[title], here[title], same_case=same)
            yield from (f"{arch}: {title}: {reason}" for reason in reasons)


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
    """Checks that fail now, and others than in the certificate; of the same case, budgets that are others."""
    before, now = _by_place(old.checks), _by_place(new.checks)
    if not new.at(FLAGS):
        yield from _some("fails here", [f"{where}: {check.text}" for where, check in now.items() if not check.passed])
    if stopped := [level for level in new.not_run if level not in old.not_run]:
        yield f"not run here: {', '.join(stopped)}: {new.not_run[stopped[0]]}"
        return
    if len(new.backends) == 1:  # of a pair only the worst tensor of each level is kept, which may be another one here
        yield from _some("in the certificate only", [where for where in before if where not in now])
        yield from _some("not in the certificate", [where for where in now if where not in before])
    changed = [
        f"{where}: {before[where].budget:.6e} in the certificate, {now[where].budget:.6e} here"
        for where in before
        if same_case and where in now and not isclose(before[where].budget, now[where].budget, rel_tol=BUDGET_CLOSE)
    ]
    yield from _some("another budget", changed)


def _place(level: str, tensor: str) -> str:
    return f"{level}, '{tensor}'"


def _by_place(checks: Sequence[Check]) -> dict[str, Check]:
    return {_place(check.level, check.tensor): check for check in checks}


def _some(what: str, reasons: Sequence[str]) -> Iterator[str]:
    yield from (f"{what}: {reason}" for reason in reasons[:SHOWN])
    if len(reasons) > SHOWN:
        yield f"{what}: {len(reasons) - SHOWN} more"
