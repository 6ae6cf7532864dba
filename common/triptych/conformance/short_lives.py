"""Short lives of the backend's trainer, one for every optimiser, in the precision that is judged.

Each trains through `step`, as training does: two epochs with a smaller last batch, crops, flips and colours; rates
over orders of magnitude, a momentum that is 0 for a step; an evaluation after either epoch; the second one by another
trainer of another network that takes up what the first has saved. Most train one dense layer by cotangents that grow
from step to step: gradients of all sizes pass by, and since none depends on the weights, no error is carried far. One
trains batch norms and an auxiliary classifier by labels, with label smoothing and with a part of the network frozen;
one is given its batches in parts, of which every one has its own statistics, and a whole one after that; one has
batches of some hundred images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import numpy as np

from triptych.backend.contract import Backend, Images, Masks, Native, Targets, Trainer
from triptych.backend.execution import exact as exactly
from triptych.backend.group import ALONE
from triptych.backend.targets import part_of
from triptych.conformance import tolerance
from triptych.conformance.case import BATCH, make_case
from triptych.conformance.tolerance import Budgets, perturbations
from triptych.data.batches import Augmentation, Batch, gather_indices, plan
from triptych.data.preprocess import InputTransform
from triptych.optim.multipliers import Multiplier
from triptych.optim.optimizers import COUNT, SGD, Adagrad, Adam, AdamW, Optimizer, Rates, RMSprop, reference_step
from triptych.reference import network as reference
from triptych.reference.decay import decay_by_path, rate_by_path
from triptych.reference.pixels import network_input
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    ReLU,
)
from triptych.training import masks
from triptych.utils.arrays import Array, largest
from triptych.utils.randomness import generator
from triptych.weights.initializers import Parameters

NAME = "short life"
PREFIX = "short life of "
INPUT = (3, 4, 5)
STORED = (3, 5, 4)
AUGMENTATION = Augmentation(crop_padding=1, flip=True, colour=0.5)
TRANSFORM = InputTransform(*INPUT, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), AUGMENTATION.crop_padding)
EPOCHS = 2
LARGE = 259  # images of a batch, odd and more than the powers of two at which code likes to change its road
GROWTH = (0.01, 1.0, 100.0, 1e4)  # of the cotangents, step by step
FACTORS, MOMENTA = (1e-4, 1.0, 0.1, 0.3), (0.9, 0.0, 0.8, 0.7)  # of the learning rate; the momentum
PARTS = (3, 1, 3, 2)  # a last batch of one image is whole, though the others are given in parts
MORE_STEPS = 1000  # between the epochs: a count has no limit
SMOOTHING = 0.1
FROZEN = frozenset(("conv.weight", *(f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var"))))
SIDE = Auxiliary("side", (GlobalAvgPool("mean"), Flatten("flatten"), Dense("dense", 4)), 0.3)
LABELLED = Architecture(
    *("labelled", INPUT, 4),
    (
        *(Conv("conv", 4, (3, 3), padding=(1, 1), bias=False), BatchNorm("norm"), ReLU("relu"), SIDE),
        *(Conv("conv2", 4, (3, 3), padding=(1, 1), bias=False), BatchNorm("norm2"), ReLU("relu2")),
        *(GlobalAvgPool("mean"), Flatten("flatten"), Dense("dense", 4)),
    ),
    Initializer("kaiming_normal"),
)
LINEAR = Architecture("linear", INPUT, 0, (Flatten("flatten"), Dense("dense", 4)), Initializer("kaiming_normal"))
MASKED = replace(LINEAR, name="masked", layers=(Dropout("drop", 0.5), *LINEAR.layers))


@dataclass(frozen=True)
class Life:
    """What is trained, by what, and at which learning rate at most."""

    optimizer: Optimizer
    learning_rate: float
    architecture: Architecture = LINEAR
    frozen: frozenset[str] = frozenset()
    smoothing: float = 0.0
    parts: tuple[int, ...] = (1, 1, 1, 1)  # of the batch of every step
    batch: int = BATCH  # images of one that is full
    compilation: Literal["full", "quick"] = "quick"  # one as in training, where pass and update are compiled as one

    def rates(self, step: int) -> Rates:
        """Others in every step."""
        return self.optimizer.rates(FACTORS[step] * self.learning_rate, MOMENTA[step])

    @property
    def decay(self) -> dict[str, float]:
        """Of every parameter that is trained."""
        by_path = decay_by_path(self.optimizer, self.architecture)
        return {path: strength for path, strength in by_path.items() if path not in self.frozen}

    @property
    def factors(self) -> dict[str, float]:
        """How many times the learning rate each has."""
        return rate_by_path(self.optimizer, self.architecture)


MULTIPLIERS = (Multiplier("dense.*", rate=0.3, decay=3.0), Multiplier("*.bias", rate=5.0, decay=0.25))
LIVES = {  # Adam's beta2 is small: 1 - 0.999 has few digits in float32
    "frozen": Life(SGD(momentum=0.9, weight_decay=5e-2), 0.1, LABELLED, FROZEN, SMOOTHING),
    "in parts": Life(SGD(momentum=0.9, weight_decay=5e-2), 0.1, LABELLED, smoothing=SMOOTHING, parts=PARTS),
    "large batches": Life(SGD(momentum=0.9, weight_decay=5e-2), 0.1, LABELLED, batch=LARGE),
    "masks in parts": Life(SGD(momentum=0.9, weight_decay=5e-2), 0.1, MASKED, parts=PARTS),
    "nesterov": Life(SGD(momentum=0.9, nesterov=True, weight_decay=5e-2, decayed="weights"), 1.0, compilation="full"),
    "adam": Life(Adam(weight_decay=5e-2, decayed="weights", beta2=0.95), 0.1),
    "adamw": Life(AdamW(weight_decay=5e-2, decayed="weights", beta2=0.95), 0.1),
    "rmsprop": Life(RMSprop(weight_decay=5e-2, decayed="weights", momentum=0.9, alpha=0.9), 0.1),
    "adagrad": Life(Adagrad(weight_decay=5e-2, decayed="weights"), 0.1),
    "eps before": Life(Adam(weight_decay=5e-2, beta2=0.95, eps=1e-3, eps_added="before", multipliers=MULTIPLIERS), 0.1),
    "multiplied": Life(SGD(momentum=0.9, weight_decay=5e-2, multipliers=MULTIPLIERS), 0.1),
    "adamw multiplied": Life(AdamW(weight_decay=5e-2, beta2=0.95, multipliers=MULTIPLIERS), 0.1),
}


@dataclass(frozen=True, eq=False)
class Script:
    """The start, the stored images, and their batches, each with its epoch's number, its targets and dropout masks."""

    start: Parameters
    stored: Images
    steps: tuple[tuple[int, Batch, Targets, Masks], ...]


