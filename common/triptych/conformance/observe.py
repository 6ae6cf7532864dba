"""What is compared: the same named arrays, computed by the reference and by a backend."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Native
from triptych.conformance.case import Case
from triptych.conformance.inputs import observe_backend_inputs, observe_reference_inputs
from triptych.conformance.updates import Steps, backend_updates, reference_updates
from triptych.reference import network as reference
from triptych.reference.layers import Rounding, exact

# By level, then by name.
Observation: TypeAlias = dict[str, dict[str, NDArray[np.floating[Any]]]]

LEVELS = ("data", "forward eval", "forward train", "gradient", "update")
DTYPES = {"fp64": np.float64, "fp32": np.float32}


def observe_reference(case: Case, steps: Steps, rounding: Rounding = exact) -> Observation:
    """The reference's arrays for every level, in float64; `steps` are those of the update level."""
    evaluated = reference.forward(case.architecture, case.parameters, case.images, rounding=rounding)
    trained = reference.forward(
        case.architecture, case.parameters, case.images, train=True, masks=case.masks(0), rounding=rounding
    )
    loss, gradients = reference.backward(trained, case.labels)
    return {
        "data": observe_reference_inputs(case, rounding),
        "forward eval": evaluated.outputs,
        "forward train": trained.outputs,
        "gradient": {**gradients, "loss": np.asarray(loss)},
        "update": reference_updates(case, steps, trained, rounding),
    }


def observe_backend(backend: Backend, network: Native, case: Case, steps: Steps, precision: str) -> Observation:
    """The same arrays from a backend's network, which is left as it was found."""
    images = case.images.astype(DTYPES[precision])
    backend.from_canonical(network, case.parameters)
    evaluated = backend.forward(network, images)
    trained = backend.forward(network, images, train=True, masks=case.masks(0))
    loss, gradients = backend.gradients(network, images, case.labels, masks=case.masks(0))
    return {
        "data": observe_backend_inputs(backend, network, case),
        "forward eval": evaluated,
        "forward train": trained,
        "gradient": {**gradients, "loss": np.asarray(loss)},
        "update": backend_updates(backend, network, case, steps),
    }
