"""A parameter file of Gluon's by itself, taken as the weights of a network that is known.

Gluon names arrays by their place in the block (`features.0.weight`), by the block's prefix and a counter
(`net0_conv0_weight`), or by that without the prefix, and none of these says what the spec calls the layer. What tells
is the order: a file lists its layers as the block registered them, which is the order of execution, but that a residual
unit has its body before its shortcut.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers.layer_order import names_in_order
from triptych.importers.mxnet_network import read_arrays
from triptych.spec import analysis
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import GLUON


def load(path: Path, architecture: Architecture) -> dict[str, NDArray[Any]]:
    """The canonical parameters of `architecture` in a `.params` file, whichever of Gluon's names it has.

    By the names of the spec, if these are the file's, else in order. Raises TriptychError, with the first layer and its
    shapes, for a file of another network, and where two assignments would fit, or none but in another order.
    """
    arrays = read_arrays(path)
    paths = {info.path: GLUON.native_path(info) for info in analysis.parameters(architecture)}
    if set(paths.values()) <= arrays.keys():
        found = {canonical: arrays[name] for canonical, name in paths.items()}
    else:
        names = names_in_order(arrays, architecture, GLUON, str(path), "take -symbol.json with it")
        found = {canonical: arrays[name] for canonical, name in names.items()}
    for info in analysis.parameters(architecture):
        if found[info.path].shape != info.shape:
            raise TriptychError(
                f"{path} is not of '{architecture.name}': it has {found[info.path].shape} for '{info.path}', "
                f"expected {info.shape}"
            )
    return found
