"""One layer about to run alone, and the ways in which a fault changes that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import Layer, Shape
from triptych.utils.arrays import Array


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One layer about to run alone: its record, its own parameters by short name, its input, mode and mask (of a
    dropout layer). `map`: the `(C, H, W)` that was flattened for a dense layer."""

    layer: Any
    values: Mapping[str, Array]
    x: Array
    train: bool
    mask: NDArray[np.bool_] | None = None
    map: Shape | None = None


@dataclass(frozen=True)
class Fault:
    """`change` makes the fault before the layer runs, `result` on its output. Where it cannot be made they give None
    or raise ValueError or LookupError."""

    text: str
    change: Callable[[Hypothesis], Hypothesis | None] = lambda hypothesis: hypothesis
    result: Callable[[Hypothesis, Array], Array | None] | None = None


def other_field(text: str, **values: Any) -> Fault:
    """Another value in the record; one given as a function is made of the record."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        made = {name: value(hypothesis.layer) if callable(value) else value for name, value in values.items()}
        wrong = replace(hypothesis.layer, **made)
        return None if wrong == hypothesis.layer else replace(hypothesis, layer=wrong)

    return Fault(text, change)


def other_value(text: str, name: str, make: Callable[[Hypothesis, Array], Array | None]) -> Fault:
    """Another value in parameter `name`."""

    def change(hypothesis: Hypothesis) -> Hypothesis | None:
        right = hypothesis.values[name]
        made = make(hypothesis, right)
        if made is None or made.shape != right.shape:
            return None
        return replace(hypothesis, values={**hypothesis.values, name: made})

    return Fault(text, change)


def other_kind(text: str, make: Callable[[Any], Layer]) -> Fault:
    """Another kind of layer."""
    return Fault(text, lambda hypothesis: replace(hypothesis, layer=make(hypothesis.layer)))
