"""What MXNet's trainers remember, as canonical optimiser state, without MXNet.

The file of `gluon.Trainer.save_states` is a pickle of `({index: arrays}, optimizer)`; it is read as data, nothing in it
is called. The index is the place of the parameter among all names of the network in alphabetical order (`conv10` before
`conv2`), running statistics counted. That of `Module.save_optimizer_states` is the dictionary alone, and counts the
symbol's arguments in their order; which optimizer it was is told by the arrays, after how many steps by nothing. A
state goes the way of its parameter through the importer, so that whatever is transposed or sorted there is, too. SGD's
velocity holds the learning rate, with the sign of a step: it is taken out here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.importers import mxnet_network, mxnet_symbol
from triptych.importers.mxnet_json import VARIABLE
from triptych.importers.steps import Imported, Request
from triptych.importers.trainer_states import VELOCITY, Arrays, TrainerStates
from triptych.utils.errors import TriptychError
from triptych.utils.files import told
from triptych.utils.reading import read_bounded
from triptych.weights.formats import mxnet_params
from triptych.weights.formats.inert_pickle import Call, loads


@dataclass(frozen=True)
class _Kind:
    """An optimiser of MXNet's: what it is here, what its arrays are, in their order, and what says its formula.
    `in_root`: its field that is added to the arrays under a root; here it is in them from the start. `decays`: what is
    to be known where it has weight decay."""

    optimizer: str
    slots: tuple[str, ...]
    formula: Mapping[str, bool | float | str] = field(default_factory=dict)
    in_root: str = ""
    decays: str = ""


# With weight decay NAG is one of its own: nag_mom_update (1.9.1) has moved the weight before it decays by it.
_NAG_DECAYS = "MXNet's NAG decays by the weight that it has moved already, which is not repeated here"
_ADAGRAD_DECAYS = "MXNet's AdaGrad decays beside its step and not by the gradient, which is not repeated here"
_NOTHING = 1e-30  # as eps, which has to be above 0: far below the root of what it is added to
_KINDS = {
    "SGD": _Kind("sgd", ("velocity",)),
    "NAG": _Kind("sgd", ("velocity",), {"nesterov": True}, decays=_NAG_DECAYS),
    "Adam": _Kind("adam", ("mean", "variance"), {"eps_added": "before"}),
    "AdaGrad": _Kind("adagrad", ("sum",), {"eps": _NOTHING}, "float_stable_eps", _ADAGRAD_DECAYS),
}
_OTHER_FORMULAS = {"RMSProp": ", which adds eps under the root of a mean that decays, as nothing here does"}


def load(states: Path, symbol: Path, params: Path, request: Request) -> tuple[Imported, TrainerStates]:
    """The network of a symbol and a parameter file, and what its trainer had saved with it. Raises TriptychError as
    `mxnet_network.load` does, and for a file that is no such pickle, holds another optimiser, or is of another
    network; the message names the array."""
    imported = mxnet_network.load(symbol, params, request)
    arrays = mxnet_network.read_arrays(params)
    kind, optimizer, by_index = _read(states)
    of_module = optimizer is None
    names = _arguments(symbol, params) if of_module else sorted(arrays)
    slots: dict[str, Arrays] = {}
    trained = {names[index] for index in by_index if 0 <= index < len(names)}
    multipliers = _multipliers(symbol, optimizer or {}, names)
    still = {name for name in trained if multipliers["lr_mult"].get(name) == 0}
    for place, slot in enumerate(kind.slots):
        remembered = {}
        for index, value in by_index.items():
            if not 0 <= index < len(names):
                raise TriptychError(f"{states} has a state {index}; {params} has {len(names)} arrays only")
            array = _array(states, names[index], value, place, len(kind.slots))
            if names[index] in still and slot == VELOCITY and array is not None and array.any():
                raise TriptychError(
                    f"{states}: '{names[index]}' has the learning rate 0 times (lr_mult) and moves on by a velocity of "
                    "before; here what is frozen does not move"
                )
            if array is not None and names[index] not in still:
                remembered[names[index]] = array + array.dtype.type(_in_root(states, kind, optimizer or {}))
        if remembered:
            slots[slot] = _canonical(states, imported, arrays, remembered, symbol, params, request)
    settings, rate, steps = _settings(kind, optimizer or {})
    factors = {
        name: (
            multipliers["lr_mult"].get(name, 1.0),
            multipliers["wd_mult"].get(name, _of_module(name) if of_module else 1.0),
        )
        for name in trained
    }
    rates, decays = {}, {}
    for factor in set(factors.values()):  # the parameters of each go their way together
        some = {name: arrays[name] for name in factors if factors[name] == factor}
        for path in _canonical(states, imported, arrays, some, symbol, params, request):
            rates[path], decays[path] = factor
    return imported, TrainerStates(
        kind.optimizer,
        settings,
        math.nan if of_module else rate,
        None if of_module else steps,
        slots,
        scaled=True,
        rates={path: factor for path, factor in rates.items() if factor},
        decays=decays,
        frozen=frozenset(path for path, factor in rates.items() if not factor),
        note="; ".join(_notes(kind, settings, optimizer or {})),
    )


def _arguments(symbol: Path, params: Path) -> list[str]:
    """The parameters of a Module in its order: the symbol's arguments."""
    trained, _ = mxnet_params.split_prefixes(mxnet_params.read(params))
    nodes = mxnet_symbol.read(symbol).nodes
    return [node.name for node in nodes if node.operator == VARIABLE and node.name in trained]


