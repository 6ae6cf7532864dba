"""optax's state (`flax.serialization.to_bytes(state)`, or that of a TrainState) as canonical optimiser state, without
optax.

However pieces are chained, what they remember stands under the names of their fields: `trace`, `mu`, `nu`, `count`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from triptych.importers.torch_states import Convert
from triptych.importers.trainer_states import Arrays, TrainerStates
from triptych.utils.errors import TriptychError
from triptych.weights.formats import flax_msgpack

SLOTS = {"trace": "velocity", "mu": "mean", "nu": "variance"}
COUNT = "count"


def load(path: Path, names: Iterable[str], convert: Convert) -> TrainerStates:
    """What is remembered of the parameters `names` (paths joined by `/`, with or without a collection before them).
    Raises TriptychError for what is no such file, or is of another network."""
    arrays = flax_msgpack.read(path, state=True)
    slots: dict[str, Arrays] = {}
    for slot, inner, array in _remembered(arrays):
        name = next((name for name in names if inner in (name, name.partition("/")[2])), None)
        if name is None:
            raise TriptychError(f"{path} is of another network: it remembers something of '{inner}'")
        canonical, value = convert(name, array)
        slots.setdefault(slot, {})[canonical] = value
    if not slots:
        raise TriptychError(
            f"{path} has none of optax's {', '.join(SLOTS)}; write flax.serialization.to_bytes(state); SGD without "
            "momentum remembers nothing: leave --states out"
        )
    counts = {int(array) for name, array in arrays.items() if name.rpartition("/")[2] == COUNT and array.ndim == 0}
    if "mean" in slots and not counts:
        raise TriptychError(f"{path} does not say after how many steps it is ({COUNT})")
    kinds = ("adam", "adamw") if "mean" in slots else ("sgd",)
    return TrainerStates(kinds[0], {}, math.nan, max(counts, default=0), slots, kinds=kinds)


def _remembered(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, str, NDArray[Any]]]:
    """Slot, the parameter's path, and the array."""
    for name, array in arrays.items():
        parts = name.split("/")
        at = next((place for place, part in enumerate(parts) if part in SLOTS), None)
        if at is not None:
            yield SLOTS[parts[at]], "/".join(part for part in parts[at + 1 :] if part != "value"), array
