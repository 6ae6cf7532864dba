"""A certificate judged again: everything in it is run, and whatever is not as it says is a reason to refuse it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from typing import Any, ClassVar

from triptych import __version__, zoo
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.conformance import recorded, rerun, suite
from triptych.conformance.certificate import Certificate, Certified, describe, own_digest, platform_facts
from triptych.conformance.identity import options_of, zoo_name
from triptych.conformance.suite import Verdict
from triptych.spec.layers import Architecture, walk
from triptych.spec.records import digest
from triptych.utils.errors import TriptychError


@dataclass
class Verification:
    """`reasons` refuse the certificate, `notes` do not. `not_run`: backends that cannot be run here, and why.
    `unvouched`: what the certificate says and nothing here can show."""

    DERIVED: ClassVar = ("passed",)

    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    unvouched: list[str] = field(default_factory=list)
    checks: int = 0  # that were made again

    @property
    def passed(self) -> bool:
        """Every part was run again, and nothing differs."""
        return not self.reasons and not self.not_run and self.checks > 0


def verify(certificate: Certificate) -> Verification:
    """Run the certificate again: same specs, seed, backends, device, precisions and steps. One that is not as it was
    written is refused, and nothing of it is run."""
    result = Verification()
    if own_digest(certificate) != certificate.digest:
        result.reasons.append("the file is not as it was written: its digest does not fit its content; nothing was run")
        return result
    backends = available(certificate, result)
    versions = list(version_notes(certificate, backends))
    result.reasons += recorded.faults(certificate)
    for old in certificate.architectures:
        names = list(certificate.backends)
        faults = (*recorded.verdict_faults(old.verdict, names), *spec_faults(old))
        result.reasons += [f"{old.name}: {fault}" for fault in faults]
        if backends and (new := run_again(certificate, old, backends, result)) is not None:
            result.reasons += rerun.flags(old.verdict, new, same_versions=not versions)
            result.reasons += [f"{old.name}: {d}" for d in rerun.differences(old.verdict, new, result.not_run)]
    result.notes += [*versions, *machine_notes(certificate, backends)]
    result.unvouched += unvouched(certificate)
    result.reasons = list(dict.fromkeys(result.reasons))
    return result


def run_again(
    certificate: Certificate, old: Certified, backends: Sequence[Backend], result: Verification
) -> Verdict | None:
    """The verdict here on one architecture; None, with a reason, if it cannot be run."""
    steps = None if old.verdict.trajectory is None else old.verdict.trajectory.steps
    shared = old.verdict.processes
    options: dict[str, Any] = {"precisions": certificate.precisions, "seed": certificate.seed}
    options["processes"] = None if shared is None else shared.count
    try:
        new = suite.run(old.verdict.architecture, backends, device=certificate.device, steps=steps, **options)
    except (TriptychError, ValueError) as error:
        result.reasons.append(f"{old.name}: cannot be run: {error}")
        return None
    result.checks += sum(len(report.checks) for report in (*new.reports, *new.pairs))
    result.checks += 0 if new.trajectory is None else sum(map(len, new.trajectory.checks.values()))
    result.checks += 0 if new.processes is None else sum(len(run.checks) for run in new.processes.runs)
    return new


def unvouched(certificate: Certificate) -> Iterator[str]:
    """What a run here cannot show."""
    yield "who made it, when (created), and on what machine and versions (platform, device, backends)"
    yield (
        f"differences to more than a factor of {rerun.FACTOR:g} or {rerun.SLACK:g} of their budget, of pairs the names "
        "of the worst tensors, and which flags had another value before (switched_off)"
    )
    if any(certified.verdict.trajectory is not None for certified in certificate.architectures):
        yield "the float32 trajectory but for its verdict: how far two runs diverge is another each time"
    if any(certified.verdict.processes is not None for certified in certificate.architectures):
        yield "training by several processes but for its verdict: they do not add in the same order each time"
    for certified in certificate.architectures:
        if certified.options is None and zoo_name(certified.name) is None:
            yield f"{certified.name}: what it is called; it is a spec of its own and none of the zoo"


def title(certified: Certified) -> str:
    """`lenet`; `lenet (a size of the zoo)` where its spec alone says so; else that it is none of the zoo's."""
    if certified.options is not None:
        return certified.name
    of_the_zoo = options_of(certified.verdict.architecture) is not None
    return f"{certified.name} ({'a size of the zoo' if of_the_zoo else 'a spec of its own'})"


def available(certificate: Certificate, result: Verification) -> list[Backend]:
    """The certificate's backends that can be run here; for the others, why not."""
    loaded = []
    for name in certificate.backends:
        try:
            framework = registry.load(name)
            here, there = describe(framework, certificate.device), certificate.backends[name].device
            if here.partition(": ")[0] != there.partition(": ")[0]:
                result.reasons.append(f"{name}: was judged on '{there}', the certificate's device here is '{here}'")
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


def machine_notes(certificate: Certificate, backends: Sequence[Backend]) -> Iterator[str]:
    """Where the device's own text, or the platform, is another here."""
    for framework in backends:
        old, new = certificate.backends[framework.name].device, describe(framework, certificate.device)
        if old != new:
            yield f"{framework.name}: the device is '{old}' in the certificate, '{new}' here"
    here = platform_facts()
    for name in dict.fromkeys((*certificate.platform, *here)):
        before, now = certificate.platform.get(name, "not said"), here.get(name, "not said")
        if before != now:
            yield f"{name} {before} in the certificate, {now} here"


def spec_faults(old: Certified) -> Iterator[str]:
    """Whether the spec in the file is the one that was judged, and the one that the zoo has."""
    spec = old.verdict.architecture
    if digest(spec) != old.spec_hash:
        yield "the spec in the file is not the one that was judged: its hash differs"
    if spec.name != old.name:
        yield f"the spec in the file is that of '{spec.name}'"
    if old.options is None:
        if zoo_name(spec.name) is not None and options_of(spec) is None:
            yield f"the spec is called '{spec.name}', as a network of the zoo, and is that network at no size"
        return
    try:
        today = zoo.build_with(old.name, old.options)
    except TriptychError as error:
        yield f"the zoo does not build it: {error}"
        return
    if today != spec and old.name == spec.name:
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
