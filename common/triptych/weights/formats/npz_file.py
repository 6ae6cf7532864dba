"""NumPy's `.npz` with plain arrays: what Flax users keep flat parameters in."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, told
from triptych.weights.formats import numpy_files
from triptych.weights.formats.fields import map_file


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays by name. Raises TriptychError for what is no such archive, and for arrays of anything but numbers."""
    content = map_file(path)
    if not numpy_files.is_numpy_file(content):
        raise TriptychError(f"{path} is no .npz file: it begins with {bytes(content[:4])!r}; write it with numpy.savez")
    return {name: np.asarray(array) for name, array in numpy_files.read(path, content).items()}


def write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write what `numpy.load(path)` gives, the same bits, uncompressed. Raises TriptychError where that cannot be."""
    with told(f"cannot write {path}"), atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
