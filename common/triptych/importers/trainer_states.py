"""What a trainer of another framework remembers, as canonical optimiser state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.utils.errors import TriptychError

Arrays = dict[str, NDArray[Any]]
VELOCITY = "velocity"


@dataclass(frozen=True, eq=False)
class TrainerStates:
    """What was remembered.

    - `optimizer`: the kind's name here (sgd, adam ...), or the first of `kinds`, where the file does not tell.
    - `settings`: its fields of that name in the file (momentum, nesterov, weight_decay, beta1 ...), or of its formula.
    - `learning_rate`: what it had last (not a number: not said); so many `steps` were made (None: not said).
    - `slots`: canonical arrays by slot and path; a velocity that is `scaled` holds the learning rate, with the sign of
      a step.
    - `rates`, `decays`: by path, how many times the learning rate and the weight decay it has there (empty: not said).
      `frozen`: the paths that do not move there.
    - `note`: what else a reader should know.
    """

    optimizer: str
    settings: Mapping[str, float | bool | str]
    learning_rate: float
    steps: int | None
    slots: Mapping[str, Arrays]
    scaled: bool = False
    kinds: tuple[str, ...] = ()
    rates: Mapping[str, float] = field(default_factory=dict)
    decays: Mapping[str, float] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()
    note: str = ""

    def state(self, learning_rate: float) -> Arrays:
        """The optimiser's state as it crosses the contract: arrays by slot and path, and the count of Adam's steps.
        `learning_rate` is that of the next step, before it is multiplied for single ones and rounded to float32: with
        it a scaled velocity moves the parameters as it would have there. When it changes later, the old velocity
        follows here, as in PyTorch and optax, and stays in MXNet.
        Raises TriptychError for a scaled velocity and a learning rate of 0."""
        found: Arrays = {}
        for slot, arrays in self.slots.items():
            scaled = self.scaled and slot == VELOCITY
            if scaled and not learning_rate:
                raise TriptychError("the learning rate is 0, and cannot be taken out of the velocities")
            for path, array in arrays.items():
                factor = -1 / float(np.float32(learning_rate * self.rates.get(path, 1.0))) if scaled else 1.0
                found[f"{slot}.{path}"] = np.asarray(array, np.float64) * factor
        return found | ({"count": np.asarray(self.steps, np.float64)} if self.counts else {})

    @property
    def counts(self) -> bool:
        """Whether it moves by how many steps were made."""
        return "mean" in self.slots

    @property
    def summary(self) -> str:
        """One line: the optimiser with its settings, and how far it had come."""
        settings = ", ".join(f"{name} {number_text(value)}" for name, value in self.settings.items())
        line = f"{' or '.join(self.kinds) or self.optimizer} ({settings or 'its settings are not said'})"
        if not math.isnan(self.learning_rate):
            line += f", learning rate {self.learning_rate:g}"
        line += f", after {self.steps} steps" if self.steps else ""
        return f"{line}; {self.note}" if self.note else line


def number_text(value: float | bool | str) -> str:
    """A setting as it is read again."""
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")
