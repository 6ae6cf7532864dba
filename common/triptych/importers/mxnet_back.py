"""The way back to a symbol of MXNet's: canonical arrays under its own names, in its own axes.

Which number of a canonical array is which of MXNet's is not repeated here: numbers that say their own place go through
the importer, and where they come out is where the trained ones go back from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers import mxnet_network, mxnet_symbol
from triptych.importers.steps import Imported, Request
from triptych.spec import analysis
from triptych.spec.layers import Architecture, BatchNorm
from triptych.utils.errors import TriptychError
from triptych.weights.formats import mxnet_params

Arrays = Mapping[str, NDArray[Any]]
FIRST = 2**20  # the number of the first place: none of an architecture's own constants


@dataclass(frozen=True)
class Back:
    """A symbol with its parameters, from which the network was imported, and how. Where there is no file of them, the
    arrays are those that the symbol needs."""

    symbol: Path
    params: Path | None
    request: Request
    architecture: Architecture

    @cached_property
    def stored(self) -> dict[str, NDArray[Any]]:
        """The arrays of the parameter file; without one, scales that are fixed are 1, and all else is 0."""
        if self.params is None:
            return mxnet_network.blank_arrays(self.symbol, self._request)
        return mxnet_network.read_arrays(self.params)

    def arrays(self, canonical: Arrays) -> dict[str, NDArray[Any]]:
        """Canonical arrays under the symbol's names and in its axes; of those that have a part in them. What of such an
        array has no canonical number is 0."""
        found: dict[str, NDArray[Any]] = {}
        for path, (name, places) in self.places.items():
            if path in canonical:
                flat = found.setdefault(name, np.zeros(self.stored[name].size, canonical[path].dtype))
                flat[places] = np.ravel(canonical[path])
        return {name: flat.reshape(self.stored[name].shape) for name, flat in found.items()}

    def file(self, canonical: Arrays) -> dict[str, NDArray[Any]]:
        """All arrays of a parameter file, `arg:` or `aux:` before the symbol's names: the canonical ones, and as they
        are stored those that the network has nothing of."""
        auxiliary = {*mxnet_symbol.read(self.symbol).auxiliary}
        if self.params is not None:
            auxiliary |= mxnet_params.split_prefixes(mxnet_params.read(self.params))[1].keys()
        own = self.stored | self.arrays(canonical)
        return {f"{'aux' if name in auxiliary else 'arg'}:{name}": value for name, value in own.items()}

    def canonical(self, file: Arrays) -> dict[str, NDArray[Any]]:
        """The canonical arrays of such a file."""
        arguments, auxiliary = mxnet_params.split_prefixes(file)
        arrays = {name: np.asarray(array) for name, array in {**arguments, **auxiliary}.items()}
        found = self._imported(arrays).parameters or {}
        left_out = self.places.keys() - found.keys()  # shifts of zeros
        return found | {path: arrays[self.places[path][0]] for path in left_out}

    @property
    def _request(self) -> Request:
        return replace(self.request, input=self.architecture.input)

    def _imported(self, arrays: Arrays) -> Imported:
        return mxnet_network.load_arrays(self.symbol, arrays, self._request, self.params)

    @cached_property
    def places(self) -> dict[str, tuple[str, NDArray[np.int64]]]:
        """By canonical path: the name of the array that its numbers are from, and their places there. Raises
        TriptychError for another network, and where the importer makes a number of several."""
        starts, numbered, first = {}, {}, FIRST
        for name, array in self.stored.items():
            starts[name] = first
            numbered[name] = np.arange(first, first + array.size, dtype=np.float64).reshape(array.shape)
            first += array.size
        imported = self._imported(numbered)
        if _layers(imported.architecture) != _layers(self.architecture):
            raise TriptychError(f"the network is not that of {self.symbol}, or constants there are made of arrays")
        begins, names = np.array([*starts.values()]), list(starts)
        wanted = {info.path for info in analysis.parameters(self.architecture)}
        found = {}
        for path, array in (imported.parameters or {}).items():
            if path not in wanted:
                continue
            numbers = np.asarray(array, np.float64).ravel()
            name = names[max(0, int(np.searchsorted(begins, numbers[0], "right")) - 1)]
            places = (numbers - starts[name]).astype(np.int64)
            inside = places.min() >= 0 and places.max() < self.stored[name].size
            if not inside or not np.array_equal(places + starts[name], numbers) or len(np.unique(places)) < len(places):
                raise TriptychError(
                    f"'{path}' is made of several numbers of {self.params or self.symbol}, and does not go back there"
                )
            found[path] = name, places
        return found


def _layers(architecture: Architecture) -> list[tuple[str, object]]:
    """What must be alike; a shift of a batch norm that is 0 in the file is none in the spec."""
    infos = analysis.primitives(architecture)
    return [("input", architecture.input)] + [
        (info.path, replace(info.layer, beta=True) if isinstance(info.layer, BatchNorm) else info.layer)
        for info in infos
    ]
