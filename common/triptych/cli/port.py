"""`port`: somebody's network as native source with weights, checked against the reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli.arch import resolve
from triptych.cli.options import DEFAULT_NETWORK, Flag, NetworkOptions, backend_names
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.emitting.port import Ported


def port(
    source: Annotated[str, Parameter(help="What --arch takes; with --check-only, a folder that port has written.")],
    *,
    to: Annotated[str | None, Parameter(help="Backends, with commas; all that are installed if left out.")] = None,
    out: Annotated[Path | None, Parameter(help="The new folder.")] = None,
    check_only: Annotated[Flag, Parameter(help="Check the files as they lie in the folder; write nothing.")] = False,
    network: NetworkOptions = DEFAULT_NETWORK,
) -> int:
    """Write a network as source files and weights of other frameworks, and check each against the reference.

    The folder has the spec, a file of source with its weights for each framework, and a README. Exit status 1 if
    a file computes anything else than the spec.
    Example: triptych port model-symbol.json --to torch,jax --out ported
    """
    from triptych.emitting import port as porting
    from triptych.utils.files import write_atomically

    if check_only:
        if out is not None or to is not None or network != DEFAULT_NETWORK:
            raise TriptychError("--check-only takes a folder, and nothing else")
        return _tell([porting.check(Path(source), name) for name in porting.backends_in(Path(source))])
    if out is None:
        raise TriptychError("--out is missing; give the name of a new folder")
    names, imported = backend_names(to), resolve(source, network)
    porting.write(imported, names, out)
    checked = [porting.check(out, name) for name in names]
    write_atomically(out / "README.md", porting.read_me(imported, checked, source).encode())
    return _tell(checked)


def _tell(checked: list[Ported]) -> int:
    from triptych.emitting.port import result

    for one in checked:
        for line in result(one):
            print(f"{one.backend}: {line}")
    return 0 if all(one.passed for one in checked) else 1
