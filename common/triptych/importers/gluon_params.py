"""A parameter file of Gluon's by itself, taken as the weights of a network that is known.

Gluon names arrays by their place in the block (`features.0.weight`), by the block's prefix and a counter
(`net0_conv0_weight`), or by that without the prefix, and none of these says what the spec calls the layer. What tells
is the order: a file lists its layers as the block registered them, which is the order of execution, but that a residual
unit has its body before its shortcut.
"""

from __future__ import annotations

from pathlib import Path

from triptych.importers.layer_order import match_in_order
from triptych.importers.mxnet_network import read_arrays
from triptych.importers.steps import Imported
from triptych.spec import analysis
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import GLUON


def load(path: Path, architecture: Architecture) -> Imported:
    """`architecture` with its canonical parameters in a `.params` file, whichever of Gluon's names it has.

    By the names of the spec, if these are the file's, else in order. Auxiliary classifiers that the file does not have
    are left out, which is a remark. Raises TriptychError, with the first layer and its shapes, for a file of another
    network, and where two assignments would fit, or none but in another order.
    """
    arrays = read_arrays(path)
    remarks: tuple[str, ...] = ()
    if not _named(architecture) <= arrays.keys():
        taken, names = match_in_order(arrays, architecture, GLUON, str(path), "take -symbol.json with it")
        if taken != architecture:
            architecture, remarks = taken, ("the file has no auxiliary classifier; the network is taken without",)
    else:
        names = {info.path: GLUON.native_path(info) for info in analysis.parameters(architecture)}
    for info in analysis.parameters(architecture):
        if (shape := arrays[names[info.path]].shape) != info.shape:
            raise TriptychError(
                f"{path} is not of '{architecture.name}': it has {shape} for '{info.path}', expected {info.shape}"
            )
    return Imported(architecture, {path: arrays[name] for path, name in names.items()}, remarks)


def _named(architecture: Architecture) -> set[str]:
    """What Gluon calls the arrays of a block that has the spec's names."""
    return {GLUON.native_path(info) for info in analysis.parameters(architecture)}
