"""`verify`: run a certificate again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triptych.cli.options import JsonFile, write_json


def verify(
    file: Annotated[Path, Parameter(help="What `conform --certificate` wrote.")],
    /,
    *,
    json: JsonFile = None,
) -> int:
    """Run everything that a certificate says again, and compare: spec, weights, inputs, flags, checks and budgets.

    Exit status 1, with a line for each reason, if anything is not as it says or cannot be run here.
    Example: triptych verify vgg11.json
    """
    from triptych.conformance import certificate, verification

    recorded = certificate.read(file)
    found = verification.verify(recorded)
    names = ", ".join(judged.name for judged in recorded.architectures)
    ran = ", ".join(name for name in recorded.backends if name not in found.not_run) or "no backend"
    if json is not None:
        value = {name: getattr(found, name) for name in ("passed", "reasons", "not_run", "notes", "checks")}
        write_json(json, {"certificate": str(file), "backends": list(recorded.backends), **value})
    if json != "-":
        for name, reason in found.not_run.items():
            print(f"{name}: not run: {reason}")
        for reason in found.reasons:
            print(f"refused: {reason}")
        for note in found.notes:
            print(f"note: {note}")
        result = "verified" if found.passed else "NOT verified"
        print(f"{result}: {names} on {ran}; {found.checks:,} checks run again")
    return 0 if found.passed else 1
