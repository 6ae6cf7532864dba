"""A certificate judged again: everything in it is run, and whatever is not as it says is a reason to refuse it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any

from triptych import __version__, zoo
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.conformance import suite
from triptych.conformance.certificate import Certificate, Judged, Measured, Result, describe, judged, own_digest
from triptych.conformance.levels import FLAGS
from triptych.spec.layers import Architecture, walk
from triptych.spec.records import digest
from triptych.utils.errors import TriptychError

BUDGET_CLOSE = 1e-6  # relative: the reference's sums may come from another BLAS
SHOWN = 3  # reasons of one kind


@dataclass
class Verification:
    """`reasons` refuse the certificate, `notes` do not. `not_run`: backends that cannot be run here, and why."""

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
    found = Verification()
    if own_digest(certificate) != certificate.digest:
        found.reasons.append("the file is not as it was written: its digest does not fit its content")
    backends = available(certificate, found)
    found.notes += version_notes(certificate, backends)
    for old in certificate.architectures:
        found.reasons += [f"{old.name}: {reason}" for reason in (*recorded_faults(old), *spec_faults(old))]
        if not backends:
            continue
        try:
            verdict = suite.run(
                old.spec, backends, precisions=certificate.precisions, seed=certificate.seed, device=certificate.device
            )
        except (TriptychError, ValueError) as error:
            found.reasons.append(f"{old.name}: cannot be run: {error}")
            continue
        new = judged(verdict, old.options)
        found.checks += sum(len(checks) for result in new.results for checks in result.checks.values())
        found.reasons += differences(old, new, found)
    if certificate.passed != all(old.passed for old in certificate.architectures):
        found.reasons.append("recorded as a whole as it is not: its architectures say otherwise")
    if not certificate.architectures:
        found.reasons.append("it certifies no architecture")
    found.reasons = list(dict.fromkeys(found.reasons))  # a flag is on for every architecture
    return found


def available(certificate: Certificate, found: Verification) -> list[Backend]:
    """The certificate's backends that can be run here; for the others, why not."""
    loaded = []
    for name in certificate.backends:
        try:
            framework = registry.load(name)
            describe(framework, certificate.device)
        except TriptychError as error:
            found.not_run[name] = str(error)
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


def recorded_faults(old: Judged) -> Iterator[str]:
    """What the certificate itself says against a pass, or contradicts itself in."""
    titles = Counter(result.title for result in old.results)
    yield from (f"{title}: is recorded {count} times" for title, count in titles.items() if count > 1)
    for result in old.results:
        failed = [f"{where}: {describe_check(check)}" for where, check in _checks(result) if not check.passed]
        yield from _some(f"{result.title}: the certificate records a failure", failed)
        yield from (f"{result.title}: {level} was not run: {reason}" for level, reason in result.not_run.items())
        if result.passed == bool(failed or result.not_run):
            yield f"{result.title}: recorded as {'a pass' if result.passed else 'failed'}, which its checks contradict"
    if old.passed != (bool(old.results) and all(result.passed for result in old.results)):
        yield f"recorded as {'a pass' if old.passed else 'failed'}, which its results contradict"


def spec_faults(old: Judged) -> Iterator[str]:
    """Whether the spec in the file is the one that was judged, and the one that the zoo has."""
    if digest(old.spec) != old.spec_hash:
        yield "the spec in the file is not the one that was judged: its hash differs"
    if old.options is None:
        if old.spec.name != old.name:
            yield f"the spec in the file is that of '{old.spec.name}'"
        return
    try:
        today = zoo.build_with(old.name, old.options)
    except TriptychError as error:
        yield f"the zoo does not build it: {error}"
        return
    if today != old.spec:
        yield "the spec changed: " + next(spec_differences(old.spec, today), "its layers are joined in another way")


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
    for name in (f.name for f in fields(old) if f.name not in ("layers", "branches", "body", "shortcut")):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"{where}{name} is {before} in the certificate, {now} in the zoo"


def differences(old: Judged, new: Judged, found: Verification) -> Iterator[str]:
    """What was found now and is not as recorded, but for the backends that cannot be run here."""
    for name in ("weights", "inputs"):
        before, now = getattr(old, f"{name}_hash"), getattr(new, f"{name}_hash")
        if before != now:
            yield f"{old.name}: the {name} changed: SHA-256 {before[:12]}... in the certificate, {now[:12]}... here"
    same = (old.weights_hash, old.inputs_hash) == (new.weights_hash, new.inputs_hash)
    here = {result.title: result for result in new.results}
    wanted = {result.title: result for result in old.results if not found.not_run.keys() & set(result.backends)}
    for title in dict.fromkeys((*wanted, *here)):
        if title not in here:
            yield f"{old.name}: {title}: is in the certificate, but was not run"
        elif title not in wanted:
            yield f"{old.name}: {title}: was run, but is not in the certificate"
        else:
            yield from flag_differences(wanted[title], here[title], same_versions=not found.notes)
            reasons = result_differences(wanted[title], here[title], same_case=same)
            yield from (f"{old.name}: {title}: {reason}" for reason in reasons)


def flag_differences(old: Result, new: Result, *, same_versions: bool) -> Iterator[str]:
    """Flags that are on, and flags with another value; with other versions, only those that both sides know."""
    left, right = old.precision_flags, new.precision_flags
    stuck = new.checks.get(FLAGS, {})
    if right and not left and len(new.backends) == 1:
        yield f"{new.backends[0]}: no precision flag is recorded"
    for name in sorted(left.keys() | right.keys() if same_versions else left.keys() & right.keys()):
        before, now = left.get(name, "not there"), right.get(name, "not there")
        if name in stuck:
            yield f"{new.backends[0]}: the precision flag {name} {stuck[name].problem}"
        elif before != now:
            yield f"{new.backends[0]}: the precision flag {name} was {before}, here it is {now}"


def result_differences(old: Result, new: Result, *, same_case: bool) -> Iterator[str]:
    """Checks that fail now, and others than in the certificate; of the same case, budgets that are others."""
    before, now = dict(_checks(old)), dict(_checks(new))
    failed = [f"{where}: {describe_check(check)}" for where, check in now.items() if not check.passed]
    if FLAGS not in new.checks:
        yield from _some("fails here", failed)
    if stopped := [level for level in new.not_run if level not in old.not_run]:
        yield f"not run here: {', '.join(stopped)}: {new.not_run[stopped[0]]}"
        return
    if len(new.backends) == 1:  # of a pair only the worst tensor of each level is kept, which may be another one here
        yield from _some("in the certificate only", [where for where in before if where not in now])
        yield from _some("not in the certificate", [where for where in now if where not in before])
    changed = [
        f"{where}: {before[where].budget:.6e} in the certificate, {now[where].budget:.6e} here"
        for where in before
        if same_case and where in now and not close(before[where].budget, now[where].budget)
    ]
    yield from _some("another budget", changed)


def close(old: float, new: float) -> bool:
    """Equal budgets, but for the rounding of the sums they come from."""
    return math.isclose(old, new, rel_tol=BUDGET_CLOSE)


def describe_check(check: Measured) -> str:
    """Why a check failed."""
    return check.problem or f"differs by {check.difference}, allowed {check.budget}"


def _checks(result: Result) -> list[tuple[str, Measured]]:
    return [(f"{level}, '{name}'", check) for level, named in result.checks.items() for name, check in named.items()]


def _some(what: str, found: Sequence[str]) -> Iterator[str]:
    yield from (f"{what}: {one}" for one in found[:SHOWN])
    if len(found) > SHOWN:
        yield f"{what}: {len(found) - SHOWN} more"
