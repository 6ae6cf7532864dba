"""Canonical parameters on disk and against an architecture: what is saved, compared and exchanged."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from triptych.spec import analysis, records
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError
from triptych.utils.files import write_atomically
from triptych.utils.reading import open_file, read_bounded
from triptych.weights.initializers import Parameters

MANIFEST = "manifest.json"
MOST_NOTE = 1 << 20  # bytes of it
MOST_NOTED = 1 << 28  # of what another writes beside its files


def check_fit(architecture: Architecture, parameters: Mapping[str, NDArray[Any]]) -> None:
    """Raises TriptychError, with the first differing name or shape in the network's order, unless all fit."""
    expected = {info.path: info.shape for info in analysis.parameters(architecture)}
    for path, shape in expected.items():
        if path not in parameters:
            raise TriptychError(f"the parameters do not fit '{architecture.name}': '{path}' {shape} is missing")
        if parameters[path].shape != shape:
            raise TriptychError(
                f"the parameters do not fit '{architecture.name}': '{path}' has the shape {parameters[path].shape}, "
                f"expected {shape}"
            )
    for path in parameters:
        if path not in expected:
            raise TriptychError(f"the parameters do not fit '{architecture.name}': '{path}' is not in the network")


def encode(parameters: Parameters) -> bytes:
    """The content of a safetensors file."""
    return safetensors.numpy.save({name: np.asarray(value, order="C") for name, value in parameters.items()})


def save(path: Path, parameters: Parameters) -> None:
    """Write a safetensors file, whole or not at all, and its SHA-256 into the manifest beside it. The manifest exists
    because safetensors does not notice a flipped bit."""
    content = encode(parameters)
    manifest = path.with_name(MANIFEST)
    known = _read_manifest(manifest) if manifest.exists() else {}  # first: a manifest of somebody else's stops it
    write_atomically(path, content)
    known[path.name] = hashlib.sha256(content).hexdigest()
    write_atomically(manifest, json.dumps(known, indent=2).encode())


def _read_manifest(path: Path) -> dict[str, str]:
    try:
        return records.decode(records.read(path, MOST_NOTE), dict[str, str])
    except (OSError, ValueError, TriptychError) as error:
        raise TriptychError(f"{path} is damaged: {error}; remove it") from None


def check_header(path: Path) -> None:
    """Raises TriptychError if the file is missing, or its first bytes are not those of a safetensors file; the
    parameters themselves are not read."""
    try:
        open_file(path).close()
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        with safetensors.safe_open(path, "numpy"):
            return
    except Exception as error:  # as in `load`
        raise TriptychError(f"{path} is no safetensors file: {error}") from None


def load(path: Path) -> Parameters:
    """Read a safetensors file. Raises TriptychError if it is missing, altered or no such file."""
    try:
        content = read_bounded(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    expected = _expected_hash(path)
    actual = hashlib.sha256(content).hexdigest()
    if expected is not None and actual != expected:
        raise TriptychError(f"{path} was altered: its SHA-256 is {actual}, another was noted beside it: {expected}")
    return decode(content, path)


def decode(content: bytes, path: Path) -> Parameters:
    """The parameters in a safetensors file with this content. Raises TriptychError for any other file."""
    try:
        return dict(safetensors.numpy.load(content))
    except Exception as error:  # safetensors raises its own types and several of Python's for a damaged file
        raise TriptychError(f"{path} is no safetensors file: {error}") from None


def _unreadable(path: Path, error: OSError) -> TriptychError:
    return TriptychError(f"cannot read the parameters {path}: {error.strerror}")


def _expected_hash(path: Path) -> str | None:
    """What the note beside the file says: our own manifest, or the state of the checkpoint that it is a part of."""
    for name, hash_in in NOTES.items():
        note = path.with_name(name)
        if not note.exists():
            continue
        try:
            known = records.read(note, MOST_NOTED)
            return hash_in(known, path.name)
        except KeyError:
            continue  # of other files
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise TriptychError(f"{note} is damaged: {error}") from None
    return None


# What says which hash the files beside it have.
NOTES: dict[str, Callable[[Any, str], str]] = {
    MANIFEST: lambda known, name: str(known[name]),
    "state.json": lambda known, name: str(known["files"][name]["sha256"]),
}
