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
    SigningKey,
    backend_names,
    check_place,
    write_json,
)
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.emitting.port import PortedFolder
    from triptych.importers.steps import Imported


def port(
    source: Annotated[str, Parameter(help="What --arch takes; with --check-only, a folder that port has written.")],
    *,
    to: Annotated[str | None, Parameter(help="Backends, with commas; all that are installed if left out.")] = None,
    out: Annotated[Path | None, Parameter(help="The new folder.")] = None,
    sign: SigningKey = None,
    check_only: Annotated[Flag, Parameter(help="Check the files as they lie in the folder; write nothing.")] = False,
    network: NetworkOptions = DEFAULT_NETWORK,
    json: JsonFile = None,
) -> int:
    """Write a network as source files and weights of other frameworks, and check each against the reference.

    The folder has the spec, a file of source with its weights for each framework, a README, a certificate that `verify`
    runs again, and port.html, which shows network and files in columns matched by layer. Exit status 1 if a file, or
    the source in its own framework, is another network than the spec.
    Example: triptych port model-symbol.json --to torch,jax --out ported
    """
    from triptych.conformance import signature
    from triptych.emitting import port as porting
    from triptych.emitting.port_folder import CERTIFICATE, PAGE, PortSource, on_the_disk
    from triptych.utils.process import return_large_memory

    return_large_memory()  # before the network is read, which is judged there for the first time
    if check_only:
        if out is not None or to is not None or sign is not None or network != DEFAULT_NETWORK:
            raise TriptychError("--check-only takes a folder, and nothing else")
        return _tell(porting.check(Path(source)), json)
    if out is None:
        raise TriptychError("--out is missing; give the name of a new folder")
    check_place("--out", out, out.absolute())
    key = None if sign is None else signature.private_key(sign)
    names, imported = backend_names(to), on_the_disk(resolve(source, network))
    origin = PortSource(source, network.weights, imported.origin, network.output)
    done = porting.port(imported, origin, names, out)
    _write_page(out / PAGE, imported, done, names, source)
    if key is not None:
        signature.sign(done.certificate, out / CERTIFICATE, key)
    return _tell(done, json)


def _write_page(path: Path, imported: Imported, done: PortedFolder, names: list[str], source: str) -> None:
    """The network and the files in columns beside each other, matched by layer."""
    from triptych.emitting.emit import emit
    from triptych.report import columns

    about = [f"{name}: {line}" for name, one in done.ported.items() for line in one.lines]
    emitted = [emit(imported.architecture, name) for name in names]
    columns.write(path, imported.architecture, emitted, [f"Ported from {source}.", *imported.remarks, *about])


def _tell(done: PortedFolder, json: str | None) -> int:
    """A line for each check, or JSON; the exit status."""
    from triptych.cli.locate import as_dict
    from triptych.spec.records import encode

    facts = [
        {"backend": name, "passed": one.passed, "checks": encode(one.checks)} | as_dict(one.located)
        for name, one in done.ported.items()
    ]
    write_json(json, facts)
    for name, one in done.ported.items() if json != "-" else ():
        for line in one.lines:
            print(f"{name}: {line}")
    for what, why in done.not_run.items() if json != "-" else ():
        print(f"{what}: not run: {why}")
    return 0 if done.passed else 1
