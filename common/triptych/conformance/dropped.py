"""The dropout that training draws itself: which values it keeps is read off the steps of a trainer.

Two dropout layers side by side, one of maps and one of flat values, each before a trained factor for every value. In a
step, the gradient of a value's factor is a sum over the images; the cotangent of image n is 2^n, so that the sum's
digits say which images kept it. Every reading is exact. Shares and agreements are counts, each of values that should be
independent; any may be `SIGMAS` standard deviations off what independent draws give, which one of them exceeds by
chance in less than one of 10^5 runs (binomial tails, rates from 0.05 to 0.95).
"""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Trainer
from triptych.backend.execution import exact
from triptych.backend.group import ALONE
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, Rates
from triptych.spec.layers import Affine, Architecture, Block, Branches, Dropout, Flatten, Reshape, walk
from triptych.utils.arrays import Array

NAME = "dropped"
PREFIX = "dropout: "  # of the statistics' names
CHANNELS, ROWS, COLUMNS, BATCH = 3, 4, 4, 4
VALUES = CHANNELS * ROWS * COLUMNS
# Step numbers: neighbours, and such that most round periods (every 4 steps, 100, 256, 1000) meet a pair.
STEPS = (0, 1, 2, 3, 4, 1000, 4096)
IN_PARTS = 4  # the step whose batch is given in two parts
SIGMAS = 6.0
BRANCHES = ("maps", "flat")
KINDS = ("steps and seeds", "layers", "images", "channels", "rows", "columns")  # the axes of a mask


def rate_of(architecture: Architecture) -> float | None:
    """The rate of the first dropout layer that drops anything; None if there is none."""
    rates = (layer.rate for _, layer in walk(architecture.layers) if isinstance(layer, Dropout))
    return next(filter(None, rates), None)


def network(rate: float) -> Architecture:
    """Dropout layers on the same values, as maps and flat, each with a trained factor for every value behind."""
    ahead = {"maps": (), "flat": (Flatten("flatten"),)}
    behind = Reshape("values", (VALUES, 1, 1)), Affine("scale", trained=True)
    branches = (Block(name, (*ahead[name], Dropout("dropout", rate), *behind)) for name in BRANCHES)
    return Architecture(NAME, (CHANNELS, ROWS, COLUMNS), 0, (Branches("both", tuple(branches)),))


def kept(backend: Backend, rate: float, seed: int, device: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which values every step of `STEPS` kept, and the first one of another seed: `(steps + 1, layers, images,
    channels, rows, columns)`; and the same of one step on a smaller batch. There is an evaluation between the steps.
    Raises ValueError where a reading is no set of images: the scale is not 1 / (1 - rate)."""
    built = backend.build(network(rate), device=device, execution=exact("fp32"))
    transform = InputTransform(CHANNELS, ROWS, COLUMNS, (0.5,) * CHANNELS, (0.5,) * CHANNELS)
    start = {path: np.array(value) for path, value in backend.to_canonical(built).items()}

    def read(trainer: Trainer, number: int, count: int = BATCH) -> NDArray[np.bool_]:
        stored = np.full((count, CHANNELS, ROWS, COLUMNS), 255, np.uint8)  # 1 in the network
        digits = (2.0 ** np.arange(count)).astype(np.float32)[:, None, None, None]
        cotangent = np.broadcast_to(digits, (count, len(BRANCHES) * VALUES, 1, 1)).copy()
        backend.from_canonical(built, start)
        shares = ALONE.shares(count, 1 + (number == IN_PARTS))
        trainer.read([trainer.step(stored, (cotangent,), Rates(1.0), number, shares=shares)])
        trainer.predict(stored)
        after = backend.to_canonical(built)
        gradients = [start[f"both.{name}.scale.weight"] - after[f"both.{name}.scale.weight"] for name in BRANCHES]
        return _images(np.asarray(gradients, np.float64) * count * (1 - rate), count, rate)

    one, other = (backend.Trainer(built, SGD(), transform, each) for each in (seed, seed + 1))
    steps = [*(read(one, number) for number in STEPS), read(other, STEPS[0])]
    return np.array(steps), read(one, STEPS[-1] + 1, BATCH - 1)[None]


def _images(sums: Array, count: int, rate: float) -> NDArray[np.bool_]:
    """Which of `count` images each sum of their digits holds: `(layers, images, channels, rows, columns)`."""
    whole = np.rint(sums)
    if np.abs(sums - whole).max() > 1e-3 or whole.min() < 0 or whole.max() >= 2**count:
        raise ValueError(f"dropout at rate {rate} does not scale what it keeps by 1 / (1 - rate)")
    digits = whole.astype(int)[:, None, :] >> np.arange(count)[None, :, None] & 1
    return digits.astype(bool).reshape(len(sums), count, CHANNELS, ROWS, COLUMNS)


def statistics(masks: tuple[NDArray[np.bool_], NDArray[np.bool_]], rate: float) -> dict[str, Array]:
    """How many standard deviations the share of kept values, and the agreement of any two steps, layers, images,
    channels, rows or columns, are off what independent draws give: of every kind the pair that is furthest off. Layers
    are judged together only against each other: one that repeats itself must not hide behind another."""
    mask, _ = masks
    agree = (1 - rate) ** 2 + rate**2
    shares = [each[:, layer] for each in masks for layer in range(len(BRANCHES))]
    deviations = {"share kept": max(_deviation(part, 1 - rate) for part in shares)}
    for axis, kind in enumerate(KINDS):
        parts = [mask] if kind == "layers" else [mask[:, layer : layer + 1] for layer in range(len(BRANCHES))]
        pairs = (pair for part in parts for pair in combinations(np.moveaxis(part, axis, 0), 2))
        deviations[f"independence of {kind}"] = max(_deviation(one == two, agree) for one, two in pairs)
    return {f"{PREFIX}{name}": np.array([value]) for name, value in deviations.items()}


def _deviation(true: NDArray[np.bool_], probability: float) -> float:
    return float(abs(true.sum() - true.size * probability) / np.sqrt(true.size * probability * (1 - probability)))


def expected(rate: float) -> dict[str, Array]:
    """No deviation at all."""
    names = ("share kept", *(f"independence of {kind}" for kind in KINDS))
    return {f"{PREFIX}{name}": np.zeros(1) for name in names}
