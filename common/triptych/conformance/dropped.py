"""The dropout that training draws itself: which values it keeps is read off the steps of a trainer.

Two dropout layers side by side, each before a trained factor for every channel. In a step, the gradient of a channel's
factor is a sum over the images; the cotangent of image n is 2^n, so that the sum's digits say which images kept it.
Every reading is exact. Shares and agreements are counts; each may be `SIGMAS` standard deviations off what independent
draws give, which one of them exceeds by chance in less than one of 10^8 runs.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, Rates
from triptych.spec.layers import Affine, Architecture, Block, Branches, Dropout, walk
from triptych.utils.arrays import Array

NAME = "dropped"
PREFIX = "dropout: "  # of the statistics' names
CHANNELS, BATCH, STEPS = 48, 4, 8
SIGMAS = 6.0
BRANCHES = ("left", "right")
KINDS = ("images", "channels", "layers", "steps")


def rate_of(architecture: Architecture) -> float | None:
    """The rate of the first dropout layer that drops anything; None if there is none."""
    rates = (layer.rate for _, layer in walk(architecture.layers) if isinstance(layer, Dropout))
    return next(filter(None, rates), None)


def network(rate: float) -> Architecture:
    """Two dropout layers on the same channels of one pixel, each with a trained factor behind."""
    branches = (Block(name, (Dropout("dropout", rate), Affine("scale", trained=True))) for name in BRANCHES)
    return Architecture(NAME, (CHANNELS, 1, 1), 0, (Branches("both", tuple(branches)),))


def kept(backend: Backend, rate: float, seed: int, device: str) -> NDArray[np.bool_]:
    """Which values every step kept: (steps, layers, images, channels). There is an evaluation between the steps. Raises
    ValueError where a reading is no set of images: the scale is not 1 / (1 - rate)."""
    architecture = network(rate)
    built = backend.build(architecture, device=device, execution=exact("fp32", "full"))
    trainer = backend.Trainer(built, SGD(), InputTransform(CHANNELS, 1, 1, (0.5,) * CHANNELS, (0.5,) * CHANNELS), seed)
    stored = np.full((BATCH, CHANNELS, 1, 1), 255, np.uint8)  # 1 in the network
    digits = (2.0 ** np.arange(BATCH)).astype(np.float32)[:, None, None, None]
    cotangent = np.broadcast_to(digits, (BATCH, len(BRANCHES) * CHANNELS, 1, 1)).copy()
    start = {path: np.asarray(value) for path, value in backend.to_canonical(built).items()}
    steps = []
    for number in range(STEPS):
        backend.from_canonical(built, start)
        trainer.read([trainer.step(stored, (cotangent,), Rates(1.0), number)])
        trainer.predict(stored)
        after = backend.to_canonical(built)
        gradients = [start[f"both.{name}.scale.weight"] - after[f"both.{name}.scale.weight"] for name in BRANCHES]
        numbers = np.asarray(gradients, np.float64) * BATCH * (1 - rate)
        whole = np.rint(numbers)
        if np.abs(numbers - whole).max() > 1e-3 or whole.min() < 0 or whole.max() >= 2**BATCH:
            raise ValueError(f"dropout at rate {rate} does not scale what it keeps by 1 / (1 - rate)")
        steps.append(whole.astype(int)[:, None, :] >> np.arange(BATCH)[None, :, None] & 1)
    return np.array(steps, bool)


def statistics(mask: NDArray[np.bool_], rate: float) -> dict[str, Array]:
    """How many standard deviations the share of kept values, and the agreement of neighbouring images, channels, layers
    and steps, are off what independent draws give."""
    agree = (1 - rate) ** 2 + rate**2
    deviations = {f"{PREFIX}share kept": _deviation(mask, 1 - rate)}
    for axis, kind in zip((2, 3, 1, 0), KINDS, strict=True):
        moved = np.moveaxis(mask, axis, 0)
        same = np.array([one == other for one, other in pairwise(moved)])
        deviations[f"{PREFIX}independence of {kind}"] = max(_deviation(each, agree) for each in (same, *same))
    return {name: np.array([value]) for name, value in deviations.items()}


def _deviation(true: NDArray[np.bool_], probability: float) -> float:
    return float(abs(true.sum() - true.size * probability) / np.sqrt(true.size * probability * (1 - probability)))


def expected(rate: float) -> dict[str, Array]:
    """No deviation at all."""
    return {name: np.zeros(1) for name in statistics(np.zeros((2, 2, 2, 2), bool), rate)}
