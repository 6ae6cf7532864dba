"""The training level: the backend's own trainer over a short life, as `train` uses it, against the reference's.

A small network with batch norms, branches, a residual and an auxiliary classifier, whose last maps have fewer pixels
than kernels, of which one is oblong, strided and dilated, is trained for three epochs: batches of one plan with
crops, flips and shifted colours, of which the last is smaller; other rates in every step; the whole of a test set, in
batches of which the last is smaller, after every epoch; and the last epoch by another trainer of another network that
takes up what the first has saved. No masks are given, so nothing runs otherwise than in training: hybridised,
compiled. It is the same life for every architecture, always in float64. What is of the architecture itself: its
predictions of 4, 3 and 1 images in this order.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Native, Trainer
from triptych.backend.execution import exact
from triptych.conformance.case import BATCH, Case, make_case
from triptych.data.batches import Augmentation, Batch, feed, plan
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, Rates, reference_step
from triptych.reference import network as reference
from triptych.reference.decay import decay_by_path
from triptych.reference.pixels import network_input
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Initializer,
    MaxPool,
    ReLU,
    Residual,
)
from triptych.utils.arrays import Array, largest
from triptych.utils.randomness import generator
from triptych.weights.initializers import Parameters

Arrays = dict[str, Array]

NAME = "life"
OPTIMIZER = SGD(momentum=0.9, weight_decay=5e-4, decayed="weights")
AUGMENTATION = Augmentation(crop_padding=2, flip=True, colour=0.5)
EPOCHS, RESUMED_AT = 3, 2
IMAGES, TESTED = 2 * BATCH + 2, BATCH + 3  # a last batch of 2, and of 3
BUDGET = 1e-11  # of a tensor's scale: that of a trajectory
FLOOR = 1e-3  # the least scale, of the largest array of its kind: running means and biases can be rests
LOGITS, LOSSES, RIGHT = "logits of epoch", "loss of every step", "right answers of every step"
PREDICTED = "prediction of the last"
SIZES = (4, 3, 1)


def network() -> Architecture:
    """The network that lives: two pools leave maps of 2x3 pixels to kernels of 3x3."""
    body = Block("body", (_conv("conv", 6), BatchNorm("norm", unbiased=False)))
    head = (GlobalAvgPool("mean"), Flatten("flat"), Dense("out", 5))
    branches = (Block("a", (Conv("conv", 4, (1, 1)),)), Block("b", (_conv("conv", 4),)))
    layers = (
        *(_conv("conv1", 6, bias=False), BatchNorm("norm1"), ReLU("relu1"), MaxPool("pool1", (2, 2), (2, 2))),
        *(Residual("unit", body, scale=0.5), ReLU("relu2"), MaxPool("pool2", (3, 3), (2, 2), ceil=True)),
        *(Branches("mixed", branches), Auxiliary("head", head, 0.3), ReLU("relu3"), MaxPool("pool3", (2, 2), (2, 2))),
        *(_conv("conv2", 5), ReLU("relu4"), Conv("conv3", 5, (3, 5), (2, 1), (2, 2), dilation=(2, 1)), ReLU("relu5")),
        *(Flatten("flatten"), Dense("dense", 5)),
    )
    return Architecture(NAME, (3, 16, 24), 5, layers, Initializer("kaiming_normal"))


def _conv(name: str, channels: int, bias: bool = True) -> Conv:
    return Conv(name, channels, (3, 3), padding=(1, 1), bias=bias)


@cache
def script(seed: int) -> tuple[Case, NDArray[np.uint8], NDArray[np.int64], InputTransform]:
    """The start, the stored images with their labels (the training set's, then the test set's), and the transform; the
    images are smaller than the network's input."""
    case = make_case(network(), seed)
    channels, height, width = case.architecture.input
    shape = (IMAGES + TESTED, channels, height - 3, width - 4)
    stored = (generator(seed, "life", "images").random(shape) * 256).astype(np.uint8)
    labels = (generator(seed, "life", "labels").random(len(stored)) * case.architecture.classes).astype(np.int64)
    transform = InputTransform(channels, height, width, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), AUGMENTATION.crop_padding)
    return case, stored, labels, transform


def rates(step: int) -> Rates:
    """Another learning rate and momentum in every step."""
    return Rates(0.02 / (1 + step), 0.9 - 0.02 * step)


