"""What the reference says of a case, with all that each layer was given: computed when asked for, and then kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from triptych.conformance import low_precision, steady, tolerance
from triptych.conformance.case import Case
from triptych.conformance.compare import Arrays, as_arrays
from triptych.conformance.inputs import reference_inputs
from triptych.conformance.tolerance import Budgets, perturbations
from triptych.conformance.updates import MOMENTUM, OTHERS, Steps, reference_update
from triptych.optim.optimizers import OPTIMIZERS, reference_step
from triptych.reference import network as reference
from triptych.reference.decay import decay_by_path
from triptych.reference.loss import cross_entropy, linear
from triptych.reference.rounding import largest_error
from triptych.spec.analysis import parameters, primitives
from triptych.spec.kinds import composite_of
from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    Dense,
    Flatten,
    Graph,
    Layer,
    Primitive,
    Shape,
    outputs,
    walk,
)
from triptych.spec.shapes import output_shapes
from triptych.utils.arrays import Array
from triptych.utils.shelf import Shelf

SLOTS = {slot for kind in OPTIMIZERS.values() for slot in kind.slots}
MANY = 8  # numbers of an array of which some execution draws more than half of the largest error, all but surely
OUTPUT, INPUT = "output", "input"  # the names of one layer's own arrays, beside its parameters' gradients


class ReferenceRun:
    """The reference on one case, in float64. With a `rounding` it is a perturbed execution of `origin`: a whole pass
    of its own, but a layer, the loss or an optimiser alone is given what it was given in the exact run, rounded."""

    def __init__(self, case: Case, rounding: Rounding = exact, origin: ReferenceRun | None = None) -> None:
        self.case = case
        self.rounding = rounding
        self.origin = origin or self
        self.parameters = case.exact
        self.layers = dict(walk(case.architecture.layers))
        self.sum_errors: dict[str, float] = {}  # of gradients, once they are there: see `largest_error`
        self._updates: dict[str, Arrays] = {}
        self._updating = Lock()

    def perturbed(self) -> Iterator[ReferenceRun]:
        """Executions with random errors of float32's size, each with its mirror image. Nothing holds them: of each only
        its arrays may be kept when the next is asked for."""
        for rounding in perturbations(self.case.seed):
            run = ReferenceRun(self.case, rounding, self)
            try:
                yield run
            finally:
                for name in ("_trained", "_evaluated", "_other_pass"):
                    if name in run.__dict__:
                        run.__dict__.pop(name).let_go()

    def release(self, *, training: bool) -> None:
        """Let go of the pass in evaluation mode but for its logits, and of the one in `training` mode too, but for its
        gradients and statistics. What is asked of them afterwards is computed again."""
        if "_evaluated" in self.__dict__:
            self.logits  # noqa: B018 (kept)
            del self._evaluated
        if training and "_trained" in self.__dict__:
            self.batch_statistics  # noqa: B018 (kept, with the gradients)
            del self._trained
        for name in ("_other_pass", "other_inputs"):
            self.__dict__.pop(name, None)

    @cached_property
    def budgets(self) -> dict[str, dict[str, Budgets]]:
        """By precision, level and name, the largest allowed absolute difference of everything that whole passes are
        compared by. Raises ValueError for a case on which a fault could not be seen."""
        self._check_ends()
        allowed = tolerance.budgets(_everything(self), map(_everything, self.perturbed()))
        updates = (self.update(name).items() for name in OTHERS)
        alone = tolerance.budgets_alone((("update", name), value) for arrays in updates for name, value in arrays)
        levels = dict.fromkeys(level for level, _ in DRAWN)
        return {
            precision: {
                level: {name: most for (of, name), most in (named | alone[precision]).items() if of == level}
                for level in levels
            }
            for precision, named in allowed.items()
        }

    @cached_property
    def forward_budgets(self) -> dict[str, Budgets]:
        """By precision, those of the forward pass in evaluation mode alone: what perturbed executions draw first, so
        they are the same numbers as in `budgets`, and none of the rest has to be run."""
        if "budgets" in self.__dict__:
            return {precision: levels[DRAWN[0][0]] for precision, levels in self.budgets.items()}
        self._check_ends()
        return tolerance.budgets(self.outputs(train=False), (run.outputs(train=False) for run in self.perturbed()))

    def _check_ends(self) -> None:
        for path in self.ends:
            values = self.outputs(train=False)[path].reshape(len(self.case.stored), -1)
            if np.ptp(values, axis=0).max() == 0 or (values.shape[1] > 1 and np.ptp(values, axis=1).max() == 0):
                name = self.case.architecture.name
                raise ValueError(f"the reference's output '{path}' of '{name}' is constant: it would hide a fault")

    @cached_property
    def steady(self) -> tuple[steady.Steady, ...]:
        """The cases of `triptych.conformance.steady`, on which float32 can tell what it cannot on this one."""
        return steady.draw(self)

    @cached_property
    def low_precision(self) -> low_precision.Expected:
        """What a step in less than float32 is held against."""
        return low_precision.Expected(self)

    @property
    def last(self) -> str:
        """The layer whose output the loss takes (first); a fault in the loss shows there."""
        return self.ends[0]

    @property
    def ends(self) -> tuple[str, ...]:
        """The layers whose outputs are the network's."""
        return outputs(self.case.architecture)

    @cached_property
    def parameter_shapes(self) -> Arrays:
        """Every canonical parameter's shape, in the order of execution."""
        return as_arrays({info.path: info.shape for info in parameters(self.case.architecture)})

    @property
    def output_shapes(self) -> Arrays:
        """Every layer's output shape without the batch, auxiliary classifiers included."""
        return as_arrays(output_shapes(self.case.architecture))

    @cached_property
    def inputs(self) -> dict[str, Array]:
        """What reaches the network of stored images (`triptych.conformance.inputs`)."""
        return reference_inputs(self.case, self.rounding)

    @cached_property
    def logits(self) -> Array:
        """The output that the loss takes (first), in evaluation mode."""
        return self.outputs(train=False)[self.last].copy()

    @cached_property
    def _evaluated(self) -> reference.ReferencePass:
        return self._forward(self.parameters, train=False)

    @cached_property
    def _trained(self) -> reference.ReferencePass:
        return self._forward(self.parameters, train=True)

    @cached_property
    def gradients(self) -> Shelf:
        """The `loss`, every parameter's gradient, the last layer's first, and the images' own (`input`)."""
        loss, gradients = reference.backward(self._trained, self.case.targets)
        self.sum_errors = {
            name: largest_error(gradients[name], *summed)
            for name, summed in self._trained.sums.items()
            if gradients[name].size >= MANY
        }
        backwards = reversed([name for name in self.in_order(gradients) if name != INPUT])
        return Shelf({"loss": np.asarray(loss)}).joined(Shelf.of(gradients).select((*backwards, INPUT)))

    @cached_property
    def batch_statistics(self) -> dict[str, Array]:
        """The running statistics after the training pass."""
        return self.ran(True).statistics

    @cached_property
    def second_inputs(self) -> dict[str, Array]:
        """What every layer is given in the second step of momentum."""
        decay = decay_by_path(MOMENTUM, self.case.architecture)
        moved, _ = reference_step(self.parameters, self.gradients, {}, self.steps.momentum[0], MOMENTUM, decay)
        trace = self._forward({**self.parameters, **moved}, train=True, step=1).trace
        assert trace is not None
        return trace.inputs

    @cached_property
    def statistics(self) -> dict[str, Array]:
        """The running statistics after a pass in training mode, and after a second one on `other_images`; empty for a
        network that keeps none."""
        first = self._trained.statistics
        if not first:
            return {}
        second = self._other_pass.statistics
        after = {1: first, 2: second}
        return {f"{path} ({count})": values[path] for path in first for count, values in after.items()}

    @cached_property
    def _other_pass(self) -> reference.ReferencePass:
        values = {**self.parameters, **self._trained.statistics}
        return self._forward(values, train=True, images=other_images(self.case))

    @cached_property
    def other_inputs(self) -> dict[str, Array]:
        """What every layer is given of `other_images`."""
        trace = self._other_pass.trace
        assert trace is not None
        return trace.inputs

    def _forward(
        self, values: Arrays, *, train: bool, step: int = 0, images: Array | None = None
    ) -> reference.ReferencePass:
        case, trace = self.case, reference.Trace()
        masks = case.masks(step) if train else {}
        given = case.images if images is None else images
        return reference.forward(
            case.architecture,
            values,
            given,
            train=train,
            masks=masks,
            rounding=self.rounding,
            trace=trace,
            forward_only=not train or images is not None,
        )

    def backward(self, values: Arrays, images: Array, masks: Mapping[str, NDArray[np.bool_]]) -> dict[str, Array]:
        """The loss and the gradients of a pass in training mode on anything else than the case's own."""
        ran = reference.forward(self.case.architecture, values, images, train=True, masks=masks)
        loss, gradients = reference.backward(ran, self.case.targets)
        return {**gradients, "loss": np.asarray(loss)}

    def ran(self, train: bool) -> reference.ReferencePass:
        """The pass in one of the two modes, in training mode after its backward."""
        if not train:
            return self._evaluated
        self.gradients  # noqa: B018 (goes backward)
        if INPUT not in self._trained.gradients:  # a pass that was let go of, computed again
            reference.backward(self._trained, self.case.targets)
        return self._trained

    def outputs(self, train: bool) -> dict[str, Array]:
        """Every layer's output, in the order of execution; no backward pass is needed for it."""
        return (self._trained if train else self._evaluated).outputs

    def trace(self, train: bool) -> reference.Trace:
        """What every layer was given and gave back."""
        trace = self.ran(train).trace
        assert trace is not None
        return trace

    def nodes(self, train: bool) -> Iterator[tuple[str, Layer]]:
        """The records that compute something, in the order of execution: primitives, and what merges branches. A graph
        with several outputs is none by itself: most of its gradients arrive within it."""
        inputs = self.trace(train).inputs
        for path, layer in self.layers.items():
            if isinstance(layer, Graph) and len(layer.outputs) > 1:
                continue
            if path in inputs and (isinstance(layer, Primitive) or composite_of(layer).merges(layer)):
                yield path, layer

    def in_order(self, names: Mapping[str, Array]) -> list[str]:
        """Names of parameters or of an update's arrays in the order of their layers; others first."""
        places = {path: place for place, path in enumerate(self.layers)}
        return sorted(names, key=lambda name: places.get(layer_of(name), -1))

    def layer(self, path: str, train: bool, backward: bool) -> dict[str, Array]:
        """One layer on the input (and output gradient) that it had in the whole exact pass: its `output`, and
        backward the gradients of its `input` and, by path, of its parameters."""
        if self.origin is self:
            ran, trace = self.ran(train), self.trace(train)
            gradients = {name: ran.gradients[name] for name in ran.gradients if name.startswith(f"{path}.")}
            back = {INPUT: trace.leaving[path], **gradients} if backward else {}
            return {OUTPUT: ran.outputs[path], **back}
        trace = self.origin.trace(train)
        gradient = self.rounding(trace.arriving[path], 1) if backward else None  # what is given is rounded, too
        return self.origin.alone(path, self.rounding(trace.inputs[path], 1), gradient, train, self.rounding)

    def alone(
        self, path: str, x: Array, gradient: Array | None, train: bool, rounding: Rounding = exact
    ) -> dict[str, Array]:
        """The layer at `path` on any input and output gradient."""
        masks = self.case.masks(0)
        return named(
            reference.layer_pass(
                self.layers[path], path, self.parameters, x, gradient, train=train, masks=masks, rounding=rounding
            )
        )

    @property
    def heads(self) -> dict[str, tuple[float, Array]]:
        """By path of the layer that puts them out, auxiliary classifiers last, the training pass's outputs (logits)
        after what their loss counts."""
        return {**{path: (1.0, self.ran(True).outputs[path]) for path in self.ends}, **self.ran(True).auxiliary}

    @cached_property
    def head_weights(self) -> dict[str, float]:
        """What the loss of each of `heads` counts, by path; no pass is run for it."""
        auxiliary = {path: layer.weight for path, layer in self.layers.items() if isinstance(layer, Auxiliary)}
        return {**dict.fromkeys(self.ends, 1.0), **auxiliary}

    def loss(self) -> dict[str, Array]:
        """The loss of the exact run's outputs (logits), and its gradients by them."""
        if isinstance(self.case.targets, tuple):
            values = [self.rounding(values, 1) for _, values in self.origin.heads.values()]
            loss, parts = linear(values, self.case.targets, self.rounding)
            return {"loss": np.asarray(loss), **dict(zip(self.ends, parts, strict=True))}
        gradients, total = {}, 0.0
        for path, (weight, logits) in self.origin.heads.items():
            loss, gradient = cross_entropy(self.rounding(logits, 1), self.case.targets, self.rounding)
            total += weight * loss
            gradients[path] = weight * gradient
        return {"loss": np.asarray(total), **gradients}

    @cached_property
    def steps(self) -> Steps:
        """The optimiser steps of the update level."""
        return Steps(self.gradients.select(decay_by_path(MOMENTUM, self.case.architecture)))

    def _first_step(self) -> tuple[Arrays, Arrays]:
        return self.gradients, self.batch_statistics

    def update(self, name: str) -> Arrays:
        """Parameters, statistics and state, in the order of their layers, after the steps of the optimiser called
        `name` in `updates.UPDATES`."""
        with self._updating:  # what one thread computes, another waits for
            if name not in self._updates:
                arrays = reference_update(name, self.case, self.origin.steps, self._first_step, self.rounding)
                self._updates[name] = arrays.select(self.in_order(arrays))
            return self._updates[name]


