"""What a file calls the arrays of a network, and how it keeps them: the layouts with each framework's way of paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.spec import analysis
from triptych.spec.flattened import flattened_maps
from triptych.spec.kinds.kind import ParameterInfo, Role
from triptych.spec.layers import Architecture, BatchNorm, Shape
from triptych.utils.errors import TriptychError
from triptych.weights import keras_places
from triptych.weights.keras_places import Placed
from triptych.weights.layouts import FLAX, GLUON, KERAS, TORCH, Layout

Arrays = dict[str, NDArray[Any]]
CHANNELS_FIRST, CHANNELS_LAST = "chw", "hwc"
FLATTEN_ORDERS = (CHANNELS_FIRST, CHANNELS_LAST)


@dataclass(frozen=True)
class Naming:
    """A way to name arrays. `separator` joins the records' names; `trained` and `statistics` stand before parameters
    and running statistics. `flattens`: in which order a map becomes a dense layer's features. `whole_norms`: a batch
    norm has a scale and a shift in any case, 1 and 0 where the spec has none. `places`: the names and shapes where they
    depend on the whole network. `custom`: the layers that the framework has no class for. `backend`: whose networks
    have these names."""

    layout: Layout
    separator: str = "."
    trained: str = ""
    statistics: str = ""
    flattens: str = CHANNELS_FIRST
    whole_norms: bool = False
    places: Callable[[Architecture], Mapping[str, Placed]] | None = None
    custom: Callable[[Architecture], tuple[str, ...]] = lambda architecture: ()
    backend: str = ""

    def name(self, info: ParameterInfo) -> str:
        """The file's name of a canonical array."""
        prefix = self.trained if info.trained else self.statistics
        return prefix + self.layout.native_path(info).replace(".", self.separator)


# `torch`: a state dict. `gluon`: of save_parameters; `gluon-exported`: of `export` and Module. `flax`: NNX's paths;
# `linen`: its collections. `keras`: of Keras 3's save_weights.
NAMINGS: Mapping[str, Naming] = {
    "canonical": Naming(TORCH),
    "torch": Naming(TORCH, backend="torch"),
    "gluon": Naming(GLUON, whole_norms=True, backend="mxnet"),
    "gluon-exported": Naming(GLUON, "_", "arg:", "aux:", whole_norms=True, backend="mxnet"),
    "flax": Naming(FLAX, "/", flattens=CHANNELS_LAST, backend="jax"),
    "linen": Naming(FLAX, "/", "params/", "batch_stats/", flattens=CHANNELS_LAST, backend="jax"),
    "keras": Naming(KERAS, "/", flattens=CHANNELS_LAST, places=keras_places.places, custom=keras_places.custom),
}


_CONSTANTS: tuple[tuple[str, Role, float], ...] = (("weight", "scale", 1.0), ("bias", "shift", 0.0))


class NamedArrays:
    """The arrays of one architecture as one naming has them; `flatten` overrides the order in which it flattens."""

    def __init__(self, architecture: Architecture, naming: Naming, flatten: str | None = None) -> None:
        self.architecture, self.naming = architecture, naming
        self.infos = {info.path: info for info in analysis.parameters(architecture)}
        last = (flatten or naming.flattens) == CHANNELS_LAST
        self.maps: Mapping[str, Shape] = flattened_maps(architecture) if last else {}
        placed = naming.places(architecture) if naming.places is not None else {}
        self.names = {path: placed[path].name if placed else naming.name(info) for path, info in self.infos.items()}
        self._shapes = {path: place.shape for path, place in placed.items() if place.shape is not None}
        if len(set(self.names.values())) < len(self.names):
            raise TriptychError(
                f"two arrays of '{architecture.name}' have one name with {naming.separator!r} between layers; "
                "convert to another naming (--to)"
            )

    @property
    def permuted(self) -> dict[str, Shape]:
        """The layers, by path, whose arrays are in height-width-channels order, with the map that was flattened."""
        layers = {path.rpartition(".")[0] for path in self.infos}
        return {path: shape for path, shape in self.maps.items() if path in layers}

    def from_canonical(self, path: str, array: NDArray[Any]) -> NDArray[Any]:
        """A canonical array as the file has it."""
        shape = self._map(path)
        if shape is not None:
            array = np.take(array, _places(shape), axis=array.ndim - 1)
        array = self.naming.layout.from_canonical(array)
        return array.reshape(self._shapes.get(path, array.shape))

    def to_canonical(self, path: str, array: NDArray[Any]) -> NDArray[Any]:
        """The file's array with the canonical axes and order."""
        if array.shape == self._shapes.get(path):
            array = array.reshape(self.naming.layout.native_shape(self.infos[path].shape))
        array = self.naming.layout.to_canonical(array)
        shape = self._map(path)
        if shape is None or array.shape[-1:] != (np.prod(shape),):
            return array
        return np.take(array, np.argsort(_places(shape)), axis=array.ndim - 1)

    def constants(self) -> dict[str, ParameterInfo]:
        """By name, the scales and shifts of batch norms that the naming has and the spec has not."""
        norms = [place for place in analysis.primitives(self.architecture) if isinstance(place.layer, BatchNorm)]
        infos = [
            ParameterInfo(f"{place.path}.{name}", place.input[:1], role, start)
            for place in norms
            if self.naming.whole_norms
            for name, role, start in _CONSTANTS
            if f"{place.path}.{name}" not in self.infos
        ]
        return {self.naming.name(info): info for info in infos}

    def _map(self, path: str) -> Shape | None:
        """The map whose flattened order the last axis of an array has: a dense layer's weight, not its bias."""
        shape = self.maps.get(path.rpartition(".")[0])
        info = self.infos[path]
        return None if shape is None or info.shape[-1] != np.prod(shape) or info.role == "bias" else shape


def _places(shape: Shape) -> NDArray[np.intp]:
    """For every value in height-width-channels order its place in channels-height-width order."""
    return np.arange(np.prod(shape)).reshape(shape).transpose(1, 2, 0).ravel()
