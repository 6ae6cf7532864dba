"""Gradients where float32 can tell: with the statistics of batch norms fixed.

In training mode a batch norm over few values takes out of a gradient all that its values have in common, and rounding
can be as large as the rest: of Inception v4's 451 gradients at conformance size 450 have a float32 budget above a
twentieth of their scale. What such a budget allows says little, so the parts are judged sharply, by the same rule of
tolerance: every batch norm alone, in training mode; and a whole backward pass and the trainer's own step with the
statistics fixed (`BatchNorm.frozen`), layers, wiring and loss as they are, on weights and images that are drawn again
until float32 can tell each tensor. (What is left to rounding there are units on the edge of a ReLU or of a max-pool.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from triptych.conformance import tolerance
from triptych.conformance.case import Case, make_case
from triptych.conformance.tolerance import Budgets
from triptych.optim.optimizers import SGD, Rates
from triptych.spec.layers import Architecture, BatchNorm, Initializer, Layer, with_children
from triptych.utils.arrays import Array, largest

if TYPE_CHECKING:
    from triptych.conformance.compare import Arrays
    from triptych.conformance.reference_run import ReferenceRun
    from triptych.conformance.subjects import BackendSubject, Subject

SHARP = 0.05  # of a tensor's scale: a larger budget says little
DRAWS = 8  # cases at most
STEP = SGD(momentum=0.9)  # its velocity after one step is the gradient
VELOCITY, MARK = "velocity.", "(fixed statistics"


@dataclass(frozen=True, eq=False)
class Steady:
    """A case of the same network with fixed statistics, the reference's gradients that are judged on it, their
    budgets in float32, all of them sharp, and the rates of a step."""

    case: Case
    gradients: Arrays
    budgets: Budgets
    rates: Rates

    def labelled(self, arrays: Arrays) -> dict[str, Array]:
        """Of gradients and an optimiser's state what is judged on this case, under names that tell the case."""
        names = [slot + name for slot in ("", VELOCITY) for name in self.gradients]
        return {f"{name} {MARK}, seed {self.case.seed})": arrays[name] for name in names if name in arrays}


def fixed(architecture: Architecture) -> Architecture:
    """The network whose batch norms use their running statistics in training too. Its weights are not started by an
    initializer of its own: AlexNet's small ones leave many units on the edge of a ReLU."""

    def fix(layer: Layer) -> Layer:
        return replace(layer, frozen=True) if isinstance(layer, BatchNorm) else with_children(layer, fix)

    return replace(architecture, layers=tuple(map(fix, architecture.layers)), initializer=Initializer())


def judged_again(name: str) -> str:
    """The array that is judged under a name of `Steady.labelled`; empty for any other name."""
    array, mark, _ = name.partition(f" {MARK}")
    return array if mark else ""


def blunt(budgets: Mapping[str, float], arrays: Arrays) -> set[str]:
    """The arrays whose budget is `SHARP` of their scale or more: nothing less than that is seen."""
    return {name for name, value in arrays.items() if budgets[name] >= SHARP * largest(value)}


def draw(run: ReferenceRun) -> tuple[Steady, ...]:
    """Cases on which every gradient that is blunt in `run` is sharp once, as far as `DRAWS` go; none where all are
    sharp. Equal runs, equal cases."""
    left = blunt(run.budgets["fp32"]["gradient"], run.gradients)
    architecture, found = fixed(run.case.architecture), []
    for number in range(1, DRAWS + 1):
        if not left:
            break
        again = type(run)(make_case(architecture, run.case.seed + number, len(run.case.stored)))
        allowed = tolerance.budgets(again.gradients, (other.gradients for other in again.perturbed()))["fp32"]
        told = left - blunt(allowed, again.gradients)
        if told:
            gradients = {name: value for name, value in again.gradients.items() if name in told}
            found.append(Steady(again.case, gradients, allowed, again.steps.momentum[0]))
        left -= told
    return tuple(found)


def wanted(run: ReferenceRun, precision: str) -> bool:
    """Whether a precision needs these cases: float64 is sharp by itself."""
    return precision == "fp32" and bool(run.steady)


def expected(run: ReferenceRun) -> dict[str, Array]:
    """The gradients that are judged with fixed statistics, the same as one step leaves them in the optimiser's
    velocity, and what batch norms alone put out and give back in training."""
    arrays: dict[str, Array] = {}
    for steady in run.origin.steady:
        trained = {name for name in steady.gradients if name in steady.case.parameters}
        velocities = {VELOCITY + name: steady.gradients[name] for name in trained}
        arrays |= steady.labelled({**steady.gradients, **velocities})
    return arrays | norms_alone(run.origin, run)


def budgets(run: ReferenceRun, precision: str, arrays: Arrays) -> Budgets:
    """A velocity may be off by what its gradient may be."""
    allowed: Budgets = {}
    for steady in run.steady:
        both = {VELOCITY + name: np.asarray(budget) for name, budget in steady.budgets.items()}
        named = steady.labelled({**both, **{name: np.asarray(budget) for name, budget in steady.budgets.items()}})
        allowed |= {name: float(budget) for name, budget in named.items()}
    alone = {name: value for name, value in arrays.items() if name not in allowed}
    return allowed | tolerance.budgets(alone, (norms_alone(run, again) for again in run.perturbed()))[precision]


def norms_alone(run: ReferenceRun, subject: ReferenceRun | Subject) -> dict[str, Array]:
    """What batch norms alone put out and give back in training, in a run or a subject."""
    return {
        f"{path} alone: {name.removeprefix(f'{path}.')}": value
        for path in _norms(run)
        for name, value in subject.layer(path, True, True).items()
    }


def _norms(run: ReferenceRun) -> tuple[str, ...]:
    """Of every kind of batch norm the layers that see the fewest and the most values of a channel."""
    inputs = run.trace(train=True).inputs
    kinds: dict[BatchNorm, list[str]] = {}
    for path, layer in run.layers.items():
        if isinstance(layer, BatchNorm) and path in inputs and not layer.frozen:
            kinds.setdefault(replace(layer, name=""), []).append(path)

    def values(path: str) -> int:
        return int(inputs[path].size // inputs[path].shape[1])

    return tuple(dict.fromkeys(pick(paths, key=values) for paths in kinds.values() for pick in (min, max)))


def observed(subject: BackendSubject) -> dict[str, Array]:
    """The same of a backend, in a network that `subject.build` makes; a batch norm alone is its own network's."""
    run, backend = subject.run, subject.backend
    network, arrays = subject.build(fixed(run.case.architecture)), norms_alone(run, subject)
    for steady in run.steady:
        case = steady.case
        backend.from_canonical(network, case.parameters)
        images, masks = case.images.astype(subject.images.dtype), case.masks(0)
        _, gradients = backend.gradients(network, images, case.targets, masks=masks)
        trainer = backend.Trainer(network, STEP, case.transform, case.seed)
        trainer.step(case.stored, case.targets, steady.rates, 0, masks=masks)
        arrays |= steady.labelled(gradients | trainer.state())
    return arrays