# What whole passes are compared by, with its level. A perturbed execution draws its errors in this order: in another
# one, every budget would be another.
DRAWN: tuple[tuple[str, Callable[[ReferenceRun], Arrays]], ...] = (
    ("forward eval", lambda run: run.outputs(train=False)),
    ("forward train", lambda run: run.outputs(train=True)),
    ("gradient", lambda run: run.gradients),
    ("data", lambda run: run.inputs),
    ("update", lambda run: run.update("momentum")),
)


def other_images(case: Case) -> Array:
    """A second batch, of another mean and deviation."""
    return 0.5 * case.images + 0.25


def _everything(run: ReferenceRun) -> dict[tuple[str, str], Array]:
    return {(level, name): value for level, arrays in DRAWN for name, value in arrays(run).items()}


def named(result: tuple[Array, Array | None, Mapping[str, Array]]) -> dict[str, Array]:
    """The arrays of a layer pass under names."""
    y, dx, gradients = result
    return {OUTPUT: y} | ({} if dx is None else {INPUT: dx, **gradients})


def parameter_of(name: str) -> str:
    """The parameter's path in the name of an update's array: `velocity.conv.weight (momentum)`."""
    path = name.partition(" ")[0]
    first, _, rest = path.partition(".")
    return rest if first in SLOTS and "." in rest else path


def layer_of(name: str) -> str:
    """The layer of a parameter, or of an update's array."""
    path = parameter_of(name)
    return path.rpartition(".")[0] or path


def maps_before_flatten(architecture: Architecture) -> dict[str, Shape]:
    """By dense layer, the `(channels, height, width)` of the map that was flattened for it."""
    maps: dict[str, Shape] = {}
    shape: Shape | None = None
    for info in primitives(architecture):
        if isinstance(info.layer, Flatten):
            shape = info.input
        elif isinstance(info.layer, Dense):
            if shape is not None and len(shape) == 3:
                maps[info.path] = shape
            shape = None
    return maps