@cache
def script(architecture: Architecture, seed: int, size: int) -> Script:
    """The same for every life of an architecture, in batches of `size`, of which the last one of an epoch lacks one."""
    count = 2 * size - 1
    start = make_case(architecture, seed).parameters
    stored = (generator(seed, "short life", "images").random((count, *STORED)) * 256).astype(np.uint8)
    planned = [(epoch, each) for epoch in range(EPOCHS) for each in plan(seed, epoch, count, size, AUGMENTATION)]

    def targets(number: int, batch: Batch) -> Targets:
        draws = generator(seed, "short life", "targets", number)
        if architecture.classes:
            return (draws.random(len(batch)) * architecture.classes).astype(np.int64)
        return ((GROWTH[number] * draws.standard_normal((len(batch), 4))).astype(np.float32),)

    def step(number: int, epoch: int, batch: Batch) -> tuple[int, Batch, Targets, Masks]:
        return epoch, batch, targets(number, batch), masks.draw(architecture, seed, number, len(batch))

    return Script(start, stored, tuple(step(number, *each) for number, each in enumerate(planned)))


def expected(seed: int) -> dict[str, Array]:
    """What the reference's lives measure and leave."""
    return dict(_expected(seed))


@cache
def _expected(seed: int) -> dict[str, Array]:
    return _named(lambda life: _lived(life, seed, exact))


@cache
def _budgets(seed: int) -> dict[str, Budgets]:
    again = (_named(partial(_lived, seed=seed, rounding=rounding)) for rounding in perturbations(seed))
    return tolerance.budgets(_expected(seed), again)


def budgets(seed: int, precision: str) -> Budgets:
    """What perturbed lives allow; predictions come back in float32."""
    allowed = dict(_budgets(seed)[precision])
    for name, value in _expected(seed).items():
        if "prediction" in name:
            allowed[name] += 2 * FLOAT32_UNIT * largest(value)
    return allowed


def observed(backend: Backend, seed: int, device: str, precision: str) -> dict[str, Array]:
    """The same of a backend's trainers."""
    return _named(lambda life: _trained(life, backend, seed, device, precision))


def _named(of_life: Callable[[Life], Iterator[tuple[str, Array]]]) -> dict[str, Array]:
    return {f"{PREFIX}{name}: {key}": value for name, life in LIVES.items() for key, value in of_life(life)}


def _lived(life: Life, seed: int, rounding: Rounding) -> Iterator[tuple[str, Array]]:
    """Names and arrays of the reference's life."""
    told, length = script(life.architecture, seed, life.batch), sum(STORED) + 4
    values: dict[str, Array] = {path: np.asarray(value, np.float64) for path, value in told.start.items()}
    state: Parameters = {}
    for number, (epoch, batch, targets, dropped) in enumerate(told.steps):
        x = rounding(network_input(told.stored[batch.index], TRANSFORM, batch), length, 5.0)
        measured, gradients, statistics = _passes(life, number, values, x, targets, dropped, rounding)
        told_step = (life.rates(number), life.optimizer, life.decay, life.factors)
        moved, state = reference_step(values, gradients, state, *told_step)
        state = {name: value if name == COUNT else rounding(value, 1) for name, value in state.items()}
        values |= {path: rounding(value, 1) for path, value in (moved | statistics).items()}
        yield from _measured(life, number, measured)
        if number + 1 == len(told.steps) or told.steps[number + 1][0] != epoch:
            x = rounding(network_input(told.stored, TRANSFORM), length, 5.0)
            logits = reference.forward(life.architecture, values, x, rounding=rounding).logits
            yield f"prediction {epoch}", logits
            yield from ((f"{name} after epoch {epoch}", value) for name, value in (values | state).items())
            state = later(state)


