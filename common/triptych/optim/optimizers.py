"""Optimisers as data, and the NumPy step that judges the backends' own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from triptych.reference.layers import Array
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture
from triptych.utils.errors import TriptychError, unknown
from triptych.weights.initializers import Parameters

Name: TypeAlias = Literal["sgd", "adam", "adamw"]
Decayed: TypeAlias = Literal["all", "weights"]

# What an optimiser remembers of every parameter, and, under its own name, how many steps it has made (bias correction).
SLOTS: dict[str, tuple[str, ...]] = {"sgd": ("velocity",), "adam": ("mean", "variance"), "adamw": ("mean", "variance")}
COUNT = "count"


@dataclass(frozen=True)
class Optimizer:
    """How parameters w follow their gradients g, in PyTorch's forms; `learning_rate` and `momentum` per step.

    "sgd": `g += weight_decay * w; v = momentum * v + g; w -= learning_rate * v`, with `nesterov` `w -= learning_rate *
    (g + momentum * v)`. The learning rate stands outside the velocity (MXNet's own keeps it inside). A step with
    momentum 0 leaves no velocity behind.
    "adam": `g += weight_decay * w; m = beta1 * m + (1 - beta1) * g; s = beta2 * s + (1 - beta2) * g * g;
    w -= learning_rate * m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps)` in step t, counted from 1 (Kingma and Ba,
    algorithm 1).
    "adamw": Adam on the gradient alone, and `w -= learning_rate * weight_decay * w` (Loshchilov and Hutter).
    `decayed` says which trained parameters decay: "all", biases, gamma and beta included, or only the "weights" of
    convolution and dense layers.
    Raises TriptychError for values outside their range, and Nesterov without momentum.
    """

    name: Name = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decayed: Decayed = "all"
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        for name, value, known in (("optimizer", self.name, SLOTS), ("decayed", self.decayed, get_args(Decayed))):
            if value not in known:
                raise unknown(name, value, known)
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise TriptychError(f"--{name} {getattr(self, name)} must be at least 0 and below 1")
        if not 0 <= self.weight_decay < float("inf"):
            raise TriptychError(f"--weight-decay {self.weight_decay} must be a number of at least 0")
        if not 0 < self.eps < float("inf"):
            raise TriptychError(f"--eps {self.eps} must be a number above 0")
        if self.momentum and self.name != "sgd":
            raise TriptychError(f"--momentum belongs to sgd; '{self.name}' has --beta1")
        if self.nesterov and not self.momentum:
            raise TriptychError("--nesterov needs a momentum above 0 (--momentum)")


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


def decay_of(
    optimizer: Optimizer, architecture: Architecture, frozen: frozenset[str] = frozenset()
) -> dict[str, float]:
    """The weight decay of every parameter that is trained and not `frozen`, by path, rounded to float32."""
    return {
        info.path: float32(optimizer.weight_decay) if optimizer.decayed == "all" or info.role == "weight" else 0.0
        for info in parameters(architecture)
        if info.trained and info.path not in frozen
    }


def reference_step(
    values: Mapping[str, Array],
    gradients: Mapping[str, Array],
    state: Mapping[str, Array],
    rates: Rates,
    optimizer: Optimizer,
    decay: Mapping[str, float],
) -> tuple[Parameters, Parameters]:
    """One float64 step: the new `(values, state)` of every parameter named in `decay`.

    The state's keys are `velocity.PATH`, or `mean.PATH`, `variance.PATH` and `count`; what it lacks is zero.
    """
    count = int(state.get(COUNT, 0)) + 1
    moved: Parameters = {}
    kept: Parameters = {}
    for path, strength in decay.items():
        value = np.asarray(values[path], np.float64)
        before = (state.get(f"{slot}.{path}", np.zeros_like(value)) for slot in SLOTS[optimizer.name])
        slots: list[Array] = [np.asarray(slot, np.float64) for slot in before]
        rule = _sgd if optimizer.name == "sgd" else _adam
        moved[path], *slots = rule(value, gradients[path], slots, rates, optimizer, strength, count)
        kept |= {f"{slot}.{path}": after for slot, after in zip(SLOTS[optimizer.name], slots, strict=True)}
    if optimizer.name == "sgd":
        return moved, kept if rates.momentum else {}
    return moved, kept | {COUNT: np.asarray(count, np.float64)}


def _sgd(
    w: Array, g: Array, slots: list[Array], rates: Rates, optimizer: Optimizer, decay: float, count: int
) -> tuple[Array, Array]:
    # In place where it can be: a dense layer of 17 million weights is 134 MB, and every temporary another.
    g = g + decay * w if decay else g
    velocity = rates.momentum * slots[0]
    velocity += g
    moved = g + rates.momentum * velocity if optimizer.nesterov else velocity
    moved = moved * -rates.learning_rate
    moved += w
    return moved, velocity


def _adam(
    w: Array, g: Array, slots: list[Array], rates: Rates, optimizer: Optimizer, decay: float, count: int
) -> tuple[Array, Array, Array]:
    if optimizer.name == "adamw":
        w = w - rates.learning_rate * decay * w
    else:
        g = g + decay * w
    mean = optimizer.beta1 * slots[0] + (1 - optimizer.beta1) * g
    variance = optimizer.beta2 * slots[1] + (1 - optimizer.beta2) * g * g
    root = np.sqrt(variance / (1 - optimizer.beta2**count)) + optimizer.eps
    return w - rates.learning_rate * mean / (1 - optimizer.beta1**count) / root, mean, variance
