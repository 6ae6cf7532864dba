"""A certificate: what was judged, with what, and every check, as a JSON file that can be judged again.

The spec itself is in it, so that it can be run even after the zoo has changed; the options it was built with are, too,
so that such a change shows. `digest` tells that the file is as it was written; it is no signature.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from triptych import __version__
from triptych.backend.contract import Backend
from triptych.backend.precision import Value
from triptych.conformance.inputs import everything
from triptych.conformance.levels import ALL_LEVELS, FLAGS, Check, Report
from triptych.conformance.suite import PRECISIONS, Verdict, finite
from triptych.spec.layers import Architecture
from triptych.spec.records import arrays_digest, decode, digest, encode
from triptych.utils.errors import TriptychError
from triptych.utils.files import write_atomically
from triptych.utils.process import cores
from triptych.zoo import Options

# Levels whose verdict is no part of a certificate.
ELSEWHERE = {
    "trajectory": "judged by `conform --trajectory 100`",
    "accuracy": "judged by `compare --seeds 5`",
}


@dataclass(frozen=True)
class Measured:
    """A check: the largest difference, None where none can be stated, and what was allowed; or why it failed."""

    difference: float | None
    budget: float
    problem: str

    @property
    def passed(self) -> bool:
        """Stated, no negative number, and within the budget."""
        return not self.problem and self.difference is not None and 0 <= self.difference <= self.budget


Measurements = dict[str, dict[str, Measured]]  # by level, then by tensor


@dataclass(frozen=True)
class Result:
    """One backend, or a pair (of which only the tensor nearest to its budget is kept per level), in one precision.

    `precision_flags` are as they were during the checks, `switched_off` what had to be changed for them.
    """

    backends: tuple[str, ...]
    precision: str
    passed: bool
    precision_flags: dict[str, Value]
    switched_off: dict[str, Value]
    not_run: dict[str, str]  # by level, why
    checks: Measurements

    @property
    def title(self) -> str:
        """`torch fp32`, `torch - jax fp64`."""
        return f"{' - '.join(self.backends)} {self.precision}"


@dataclass(frozen=True)
class Judged:
    """One architecture. `options` rebuild it from the zoo; without them there is only the spec. Hashes are SHA-256."""

    name: str
    passed: bool
    options: Options | None
    spec: Architecture
    spec_hash: str
    weights_hash: str
    inputs_hash: str
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Participant:
    """A backend: its packages' versions, and what the device is."""

    versions: dict[str, str]
    device: str


@dataclass(frozen=True)
class Certificate:
    """The file. `not_run`: backends, precisions and levels that were left out, and why."""

    format: Literal["triptych certificate"]
    version: Literal[1]
    triptych: str
    created: str
    passed: bool
    seed: int
    device: str
    precisions: tuple[Literal["fp64", "fp32"], ...]
    backends: dict[str, Participant]
    not_run: dict[str, str]
    platform: dict[str, str]
    architectures: tuple[Judged, ...]
    digest: str


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
    left_out = {precision: "not asked for" for precision in PRECISIONS if precision not in precisions} | ELSEWHERE
    certificate = Certificate(
        format="triptych certificate",
        version=1,
        triptych=__version__,
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        passed=all(verdict.passed for verdict in verdicts),
        seed=seed,
        device=device,
        precisions=tuple(precisions),  # type: ignore[arg-type]  # checked by the caller
        backends={backend.name: Participant(backend.versions(), describe(backend, device)) for backend in backends},
        not_run={name: reason for verdict in verdicts[:1] for name, reason in verdict.not_run.items()} | left_out,
        platform={
            "python": platform.python_version(),
            "numpy": np.__version__,
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": str(cores()),
        },
        architectures=tuple(judged(verdict, chosen) for verdict, chosen in zip(verdicts, options, strict=True)),
        digest="",
    )
    return replace(certificate, digest=own_digest(certificate))


def own_digest(certificate: Certificate) -> str:
    """The hash of everything else in it."""
    return digest(replace(certificate, digest=""))


def describe(backend: Backend, device: str) -> str:
    """What the device called `device` is. Raises TriptychError if the backend does not have it here."""
    for known in backend.devices():
        if known.name in (device, f"{device}:0") and known.available:
            return f"{known.name}: {known.reason}"
    raise TriptychError(f"backend '{backend.name}' has no device '{device}' here")


def judged(verdict: Verdict, options: Options | None) -> Judged:
    """One architecture's part; the verdict must hold its case."""
    case = verdict.case
    if case is None:
        raise ValueError("a verdict without its case cannot be certified")
    pairs = tuple(
        Result((left, right), precision, _passed(checks.values()), {}, {}, {}, _by_level(checks.values()))
        for left, right, precision, checks in verdict.pairs
    )
    return Judged(
        name=case.architecture.name,
        passed=verdict.passed,
        options=options,
        spec=case.architecture,
        spec_hash=digest(case.architecture),
        weights_hash=arrays_digest(case.parameters),
        inputs_hash=arrays_digest(everything(case)),
        results=tuple(_result(report) for report in verdict.reports) + pairs,
    )


def write(path: Path, certificate: Certificate) -> None:
    """JSON with one check to a line."""
    text = json.dumps(encode(certificate), indent=1, allow_nan=False)
    innermost = re.compile(r"[{\[][^{}\[\]]*[}\]]")
    write_atomically(path, innermost.sub(lambda part: re.sub(r"\n\s*", " ", part[0]), text).encode() + b"\n")


def read(path: Path) -> Certificate:
    """Raises TriptychError if `path` is no certificate, or one that cannot be read."""
    try:
        value = json.loads(
            path.read_bytes(), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_named_once
        )
    except OSError as error:
        raise TriptychError(f"certificate {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise TriptychError(f"{path} is no certificate, or damaged: it is not JSON ({error})") from None
    if not isinstance(value, dict) or value.get("format") != "triptych certificate":
        raise TriptychError(f"{path} is no certificate; make one with: triptych conform --certificate FILE")
    try:
        return decode(value, Certificate)
    except TriptychError as error:
        raise TriptychError(f"certificate {path} is damaged: {error}") from None
    except RecursionError:
        raise TriptychError(f"certificate {path} is damaged: its parts lie too deep in each other") from None


def _result(report: Report) -> Result:
    levels = {check.level for check in report.checks}
    reason = "a precision flag is on" if FLAGS in levels else "an earlier level stopped the run"
    return Result(
        (report.backend,),
        report.precision,
        report.passed,
        report.flags,
        report.switched_off,
        {level: reason for level in ALL_LEVELS if level not in levels},
        _by_level(report.checks),
    )


def _by_level(checks: Iterable[Check]) -> Measurements:
    found: Measurements = {}
    for check in checks:
        name = check.name
        while name in found.setdefault(check.level, {}):  # structure has a layer's output beside a weight of its name
            name += " (again)"
        found[check.level][name] = Measured(finite(check.difference), check.budget, check.problem)
    return found


def _passed(checks: Iterable[Check]) -> bool:
    return all(check.passed for check in checks)


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _refuse_constant(text)


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; readers of JSON differ in which of two values of one name they take."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice in one object")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")
