"""`port`: somebody's network as native source with weights, checked against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.arch import resolve
from triptych.cli.options import (
    DEFAULT_NETWORK,
    Flag,
    JsonFile,
    NetworkOptions,
    backend_names,
    check_place,
    write_json,
)
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triptych.emitting.port import Ported
    from triptych.importers.steps import Imported


def port(
    source: Annotated[str, Parameter(help="What --arch takes; with --check-only, a folder that port has written.")],
    *,
    to: Annotated[str | None, Parameter(help="Backends, with commas; all that are installed if left out.")] = None,
    out: Annotated[Path | None, Parameter(help="The new folder.")] = None,
    check_only: Annotated[Flag, Parameter(help="Check the files as they lie in the folder; write nothing.")] = False,
    network: NetworkOptions = DEFAULT_NETWORK,
    json: JsonFile = None,
) -> int:
    """Write a network as source files and weights of other frameworks, and check each against the reference.

    The folder has the spec, a file of source with its weights for each framework, a README, and port.html, which shows
    network and files in columns matched by layer. Exit status 1 if a file computes anything else than the spec.
    Example: triptych port model-symbol.json --to torch,jax --out ported
    """
    from triptych.emitting import port as porting
    from triptych.utils.files import write_atomically

    if check_only:
        if out is not None or to is not None or network != DEFAULT_NETWORK:
            raise TriptychError("--check-only takes a folder, and nothing else")
        return _tell([porting.check(Path(source), name) for name in porting.backends_in(Path(source))], json)
    if out is None:
        raise TriptychError("--out is missing; give the name of a new folder")
    check_place("--out", out, out.absolute())
    names, imported = backend_names(to), resolve(source, network)
    porting.write(imported, names, out)
    checked = [porting.check(out, name) for name in names]
    write_atomically(out / "README.md", porting.read_me(imported, checked, source).encode())
    _write_page(out / "port.html", imported, checked, source)
    return _tell(checked, json)


def _write_page(path: Path, imported: Imported, checked: Sequence[Ported], source: str) -> None:
    """The network and the files in columns beside each other, matched by layer."""
    from triptych.emitting.emit import emit
    from triptych.emitting.port import result
    from triptych.report import columns

    about = [
        f"Ported from {source}.",
        *imported.remarks,
        *(f"{one.backend}: {t}" for one in checked for t in result(one)),
    ]
    emitted = [emit(imported.architecture, one.backend) for one in checked]
    columns.write(path, imported.architecture, emitted, about)


def _tell(checked: list[Ported], json: str | None) -> int:
    """A line for each check, or JSON; the exit status."""
    from triptych.cli.locate import as_dict
    from triptych.emitting.port import result
    from triptych.spec.records import encode

    known = ({"backend": c.backend, "passed": c.passed, "own_weights": encode(c.own_weights)} for c in checked)
    write_json(json, [one | as_dict(c.located) for one, c in zip(known, checked, strict=True)])
    for one in checked if json != "-" else ():
        for line in result(one):
            print(f"{one.backend}: {line}")
    return 0 if all(one.passed for one in checked) else 1
