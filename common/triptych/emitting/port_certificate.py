"""The certificate of a port: what was compared of the files in its folder, as a JSON file beside them. Verified, the
files are run again as they lie there, and what differs is located."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

from triptych import __version__
from triptych.backend import registry
from triptych.conformance.certificate import platform_facts
from triptych.conformance.compare import Check, failures
from triptych.conformance.verification import Verification
from triptych.emitting import port_folder
from triptych.emitting.port_check import Ported
from triptych.emitting.port_reference import PortReference
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.files import told, write_atomically
from triptych.utils.reading import read_bounded

FORMAT = "triptych port certificate"
SOURCE = "source"  # the name of the network that was ported, among those of the backends


@dataclass(frozen=True)
class PortVerdict:
    """Of one network: the `levels` that agree on drawn weights, or the first `difference`, in words; the checks of its
    outputs and of training; what was not run, and why."""

    DERIVED: ClassVar = ("passed",)

    levels: tuple[str, ...]
    difference: str
    checks: tuple[Check, ...]
    not_run: dict[str, str]

    @property
    def passed(self) -> bool:
        """Something was compared, and nothing differs."""
        return bool(self.levels) and bool(self.checks) and not self.difference and not failures(self.checks)


@dataclass(frozen=True)
class PortCertificate:
    """The file. `files`: SHA-256 by name in the folder; `verdicts`: by backend, and of the source; `versions`: of the
    frameworks that ran. `digest` tells that the file is as it was written; it is no signature."""

    DERIVED: ClassVar = ("passed",)

    format: Literal["triptych port certificate"]
    version: Literal[1]
    triptych: str
    created: str
    ported_from: str
    spec_hash: str
    files: dict[str, str]
    versions: dict[str, dict[str, str]]
    platform: dict[str, str]
    verdicts: dict[str, PortVerdict]
    not_run: dict[str, str]
    digest: str

    @property
    def passed(self) -> bool:
        """There is a verdict, and every verdict is a pass."""
        return bool(self.verdicts) and all(verdict.passed for verdict in self.verdicts.values())


def write(folder: Path, ported: Mapping[str, Ported], not_run: Mapping[str, str], source: str) -> bytes:
    """Write the certificate of what lies in the folder; returns what was written."""
    backends = [registry.load(name) for name in ported if name in registry.BACKENDS]
    certificate = PortCertificate(
        format="triptych port certificate",
        version=1,
        triptych=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ported_from=source,
        spec_hash=records.digest(port_folder.read(folder)[0]),
        files=dict(_hashes(folder, [backend.name for backend in backends])),
        versions={backend.name: backend.versions() for backend in backends},
        platform=platform_facts(),
        verdicts={name: _verdict(one) for name, one in ported.items()},
        not_run={**not_run, **port_folder.NEVER},
        digest="",
    )
    certificate = replace(certificate, digest=records.digest(certificate))
    content = records.write(certificate).encode()
    write_atomically(folder / port_folder.CERTIFICATE, content)
    return content


def is_one(content: bytes) -> bool:
    """Whether a file's content says that it is a certificate of a port."""
    try:
        value = records.parse(content)
    except ValueError:
        return False
    return isinstance(value, dict) and value.get("format") == FORMAT


def parse(content: bytes, path: Path) -> PortCertificate:
    """The certificate that these bytes, read from `path`, are. Raises TriptychError if they are none of a port, or
    damaged."""
    try:
        return records.decode(records.parse(content), PortCertificate)
    except (ValueError, TriptychError, RecursionError) as error:
        raise TriptychError(f"certificate {path} is damaged: {error}; `triptych port` writes another") from None


