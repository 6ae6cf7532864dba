"""What no tame case meets: activations far from 0, exactly at bounds and at 0; logits whose exponentials overflow.

Each kind of activation of a network runs alone on such values, forward and backward; the loss is given such logits.
Elementwise functions are right to a few roundings of the largest value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Native
from triptych.conformance.tolerance import Budgets
from triptych.reference.loss import cross_entropy
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.spec.analysis import primitives
from triptych.spec.layers import (
    Architecture,
    Clip,
    HardSigmoid,
    HardSwish,
    Layer,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Tanh,
)
from triptych.utils.arrays import Array, largest
from triptych.utils.randomness import generator

if TYPE_CHECKING:
    from triptych.conformance.case import Case
    from triptych.conformance.compare import Arrays
    from triptych.conformance.reference_run import ReferenceRun

PREFIX = "tails: "
ACTIVATIONS = (Clip, HardSigmoid, HardSwish, LeakyReLU, ReLU, Sigmoid, SiLU, Tanh)
SHAPE = (2, 4, 3, 5)
VALUES = (0.0, 0.0, 0.5, 1.0, 2.5, 6.0, 6.5, 20.0, 100.0)  # and their negatives; pairs of equal ones
ROUNDINGS = {"fp64": 1e-12, "fp32": 8 * FLOAT32_UNIT}  # of a tensor's scale
LOGITS = 100.0  # e^100 is no float32


def activations(architecture: Architecture) -> dict[str, Layer]:
    """By path, the first of every kind of activation that takes maps, arguments and all."""
    first: dict[Layer, str] = {}
    for info in primitives(architecture):
        if isinstance(info.layer, ACTIVATIONS) and len(info.input) == 3:
            first.setdefault(replace(info.layer, name=""), info.path)
    return {path: layer for layer, path in first.items()}


def values(layer: Layer, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Input and output gradient `SHAPE` for an activation: the table's values, its own bounds, and bell-shaped ones."""
    bounds = (layer.low, layer.high) if isinstance(layer, Clip) else ()
    known = [*VALUES, *(-value for value in VALUES), *bounds]
    random = generator(seed, "tails", type(layer).__name__)
    x = 3 * random.standard_normal(SHAPE).astype(np.float32).astype(np.float64)
    x.flat[: len(known)] = known
    return x, random.standard_normal(SHAPE).astype(np.float32).astype(np.float64)


def logits(case: Case, count: int) -> list[NDArray[np.float64]]:
    """For every head, logits up to some hundred, two of them equal."""
    shape = (len(case.stored), case.architecture.classes)
    drawn = [generator(case.seed, "tails", "logits", head).standard_normal(shape) for head in range(count)]
    heads = [(LOGITS * values).astype(np.float32).astype(np.float64) for values in drawn]
    for head in heads:
        head[0, -1] = head[0, 0]
    return heads


def expected(run: ReferenceRun) -> dict[str, Array]:
    """The reference's outputs, gradients, and loss."""
    arrays: dict[str, Array] = {}
    for path, layer in activations(run.case.architecture).items():
        x, gradient = values(layer, run.case.seed)
        alone = run.alone(path, x, gradient, train=False)
        arrays |= {f"{PREFIX}{name} of {path}": value for name, value in alone.items()}
    if not run.case.architecture.classes:
        return arrays
    total = 0.0
    for (path, (weight, _)), head in zip(run.heads.items(), logits(run.case, len(run.heads)), strict=True):
        loss, by_head = cross_entropy(head, np.asarray(run.case.targets))
        total += weight * loss
        arrays[f"{PREFIX}gradient of the loss by {path}"] = weight * by_head
    return arrays | {f"{PREFIX}loss": np.asarray(total)}


def observed(backend: Backend, network: Native, run: ReferenceRun) -> dict[str, Array]:
    """The same of a backend's network."""
    arrays: dict[str, Array] = {}
    for path, layer in activations(run.case.architecture).items():
        x, gradient = values(layer, run.case.seed)
        y, dx, _ = backend.layer_pass(network, path, x, gradient, train=False, masks={})
        arrays |= {f"{PREFIX}output of {path}": y} | ({} if dx is None else {f"{PREFIX}input of {path}": dx})
    if not run.case.architecture.classes:
        return arrays
    loss, gradients = backend.loss_pass(network, logits(run.case, len(run.heads)), run.case.targets)
    named = dict(zip((f"{PREFIX}gradient of the loss by {path}" for path in run.heads), gradients, strict=True))
    return arrays | named | {f"{PREFIX}loss": np.asarray(loss)}


def budgets(precision: str, arrays: Arrays) -> Budgets:
    """A few roundings of every tensor's largest value."""
    return {name: ROUNDINGS[precision] * largest(value) for name, value in arrays.items() if name.startswith(PREFIX)}