def batches(seed: int, epoch: int) -> list[Batch]:
    """One epoch's plan."""
    return plan(seed, epoch, IMAGES, BATCH, AUGMENTATION)


@cache
def expected(seed: int) -> Arrays:
    """The reference's losses and right answers, the test set's logits after every epoch, and what is left at the
    end."""
    case, stored, labels, transform = script(seed)
    decay = decay_by_path(OPTIMIZER, case.architecture)
    values: Arrays = dict(case.exact)
    state: Parameters = {}
    arrays: Arrays = {}
    measured: list[tuple[float, float]] = []
    tested = network_input(stored[IMAGES:], transform)
    for epoch in range(EPOCHS):
        for batch in batches(seed, epoch):
            x = network_input(stored[batch.index], transform, batch)
            run = reference.forward(case.architecture, values, x, train=True)
            loss, _ = reference.backward(run, labels[batch.index])
            moved, state = reference_step(values, run.gradients, state, rates(len(measured)), OPTIMIZER, decay)
            values |= moved | run.statistics
            measured.append((loss, float((run.logits.argmax(1) == labels[batch.index]).sum())))
        arrays[f"{LOGITS} {epoch}"] = reference.forward(case.architecture, values, tested).logits
    losses, right = np.array(measured).T
    return {LOSSES: losses, RIGHT: right, **arrays, **values, **state}


def observed(backend: Backend, seed: int, device: str) -> Arrays:
    """The same life of a backend's trainer."""
    case, stored, labels, transform = script(seed)
    arrays: Arrays = {}
    measured: list[Array] = []
    saved: tuple[Parameters, Parameters] = (case.parameters, {})
    for epoch in range(EPOCHS):
        if epoch in (0, RESUMED_AT):
            built = backend.build(replace(case.architecture, name=NAME), device=device, execution=exact("fp64"))
            backend.from_canonical(built, saved[0])
            trainer = backend.Trainer(built, OPTIMIZER, transform, seed)
            trainer.load_state(saved[1])
        handles: list[Native] = []
        for images, answers, gather in feed(stored[:IMAGES], labels[:IMAGES], batches(seed, epoch), AUGMENTATION):
            step = sum(map(len, measured)) + len(handles)
            handles.append(trainer.step(images, answers, rates(step), step, gather=gather))
        measured.append(np.asarray(trainer.read(handles)))
        parts = (stored[begin : begin + BATCH] for begin in range(IMAGES, IMAGES + TESTED, BATCH))
        arrays[f"{LOGITS} {epoch}"] = np.concatenate([trainer.predict(part) for part in parts])
        saved = backend.to_canonical(built), trainer.state()
    losses, right = np.concatenate(measured).T
    return {LOSSES: losses, RIGHT: right, **arrays, **saved[0], **saved[1]}


def budgets(arrays: Arrays) -> dict[str, float]:
    """`BUDGET` of the scale of every array; logits come back in float32."""
    kinds: dict[str, float] = {}
    for name, value in arrays.items():
        kinds[_kind(name)] = max(largest(value), kinds.get(_kind(name), 0.0))
    scales = {name: max(largest(value), FLOOR * kinds[_kind(name)]) for name, value in arrays.items()}
    return {
        name: (2 * FLOAT32_UNIT if name.startswith((LOGITS, PREDICTED)) else BUDGET) * scale
        for name, scale in scales.items()
    }


def _kind(name: str) -> str:
    """Velocities, parameters, or what is measured by itself."""
    if name.startswith((LOGITS, LOSSES, RIGHT, PREDICTED)):
        return name
    return "velocity" if name.startswith("velocity.") else "parameter"


def sizes(count: int) -> Iterator[tuple[str, slice]]:
    """The last images of a case that are predicted by themselves, a large batch first."""
    yield from ((f"{PREDICTED} {size}", slice(count - size, count)) for size in SIZES if size <= count)


def predictions(backend: Backend, built: Native, case: Case) -> Arrays:
    """A network's own predictions of batches of several sizes."""
    backend.from_canonical(built, case.parameters)
    trainer: Trainer = backend.Trainer(built, OPTIMIZER, case.transform, case.seed)
    return {name: trainer.predict(case.stored[part]) for name, part in sizes(len(case.stored))}
