"""Optimisers as data, and the NumPy step that judges the backends' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from triptych.analysis import parameters
from triptych.initializers import Parameters
from triptych.reference_ops import Array
from triptych.spec import Architecture

Decayed: TypeAlias = Literal["all", "weights"]


@dataclass(frozen=True)
class Optimizer:
    """Stochastic gradient descent: `v = momentum * v + g + weight_decay * w; w = w - learning_rate * v`.

    The learning rate stands outside the velocity (PyTorch's and optax's form; MXNet's own keeps it inside). A step
    with momentum 0 leaves no velocity behind.
    `decayed` says which trained parameters decay: "all", biases, gamma and beta included, or only the "weights" of
    convolution and dense layers.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    decayed: Decayed = "all"


@dataclass(frozen=True)
class Rates:
    """What may change from step to step, rounded to float32 because MXNet's optimiser operators read it so."""

    learning_rate: float
    momentum: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "momentum"):
            object.__setattr__(self, name, float32(getattr(self, name)))


def float32(value: float) -> float:
    """The nearest float32, as a Python float."""
    return float(np.float32(value))


def decay_of(optimizer: Optimizer, architecture: Architecture) -> dict[str, float]:
    """The weight decay of every trained parameter by path, rounded to float32."""
    return {
        info.path: float32(optimizer.weight_decay) if optimizer.decayed == "all" or info.role == "weight" else 0.0
        for info in parameters(architecture)
        if info.trained
    }


def reference_step(
    values: Mapping[str, Array],
    gradients: Mapping[str, Array],
    velocity: Mapping[str, Array],
    rates: Rates,
    decay: Mapping[str, float],
) -> tuple[Parameters, Parameters]:
    """One float64 step: the new `(values, velocity)` of every parameter named in `decay`."""
    moved: Parameters = {}
    kept: Parameters = {}
    for path, strength in decay.items():
        value = np.asarray(values[path], np.float64)
        kept[path] = rates.momentum * velocity.get(path, np.zeros_like(value)) + gradients[path] + strength * value
        moved[path] = value - rates.learning_rate * kept[path]
    return moved, kept if rates.momentum else {}
