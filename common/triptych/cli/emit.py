"""`emit`: a network as one source file of a framework."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triptych.cli.arch import resolve
from triptych.cli.options import DEFAULT_NETWORK, BackendName, NetworkOptions, backend_name
from triptych.utils.errors import TriptychError


def emit(
    arch: Annotated[str, Parameter(help="Architecture (`triptych archs` lists them), file, or module:name.")],
    *,
    backend: BackendName = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), help="A new .py file; without it to stdout.")] = None,
    network: NetworkOptions = DEFAULT_NETWORK,
) -> None:
    """Write a network as one idiomatic source file of a framework, which needs no triptych.

    Example: triptych emit vgg16 --backend torch -o vgg16.py
    """
    from triptych.emitting import emit as emitting

    name = backend_name(backend)
    if out is not None and out.suffix != ".py":
        raise TriptychError(f"--out {out} must end in .py")
    if out is not None and out.exists():
        raise TriptychError(f"--out {out} is there already; give another name, or move it away")
    emitted = emitting.emit(resolve(arch, network).architecture, name)
    if out is None:
        print(emitted.source, end="")
        return
    out.write_text(emitted.source, encoding="utf-8")
    print(f"{out}: class {emitted.network}, {len(emitted.names)} arrays; load(path) takes a safetensors file")