def verify(content: bytes, path: Path, *, as_written: bool = False) -> tuple[PortCertificate, Verification]:
    """Run the files beside the certificate that was read from `path` again, as they lie there; `as_written`: only if
    they all are what it says, source included. One that is itself not as it was written is refused, and nothing is
    run."""
    certificate, result = parse(content, path), Verification()
    if records.digest(replace(certificate, digest="")) != certificate.digest:
        digest = "its digest does not fit its content; nothing was run"
        result.reasons.append(f"the certificate is not as it was written: {digest}")
        return certificate, result
    names = [name for name in certificate.verdicts if name != SOURCE]
    if not names or any(name not in registry.BACKENDS for name in names):
        raise TriptychError(f"certificate {path} is damaged: it is of the backends {', '.join(names) or 'none'}")
    with _copied(path.parent, names) if as_written else nullcontext(path.parent) as folder:
        _check_files(certificate, folder, names, result)
        if as_written and (result.reasons or result.notes):
            result.reasons += [f"{note}; nothing was run" for note in result.notes]
            result.notes.clear()
            return certificate, result
        expect = cache(partial(port_folder.expectation, folder))
        for name in names:
            _check_again(certificate, folder, name, expect, result)
    if SOURCE in certificate.verdicts and not certificate.verdicts[SOURCE].passed:
        result.reasons.append(f"{SOURCE}: failed in the certificate; it is not run again here")
    what = f"; the comparison with {certificate.ported_from} itself" if SOURCE in certificate.verdicts else ""
    result.unvouched.append(f"who made it, when, on what machine and versions, and the size of each difference{what}")
    return certificate, result


@contextmanager
def _copied(folder: Path, names: list[str]) -> Iterator[Path]:
    """A copy of the files, which nobody else writes: what is held against the certificate is what runs."""
    with TemporaryDirectory(prefix="triptych-port-") as place:
        with told(f"the files in {folder} cannot be copied"):
            for name in filter(lambda name: (folder / name).is_file(), _files(names)):
                copy = Path(place) / name
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(read_bounded(folder / name))
        yield Path(place)


def _check_files(certificate: PortCertificate, folder: Path, names: list[str], result: Verification) -> None:
    """What changed: the spec and its weights are what was judged; an edit elsewhere may change no number."""
    here = dict(_hashes(folder, names))
    for name in dict.fromkeys((*certificate.files, *here)):
        if certificate.files.get(name) != here.get(name):
            judged = name in (port_folder.SPEC, port_folder.WEIGHTS)
            lost = "is missing" if name not in here else "is not the one that was written"
            (result.reasons if judged or name not in here else result.notes).append(f"{name} {lost}")


def _check_again(
    certificate: PortCertificate, folder: Path, name: str, expect: Callable[[], PortReference], result: Verification
) -> None:
    old = certificate.verdicts[name]
    try:
        registry.check_installed(name)
    except TriptychError as error:
        result.not_run[name] = str(error)
        return
    try:
        ported = port_folder.check(folder, [name], expect())[name]
    except TriptychError as error:
        result.reasons.append(f"{name}: cannot be run: {error}")
        return
    new = _verdict(ported)
    result.checks += len(new.levels) + len(new.checks)
    result.reasons += [f"{name}: {line}" for line in ported.lines if line.startswith("DIFFERS")]
    if old.passed != new.passed:
        result.reasons.append(f"{name}: {_word(new)} here, and {_word(old)} in the certificate")
    ran, said = ([*verdict.levels, *(check.level for check in verdict.checks)] for verdict in (new, old))
    if ran != said and new.passed:
        result.reasons.append(f"{name}: {', '.join(said)} in the certificate, {', '.join(ran)} here")
    result.notes += list(_other_versions(certificate.versions.get(name, {}), registry.load(name).versions()))


def _word(verdict: PortVerdict) -> str:
    return "passed" if verdict.passed else "failed"


def _other_versions(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for package in sorted({*old, *new}):
        if old.get(package) != new.get(package):
            yield f"{package} {old.get(package, 'none')} in the certificate, {new.get(package, 'none')} here"


def _verdict(ported: Ported) -> PortVerdict:
    differs = ported.located.difference is not None
    levels = () if differs else ported.located.levels
    return PortVerdict(levels, ported.lines[0] if differs else "", ported.checks, ported.not_run)


def _hashes(folder: Path, names: list[str]) -> Iterator[tuple[str, str]]:
    """SHA-256 (hex) of the files that were written and are there, by name."""
    for name in _files(names):
        if (folder / name).is_file():
            with told(f"{folder / name} cannot be read"):
                yield name, hashlib.sha256(read_bounded(folder / name)).hexdigest()


def _files(names: list[str]) -> list[str]:
    of_backends = (f"{name}/{file}" for name in names for file in (port_folder.SOURCE, port_folder.WEIGHTS))
    return [port_folder.SPEC, port_folder.WEIGHTS, *of_backends]
