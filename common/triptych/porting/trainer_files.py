"""A file of weights with what the trainer of that moment remembered of them, in PyTorch's or optax's form; and whether
an optimiser here goes on as that trainer would."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers import optax_states, torch_states
from triptych.importers.trainer_states import Arrays, TrainerStates, number_text
from triptych.optim.multipliers import Factors, factors_of, text_of
from triptych.optim.optimizers import Optimizer, get_kind
from triptych.porting import weight_files
from triptych.spec import analysis
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError

READERS: dict[str, Callable[..., TrainerStates]] = {
    ".pt": torch_states.load,
    ".pth": torch_states.load,
    ".msgpack": optax_states.load,
}
ALIKE = {".pt": (".pth",), ".pth": (".pt",), ".msgpack": (".npz",)}


def load(states: Path, weights: Path, architecture: Architecture) -> tuple[Arrays, TrainerStates]:
    """The canonical parameters and what is remembered of them. Raises TriptychError as `weight_files.read` does, and
    for states of another network, with the first array that does not fit."""
    read = weight_files.read(weights, architecture)
    infos = {info.path: info for info in analysis.parameters(architecture)}
    paths = {name: path for path, name in read.names.items() if infos[path].trained}
    named = read.named
    assert named is not None

    def convert(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
        canonical = named.to_canonical(paths[name], array)
        if canonical.shape != infos[paths[name]].shape:
            raise TriptychError(
                f"{states} is not of {weights}: the state of '{name}' is {canonical.shape}, the parameter "
                f"{infos[paths[name]].shape}"
            )
        return paths[name], canonical

    return read.parameters, READERS[states.suffix](states, paths, convert)


def differing(
    states: TrainerStates, optimizer: Optimizer, architecture: Architecture, frozen: frozenset[str] = frozenset()
) -> str:
    """The options that would make an optimiser, and what it leaves `frozen`, those of the states, but for the weight
    decay, which may change between two steps; empty if they are that."""
    kinds = states.kinds or (states.optimizer,)
    name = optimizer.name if optimizer.name in kinds else kinds[0]
    ours = optimizer.as_kind(get_kind(name))
    own = {key: value for key, value in states.settings.items() if key != "weight_decay"}
    wrong = {key: number_text(value) for key, value in own.items() if not _same(getattr(ours, key), value)}
    flags = {key: wrong.pop(key) for key in ("momentum", "nesterov") if key in wrong}
    options = []
    if wrong or name != optimizer.name:
        settings = ",".join(f"{key}={value}" for key, value in wrong.items())
        options.append(f"--optimizer {name}:{settings}".removesuffix(":"))
    options += [f"--{key} {value}".replace("--nesterov 1", "--nesterov") for key, value in flags.items()]
    if getattr(ours, "nesterov", False) and "nesterov" not in own and not math.isnan(states.learning_rate):
        options.append("--no-nesterov")
    options += _differing_factors(states, ours, architecture)
    still = sorted(states.frozen - frozen)
    return " ".join([*options, *[f"--freeze {','.join(still)}"] * bool(still)])


def _differing_factors(states: TrainerStates, optimizer: Optimizer, architecture: Architecture) -> Iterator[str]:
    """The options for what decays and for the multipliers, where either is not that of the states."""
    roles = {info.path: info.role for info in analysis.parameters(architecture) if info.path not in states.frozen}
    decays = {path: states.decays[path] for path in states.decays if path in roles} if optimizer.weight_decay else {}
    here = factors_of(optimizer.multipliers, architecture)
    named = _decayed(decays, roles) or (optimizer.decayed if not decays else "")
    if decays and named != optimizer.decayed and not (not named and optimizer.decayed == "all"):
        yield f"--decayed {named or 'all'}"
    there = {
        path: Factors(states.rates.get(path, 1.0), here[path].decay if not decays else 1.0 if named else decays[path])
        for path in here
        if path not in states.frozen
    }
    if states.rates and any(not _alike(here[path], factors) for path, factors in there.items()):
        yield f"--multipliers '{text_of(there)}'"


def _decayed(decays: Mapping[str, float], roles: Mapping[str, str]) -> str:
    """What decays, where an optimiser says it by a name."""
    if all(value == 1 for value in decays.values()):
        return "all" if decays else ""
    weights = all(value == (roles[path] == "weight") for path, value in decays.items())
    return "weights" if weights else ""


def _same(here: Any, there: float | bool | str) -> bool:
    return here == there if isinstance(there, str) else math.isclose(here, there)


def _alike(here: Factors, there: Factors) -> bool:
    return all(math.isclose(*pair) for pair in zip(here, there, strict=True))