def _of_module(name: str) -> float:
    """A Module's own rule: biases and shifts do not decay."""
    return float(name.endswith(("_weight", "_gamma")))


def _multipliers(symbol: Path, optimizer: Mapping[str, Any], names: list[str]) -> dict[str, dict[str, float]]:
    """`lr_mult` and `wd_mult` by name: of the symbol's variables, and of the optimizer, which has them by name or by
    place."""
    found: dict[str, dict[str, float]] = {}
    for kind in ("lr_mult", "wd_mult"):
        found[kind] = {}
        for node in mxnet_symbol.read(symbol).nodes:
            text = node.attributes.get(f"__{kind}__")
            if node.operator == VARIABLE and text is not None:
                found[kind][node.name] = _number(f"{symbol}: {kind} of '{node.name}'", text)
        own = optimizer.get(kind)
        for key, value in own.items() if isinstance(own, dict) else ():
            name = names[key] if type(key) is int and 0 <= key < len(names) else str(key)
            found[kind][name] = _number(f"{kind} of '{name}'", value)
    return found


def _number(what: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TriptychError(f"{what} is {str(value)[:40]!r}, and no number") from None
    if not 0 <= number < math.inf:
        raise TriptychError(f"{what} is {number:g}; expected at least 0")
    return number


def _read(states: Path) -> tuple[_Kind, Mapping[str, Any] | None, Mapping[int, Any]]:
    """The optimiser's kind, its fields (None: the file of a Module has none), and what it remembers by number."""
    with told(f"cannot read the states {states}"):
        content = read_bounded(states)
    value = loads(content, str(states))
    if isinstance(value, dict) and value:
        return _of_arrays(states, value), None, value
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], dict) and isinstance(value[1], Call)):
        raise TriptychError(
            f"{states} does not hold the states of a gluon.Trainer and their optimizer, or of a Module; write it with "
            "save_states or save_optimizer_states"
        )
    by_index, made = value
    name = made.arguments[0].name if made.name in ("_reconstructor", "__newobj__") else made.name
    if name not in _KINDS or not isinstance(made.state, dict):
        why = _OTHER_FORMULAS.get(str(name), "")
        raise TriptychError(f"{states} is of MXNet's optimizer {name!r}{why}; known: {', '.join(_KINDS)}")
    if not all(type(index) is int for index in by_index):
        raise TriptychError(f"{states} has states that are not numbered: {str(next(iter(by_index)))[:40]!r}")
    return _KINDS[name], made.state, by_index


def _of_arrays(states: Path, by_index: Mapping[Any, Any]) -> _Kind:
    """The optimiser of a Module, of which the file has the arrays only."""
    if not all(type(index) is int for index in by_index):
        raise TriptychError(f"{states} has states that are not numbered: {str(next(iter(by_index)))[:40]!r}")
    return _KINDS["Adam" if any(isinstance(value, tuple) for value in by_index.values()) else "SGD"]


def _settings(kind: _Kind, optimizer: Mapping[str, Any]) -> tuple[dict[str, float | bool | str], float, int]:
    """The optimiser's settings by our names, its last learning rate, and its steps."""
    ours = {"wd": "weight_decay", "momentum": "momentum", "beta1": "beta1", "beta2": "beta2", "epsilon": "eps"}
    numbers = {name: optimizer[key] for key, name in ours.items() if type(optimizer.get(key)) in (int, float)}
    rate, steps = optimizer.get("lr"), optimizer.get("num_update")
    if not isinstance(rate, int | float) or not math.isfinite(rate):
        rate = math.nan
    return (
        {**numbers, **kind.formula},
        float(rate),
        steps if type(steps) is int and 0 <= steps < 1 << 40 else 0,
    )


def _in_root(states: Path, kind: _Kind, optimizer: Mapping[str, Any]) -> float:
    """What stands beside the squares under the root there."""
    return _number(f"{states}: {kind.in_root}", optimizer.get(kind.in_root)) if kind.in_root else 0.0


def _notes(kind: _Kind, settings: Mapping[str, Any], optimizer: Mapping[str, Any]) -> Iterator[str]:
    """What it did there and nothing does here, or only where it is asked for."""
    if kind.decays and settings.get("weight_decay"):
        yield kind.decays
    if optimizer.get("clip_gradient") is not None:
        yield "gradients were clipped there (clip_gradient), and are not here"
    if optimizer.get("lr_scheduler") is not None:
        yield "its lr_scheduler changes that rate, and is not taken over: --schedule says one here"


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
