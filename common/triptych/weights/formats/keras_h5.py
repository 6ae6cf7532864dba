"""Keras 3's `.weights.h5`, read and written without Keras: arrays by their paths in the HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError, require_package
from triptych.utils.files import atomic_write, told
from triptych.weights.formats import keras_file


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays by name, `layers/conv2d/vars/0`; of a model in the model `layers/functional/layers/conv2d/vars/0`.
    Raises TriptychError as `keras_file.read` does, and for a file that names layers otherwise."""
    file = keras_file.read(path)
    if not file.by_class:
        raise TriptychError(f"{path} is of an older Keras, by the layers' own names; convert it without --mapping")
    return {
        "".join(f"layers/{layer}/" for layer in layers) + f"vars/{number}": array
        for layers, arrays in file.arrays.items()
        for number, array in enumerate(arrays)
    }


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `load_weights` of a model with these layers reads. Raises TriptychError where that cannot be."""
    require_package("h5py", "keras", f"{path.name}")
    import h5py

    # The file has a lock of ours already, which HDF5 would not get by.
    with told(f"cannot write {path}"), atomic_write(path) as file, h5py.File(file.name, "w", locking=False) as opened:
        for name, array in arrays.items():
            opened.create_dataset(name, data=np.ascontiguousarray(array).reshape(array.shape))
