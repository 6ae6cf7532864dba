"""What is compared: the same named arrays, computed by the reference and by a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych import reference
from triptych.backend import Backend, Native
from triptych.conformance.case import OPTIMIZER, Case
from triptych.initializers import Parameters
from triptych.optimizers import Rates, decay_of, reference_step
from triptych.reference_ops import Array, Rounding, exact, largest

# By level, then by name.
Observation: TypeAlias = dict[str, dict[str, NDArray[np.floating[Any]]]]

LEVELS = ("forward eval", "forward train", "gradient", "update")
DTYPES = {"fp64": np.float64, "fp32": np.float32}

# The largest move of any parameter in the first step: small, so that the next pass is as well conditioned as the first.
LARGEST_MOVE = 1e-3


def choose_rates(case: Case) -> tuple[Rates, Rates]:
    """Two steps of momentum: the second shows the velocity and whether the learning rate, changed by then, is in it."""
    run = reference.forward(case.architecture, case.parameters, case.images, train=True, masks=case.masks(0))
    _, gradients = reference.backward(run, case.labels)
    first = LARGEST_MOVE / max(largest(gradients[path]) for path in decay_of(OPTIMIZER, case.architecture))
    return Rates(first, OPTIMIZER.momentum), Rates(0.4 * first, OPTIMIZER.momentum)


def observe_reference(case: Case, steps: Sequence[Rates], rounding: Rounding = exact) -> Observation:
    """The reference's arrays for every level, in float64; `steps` are the rates of the update level."""
    evaluated = reference.forward(case.architecture, case.parameters, case.images, rounding=rounding)
    trained = reference.forward(
        case.architecture, case.parameters, case.images, train=True, masks=case.masks(0), rounding=rounding
    )
    loss, gradients = reference.backward(trained, case.labels)
    return {
        "forward eval": evaluated.outputs,
        "forward train": trained.outputs,
        "gradient": {**gradients, "loss": np.asarray(loss)},
        "update": reference_updates(case, steps, trained, rounding),
    }


def reference_updates(
    case: Case, steps: Sequence[Rates], first: reference.Pass, rounding: Rounding
) -> dict[str, Array]:
    """Parameters, velocity and running statistics after the steps; `first` is step 0 after its backward."""
    values: dict[str, Array] = {path: np.asarray(v, np.float64) for path, v in case.parameters.items()}
    decay = decay_of(OPTIMIZER, case.architecture)
    velocity: Mapping[str, Array] = {}
    run = first
    for number, rates in enumerate(steps):
        if number:
            run = reference.forward(
                case.architecture, values, case.images, train=True, masks=case.masks(number), rounding=rounding
            )
            reference.backward(run, case.labels)
        moved, velocity = reference_step(values, run.gradients, velocity, rates, decay)
        values.update({path: rounding(value, 1) for path, value in (moved | run.statistics).items()})
    return values | {f"velocity of {path}": value for path, value in velocity.items()}


def observe_backend(
    backend: Backend, network: Native, case: Case, steps: Sequence[Rates], precision: str
) -> Observation:
    """The same arrays from a backend's network, which is left as it was found."""
    images = case.images.astype(DTYPES[precision])
    backend.from_canonical(network, case.parameters)
    evaluated = backend.forward(network, images)
    trained = backend.forward(network, images, train=True, masks=case.masks(0))
    backend.from_canonical(network, case.parameters)
    loss, gradients = backend.gradients(network, images, case.labels, masks=case.masks(0))
    return {
        "forward eval": evaluated,
        "forward train": trained,
        "gradient": {**gradients, "loss": np.asarray(loss)},
        "update": _backend_updates(backend, network, case, steps),
    }


def _backend_updates(backend: Backend, network: Native, case: Case, steps: Sequence[Rates]) -> Parameters:
    backend.from_canonical(network, case.parameters)
    trainer = backend.Trainer(network, OPTIMIZER, case.transform, case.seed)
    for number, rates in enumerate(steps):
        trainer.step(case.stored, case.labels, rates, number, masks=case.masks(number))
    values = backend.to_canonical(network)
    backend.from_canonical(network, case.parameters)
    return values | {f"velocity of {path}": value for path, value in trainer.state().items()}
