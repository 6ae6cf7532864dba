"""PyTorch's files: an exported program, TorchScript, or weights alone."""

import re
from pathlib import Path
from typing import Any

from triptych.importers import torch_archive, torch_export
from triptych.importers.steps import Imported, ImportRefusedError, Request
from triptych.importers.torch_export import quiet
from triptych.importers.torch_network import network
from triptych.importers.torch_program import read
from triptych.importers.torch_script import replayed
from triptych.utils.errors import TriptychError
from triptych.utils.reading import is_archive, open_file

_WAY_OUT = "name the network as MODULE:NAME"  # as --arch in some commands, at its own place in others


def load(path: Path, request: Request) -> Imported:
    """The network in a file of torch.export.save or torch.jit.save. Raises TriptychError, with what the file holds,
    where that is no network, and ImportRefusedError for what is no network of the spec's layers."""
    if not path.is_file():
        raise TriptychError(f"{path} is no file")
    if not is_archive(path):
        raise TriptychError(_held(path))
    names = torch_archive.entries(path)
    if any(name.startswith("models/") and name.endswith(".json") for name in names):
        return _exported(path, request)
    if "serialized_exported_program.json" in names:
        raise TriptychError(f"{path} is an exported program of PyTorch 2.7 or older; export it again with a newer one")
    if any(name.startswith("code/") for name in names):
        return _script(path, request)
    raise TriptychError(_held(path))


def _opened(path: Path) -> Any:
    """The torch.export.ExportedProgram in a file."""
    import torch  # noqa: TID251

    copy = torch_archive.exported_program(path)
    try:
        with quiet():
            exported = torch.export.load(copy)
        _check_size(path, [*exported.state_dict.values(), *exported.constants.values()])
    except TriptychError:
        raise
    except Exception as error:  # what a program that torch.export did not make may hold has no end
        raise TriptychError(f"{path} is no whole exported program ({_first_line(error)})") from error
    return exported


def _exported(path: Path, request: Request) -> Imported:
    exported = _opened(path)
    try:
        program = read(exported)
        shape = program.input_shape[1:]
        if request.input and request.input != shape:
            raise ImportRefusedError(
                f"{path} was exported for images {shape}, and {request.input} were asked for; export it again"
            )
        return network(program, None, request, name=path.stem, source=f"PyTorch: {path.name}")
    except TriptychError:
        raise
    except Exception as error:  # what a program that torch.export did not make may hold has no end
        raise TriptychError(f"{path} is no whole exported program ({_first_line(error)})") from error


def runnable(path: Path) -> Any:
    """A module that computes in evaluation what the file says. As a stranger's file it runs no operator that the
    importer does not know. Raises TriptychError for one that does not only have such."""
    if path.suffix != ".pt2":
        return replayed(open_script(path))[0]
    return torch_export.evaluated(_opened(path))


def _script(path: Path, request: Request) -> Imported:
    return torch_export.load(open_script(path), Request(**{**vars(request), "name": request.name or path.stem}))


def open_script(path: Path) -> Any:
    """The module in a TorchScript file. Raises TriptychError for one that is none, or that is damaged."""
    import torch  # noqa: TID251

    copy = torch_archive.script(path)
    try:
        with quiet():
            script = torch.jit.load(copy, map_location="cpu")
    except Exception as error:
        raise TriptychError(f"{path} is no whole TorchScript file ({_first_line(error)})") from None
    _check_size(path, [*script.parameters(), *script.buffers()])
    return script


def _check_size(path: Path, tensors: list[Any]) -> None:
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors) > 10 * path.stat().st_size:
        raise TriptychError(f"{path}: its tensors are more than ten times as large as the file; refused")


def _held(path: Path) -> str:
    """What a file holds that is no network, read without running anything of it."""
    import torch  # noqa: TID251

    if not _is_of_torch(path):
        return f"{path} is no file of PyTorch (of torch.save, torch.jit.save or torch.export.save), or is damaged"
    try:
        with quiet():
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive(path) or None)
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            return f"{path} is no file of PyTorch that can be read ({_first_line(error)})"
        named = re.findall(r"GLOBAL ([\w.]+)", str(error)) or _classes(path)
        what = f"objects that need {', '.join(named[:4])}" if named else "more than tensors"
        return f"{path} holds {what}, and only running it would read them; {_WAY_OUT}, and weights as a state dict"
    if isinstance(held, dict) and held and all(isinstance(value, torch.Tensor) for value in held.values()):
        total = sum(value.numel() for value in held.values())
        return (
            f"{path} holds weights alone ({len(held)} arrays, {total} values); {_WAY_OUT}, and this file as --weights"
        )
    keys = f" with {', '.join(map(str, list(held)[:8]))}" if isinstance(held, dict) else ""
    return f"{path} holds a {type(held).__name__}{keys}, which is no network; {_WAY_OUT}"


def _is_of_torch(path: Path) -> bool:
    """Whether it is a whole archive, or begins as a pickle."""
    if is_archive(path):
        return True
    with open_file(path) as file:
        return file.read(1) == b"\x80"


def _classes(path: Path) -> list[str]:
    """The classes and functions that a pickle in an archive names, beside those of tensors."""
    import torch  # noqa: TID251

    try:
        return list(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:
        return []


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
