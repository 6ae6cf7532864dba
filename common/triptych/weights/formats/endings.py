"""Files of weights by their ending: what reads and writes them, and which namings stand in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError
from triptych.weights import store
from triptych.weights.formats import flax_msgpack, keras_h5, mxnet_params, npz_file, orbax_folder, torch_file
from triptych.weights.naming import NAMINGS

Arrays = dict[str, NDArray[Any]]
FOLDER = ".orbax"


@dataclass(frozen=True)
class Ending:
    """Files of one ending: what they are, how they are read and written, and the namings that they can have; the first
    is written where no other is asked for. `ordered`: the arrays come as the layers were registered, so that their
    order tells what they are (safetensors sorts them, and Flax goes by the alphabet)."""

    ending: str
    what: str
    read: Callable[[Path], Arrays]
    write: Callable[[Path, Mapping[str, NDArray[Any]]], None]
    namings: tuple[str, ...]
    ordered: bool = False


def _read_params(path: Path) -> Arrays:
    return {name: np.asarray(array) for name, array in mxnet_params.read(path).items()}


def _save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    store.save(path, dict(arrays))


ENDINGS = (
    Ending(".safetensors", "safetensors", store.load, _save, tuple(NAMINGS)),
    Ending(".pt", "a state dict of PyTorch's", torch_file.read, torch_file.write, ("torch",), ordered=True),
    Ending(".pth", "a state dict of PyTorch's", torch_file.read, torch_file.write, ("torch",), ordered=True),
    Ending(
        ".params", "parameters of MXNet's", _read_params, mxnet_params.write, ("gluon", "gluon-exported"), ordered=True
    ),
    Ending(".npz", "an archive of NumPy's", npz_file.read, npz_file.write, ("flax", "linen")),
    Ending(".msgpack", "variables of Flax", flax_msgpack.read, flax_msgpack.write, ("flax", "linen")),
    Ending(".weights.h5", "weights of Keras 3's", keras_h5.read, keras_h5.write, ("keras",)),
    Ending(FOLDER, "a checkpoint of Orbax (a folder)", orbax_folder.read, orbax_folder.write, ("flax", "linen")),
)


def ending_of(path: Path) -> Ending:
    """The kind of file that its name says; a folder of any name is Orbax's. Raises TriptychError for an unknown one."""
    for ending in ENDINGS:
        if path.name.endswith(ending.ending) or (ending.ending == FOLDER and path.is_dir()):
            return ending
    known = ", ".join(ending.ending for ending in ENDINGS)
    raise TriptychError(f"'{path}' is no file of weights that is known; its name must end in {known}")


def is_known(path: Path) -> bool:
    """Whether `ending_of` knows it."""
    return any(path.name.endswith(ending.ending) for ending in ENDINGS)


def is_imported(path: Path) -> bool:
    """Whether an importer reads such a file, which knows more than its names: Keras's."""
    return path.name.endswith((".h5", ".hdf5", ".keras"))


def naming_for(ending: Ending, name: str | None) -> str:
    """The naming that a file gets. Raises TriptychError for one that such files do not have."""
    if name is None:
        return ending.namings[0]
    if name not in NAMINGS:
        raise TriptychError(f"--to '{name}' is not known; known: {', '.join(NAMINGS)}")
    if name not in ending.namings:
        raise TriptychError(f"--to {name}: a file {ending.ending} is {' or '.join(ending.namings)}; use another ending")
    return name
