"""What is judged: a backend, somebody's own network (`triptych.porting`), or the reference itself, with one face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Native
from triptych.conformance import low_precision, steady, trained
from triptych.conformance.compare import Arrays, as_arrays
from triptych.conformance.inputs import backend_inputs
from triptych.conformance.reference_run import ReferenceRun, named
from triptych.conformance.updates import backend_update
from triptych.spec.layers import Architecture
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.conformance.diagnosis.explain import Difference
    from triptych.conformance.levels import Level

Images = NDArray[np.floating[Any]]
Build = Callable[[Architecture], Native]  # makes a backend's network, or one with a planted fault


class Subject:
    """One that is judged on the case of a reference run. Arrays are by path; those of one layer are `output`, `input`
    (its gradient) and the gradients of its parameters. A subject has those of the functions that its levels ask for."""

    parameter_shapes: Callable[[], Arrays]  # of every canonical parameter
    output_shapes: Callable[[], Arrays]  # of every layer in training mode, without the batch
    loaded: Callable[[], Arrays]  # takes the case's parameters; those that are in the network then
    inputs: Callable[[], Arrays]  # what reaches the network of stored images (`triptych.conformance.inputs`)
    forward: Callable[[bool], Arrays]  # every layer's output in a whole pass, in training mode or not
    gradients: Callable[[], Arrays]  # a whole backward pass: by parameter, with `input` and `loss`
    layer: Callable[[str, bool, bool], Arrays]  # path, training, backward: alone, given what the reference's was
    loss: Callable[[], Arrays]  # of the reference's logits, with its gradients by them
    steady: Callable[[], Arrays]  # gradients where float32 can tell (`triptych.conformance.steady`)
    update: Callable[[str], Arrays]  # parameters, statistics and state after the steps of one optimiser
    low_precision: Callable[[], Arrays]  # a step in less than float32 (`triptych.conformance.low_precision`)
    training: Callable[[], Arrays]  # a short life of the trainer (`triptych.conformance.trained`)
    notes: tuple[str, ...] = ()  # what was learned of it
    backend: Backend | None = None
    device = "cpu"

    def __init__(self, name: str, run: ReferenceRun, precision: str = "fp64") -> None:
        self.name = name
        self.run = run
        self.precision = precision
        self.images: Images = run.case.images.astype(np.float64 if precision == "fp64" else np.float32)

    def expected(self, level: Level, run: ReferenceRun) -> Arrays:
        """What the reference (exact, or perturbed) says of what a level can see in this subject."""
        return level.expected(run)

    def retry(self, difference: Difference, again: Callable[[], Difference | None]) -> Difference | None:
        """What differs if the subject is given the case in another way that would be right too; most have none."""
        return difference

    def release(self, *, training: bool) -> None:
        """Let go of whole passes in evaluation mode, and in `training` mode too, before a level that has no use for
        them: of a large network each is a gigabyte or two. What is asked of them later is computed again."""

    def made(self, train: bool) -> Sequence[Array]:
        """What it was seen to put out anywhere in a whole pass; nothing where only its layers are seen."""
        return ()

    def draws(self) -> bool:
        """Whether it draws random numbers in training other than by a dropout of its framework; no, where that is not
        known."""
        return False

    def depends_on_batch(self, path: str) -> bool:
        """Whether what a layer puts out of an image in evaluation is something else where the image is alone; no, where
        that is not known."""
        return False

    def failed(self, error: BaseException) -> None:
        """Raises what a user should read in place of a difference when a framework raises `error`; nothing here."""

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Switches that lower the precision are off in here. Raises TriptychError for one that cannot be switched
        off."""
        if self.backend is None:
            yield
            return
        with self.backend.precise(self.device):
            for flag in self.backend.precision_flags(self.device):
                if not flag.exact:
                    raise TriptychError(f"{self.backend.name}: the precision flag {flag.name} {flag.problem}")
            yield


class ReferenceSubject(Subject):
    """The reference itself: what is expected is observed."""

    def __init__(self, run: ReferenceRun) -> None:
        super().__init__("reference", run)


class BackendSubject(Subject):
    """A backend's network; see `Subject`."""

    backend: Backend

    def __init__(
        self, backend: Backend, build: Build, run: ReferenceRun, precision: str = "fp64", device: str = "cpu"
    ) -> None:
        super().__init__(backend.name, run, precision)
        self.backend = backend
        self.device = device
        self.build = build
        self.network = build(run.case.architecture)
        self.trained: Arrays | None = None  # the training pass of the parameters that are in the network

    def parameter_shapes(self) -> Arrays:
        return as_arrays({path: value.shape for path, value in self.backend.to_canonical(self.network).items()})

    def output_shapes(self) -> Arrays:
        return as_arrays({path: value.shape[1:] for path, value in self.forward(train=True).items()})

    def loaded(self) -> Arrays:
        self.backend.from_canonical(self.network, self.run.case.parameters)
        self.trained = None
        return self.backend.to_canonical(self.network)

    def release(self, *, training: bool) -> None:
        self.run.release(training=training)
        if training:
            self.trained = None

    def inputs(self) -> Arrays:
        return backend_inputs(self.backend, self.network, self.run.case)

    def forward(self, train: bool) -> Arrays:
        """A whole forward pass; the one in training mode is kept, because two levels ask for it."""
        if not train:
            return self.backend.forward(self.network, self.images)
        if self.trained is None:
            masks = self.run.case.masks(0)
            self.trained = self.backend.forward(self.network, self.images, train=True, masks=masks)
        return self.trained

    def gradients(self) -> Arrays:
        case = self.run.case
        loss, gradients = self.backend.gradients(self.network, self.images, case.targets, masks=case.masks(0))
        return {**gradients, "loss": np.asarray(loss)}

    def layer(self, path: str, train: bool, backward: bool) -> Arrays:
        trace = self.run.trace(train)
        gradient = np.array(trace.arriving[path]) if backward else None  # a copy: some are views that cannot be written
        masks = self.run.case.masks(0) if train else {}
        return named(
            self.backend.layer_pass(self.network, path, trace.inputs[path], gradient, train=train, masks=masks)
        )

    def loss(self) -> Arrays:
        logits = [values for _, values in self.run.heads.values()]
        loss, gradients = self.backend.loss_pass(self.network, logits, self.run.case.targets)
        return {"loss": np.asarray(loss), **dict(zip(self.run.heads, gradients, strict=True))}

    def steady(self) -> Arrays:
        return steady.observed(self)

    def update(self, name: str) -> Arrays:
        steps = self.run.steps  # before there is a second thread: both need them
        if self.run.case.large:  # both at once take twice the memory
            return backend_update(name, self.backend, self.network, self.run.case, steps)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.run.update, name)  # the reference works while the framework compiles, and keeps the result
            return backend_update(name, self.backend, self.network, self.run.case, steps)

    def low_precision(self) -> Arrays:
        return low_precision.observed(self)

    def training(self) -> Arrays:
        self.trained = None
        return trained.observed(self.backend, self.network, self.run, self.device, self.precision)

    def expected(self, level: Level, run: ReferenceRun) -> Arrays:
        return trained.visible(level.expected(run), self.precision)
