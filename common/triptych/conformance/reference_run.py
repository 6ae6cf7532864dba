"""What the reference says of a case, computed when it is asked for, with all that each layer was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from threading import Lock

import numpy as np

from triptych.conformance.case import Case
from triptych.conformance.observe import DTYPES
from triptych.conformance.tolerance import perturbations
from triptych.conformance.updates import MOMENTUM, OTHERS, Steps, choose_steps, reference_update
from triptych.optim.optimizers import OPTIMIZERS, decay_of, reference_step
from triptych.reference import network as reference
from triptych.reference.layers import Array, Rounding, cross_entropy, exact
from triptych.spec.analysis import parameters, primitives
from triptych.spec.layers import Architecture, Branches, Dense, Flatten, Layer, Residual, Shape, children, walk

Arrays = Mapping[str, Array]
OUTPUT, INPUT = "output", "input"  # the names of one layer's own arrays, beside its parameters' gradients


class Truth:
    """The reference on one case, `given` its parameters in float64; `precision` is the one that is judged."""

    def __init__(self, case: Case, precision: str = "fp64") -> None:
        self.case = case
        self.precision = precision
        self.given = case.exact
        self.layers = dict(walk(case.architecture.layers))
        self._updates: dict[str, dict[str, Array]] = {}
        self._updating = Lock()

    @property
    def images(self) -> Array:
        """The images in the precision that is judged."""
        return self.case.images.astype(DTYPES[self.precision])

    @cached_property
    def parameter_shapes(self) -> dict[str, Shape]:
        """Every canonical parameter's shape, in the order of execution."""
        return {info.path: info.shape for info in parameters(self.case.architecture)}

    @cached_property
    def evaluated(self) -> tuple[reference.Pass, reference.Trace]:
        """The forward pass in evaluation mode."""
        return self._pass(train=False)

    @cached_property
    def trained(self) -> tuple[reference.Pass, reference.Trace, dict[str, Array]]:
        """Forward and backward in training mode; the gradients by path, with `input` and `loss`."""
        run, trace = self._pass(train=True)
        loss, gradients = reference.backward(run, self.case.labels)
        return run, trace, {**gradients, "loss": np.asarray(loss)}

    @cached_property
    def steps(self) -> Steps:
        """The optimiser steps of the update phase."""
        return choose_steps(self.case, self.trained[2])

    def update(self, name: str) -> dict[str, Array]:
        """Parameters, statistics and state after the steps of the optimiser called `name` in `updates.UPDATES`."""
        with self._updating:  # what one thread computes, another waits for
            if name not in self._updates:
                self._updates[name] = reference_update(name, self.case, self.steps, self.trained[0], exact)
            return self._updates[name]

    @cached_property
    def second(self) -> reference.Trace:
        """The forward pass of the second step of momentum."""
        decay = decay_of(MOMENTUM, self.case.architecture)
        moved, _ = reference_step(self.given, self.trained[2], {}, self.steps.momentum[0], MOMENTUM, decay)
        trace = reference.Trace()
        values, masks = {**self.given, **moved}, self.case.masks(1)
        reference.forward(self.case.architecture, values, self.case.images, train=True, masks=masks, trace=trace)
        return trace

    def _pass(self, train: bool, rounding: Rounding = exact) -> tuple[reference.Pass, reference.Trace]:
        trace = reference.Trace()
        run = reference.forward(
            self.case.architecture,
            self.given,
            self.case.images,
            train=train,
            masks=self.case.masks(0),
            rounding=rounding,
            trace=trace,
        )
        return run, trace

    def nodes(self, train: bool) -> Iterator[tuple[str, Layer]]:
        """The records that compute something, in the order of execution: primitives, and what joins branches."""
        ran = (self.trained if train else self.evaluated)[1].inputs
        for path, layer in self.layers.items():
            if path in ran and (not children(layer) or isinstance(layer, Branches | Residual)):
                yield path, layer

    def layer(self, path: str, train: bool, backward: bool, rounding: Rounding = exact) -> Arrays:
        """One layer alone, on the input (and output gradient) that it had in the whole pass."""
        trace = (self.trained if train else self.evaluated)[1]
        gradient = rounding(trace.arriving[path], 1) if backward else None  # what is given is rounded, too
        return named(
            reference.layer_pass(
                self.layers[path],
                path,
                self.given,
                rounding(trace.inputs[path], 1),
                gradient,
                train=train,
                masks=self.case.masks(0),
                rounding=rounding,
            )
        )

    def kept_layer(self, path: str, train: bool, backward: bool) -> Arrays:
        """The same without computing anything anew: what the whole pass has kept."""
        run, trace = (self.trained if train else self.evaluated)[:2]
        found = {OUTPUT: run.outputs[path]}
        if backward:
            found[INPUT] = trace.leaving[path]
            found |= {name: value for name, value in run.gradients.items() if name.startswith(f"{path}.")}
        return found

    def perturbed_layer(self, path: str, train: bool, backward: bool) -> list[Arrays]:
        """The same in perturbed executions."""
        return [self.layer(path, train, backward, rounding) for rounding in perturbations(self.case.seed)]

    def perturbed_forward(self, train: bool) -> list[Arrays]:
        """Whole forward passes in perturbed executions."""
        return [self._pass(train, rounding)[0].outputs for rounding in perturbations(self.case.seed)]

    def perturbed_gradients(self) -> list[Arrays]:
        """Whole backward passes in perturbed executions."""
        return [gradients for _, _, gradients in self.perturbed_traces()]

    def perturbed_update(self, name: str) -> list[Arrays]:
        """The same in perturbed executions."""
        if name in OTHERS:  # they start from given gradients: no pass is needed
            runs = [(self.trained[0], rounding) for rounding in perturbations(self.case.seed)]
        else:
            traces = zip(self.perturbed_traces(), perturbations(self.case.seed), strict=True)
            runs = [(run, rounding) for (run, *_), rounding in traces]
        return [reference_update(name, self.case, self.steps, run, rounding) for run, rounding in runs]

    def perturbed_traces(self) -> Iterator[tuple[reference.Pass, reference.Trace, Arrays]]:
        """Whole passes in perturbed executions, with what arrived at every layer."""
        for rounding in perturbations(self.case.seed):
            run, trace = self._pass(True, rounding)
            loss, gradients = reference.backward(run, self.case.labels)
            yield run, trace, {**gradients, "loss": np.asarray(loss)}

    @property
    def logits(self) -> dict[str, Array]:
        """The training pass's logits by path of the layer that puts them out, side classifiers last."""
        run = self.trained[0]
        return {self.case.architecture.layers[-1].name: run.logits} | {
            path: logits for path, (_, logits) in run.auxiliary.items()
        }

    def loss(self, rounding: Rounding = exact) -> Arrays:
        """The loss of these logits and its gradients by them."""
        weights = {path: weight for path, (weight, _) in self.trained[0].auxiliary.items()}
        found, total = {}, 0.0
        for path, logits in self.logits.items():
            loss, gradient = cross_entropy(rounding(logits, 1), self.case.labels, rounding)
            total += weights.get(path, 1.0) * loss
            found[path] = weights.get(path, 1.0) * gradient
        return {"loss": np.asarray(total), **found}

    def perturbed_loss(self) -> list[Arrays]:
        """The same in perturbed executions, what is given rounded, too."""
        return [self.loss(rounding) for rounding in perturbations(self.case.seed)]


def named(result: tuple[Array, Array | None, Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of a layer pass under names."""
    y, dx, gradients = result
    return {OUTPUT: y} | ({} if dx is None else {INPUT: dx, **gradients})


def parameter_of(name: str) -> str:
    """The parameter's path in the name of an update's array: `velocity.conv.weight (momentum)`."""
    path = name.partition(" ")[0]
    slots = {slot for kind in OPTIMIZERS.values() for slot in kind.slots}
    first, _, rest = path.partition(".")
    return rest if first in slots and "." in rest else path


def layer_of(name: str) -> str:
    """The layer of a parameter, or of an update's array."""
    path = parameter_of(name)
    return path.rpartition(".")[0] or path


def maps_before_flatten(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """By dense layer, the `(channels, height, width)` of the map that was flattened for it."""
    found: dict[str, tuple[int, ...]] = {}
    shape: tuple[int, ...] | None = None
    for info in primitives(architecture):
        if isinstance(info.layer, Flatten):
            shape = info.input
        elif isinstance(info.layer, Dense):
            if shape is not None and len(shape) == 3:
                found[info.path] = shape
            shape = None
    return found
