"""The independent judge: a plain NumPy float64 execution of the spec, forward and backward.

It shares no code with any framework; the tests check it against numerical differentiation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.reference.loss import cross_entropy
from triptych.spec.kinds import composite_of, kind_of
from triptych.spec.kinds.kind import Pull
from triptych.spec.kinds.layer_pass import Conditions, Rounding, exact
from triptych.spec.layers import Architecture, Auxiliary, Block, Layer, Primitive, join, keeps_statistics
from triptych.utils.arrays import Array

Labels = NDArray[np.integer[Any]]
Masks = Mapping[str, NDArray[np.bool_]]


@dataclass
class Trace:
    """What went through every record, by path: its input, the gradient that arrived at its output, and the gradient
    that left it for its input."""

    inputs: dict[str, Array] = field(default_factory=dict)
    arriving: dict[str, Array] = field(default_factory=dict)
    leaving: dict[str, Array] = field(default_factory=dict)


@dataclass
class ReferencePass:
    """One execution. `outputs`, `gradients` and `statistics` (running mean and variance after this batch) are
    by path; `auxiliary` holds `(weight, logits)` per auxiliary classifier; `pull` runs the backward pass."""

    parameters: Mapping[str, Array]
    train: bool
    masks: Masks
    rounding: Rounding = exact
    trace: Trace | None = None
    frozen: frozenset[str] = frozenset()
    outputs: dict[str, Array] = field(default_factory=dict)
    gradients: dict[str, Array] = field(default_factory=dict)
    statistics: dict[str, Array] = field(default_factory=dict)
    auxiliary: dict[str, tuple[float, Array]] = field(default_factory=dict)
    auxiliary_gradients: dict[str, Array] = field(default_factory=dict)
    logits: Array = field(default_factory=lambda: np.zeros((0, 0)))
    pull: Pull = field(default=lambda dy: dy)


def forward(
    architecture: Architecture,
    parameters: Mapping[str, Array],
    images: Array,
    *,
    train: bool = False,
    masks: Masks | None = None,
    rounding: Rounding = exact,
    trace: Trace | None = None,
    frozen: frozenset[str] = frozenset(),
) -> ReferencePass:
    """Run `images (N, C, H, W)`, float, through the architecture in float64; `trace` is filled on the way, if given.
    `masks` holds, for training, one boolean array (True: kept) per dropout layer, by path. Raises TriptychError if one
    is missing. Batch norms whose running statistics are `frozen` use them in training, too."""
    wide = {path: np.asarray(value, np.float64) for path, value in parameters.items()}
    run = ReferencePass(wide, train, masks or {}, rounding, trace, frozen)
    run.logits, run.pull = _layer(Block("", architecture.layers), np.asarray(images, np.float64), "", run)
    return run


def backward(run: ReferencePass, labels: Labels) -> tuple[float, dict[str, Array]]:
    """The loss (mean cross-entropy, plus the weighted auxiliary ones) and its gradients by parameter path;
    the images' own gradient is under `input`."""
    loss, gradient = cross_entropy(run.logits, labels, run.rounding)
    for path, (weight, logits) in run.auxiliary.items():
        auxiliary_loss, auxiliary_gradient = cross_entropy(logits, labels, run.rounding)
        loss += weight * auxiliary_loss
        run.auxiliary_gradients[path] = weight * auxiliary_gradient
    run.gradients.clear()
    run.gradients["input"] = run.pull(gradient)
    return loss, run.gradients


def layer_pass(
    layer: Layer,
    path: str,
    parameters: Mapping[str, Array],
    x: Array,
    gradient: Array | None = None,
    *,
    train: bool,
    masks: Masks | None = None,
    rounding: Rounding = exact,
) -> tuple[Array, Array | None, dict[str, Array]]:
    """One record alone on `x`: its output, and with the `gradient` of that the gradients of `x` and of its parameters
    by path (else None and none). An auxiliary classifier's output are its logits."""
    run = ReferencePass(parameters, train, masks or {}, rounding)
    y, pull = _layer(layer, np.asarray(x, np.float64), path, run)
    return (y, None, {}) if gradient is None else (y, pull(gradient), run.gradients)


def _layer(layer: Layer, x: Array, path: str, run: ReferencePass) -> tuple[Array, Pull]:
    """Output and pull of a record; what is in it is noted on the way."""
    if isinstance(layer, Primitive):
        return _primitive(layer, x, path, run)
    return composite_of(layer).reference(layer, x, lambda child, x: _child(child, x, path, run), run.rounding)


def _child(layer: Layer, x: Array, prefix: str, run: ReferencePass) -> tuple[Array, Pull]:
    path = join(prefix, layer.name)
    if isinstance(layer, Auxiliary):
        return _auxiliary(layer, x, path, run)
    return _noted(path, x, _layer(layer, x, path, run), run)


def _noted(path: str, x: Array, end: tuple[Array, Pull], run: ReferencePass) -> tuple[Array, Pull]:
    """Note the output of a record, and all else for a trace."""
    y, pull = end
    run.outputs[path] = y
    trace = run.trace
    if trace is None:
        return end
    trace.inputs[path] = x

    def traced(dy: Array) -> Array:
        trace.arriving[path] = dy
        trace.leaving[path] = pull(dy)
        return trace.leaving[path]

    return y, traced


def _auxiliary(layer: Auxiliary, x: Array, path: str, run: ReferencePass) -> tuple[Array, Pull]:
    if not run.train:
        return x, lambda dy: dy
    logits, pull = _noted(path, x, _layer(layer, x, path, run), run)
    run.auxiliary[path] = (layer.weight, logits)
    return x, lambda dy: dy + pull(run.auxiliary_gradients[path])


def _primitive(layer: Layer, x: Array, path: str, run: ReferencePass) -> tuple[Array, Pull]:
    kind = kind_of(layer)
    if kind.training_only and not run.train:
        return x, lambda dy: dy
    arrays = {info.path: run.parameters[join(path, info.path)] for info in kind.arrays(layer, x.shape[1:])}
    frozen = keeps_statistics(path, run.frozen)
    conditions = Conditions(run.rounding, path, run.train, frozen, run.masks.get(path))
    y, backward, statistics = kind.reference(layer, x, arrays, conditions)
    run.statistics.update({join(path, name): value for name, value in statistics.items()})

    def pull(dy: Array) -> Array:
        dx, gradients = backward(dy)
        run.gradients.update({join(path, name): gradients[name] for name in gradients if name in arrays})
        return dx

    return y, pull
