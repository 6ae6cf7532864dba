"""An optimiser's state as it crosses the contract: arrays by slot and canonical path, and the count of steps."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from triptych.optim.optimizers import COUNT, Optimizer
from triptych.utils.arrays import Array
from triptych.weights.initializers import Parameters


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
