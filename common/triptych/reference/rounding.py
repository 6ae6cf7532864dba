"""What float32 rounding can explain, tensor by tensor, found by rounding the float64 reference on purpose.

A sum of `length` terms of size `scale`, taken in float32, is off by about `2^-24 * sqrt(length) * scale`
(the terms' errors add like a random walk; Higham and Mary 2019). `Perturbation` puts a random error of `AMPLITUDE`
times that size on every result of the reference, so that a few perturbed executions show how far rounding carries
through this network at these weights: depth, cancellation, and units on the edge of a ReLU or a max-pool included."""

import math
from dataclasses import dataclass

import numpy as np

from triptych.utils.arrays import Array, largest

FLOAT32_UNIT = 2.0**-24  # half the distance from 1 to the next float32
AMPLITUDE = 4.0  # the random walk tells the mean error: room for the largest of many values


def largest_error(value: Array, length: int, scale: float | None = None) -> float:
    """What a perturbed execution changes any number of this result by at most."""
    return AMPLITUDE * FLOAT32_UNIT * math.sqrt(length) * max(largest(value), scale or 0.0)


@dataclass(frozen=True)
class Perturbation:
    """A `rounding` for the reference: adds a uniform error of `AMPLITUDE * FLOAT32_UNIT * sqrt(length) * scale`. `sign`
    -1 gives the mirror image of the same draws: a unit that lies closer to a switch than rounding reaches is pushed
    across it by one of the two."""

    random: np.random.Generator
    sign: float = 1.0

    def __call__(self, value: Array, length: int, scale: float | None = None) -> Array:
        size = largest_error(value, length, scale)
        return value + self.sign * size * self.random.uniform(-1.0, 1.0, value.shape)


@dataclass(frozen=True)
class Shortened:
    """A `rounding` for the reference where factors and results are rounded to a coarser `unit` and sums are taken in
    float32: beside float32's own errors (`single`) each number is off by up to `AMPLITUDE` times `unit` of itself."""

    single: Perturbation
    unit: float

    def __call__(self, value: Array, length: int, scale: float | None = None) -> Array:
        return self.cast(self.single(value, length, scale), AMPLITUDE)

    def cast(self, value: Array, units: float = 1.0) -> Array:
        """Weights or images as that type holds them: each number off by at most one unit of itself."""
        drawn = self.single.random.uniform(-1.0, 1.0, value.shape)
        return value * (1 + self.single.sign * units * self.unit * drawn)
