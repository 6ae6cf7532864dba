"""What no tame case meets: activations far from 0, exactly at bounds and at 0; logits whose exponentials overflow;
batch norms of values whose mean is large beside their deviation.

Each kind of activation and normalisation of a network runs alone on such values, maps or flat, forward and backward;
the loss is given such logits. Elementwise functions and the loss are right to a few roundings of their largest value,
or term; what sums first, or cancels (1 - tanh^2 in the derivatives of GELU and Mish), is judged by the rule of
tolerance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Native
from triptych.conformance import tolerance
from triptych.conformance.tolerance import Budgets, perturbations
from triptych.reference.loss import cross_entropy
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.spec.analysis import primitives
from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.spec.layers import (
    GELU,
    Architecture,
    BatchNorm,
    Clip,
    Elementwise,
    L2Normalize,
    Layer,
    LocalResponseNorm,
    Mish,
    Shape,
    Softmax,
    Softplus,
)
from triptych.utils.arrays import Array, largest
from triptych.utils.randomness import generator

if TYPE_CHECKING:
    from triptych.conformance.case import Case
    from triptych.conformance.compare import Arrays
    from triptych.conformance.reference_run import ReferenceRun

PREFIX = "tails: "
SUMMED = (BatchNorm, GELU, L2Normalize, LocalResponseNorm, Mish, Softmax)
ELEMENTWISE = tuple(kind for kind in get_args(Elementwise) if kind not in SUMMED)
AREA = (3, 5)  # of maps
LEAST = 60  # values
VALUES = (0.0, 0.0, 0.5, 1.0, 2.5, 6.0, 6.5, 20.0, 100.0)  # and their negatives; pairs of equal ones
HUGE = 1000.0  # its exponential is no float64
MEAN = 4000.0  # of what a batch norm is given, beside a deviation of 3: its square has no digits left in float32
ROUNDINGS = {"fp64": 1e-12, "fp32": 8 * FLOAT32_UNIT}  # of a tensor's scale
LOGITS = 100.0  # e^100 is no float32


def shapes(architecture: Architecture, kinds: tuple[type[Layer], ...]) -> dict[str, Shape]:
    """By path, the first layer of each of `kinds`, arguments and rank and all, with the shape of what it is given."""
    first: dict[tuple[Layer, int], tuple[str, Shape]] = {}
    for info in primitives(architecture):
        if isinstance(info.layer, kinds):
            channels, rank = info.input[0], len(info.input)
            area = AREA if rank == 3 else ()
            count = max(2, -(-LEAST // (channels * 15 if area else channels)))
            first.setdefault((replace(info.layer, name=""), rank), (info.path, (count, channels, *area)))
    return dict(first.values())


def values(layer: Layer, shape: Shape, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Input and output gradient for an activation: the table's values, its own bounds, and bell-shaped ones; for a
    batch norm bell-shaped ones around `MEAN`."""
    known = [*VALUES, *(-value for value in VALUES), *_own(layer)]
    random = generator(seed, "tails", type(layer).__name__)
    x = 3 * random.standard_normal(shape)
    if isinstance(layer, BatchNorm):
        x += MEAN
    else:
        x.flat[: len(known)] = known
    gradient = random.standard_normal(shape)
    return x.astype(np.float32).astype(np.float64), gradient.astype(np.float32).astype(np.float64)


def _own(layer: Layer) -> tuple[float, ...]:
    """Values that show what one kind alone has: its bounds; the threshold that PyTorch and MXNet have for softplus."""
    match layer:
        case Clip():
            return layer.low, layer.high
        case Softplus():
            return (21.0,) if layer.threshold is None else (layer.threshold, 1.05 * layer.threshold)
        case Softmax():
            return (HUGE,)
    return ()


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
    arrays = _alone(run, ELEMENTWISE) | _alone(run, SUMMED)
    if not run.case.architecture.classes:
        return arrays
    total = 0.0
    weights = run.head_weights
    for (path, weight), head in zip(weights.items(), logits(run.case, len(weights)), strict=True):
        loss, by_head = cross_entropy(head, np.asarray(run.case.targets))
        total += weight * loss
        arrays[f"{PREFIX}gradient of the loss by {path}"] = weight * by_head
    return arrays | {f"{PREFIX}loss": np.asarray(total)}


def _alone(run: ReferenceRun, kinds: tuple[type[Layer], ...], rounding: Rounding = exact) -> dict[str, Array]:
    """What the reference's layers of these kinds make of such values, in training mode."""
    arrays: dict[str, Array] = {}
    for path, shape in shapes(run.case.architecture, kinds).items():
        x, gradient = values(run.layers[path], shape, run.case.seed)
        alone = run.alone(path, x, gradient, train=True, rounding=rounding)
        arrays |= {f"{PREFIX}{name} of {path}": alone[name] for name in ("output", "input") if name in alone}
    return arrays


def observed(backend: Backend, network: Native, run: ReferenceRun) -> dict[str, Array]:
    """The same of a backend's network."""
    arrays: dict[str, Array] = {}
    for path, shape in shapes(run.case.architecture, ELEMENTWISE + SUMMED).items():
        x, gradient = values(run.layers[path], shape, run.case.seed)
        y, dx, _ = backend.layer_pass(network, path, x, gradient, train=True, masks={})
        arrays |= {f"{PREFIX}output of {path}": y} | ({} if dx is None else {f"{PREFIX}input of {path}": dx})
    if not run.case.architecture.classes:
        return arrays
    heads = run.head_weights
    loss, gradients = backend.loss_pass(network, logits(run.case, len(heads)), run.case.targets)
    named = dict(zip((f"{PREFIX}gradient of the loss by {path}" for path in heads), gradients, strict=True))
    return arrays | named | {f"{PREFIX}loss": np.asarray(loss)}


def budgets(run: ReferenceRun, precision: str, arrays: Arrays) -> Budgets:
    """A few roundings of every tensor's largest value; where values are summed, what perturbed executions allow."""
    summed = _alone(run.origin, SUMMED)
    again = (_alone(run.origin, SUMMED, rounding) for rounding in perturbations(run.case.seed))
    least, share = _cancelling(run), ROUNDINGS[precision]
    tails = {
        name: share * max(largest(value), least.get(name, 0.0))
        for name, value in arrays.items()
        if name.startswith(PREFIX)
    }
    return tails | tolerance.budgets(summed, again)[precision]


def _cancelling(run: ReferenceRun) -> dict[str, float]:
    """By name, the terms of what may cancel: where every label has the largest logit, a loss is the logarithm of a sum
    of 1 and little else, and its gradient the difference of two numbers next to 1, over the images."""
    if not run.case.architecture.classes:
        return {}
    weights = run.head_weights
    gradients = {f"{PREFIX}gradient of the loss by {path}": w / len(run.case.stored) for path, w in weights.items()}
    return {**gradients, f"{PREFIX}loss": sum(weights.values())}
