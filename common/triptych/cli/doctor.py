"""`doctor`: which backends and devices work here, and why the others do not."""

from typing import Any

from triptych.cli.options import JsonFile, write_json
from triptych.report.tables import print_table
from triptych.utils.errors import TriptychError


def doctor(*, json: JsonFile = None) -> int:
    """Show which backends, versions and devices work here, and why the others do not.

    Exit status 1 if no backend works. Example: triptych doctor
    """
    from triptych.backend.registry import BACKENDS

    backends = [examine(name) for name in BACKENDS]
    write_json(json, backends)
    if json != "-":
        show(backends)
    return 0 if any(entry["works"] for entry in backends) else 1


def examine(name: str) -> dict[str, Any]:
    """One backend: whether it works, its versions, its devices, or what is wrong."""
    from triptych.backend import registry

    try:
        loaded = registry.load(name)
        devices = [vars(device) for device in loaded.devices()]
        return {"backend": name, "works": True, "versions": loaded.versions(), "devices": devices, "problem": ""}
    except TriptychError as error:
        return {"backend": name, "works": False, "versions": {}, "devices": [], "problem": str(error)}


def show(backends: list[dict[str, Any]]) -> None:
    """The findings as a table."""
    rows = []
    for entry in backends:
        versions = ", ".join(f"{package} {version}" for package, version in entry["versions"].items())
        if not entry["works"]:
            rows.append((entry["backend"], "", "", "no", entry["problem"]))
        for device in entry["devices"]:
            works = "yes" if device["available"] else "no"
            rows.append((entry["backend"], versions, device["name"], works, device["reason"]))
    print_table(("backend", "versions", "device", "works", "what it is, or why not"), rows)
