"""The update level: two training steps of momentum, and one step of every other optimiser from a state not empty.

The second step of momentum shows the velocity, and whether the learning rate, changed by then as the momentum is, is
in it. The running statistics of batch norms are compared after these two steps. The other optimisers are given the
reference's gradients: what the backend's own are was compared by then, and a pass for each of them would take minutes.
"""

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from triptych.backend.contract import Backend, Native
from triptych.conformance.case import Case
from triptych.optim.optimizers import (
    COUNT,
    SGD,
    SQUARES,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    Rates,
    RMSprop,
    reference_step,
)
from triptych.reference import network as reference
from triptych.reference.decay import decay_by_path
from triptych.spec.kinds.layer_pass import Rounding
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.randomness import generator
from triptych.utils.shelf import Shelf
from triptych.weights.initializers import Parameters

MOMENTUM = SGD(momentum=0.9, weight_decay=5e-4, decayed="weights")
# From a state as after `START` steps: otherwise Nesterov's first step is a plain one, and Adam's depends on signs only.
# eps is large, so that its place in the formula can be seen.
OTHERS = {
    "plain": SGD(weight_decay=5e-4),
    "nesterov": SGD(momentum=0.9, nesterov=True, weight_decay=5e-4, decayed="weights"),
    "adam": Adam(weight_decay=5e-4, decayed="weights", eps=1e-3),
    "adamw": AdamW(weight_decay=5e-2, decayed="weights", eps=1e-3),
    "rmsprop": RMSprop(weight_decay=5e-4, decayed="weights", momentum=0.9, alpha=0.9, eps=1e-3),
    "adagrad": Adagrad(weight_decay=5e-4, decayed="weights", eps=1e-3),
}
START = 3
# In the order in which `locate` asks: from the plainest, so that the decay is not blamed on what comes with it.
UPDATES = ("plain", "nesterov", "adam", "adamw", "momentum", "rmsprop", "adagrad")

# The largest move of any parameter in the first step: small, so that the next pass is as well conditioned as the first.
LARGEST_MOVE = 1e-3


@dataclass(frozen=True, eq=False)
class Steps:
    """What the optimiser steps of a case need: its gradients `exact`, and from them the learning rates."""

    exact: Mapping[str, Array]

    @cached_property
    def gradients(self) -> Parameters:
        """As float32 has them."""
        return {path: value.astype(np.float32).astype(np.float64) for path, value in self.exact.items()}

    @cached_property
    def gradient(self) -> float:
        """The largest of any parameter; 1 where all of them are 0, and nothing moves at any rate."""
        return max(largest(value) for value in self.exact.values()) or 1.0

    @property
    def momentum(self) -> tuple[Rates, Rates]:
        """The two steps of momentum."""
        first = LARGEST_MOVE / self.gradient
        return Rates(first, MOMENTUM.momentum), Rates(0.4 * first, 0.8)

    def rates(self, optimizer: Optimizer) -> Rates:
        """The one step of another optimiser."""
        rate = LARGEST_MOVE if optimizer.normalized else LARGEST_MOVE / self.gradient
        return optimizer.rates(rate, optimizer.momentum)

    def state(self, case: Case, optimizer: Optimizer) -> Parameters:
        """A state as large as the gradients are; equal arguments, equal bits."""
        state: Parameters = {}
        for path in decay_by_path(optimizer, case.architecture):
            for slot in optimizer.slots:
                drawn = generator(case.seed, "conformance", slot, path).random(case.parameters[path].shape)
                scaled = (0.5 + drawn) * self.gradient**2 if slot in SQUARES else (2 * drawn - 1) * self.gradient
                state[f"{slot}.{path}"] = scaled.astype(np.float32)
        if not optimizer.remembers(self.rates(optimizer)):
            return {}
        return state | ({COUNT: np.asarray(START, np.float64)} if optimizer.counts else {})


def reference_update(
    name: str, case: Case, steps: Steps, first: Callable[[], tuple[Arrays, Arrays]], rounding: Rounding
) -> Shelf:
    """Parameters, state and running statistics after the steps of the optimiser called `name`; `first` gives the
    gradients and statistics of step 0."""
    moved_so_far = Shelf()
    values: ChainMap[str, Array] = ChainMap(moved_so_far, dict(case.parameters))
    if name in OTHERS:
        optimizer = OTHERS[name]
        state = steps.state(case, optimizer)
        decay = decay_by_path(optimizer, case.architecture)
        moved, state = reference_step(values, steps.gradients, state, steps.rates(optimizer), optimizer, decay)
        return labelled(name, Shelf((path, rounding(value, 1)) for path, value in (moved | state).items()))
    decay = decay_by_path(MOMENTUM, case.architecture)
    before = Shelf()
    gradients, statistics = first()
    for number, rates in enumerate(steps.momentum):
        if number:
            run = reference.forward(
                case.architecture, values, case.images, train=True, masks=case.masks(number), rounding=rounding
            )
            _, gradients = reference.backward(run, case.targets)
            statistics = run.statistics
            del run  # its maps
        for path, strength in decay.items():  # one at a time: each frees what it replaces, and that can be gigabytes
            moved, after = reference_step(values, gradients, before, rates, MOMENTUM, {path: strength})
            values[path] = rounding(moved[path], 1)
            before.update(after)
        values.update({path: rounding(value, 1) for path, value in statistics.items()})
    rest = Shelf((path, case.exact[path]) for path in case.exact if path not in moved_so_far)
    return labelled(name, moved_so_far.joined(rest).joined(before))


def backend_update(name: str, backend: Backend, network: Native, case: Case, steps: Steps) -> Shelf:
    """Parameters, state and running statistics after the steps of the optimiser called `name` in a backend's trainer;
    the network keeps what they made of it."""
    optimizer = OTHERS.get(name, MOMENTUM)
    backend.from_canonical(network, case.parameters)
    trainer = backend.Trainer(network, optimizer, case.transform, case.seed)
    if name in OTHERS:
        trainer.load_state(steps.state(case, optimizer))
        trainer.update(steps.gradients, steps.rates(optimizer))
    else:
        for number, rates in enumerate(steps.momentum):
            trainer.step(case.stored, case.targets, rates, number, masks=case.masks(number))
    values = Shelf(backend.to_canonical(network))  # the large ones are gone from memory before the state is read
    moved = values.select(decay_by_path(optimizer, case.architecture)) if name in OTHERS else values
    return labelled(name, moved.joined(Shelf(trainer.state())))


def labelled(name: str, arrays: Shelf) -> Shelf:
    """The arrays under the name of their optimiser."""
    return arrays.renamed({path: f"{path} ({name})" for path in arrays})
