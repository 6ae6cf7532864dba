"""An optimiser's state as it crosses the contract: arrays by slot and canonical path, and the count of steps."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from triptych.optim.optimizers import COUNT, Optimizer, decay_of
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import Parameters

LOSS_SCALE = "(loss scale)"  # what a trainer in float16 keeps beside the optimiser's own


def collect(
    optimizer: Optimizer, paths: Iterable[str], read: Callable[[str, str], Array | None], count: int
) -> Parameters:
    """The state of which `read(slot, path)` gives the arrays, or None; empty where nothing is remembered."""
    pairs = [(slot, path) for slot in optimizer.slots for path in paths]
    state = {f"{slot}.{path}": value for slot, path in pairs if (value := read(slot, path)) is not None}
    return state | ({COUNT: np.asarray(count, np.float64)} if optimizer.counts and state else {})


def take_apart(
    optimizer: Optimizer, paths: Iterable[str], state: Parameters
) -> Iterator[tuple[str, str, Array | None]]:
    """Slot, path and array of everything that the optimiser remembers; None for what `state` does not name."""
    return ((slot, path, state.get(f"{slot}.{path}")) for slot in optimizer.slots for path in paths)


def count_of(state: Parameters) -> int:
    """The steps that were made before."""
    return int(state.get(COUNT, 0))


def shapes(
    optimizer: Optimizer, architecture: Architecture, frozen: frozenset[str] = frozenset()
) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything in the state of an optimiser that has made a step."""
    sizes, trained = (
        {info.path: info.shape for info in parameters(architecture)},
        decay_of(optimizer, architecture, frozen),
    )
    own = {f"{slot}.{path}": sizes[path] for slot in optimizer.slots for path in trained}
    return own | ({COUNT: ()} if optimizer.counts else {})


def check(state: Parameters, expected: Mapping[str, tuple[int, ...]], *, needed: bool, where: str) -> None:
    """Raises TriptychError, with the first name that does not fit, unless the state has all that is `expected` and
    finite; where it is not `needed`, it may also be empty."""
    own = {name: value for name, value in state.items() if name != LOSS_SCALE}
    if not own and not needed:
        return
    refused = f"the optimizer's state in {where} does not fit"
    for name, shape in expected.items():
        if name not in own:
            raise TriptychError(f"{refused}: '{name}' {shape} is missing")
        if own[name].shape != shape:
            raise TriptychError(f"{refused}: '{name}' has the shape {own[name].shape}, expected {shape}")
    for name, value in state.items():
        if name not in expected and name != LOSS_SCALE:
            raise TriptychError(f"{refused}: '{name}' is of another optimizer or network")
        if not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value).all():
            raise TriptychError(f"{refused}: '{name}' holds what is no finite number")
    if COUNT in expected and not (own[COUNT] >= 1 and own[COUNT] == np.floor(own[COUNT])):
        raise TriptychError(f"{refused}: '{COUNT}' is {own[COUNT]}, expected how many steps were made")
