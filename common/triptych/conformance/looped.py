"""The training level, between trainer and data: the loop that `train` runs, and the plan of batches that it follows.

A trainer that only takes down what it is given runs through the loop: which images in which order, cropped, mirrored
and tinted how, with which labels and rates, and what the loop makes of the figures and logits that it hands back. What
is expected of it is written a second time here, image by image, so that neither the plan nor the loop judges itself.
It is the same for every backend.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend
from triptych.data import Dataset
from triptych.data.batches import Augmentation, Gather
from triptych.data.dataset import Split
from triptych.optim.optimizers import SGD, Rates
from triptych.optim.schedules import Step
from triptych.spec.layers import Architecture, Dense, Flatten
from triptych.training import loop
from triptych.training.recipe import Recipe
from triptych.training.sessions import Session
from triptych.utils.arrays import Array
from triptych.utils.randomness import generator

PREFIX = "loop: "
SHAPE, CLASSES = (3, 4, 5), 4
TRAINED, TESTED, BATCH, EPOCHS = 11, 7, 4, 2  # a last batch of 3 images, in training and in the test
RATE, MOMENTUM = 0.125, 0.75  # which float32 has exactly
FACTOR, EVERY = 0.5, 2  # the learning rate is halved after every second step
PADDING, COLOUR = 2, 0.5
# Facebook's principal components of ImageNet's colours, one a row, and their deviations.
AXES = ((-0.5675, -0.5808, -0.5836), (0.7192, -0.0045, -0.6948), (0.4009, -0.8140, 0.4203))
DEVIATIONS = (0.2175, 0.0188, 0.0045)
BUDGET = 1e-12  # of the larger of the largest value and 1: a few sums, in float64

NETWORK = Architecture("loop", SHAPE, CLASSES, (Flatten("flatten"), Dense("dense", CLASSES)))


@cache
def _data(seed: int) -> Dataset:
    def split(name: str, count: int) -> Split:
        draws = generator(seed, "loop", name)
        images = (draws.random((count, *SHAPE)) * 256).astype(np.uint8)
        return Split(images, (draws.random(count) * CLASSES).astype(np.int64))

    return Dataset("loop", split("train", TRAINED), split("test", TESTED), tuple("abcd"))


def _recipe(seed: int) -> Recipe:
    return Recipe(
        "loop",
        spec=NETWORK,
        batch_size=BATCH,
        epochs=EPOCHS,
        learning_rate=RATE,
        optimizer=SGD(momentum=MOMENTUM),
        schedule=Step(every=EVERY, factor=FACTOR, per="batch"),
        augmentation=Augmentation(PADDING, True, COLOUR),
        seed=seed,
    )


def _logits(images: NDArray[np.uint8]) -> Array:
    """What is handed back for images: a function of each one's pixels."""
    return images.reshape(len(images), -1)[:, :CLASSES] / 50.0


class _Recorder:
    """A trainer that takes down what it is given, and reports the loss `number + 1` and as many right answers as the
    batch has images, but one."""

    def __init__(self) -> None:
        self.seen: dict[str, Array] = {}

    def step(self, images: Any, targets: Any, rates: Rates, number: int, *, gather: Gather, **more: Any) -> Array:
        padded = np.pad(images, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
        cropped = [each[:, r[:, None], c] for each, r, c in zip(padded, gather.rows, gather.columns, strict=True)]
        place = f"step {len(self.seen) // 5}"
        self.seen |= {
            f"images of {place}": np.stack(cropped).astype(float),
            f"labels of {place}": np.asarray(targets, float),
            f"shifts of {place}": np.asarray(gather.shifts),
            f"rates of {place}": np.array([rates.learning_rate, rates.momentum]),
            f"number of {place}": np.asarray(float(number)),
        }
        return np.array([number + 1.0, len(images) - 1.0])

    def read(self, handles: list[Array]) -> Array:
        return np.stack(handles)

    def settle(self) -> None:
        """Nothing has statistics."""

    def predict(self, images: NDArray[np.uint8]) -> Array:
        return _logits(images)


def observed(backend: Backend, seed: int) -> dict[str, Array]:
    """What the loop gives a trainer, and says of its epochs."""
    recorder: Any = _Recorder()
    session = Session(backend, NETWORK, None, recorder, _recipe(seed), _data(seed))
    epochs = loop.fit(session, loop.Listener())
    arrays = {PREFIX + name: value for name, value in recorder.seen.items()}
    for number, epoch in enumerate(epochs):
        figures = epoch.train_loss, epoch.train_accuracy, epoch.test_loss, epoch.test_accuracy, float(epoch.step)
        arrays[f"{PREFIX}figures of epoch {number}"] = np.array(figures)
    return arrays


@cache
def expected(seed: int) -> dict[str, Array]:
    """The same, image by image."""
    data, arrays, number = _data(seed), dict[str, Array](), 0
    for epoch in range(EPOCHS):
        order = np.argsort(generator(seed, "order", epoch).random(TRAINED), kind="stable")
        down, right, mirrored = (
            generator(seed, purpose, epoch).random(TRAINED) for purpose in ("crop rows", "crop columns", "flip")
        )
        radius, angle = generator(seed, "colour", epoch).random((2, TRAINED, 3))
        losses = []
        for begin in range(0, TRAINED, BATCH):
            places = range(begin, min(begin + BATCH, TRAINED))
            images, shifts = [], []
            for place in places:
                image = np.zeros((SHAPE[0], SHAPE[1] + 2 * PADDING, SHAPE[2] + 2 * PADDING))
                image[:, PADDING:-PADDING, PADDING:-PADDING] = data.train.images[order[place]]
                row, column = int(down[place] * (2 * PADDING + 1)), int(right[place] * (2 * PADDING + 1))
                image = image[:, row : row + SHAPE[1], column : column + SHAPE[2]]
                images.append(image[:, :, ::-1] if mirrored[place] < 0.5 else image)
                normal = np.sqrt(-2 * np.log(1 - radius[place])) * np.cos(2 * np.pi * angle[place])
                amounts = COLOUR * normal * DEVIATIONS
                shifts.append(sum(amount * np.array(axis) for amount, axis in zip(amounts, AXES, strict=True)))
            arrays |= {
                f"{PREFIX}images of step {number}": np.stack(images),
                f"{PREFIX}labels of step {number}": data.train.labels[order[places]].astype(float),
                f"{PREFIX}shifts of step {number}": np.stack(shifts),
                f"{PREFIX}rates of step {number}": np.array([RATE * FACTOR ** (number // EVERY), MOMENTUM]),
                f"{PREFIX}number of step {number}": np.asarray(float(number)),
            }
            losses += [number + 1.0] * len(places)
            number += 1
        steps = -(-TRAINED // BATCH)
        arrays[f"{PREFIX}figures of epoch {epoch}"] = np.array(
            [np.mean(losses), (TRAINED - steps) / TRAINED, *_tested(data.test), float(number)]
        )
    return arrays


def _tested(split: Split) -> tuple[float, float]:
    """Mean cross-entropy and accuracy, image by image."""
    losses, right = [], 0
    for logits, label in zip(_logits(split.images), split.labels, strict=True):
        losses.append(float(np.log(np.exp(logits).sum()) - logits[label]))
        right += int(np.argmax(logits) == label)
    return float(np.mean(losses)), right / len(split)
