"""What MXNet's trainer remembers (`gluon.Trainer.save_states`), as canonical optimiser state, without MXNet.

The file is a pickle of `({index: arrays}, optimizer)`; it is read as data, nothing in it is called. The index is the
place of the parameter among all names of the network in alphabetical order (`conv10` before `conv2`), running
statistics counted. A state goes the way of its parameter through the importer, so that whatever is transposed or
sorted there is, too. SGD's velocity holds the learning rate, with the sign of a step: it is taken out here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers import mxnet_network
from triptych.importers.steps import Imported, Request
from triptych.utils.errors import TriptychError
from triptych.utils.files import told
from triptych.weights.formats import mxnet_params
from triptych.weights.formats.inert_pickle import Call, loads

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class _Kind:
    """An optimiser of MXNet's: what it is here, and what its arrays are, in their order."""

    optimizer: str
    slots: tuple[str, ...]
    nesterov: bool = False


# With weight decay NAG is one of its own: nag_mom_update (1.9.1) has moved the weight before it decays by it.
_NAG_DECAYS = "MXNet's NAG decays by the weight that it has moved already, which is not repeated here"
_KINDS = {
    "SGD": _Kind("sgd", ("velocity",)),
    "NAG": _Kind("sgd", ("velocity",), nesterov=True),
    "Adam": _Kind("adam", ("mean", "variance")),
}


@dataclass(frozen=True, eq=False)
class TrainerStates:
    """What was remembered. `optimizer` is the kind's name here (sgd, adam); `settings` are its fields of that name in
    the file (momentum, nesterov, weight_decay, beta1 ...), `learning_rate` what it had last; `steps` were made.
    `slots`: canonical arrays by slot and path; a velocity still holds the learning rate."""

    optimizer: str
    settings: Mapping[str, float | bool]
    learning_rate: float
    steps: int
    slots: Mapping[str, Arrays]

    def state(self, learning_rate: float) -> Arrays:
        """The optimiser's state as it crosses the contract: arrays by slot and path, and the count of Adam's steps.
        `learning_rate` is that of the next step: with it the velocity moves the parameters as it would have there. When
        it changes later, the old velocity follows here, as in PyTorch and optax, and stays in MXNet.
        Raises TriptychError for a velocity and a learning rate of 0."""
        found: Arrays = {}
        for slot, arrays in self.slots.items():
            if slot == "velocity" and not learning_rate:
                raise TriptychError("the learning rate is 0, and cannot be taken out of the velocities")
            factor = -1 / learning_rate if slot == "velocity" else 1.0
            found |= {f"{slot}.{path}": np.asarray(array, np.float64) * factor for path, array in arrays.items()}
        return found | ({"count": np.asarray(self.steps, np.float64)} if self.optimizer == "adam" and found else {})

    def differing(self, optimizer: Any) -> str:
        """The options that would make an optimizer record the one of the file, but for its weight decay, which may
        change between two steps; empty if it is that."""
        if optimizer.name != self.optimizer:
            return f"--optimizer {self.optimizer}"
        own = {name: value for name, value in self.settings.items() if name != "weight_decay"}
        wrong = {name: value for name, value in own.items() if not math.isclose(getattr(optimizer, name), value)}
        if getattr(optimizer, "nesterov", False) and "nesterov" not in own:
            return "--no-nesterov"
        return " ".join(f"--{name} {value:g}".removesuffix(" 1") for name, value in wrong.items())

    @property
    def summary(self) -> str:
        """One line: the optimiser with its settings, and how far it had come."""
        settings = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        differs = bool(self.settings.get("nesterov") and self.settings.get("weight_decay"))
        line = f"{self.optimizer} ({settings}), learning rate {self.learning_rate:g}, after {self.steps} steps"
        return f"{line}; {_NAG_DECAYS}" if differs else line


