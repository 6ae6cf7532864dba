"""`verify`: run a certificate again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triptych.cli.options import JsonFile, write_json


def verify(
    file: Annotated[Path, Parameter(help="What `conform --certificate` wrote.")], /, *, json: JsonFile = None
) -> int:
    """Run everything that a certificate says again, and compare: spec, weights, inputs, flags, checks and budgets.

    Exit status 1, with a line for each reason, if anything is not as it says or cannot be run here.
    Example: triptych verify vgg11.json
    """
    from triptych.conformance import certificate, verification
    from triptych.spec.records import encode

    recorded = certificate.read(file)
    result = verification.verify(recorded)
    write_json(json, {"certificate": str(file), "backends": list(recorded.backends), **encode(result)})
    if json != "-":
        for name, reason in result.not_run.items():
            print(f"{name}: not run: {reason}")
        for reason in result.reasons:
            print(f"refused: {reason}")
        for note in result.notes:
            print(f"note: {note}")
        names = ", ".join(certified.name for certified in recorded.architectures)
        ran = ", ".join(name for name in recorded.backends if name not in result.not_run) or "no backend"
        word = "verified" if result.passed else "NOT verified"
        print(f"{word}: {names} on {ran}; {result.checks:,} checks run again")
    return 0 if result.passed else 1
