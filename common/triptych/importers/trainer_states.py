"""What a trainer of another framework remembers, as canonical optimiser state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
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
    - `settings`: its fields of that name in the file (momentum, nesterov, weight_decay, beta1 ...).
    - `learning_rate`: what it had last (not a number: not said); `steps` were made.
    - `slots`: canonical arrays by slot and path; a velocity that is `scaled` holds the learning rate, with the sign of
      a step.
    - `decayed`: what decays there (all, or weights; empty: not said). `frozen`: the paths that do not move there.
    - `note`: what else a reader should know.
    """

    optimizer: str
    settings: Mapping[str, float | bool]
    learning_rate: float
    steps: int
    slots: Mapping[str, Arrays]
    scaled: bool = False
    kinds: tuple[str, ...] = ()
    decayed: str = ""
    frozen: frozenset[str] = frozenset()
    note: str = ""

    def state(self, learning_rate: float) -> Arrays:
        """The optimiser's state as it crosses the contract: arrays by slot and path, and the count of Adam's steps.
        `learning_rate` is that of the next step: with it a scaled velocity moves the parameters as it would have there.
        When it changes later, the old velocity follows here, as in PyTorch and optax, and stays in MXNet.
        Raises TriptychError for a scaled velocity and a learning rate of 0."""
        found: Arrays = {}
        for slot, arrays in self.slots.items():
            scaled = self.scaled and slot == VELOCITY
            if scaled and not learning_rate:
                raise TriptychError("the learning rate is 0, and cannot be taken out of the velocities")
            factor = -1 / learning_rate if scaled else 1.0
            found |= {f"{slot}.{path}": np.asarray(array, np.float64) * factor for path, array in arrays.items()}
        return found | ({"count": np.asarray(self.steps, np.float64)} if "mean" in self.slots else {})

    def differing(self, optimizer: Any, frozen: frozenset[str] = frozenset()) -> str:
        """The options that would make an optimizer record, and what it leaves `frozen`, those of the file, but for the
        weight decay, which may change between two steps; empty if they are that."""
        if optimizer.name not in (self.kinds or (self.optimizer,)):
            return f"--optimizer {self.optimizer}"
        own = {name: value for name, value in self.settings.items() if name != "weight_decay"}
        wrong = {name: value for name, value in own.items() if not math.isclose(getattr(optimizer, name), value)}
        if getattr(optimizer, "nesterov", False) and "nesterov" not in own and self.learning_rate == self.learning_rate:
            return "--no-nesterov"
        decays = optimizer.weight_decay and self.decayed and self.decayed != optimizer.decayed
        options = [f"--{name} {value:g}".removesuffix(" 1") for name, value in wrong.items()]
        still = sorted(self.frozen - frozen)
        options += [f"--decayed {self.decayed}"] * bool(decays) + [f"--freeze {','.join(still)}"] * bool(still)
        return " ".join(options)

    @property
    def summary(self) -> str:
        """One line: the optimiser with its settings, and how far it had come."""
        settings = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        line = f"{' or '.join(self.kinds) or self.optimizer} ({settings or 'its settings are not said'})"
        if not math.isnan(self.learning_rate):
            line += f", learning rate {self.learning_rate:g}"
        line += f", after {self.steps} steps" if self.steps else ""
        return f"{line}; {self.note}" if self.note else line
