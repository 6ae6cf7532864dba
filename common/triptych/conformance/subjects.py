"""The two sides of a comparison: a backend or the reference itself, with one face."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import numpy as np

from triptych.backend.contract import Backend, Native
from triptych.conformance.inputs import observe_backend_inputs, observe_reference_inputs
from triptych.conformance.reference_run import Arrays, Truth, named
from triptych.conformance.updates import backend_update
from triptych.spec.layers import Shape
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import Parameters


@contextmanager
def exact_arithmetic(backend: Backend, device: str = "cpu") -> Iterator[None]:
    """Switches that lower the precision are off in here. Raises TriptychError for one that cannot be switched off."""
    with backend.precise(device):
        for flag in backend.precision_flags(device):
            if not flag.exact:
                raise TriptychError(f"{backend.name}: the precision flag {flag.name} {flag.problem}")
        yield


class Side(Protocol):
    """One of two that are compared. Arrays are by path; those of one layer are `output`, `input` (its gradient)
    and the gradients of its parameters."""

    name: str

    def parameter_shapes(self) -> dict[str, Shape]:
        """Every canonical parameter's shape."""

    def output_shapes(self) -> dict[str, Shape]:
        """Every layer's output shape without the batch, in training mode."""

    def load(self, values: Parameters) -> None:
        """Take these parameters."""

    def values(self) -> Arrays:
        """The parameters that are in the network."""

    def forward(self, train: bool) -> Arrays:
        """A whole forward pass."""

    def gradients(self) -> Arrays:
        """A whole backward pass: by parameter, with `input` and `loss`."""

    def layer(self, path: str, train: bool, backward: bool) -> Arrays:
        """One layer alone, given what the reference's layer was given."""

    def loss(self) -> Arrays:
        """The loss of the reference's logits, and its gradients by them."""

    def inputs(self) -> Arrays:
        """What reaches the network of stored images (`triptych.conformance.inputs`)."""

    def exact(self) -> AbstractContextManager[None]:
        """Switches that lower the precision are off in here."""

    def update(self, name: str) -> Arrays:
        """Parameters, statistics and state after the steps of one optimiser."""


class ReferenceSide:
    """The reference; see `Side`."""

    def __init__(self, truth: Truth) -> None:
        self.name = "reference"
        self.truth = truth
        self.held = truth.case.parameters

    def parameter_shapes(self) -> dict[str, Shape]:
        return self.truth.parameter_shapes

    def output_shapes(self) -> dict[str, Shape]:
        return output_shapes(self.truth.case.architecture)

    def load(self, values: Parameters) -> None:
        self.held = values

    def values(self) -> Arrays:
        return self.held

    def forward(self, train: bool) -> Arrays:
        return (self.truth.trained if train else self.truth.evaluated)[0].outputs

    def gradients(self) -> Arrays:
        return self.truth.trained[2]

    def layer(self, path: str, train: bool, backward: bool) -> Arrays:
        return self.truth.kept_layer(path, train, backward)

    def loss(self) -> Arrays:
        return self.truth.loss()

    def inputs(self) -> Arrays:
        return observe_reference_inputs(self.truth.case)

    def exact(self) -> AbstractContextManager[None]:
        return nullcontext()

    def update(self, name: str) -> Arrays:
        return self.truth.update(name)


class BackendSide:
    """A backend's network on the truth's case; see `Side`."""

    def __init__(self, backend: Backend, network: Native, truth: Truth, device: str = "cpu") -> None:
        self.name = backend.name
        self.backend = backend
        self.device = device
        self.network = network
        self.truth = truth
        self.trained: Arrays | None = None  # the training pass of what is held

    def parameter_shapes(self) -> dict[str, Shape]:
        return {path: value.shape for path, value in self.values().items()}

    def output_shapes(self) -> dict[str, Shape]:
        return {path: value.shape[1:] for path, value in self.forward(train=True).items()}

    def load(self, values: Parameters) -> None:
        self.backend.from_canonical(self.network, values)
        self.trained = None

    def values(self) -> Arrays:
        return self.backend.to_canonical(self.network)

    def forward(self, train: bool) -> Arrays:
        if not train:
            return self.backend.forward(self.network, self.truth.images)
        if self.trained is None:
            masks = self.truth.case.masks(0)
            self.trained = self.backend.forward(self.network, self.truth.images, train=True, masks=masks)
        return self.trained

    def gradients(self) -> Arrays:
        case = self.truth.case
        loss, found = self.backend.gradients(self.network, self.truth.images, case.labels, masks=case.masks(0))
        return {**found, "loss": np.asarray(loss)}

    def layer(self, path: str, train: bool, backward: bool) -> Arrays:
        trace = (self.truth.trained if train else self.truth.evaluated)[1]
        gradient = np.array(trace.arriving[path]) if backward else None  # a copy: some are views that cannot be written
        masks = self.truth.case.masks(0) if train else {}
        return named(
            self.backend.layer_pass(self.network, path, trace.inputs[path], gradient, train=train, masks=masks)
        )

    def loss(self) -> Arrays:
        logits = self.truth.logits
        loss, gradients = self.backend.loss_pass(self.network, list(logits.values()), self.truth.case.labels)
        return {"loss": np.asarray(loss), **dict(zip(logits, gradients, strict=True))}

    def inputs(self) -> Arrays:
        return observe_backend_inputs(self.backend, self.network, self.truth.case)

    def exact(self) -> AbstractContextManager[None]:
        return exact_arithmetic(self.backend, self.device)

    def update(self, name: str) -> Arrays:
        return backend_update(name, self.backend, self.network, self.truth.case, self.truth.steps)
