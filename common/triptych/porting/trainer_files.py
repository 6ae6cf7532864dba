"""A file of weights with what the trainer of that moment remembered of them, in PyTorch's or optax's form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers import optax_states, torch_states
from triptych.importers.trainer_states import Arrays, TrainerStates
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

    return read.parameters, READERS[states.suffix](states, list(paths), convert)
