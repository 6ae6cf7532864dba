"""One layer about to run alone, and the ways in which a mistake changes that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.reference.layers import Array
from triptych.spec.layers import Layer, Shape


@dataclass(frozen=True, eq=False)
class Trial:
    """One layer about to run alone: its record, its own parameters by short name, its input, mode and mask (of a
    dropout layer). `map`: the `(C, H, W)` that was flattened for a dense layer."""

    layer: Any
    values: Mapping[str, Array]
    x: Array
    train: bool
    mask: NDArray[np.bool_] | None = None
    map: Shape | None = None


@dataclass(frozen=True)
class Mistake:
    """`change` makes the mistake before the layer runs, `result` on its output; None where it cannot be made."""

    text: str
    change: Callable[[Trial], Trial | None] = lambda trial: trial
    result: Callable[[Trial, Array], Array | None] | None = None


def other_field(text: str, **values: Any) -> Mistake:
    """Another value in the record; one given as a function is made of the record."""

    def change(trial: Trial) -> Trial | None:
        made = {name: value(trial.layer) if callable(value) else value for name, value in values.items()}
        wrong = replace(trial.layer, **made)
        return None if wrong == trial.layer else replace(trial, layer=wrong)

    return Mistake(text, change)


def other_value(text: str, name: str, make: Callable[[Trial, Array], Array | None]) -> Mistake:
    """Another value in parameter `name`."""

    def change(trial: Trial) -> Trial | None:
        made = make(trial, trial.values[name]) if name in trial.values else None
        if made is None or made.shape != trial.values[name].shape:
            return None
        return replace(trial, values={**trial.values, name: made})

    return Mistake(text, change)


def other_output(text: str, make: Callable[[Trial, Array], Array | None]) -> Mistake:
    """Another output."""
    return Mistake(text, result=make)


def other_kind(text: str, make: Callable[[Any], Layer]) -> Mistake:
    """Another kind of layer."""
    return Mistake(text, lambda trial: replace(trial, layer=make(trial.layer)))
