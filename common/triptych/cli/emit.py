"""`emit`: a network as one source file of a framework."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from triptych.cli.arch import resolve
from triptych.cli.options import DEFAULT_NETWORK, BackendName, NetworkOptions, backend_name, backend_names
from triptych.utils.errors import TriptychError


def emit(
    arch: Annotated[str, Parameter(help="Architecture (`triptych archs` lists them), file, or module:name.")],
    *,
    backend: BackendName = None,
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), help="A new .py file; without it to stdout.")] = None,
    side_by_side: Annotated[
        Path | None, Parameter(help="A new .html file: layers and source of all backends (or of --backend) in columns.")
    ] = None,
    network: NetworkOptions = DEFAULT_NETWORK,
) -> None:
    """Write a network as one idiomatic source file of a framework, which needs no triptych.

    Example: triptych emit vgg16 --backend torch -o vgg16.py
    """
    from triptych.emitting import emit as emitting

    if side_by_side is not None:
        return _side_by_side(arch, backend, out, side_by_side, network)
    name = backend_name(backend)
    _check_new("--out", out, ".py")
    emitted = emitting.emit(resolve(arch, network).architecture, name)
    if out is None:
        print(emitted.source, end="")
        return
    out.write_text(emitted.source, encoding="utf-8")
    print(f"{out}: class {emitted.network}, {len(emitted.names)} arrays; load(path) takes a safetensors file")


def _side_by_side(arch: str, backend: str | None, out: Path | None, page: Path, network: NetworkOptions) -> None:
    from triptych.emitting.emit import emit
    from triptych.report import columns

    if out is not None:
        raise TriptychError("--out is for one source file, --side-by-side for a page; give one of them")
    _check_new("--side-by-side", page, ".html")
    names = backend_names(backend)
    imported = resolve(arch, network)
    columns.write(page, imported.architecture, [emit(imported.architecture, name) for name in names], imported.remarks)
    print(f"{page}: {arch} in {', '.join(names)}")


def _check_new(option: str, path: Path | None, ending: str) -> None:
    if path is not None and path.suffix != ending:
        raise TriptychError(f"{option} {path} must end in {ending}")
    if path is not None and path.exists():
        raise TriptychError(f"{option} {path} is there already; give another name, or move it away")