def load(states: Path, symbol: Path, params: Path, request: Request) -> tuple[Imported, TrainerStates]:
    """The network of a symbol and a parameter file, and what its trainer had saved with it. Raises TriptychError as
    `mxnet_network.load` does, and for a file that is no such pickle, holds another optimiser, or is of another
    network; the message names the array."""
    imported = mxnet_network.load(symbol, params, request)
    arrays = mxnet_network.read_arrays(params)
    kind, optimizer, by_index = _read(states)
    names = sorted(arrays)
    slots: dict[str, Arrays] = {}
    for place, slot in enumerate(kind.slots):
        remembered = {}
        for index, value in by_index.items():
            if not 0 <= index < len(names):
                raise TriptychError(f"{states} has a state {index}; {params} has {len(names)} arrays only")
            array = _array(states, names[index], value, place, len(kind.slots))
            if array is not None:
                remembered[names[index]] = array
        if remembered:
            slots[slot] = _canonical(states, imported, arrays, remembered, symbol, params, request)
    return imported, TrainerStates(kind.optimizer, *_settings(kind, optimizer), slots)


def _read(states: Path) -> tuple[_Kind, Mapping[str, Any], Mapping[int, Any]]:
    with told(f"cannot read the states {states}"):
        content = states.read_bytes()
    value = loads(content, str(states))
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], dict) and isinstance(value[1], Call)):
        raise TriptychError(
            f"{states} does not hold the states of a gluon.Trainer and their optimizer; write it with save_states"
        )
    by_index, made = value
    name = made.arguments[0].name if made.name in ("_reconstructor", "__newobj__") else made.name
    if name not in _KINDS or not isinstance(made.state, dict):
        raise TriptychError(f"{states} is of MXNet's optimizer {name!r}; known: {', '.join(_KINDS)}")
    if not all(type(index) is int for index in by_index):
        raise TriptychError(f"{states} has states that are not numbered: {str(next(iter(by_index)))[:40]!r}")
    return _KINDS[name], made.state, by_index


def _settings(kind: _Kind, optimizer: Mapping[str, Any]) -> tuple[dict[str, float | bool], float, int]:
    """The optimiser's settings by our names, its last learning rate, and its steps."""
    ours = {"wd": "weight_decay", "momentum": "momentum", "beta1": "beta1", "beta2": "beta2", "epsilon": "eps"}
    numbers = {name: optimizer[key] for key, name in ours.items() if type(optimizer.get(key)) in (int, float)}
    rate, steps = optimizer.get("lr"), optimizer.get("num_update")
    if not isinstance(rate, int | float) or not math.isfinite(rate):
        rate = math.nan
    return (
        {**numbers, **({"nesterov": True} if kind.nesterov else {})},
        float(rate),
        steps if type(steps) is int and 0 <= steps < 1 << 40 else 0,
    )


def _array(states: Path, name: str, value: Any, place: int, count: int) -> NDArray[Any] | None:
    """One array of a state: the only one, or one of several; None where nothing is remembered."""
    if count > 1:
        if not isinstance(value, tuple) or len(value) != count:
            raise TriptychError(f"{states}: the state of '{name}' has not the {count} arrays that it should")
        value = value[place]
    if value is None:
        return None
    content = value.state.get("handle") if isinstance(value, Call) and isinstance(value.state, dict) else None
    if not isinstance(content, bytes | bytearray):
        raise TriptychError(
            f"{states}: the state of '{name}' is no array of MXNet's; states with multi_precision are not supported"
        )
    return mxnet_params.read_record(bytes(content), f"{states}, state of '{name}'")


def _canonical(
    states: Path,
    imported: Imported,
    arrays: Arrays,
    remembered: Arrays,
    symbol: Path,
    params: Path,
    request: Request,
) -> Arrays:
    """The remembered arrays by canonical path: they take the way of the parameters whose names they have."""
    for name, array in remembered.items():
        if array.shape != arrays[name].shape:
            raise TriptychError(
                f"{states} is not of {params}: the state of '{name}' has the shape {array.shape}, the parameter "
                f"{arrays[name].shape}"
            )
    moved = mxnet_network.load_arrays(symbol, {**arrays, **remembered}, request, params)
    marked = {name: np.full_like(array, np.nan) for name, array in remembered.items()}
    where = mxnet_network.load_arrays(symbol, {**arrays, **marked}, request, params).parameters or {}
    from_states = {path: np.isnan(array) for path, array in where.items()}
    mixed = [path for path, taken in from_states.items() if taken.any() and not taken.all()]
    if mixed or moved.architecture != imported.architecture:
        constants = f"'{mixed[0]}' is" if mixed else "constants of the network are"
        raise TriptychError(f"{states}: {constants} made of trained and other arrays; the states cannot be taken over")
    return {path: array for path, array in (moved.parameters or {}).items() if from_states[path].all()}