def _passes(
    life: Life, number: int, values: Parameters, x: Array, targets: Targets, dropped: Masks, rounding: Rounding
) -> tuple[Array, Parameters, Parameters]:
    """Loss and right answers, gradients, running statistics of a batch: of its parts, one after the other, each counts
    as it has images."""
    measured, gradients, statistics = np.zeros(2), dict[str, Array](), dict[str, Array]()
    for share in ALONE.shares(len(x), life.parts[number]):
        part, mine = x[share.images], {path: mask[share.images] for path, mask in dropped.items()}
        run = reference.forward(
            *(life.architecture, values | statistics, part),
            train=True,
            masks=mine,
            rounding=rounding,
            frozen=life.frozen,
        )
        labels = part_of(targets, share.images)
        loss, by_path = reference.backward(run, labels, life.smoothing)
        right = 0 if isinstance(labels, tuple) else (run.logits.argmax(1) == labels).sum()
        measured += share.weight * loss, right
        gradients = {path: gradients.get(path, 0.0) + share.weight * value for path, value in by_path.items()}
        statistics |= run.statistics
    return measured, gradients, statistics


def _measured(life: Life, number: int, values: Array) -> Iterator[tuple[str, Array]]:
    """What a step is reported to have measured, by name; no answer is right where there are no classes."""
    names = ("loss", "right answers")[: 1 + bool(life.architecture.classes)]
    return ((f"{name} {number}", np.asarray(value)) for name, value in zip(names, values, strict=False))


def _trained(life: Life, backend: Backend, seed: int, device: str, precision: str) -> Iterator[tuple[str, Array]]:
    """Names and arrays of a backend's life. A trainer that has just begun, and one that was saved, makes a step more
    and goes back: what was saved must not follow it, and nothing of the step may stay."""
    told = script(life.architecture, seed, life.batch)
    saved: tuple[Parameters, Parameters] = (told.start, {})
    arrays: dict[str, Array] = {}
    for epoch in range(EPOCHS):
        named = replace(life.architecture, name=NAME)
        built = backend.build(named, device=device, execution=exactly(precision, life.compilation))
        backend.from_canonical(built, saved[0])
        trainer: Trainer = backend.Trainer(
            built, life.optimizer, TRANSFORM, seed, frozen=life.frozen, smoothing=life.smoothing
        )
        trainer.load_state(saved[1])
        trainer.predict(told.stored[: life.batch])  # what it sees now must not be what it sees later
        numbers = [number for number, (of, *_) in enumerate(told.steps) if of == epoch]
        if not epoch:  # later what was taken up has to be there in the first step
            _step(trainer, life, told, numbers[-1])
            _load(backend, built, trainer, saved)
        handles = [_step(trainer, life, told, number) for number in numbers]
        for number, values in zip(numbers, np.asarray(trainer.read(handles)), strict=True):
            arrays |= _measured(life, number, values)
        begins = range(0, len(told.stored), life.batch)
        parts = (told.stored[begin : begin + life.batch] for begin in begins)
        arrays[f"prediction {epoch}"] = np.concatenate([trainer.predict(part) for part in parts])
        saved = backend.to_canonical(built), trainer.state()
        _step(trainer, life, told, numbers[-1])
        _load(backend, built, trainer, saved)
        saved = backend.to_canonical(built), trainer.state()
        arrays |= {f"{name} after epoch {epoch}": value for values in saved for name, value in values.items()}
        saved = saved[0], later(saved[1])
    yield from arrays.items()


def _load(backend: Backend, built: Native, trainer: Trainer, saved: tuple[Parameters, Parameters]) -> None:
    """Go back to what was saved."""
    backend.from_canonical(built, saved[0])
    trainer.load_state(saved[1])


def later(state: Parameters) -> Parameters:
    """As if many more steps had been made."""
    return state | ({COUNT: np.asarray(state[COUNT] + MORE_STEPS)} if COUNT in state else {})


def _step(trainer: Trainer, life: Life, told: Script, number: int) -> Native:
    _, batch, targets, dropped = told.steps[number]
    taken = told.stored[batch.index], targets, life.rates(number), number
    gather = gather_indices(batch, *STORED[1:], AUGMENTATION.crop_padding)
    shares = ALONE.shares(len(batch), life.parts[number])
    return trainer.step(*taken, gather=gather, masks=dropped, shares=shares)
