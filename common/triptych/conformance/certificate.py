"""A certificate: what was judged, with what, and every check, as a JSON file that can be judged again.

The spec itself is in it, so that it can be run even after the zoo has changed; the options it was built with are, too,
so that such a change shows. `digest` tells that the file is as it was written; it is no signature.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from triptych import __version__
from triptych.backend.contract import Backend
from triptych.conformance import suite
from triptych.conformance.conform import PRECISIONS
from triptych.conformance.suite import Verdict
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.files import told, write_atomically
from triptych.utils.process import cores
from triptych.utils.reading import read_bounded
from triptych.zoo import Options

FORMAT, VERSION = "triptych certificate", 4
MOST_BYTES = 1 << 30
# Levels that are not run unless they are asked for, and the one that no certificate holds.
ELSEWHERE = {
    "trajectory": "judged by `conform --trajectory 100`",
    "processes": "judged by `conform --processes 2`",
    "accuracy": "judged by `compare --seeds 5`",
}


@dataclass(frozen=True)
class Certified:
    """One architecture. `options` rebuild it from the zoo; without them there is only the spec in its verdict.
    `spec_hash` is the SHA-256 of that spec."""

    name: str
    options: Options | None
    spec_hash: str
    verdict: Verdict


@dataclass(frozen=True)
class Participant:
    """A backend: its packages' versions, and what the device is."""

    versions: dict[str, str]
    device: str


@dataclass(frozen=True)
class Certificate:
    """The file. `not_run`: backends, precisions and levels that were left out, and why."""

    DERIVED: ClassVar = ("passed",)

    format: Literal["triptych certificate"]
    version: Literal[4]
    triptych: str
    created: str
    seed: int
    device: str
    precisions: tuple[Literal["fp64", "fp32"], ...]
    backends: dict[str, Participant]
    not_run: dict[str, str]
    platform: dict[str, str]
    architectures: tuple[Certified, ...]
    digest: str

    @property
    def passed(self) -> bool:
        """There is a verdict, and every verdict is a pass."""
        return bool(self.architectures) and all(certified.verdict.passed for certified in self.architectures)


def make(
    verdicts: Sequence[Verdict],
    options: Sequence[Options | None],
    backends: Sequence[Backend],
    *,
    precisions: Sequence[str],
    seed: int,
    device: str,
) -> Certificate:
    """The certificate of `verdicts`, all of the same backends, precisions, seed and device."""
    certificate = Certificate(
        format="triptych certificate",
        version=4,
        triptych=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seed=seed,
        device=device,
        precisions=tuple(precisions),  # type: ignore[arg-type]  # checked by the caller
        backends={backend.name: Participant(backend.versions(), describe(backend, device)) for backend in backends},
        not_run=(verdicts[0].not_run if verdicts else {}) | left_out(verdicts, precisions),
        platform=platform_facts(),
        architectures=tuple(
            Certified(verdict.architecture.name, chosen, records.digest(verdict.architecture), verdict)
            for verdict, chosen in zip(verdicts, options, strict=True)
        ),
        digest="",
    )
    return replace(certificate, digest=own_digest(certificate))


def left_out(verdicts: Sequence[Verdict], precisions: Sequence[str]) -> dict[str, str]:
    """The precisions and levels that were not run, and why."""
    missing = {precision: suite.NOT_ASKED for precision in PRECISIONS if precision not in precisions}
    ran = [level for level in ELSEWHERE if verdicts and all(getattr(v, level, None) is not None for v in verdicts)]
    return missing | {level: why for level, why in ELSEWHERE.items() if level not in ran}


def platform_facts() -> dict[str, str]:
    """The machine and the Python that the checks run on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": str(cores()),
    }


def own_digest(certificate: Certificate) -> str:
    """The hash of everything else in it."""
    return records.digest(replace(certificate, digest=""))


def describe(backend: Backend, device: str) -> str:
    """What the device called `device` is. Raises TriptychError if the backend does not have it here."""
    for known in backend.devices():
        if known.name in (device, f"{device}:0") and known.available:
            return f"{known.name}: {known.reason}"
    raise TriptychError(f"backend '{backend.name}' has no device '{device}' here")


def write(path: Path, certificate: Certificate) -> bytes:
    """JSON with one check to a line; returns what was written."""
    content = records.write(certificate).encode()
    write_atomically(path, content)
    return content


def read(path: Path) -> Certificate:
    """Raises TriptychError as `content_of` and `parse` do."""
    return parse(content_of(path), path)


def content_of(path: Path) -> bytes:
    """The bytes of a certificate. Raises TriptychError if they cannot be read."""
    with told(f"certificate {path} cannot be read"):
        return read_bounded(path, MOST_BYTES)


def parse(content: bytes, path: Path) -> Certificate:
    """The certificate that these bytes, read from `path`, are. Raises TriptychError if they are none, one of another
    version, or a damaged one."""
    make_one = "with: triptych conform --certificate FILE"
    try:
        value = records.parse(content)
    except ValueError as error:
        raise TriptychError(f"{path} is no certificate, or damaged: it is not JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise TriptychError(f"{path} is no certificate; make one {make_one}")
    if (version := value.get("version")) != VERSION or version is True:
        raise TriptychError(f"certificate {path} has version {version}, not {VERSION}; make it anew {make_one}")
    try:
        return records.decode(value, Certificate)
    except TriptychError as error:
        raise TriptychError(f"certificate {path} is damaged: {error}") from None
    except RecursionError:
        raise TriptychError(f"certificate {path} is damaged: its parts lie too deep in each other") from None
