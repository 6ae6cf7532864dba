"""The trajectory level: many training steps in float64, with dropout, crops, flips and three changes of the rates.

The reference takes the same steps. Where the frameworks share the masks and the plan, a hundred steps in float64 still
agree to about 1e-14 of a tensor's scale; the budget is 1e-11, which every fault in an optimiser, a schedule, a plan
or running statistics exceeds by orders of magnitude.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Native
from triptych.conformance.case import BATCH, Case
from triptych.conformance.compare import Check, compare
from triptych.conformance.reference_run import SLOTS, ReferenceRun
from triptych.conformance.updates import LARGEST_MOVE, MOMENTUM
from triptych.data.batches import Augmentation, Batch, feed, plan
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates, reference_step
from triptych.reference import network as reference
from triptych.reference.decay import decay_by_path, rate_by_path
from triptych.reference.pixels import network_input
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.utils.arrays import Array, largest
from triptych.utils.randomness import generator
from triptych.weights.initializers import Parameters

LEVEL = "trajectory"
LOSSES, RIGHT, PREDICTIONS = "loss of every step", "right answers of every step", "predictions at the end"
STEPS = 100
BUDGET = 1e-11  # of a tensor's scale, after `STEPS` steps
FLOOR = 1e-3
IMAGES = 10 * BATCH
AUGMENTATION = Augmentation(crop_padding=4, flip=True)
# Learning rate (relative) and momentum of each quarter of the steps: three changes, and the momentum changes too.
QUARTERS = ((1.0, 0.9), (0.4, 0.9), (1.5, 0.8), (0.1, 0.95))

Arrays = dict[str, NDArray[np.floating[Any]]]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A case with the steps to take."""

    case: Case
    learning_rate: float
    steps: int = STEPS
    optimizer: Optimizer = MOMENTUM

    @property
    def transform(self) -> InputTransform:
        """Like the case's, with room for crops."""
        return replace(self.case.transform, crop_padding=AUGMENTATION.crop_padding)

    def images(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`IMAGES` stored images of the input's size and their labels."""
        random = generator(self.case.seed, "trajectory", "images")
        stored = (random.random((IMAGES, *self.case.architecture.input)) * 256).astype(np.uint8)
        labels = generator(self.case.seed, "trajectory", "labels").random(IMAGES) * self.case.architecture.classes
        return stored, labels.astype(np.int64)

    def batches(self) -> list[Batch]:
        """The batches of as many epochs as the steps need."""
        per_epoch = IMAGES // BATCH
        epochs = range(-(-self.steps // per_epoch))
        planned = [batch for epoch in epochs for batch in plan(self.case.seed, epoch, IMAGES, BATCH, AUGMENTATION)]
        return planned[: self.steps]

    def rates(self, step: int) -> Rates:
        """Constant within a quarter of the steps."""
        factor, momentum = QUARTERS[step * len(QUARTERS) // self.steps]
        return self.optimizer.rates(factor * self.learning_rate, momentum)


def make_trajectory(case: Case, steps: int = STEPS) -> Trajectory:
    """`steps` steps from `case`, at the rate of its update level."""
    return Trajectory(case, LARGEST_MOVE / ReferenceRun(case).steps.gradient, steps)


def follow_reference(trajectory: Trajectory) -> Arrays:
    """The reference's losses and right answers `(steps,)`; parameters, running statistics, optimiser state and the
    logits of stored images in evaluation mode at the end."""
    case, (stored, labels) = trajectory.case, trajectory.images()
    architecture, optimizer = case.architecture, trajectory.optimizer
    told = optimizer, decay_by_path(optimizer, architecture), rate_by_path(optimizer, architecture)
    values: dict[str, Array] = dict(case.exact)
    state: Parameters = {}
    losses, right = [], []
    for step, batch in enumerate(trajectory.batches()):
        x = network_input(stored[batch.index], trajectory.transform, batch)
        run = reference.forward(architecture, values, x, train=True, masks=case.masks(step))
        loss, _ = reference.backward(run, labels[batch.index])
        moved, state = reference_step(values, run.gradients, state, trajectory.rates(step), *told)
        values |= moved | run.statistics
        losses.append(loss)
        right.append(float((run.logits.argmax(1) == labels[batch.index]).sum()))
    images = network_input(stored[:BATCH], trajectory.transform)
    logits = reference.forward(architecture, values, images).logits
    return {LOSSES: np.array(losses), RIGHT: np.array(right), PREDICTIONS: logits, **values, **state}


def follow(backend: Backend, network: Native, trajectory: Trajectory, start: Parameters | None = None) -> Arrays:
    """A backend's losses, right answers, parameters, statistics, state and predictions after the same steps, from
    `start` or the case's own parameters; the network is left at the end."""
    backend.from_canonical(network, trajectory.case.parameters if start is None else start)
    trainer = backend.Trainer(network, trajectory.optimizer, trajectory.transform, trajectory.case.seed)
    stored, labels = trajectory.images()
    fed = feed(stored, labels, trajectory.batches(), AUGMENTATION)
    handles = [
        trainer.step(
            images, right_answers, trajectory.rates(step), step, gather=gather, masks=trajectory.case.masks(step)
        )
        for step, (images, right_answers, gather) in enumerate(fed)
    ]
    losses, right = trainer.read(handles).T
    measured = {LOSSES: losses, RIGHT: right, PREDICTIONS: trainer.predict(stored[:BATCH])}
    return {**measured, **backend.to_canonical(network), **trainer.state()}


def judge_trajectory(expected: Arrays, observed: Arrays) -> list[Check]:
    """One check per tensor, `BUDGET` of its scale. Running means and biases, and their velocities, can be the rest of a
    cancellation, so that their own scale is 0: the least scale is `FLOOR` of the largest array of the same kind.
    Predictions are float32."""
    kinds: dict[str, float] = {}
    for name, value in expected.items():
        kinds[kind_of(name)] = max(largest(value), kinds.get(kind_of(name), 0.0))
    scales = {name: max(largest(value), FLOOR * kinds[kind_of(name)]) for name, value in expected.items()}
    budgets = {name: BUDGET * scale for name, scale in scales.items()}
    budgets[PREDICTIONS] = 2 * FLOAT32_UNIT * scales[PREDICTIONS]
    return compare(LEVEL, expected, observed, budgets)


def kind_of(name: str) -> str:
    """A slot of the optimiser, what is measured, or "parameter"."""
    first = name.partition(".")[0]
    return name if name in (LOSSES, RIGHT, PREDICTIONS) else first if first in SLOTS else "parameter"
