"""The independent judge: a plain NumPy float64 execution of the spec, forward, backward and one optimiser step.

It shares no code with any framework; the tests check it against numerical differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.reference import layers as ops
from triptych.reference.layers import Array, Rounding
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Sigmoid,
    join,
    keeps_statistics,
)
from triptych.utils.errors import TriptychError

Labels = NDArray[np.integer[Any]]
Masks = Mapping[str, NDArray[np.bool_]]
Pull = Callable[[Array], Array]  # the gradient of an output to the gradient of the input


@dataclass
class Trace:
    """What every record was given and gave back, by path: its input, the gradient that arrived at its output, and
    the one that left it for its input."""

    inputs: dict[str, Array] = field(default_factory=dict)
    arriving: dict[str, Array] = field(default_factory=dict)
    leaving: dict[str, Array] = field(default_factory=dict)


@dataclass
class Pass:
    """One execution. `outputs`, `gradients` and `statistics` (running mean and variance after this batch) are
    by path; `auxiliary` holds `(weight, logits, pull)` per side classifier; `pull` runs the backward pass."""

    parameters: Mapping[str, Array]
    train: bool
    masks: Masks
    rounding: Rounding = ops.exact
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
    rounding: Rounding = ops.exact,
    trace: Trace | None = None,
    frozen: frozenset[str] = frozenset(),
) -> Pass:
    """Run `images (N, C, H, W)`, float, through the architecture in float64; `trace` is filled on the way, if given.

    `masks` holds, for training, one boolean array (True: kept) per dropout layer, by path. Raises TriptychError if
    one is missing. Batch norms whose running statistics are `frozen` use them in training, too.
    """
    wide = {path: np.asarray(value, np.float64) for path, value in parameters.items()}
    run = Pass(wide, train, masks or {}, rounding, trace, frozen)
    run.logits, run.pull = _sequence(architecture.layers, np.asarray(images, np.float64), "", run)
    return run


def backward(run: Pass, labels: Labels) -> tuple[float, dict[str, Array]]:
    """The loss (mean cross-entropy, plus the weighted auxiliary ones) and its gradients by parameter path;
    the images' own gradient is under `input`."""
    loss, gradient = ops.cross_entropy(run.logits, labels, run.rounding)
    for path, (weight, logits) in run.auxiliary.items():
        side, side_gradient = ops.cross_entropy(logits, labels, run.rounding)
        loss += weight * side
        run.auxiliary_gradients[path] = weight * side_gradient
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
    rounding: Rounding = ops.exact,
) -> tuple[Array, Array | None, dict[str, Array]]:
    """One record alone on `x`: its output, and with the `gradient` of that the gradients of `x` and of its parameters
    by path (else None and none). An auxiliary head's output are its logits."""
    run = Pass(parameters, train, masks or {}, rounding)
    below = Block(layer.name, layer.layers) if isinstance(layer, Auxiliary) else layer
    y, pull = _layer(below, np.asarray(x, np.float64), path, run)
    return (y, None, {}) if gradient is None else (y, pull(gradient), run.gradients)


def _sequence(layers: tuple[Layer, ...], x: Array, prefix: str, run: Pass) -> tuple[Array, Pull]:
    pulls = []
    for layer in layers:
        path = join(prefix, layer.name)
        end = _layer(layer, x, path, run)
        x, pull = end if isinstance(layer, Auxiliary) else _kept(path, x, end, run)
        pulls.append(pull)

    def pull_all(dy: Array) -> Array:
        for pull in reversed(pulls):
            dy = pull(dy)
        return dy

    return x, pull_all


def _kept(path: str, x: Array, end: tuple[Array, Pull], run: Pass) -> tuple[Array, Pull]:
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


def _layer(layer: Layer, x: Array, path: str, run: Pass) -> tuple[Array, Pull]:
    match layer:
        case Block():
            return _sequence(layer.layers, x, path, run)
        case Branches():
            return _branches(layer, x, path, run)
        case Residual():
            return _residual(layer, x, path, run)
        case Auxiliary():
            return _auxiliary(layer, x, path, run)
        case _:
            y, back = _primitive(layer, x, path, run)

    def pull(dy: Array) -> Array:
        dx, gradients = back(dy)
        for name, gradient in gradients.items():
            if join(path, name) in run.parameters:
                run.gradients[join(path, name)] = gradient
        return dx

    return y, pull


def _inside(block: Block, x: Array, path: str, run: Pass) -> tuple[Array, Pull]:
    """A block directly below branches or a residual."""
    inside = join(path, block.name)
    return _kept(inside, x, _sequence(block.layers, x, inside, run), run)


def _branches(layer: Branches, x: Array, path: str, run: Pass) -> tuple[Array, Pull]:
    ends = [_inside(branch, x, path, run) for branch in layer.branches]
    edges = np.cumsum([y.shape[1] for y, _ in ends])[:-1]

    def pull(dy: Array) -> Array:
        parts = np.split(dy, edges, axis=1)
        gradients: Array = np.sum([pull(part) for (_, pull), part in zip(ends, parts, strict=True)], axis=0)
        return gradients

    return np.concatenate([y for y, _ in ends], axis=1), pull


def _residual(layer: Residual, x: Array, path: str, run: Pass) -> tuple[Array, Pull]:
    body, pull_body = _inside(layer.body, x, path, run)
    shortcut, pull_shortcut = (x, lambda dy: dy) if layer.shortcut is None else _inside(layer.shortcut, x, path, run)
    y = run.rounding(shortcut + layer.scale * body, 1)
    return y, lambda dy: run.rounding(pull_shortcut(dy) + pull_body(layer.scale * dy), 1)


def _auxiliary(layer: Auxiliary, x: Array, path: str, run: Pass) -> tuple[Array, Pull]:
    if not run.train:
        return x, lambda dy: dy
    logits, pull = _kept(path, x, _sequence(layer.layers, x, path, run), run)
    run.auxiliary[path] = (layer.weight, logits)
    return x, lambda dy: dy + pull(run.auxiliary_gradients[path])


def _primitive(layer: Layer, x: Array, path: str, run: Pass) -> tuple[Array, ops.Backward]:
    def parameter(name: str) -> Array | None:
        return run.parameters.get(join(path, name))

    match layer:
        case Conv():
            return ops.conv(x, run.parameters[join(path, "weight")], parameter("bias"), layer, run.rounding)
        case Dense():
            return ops.dense(x, run.parameters[join(path, "weight")], parameter("bias"), run.rounding)
        case BatchNorm():
            return _batch_norm(layer, x, path, run)
        case LocalResponseNorm():
            return ops.local_response_norm(x, layer, run.rounding)
        case ReLU():
            return ops.relu(x)
        case Sigmoid():
            return ops.sigmoid(x, run.rounding)
        case MaxPool():
            return ops.max_pool(x, layer)
        case AvgPool():
            return ops.avg_pool(x, layer, run.rounding)
        case GlobalAvgPool():
            return ops.global_avg_pool(x, run.rounding)
        case Flatten():
            return ops.flatten(x)
        case Dropout():
            if not run.train:
                return x, lambda dy: (dy, {})
            if path not in run.masks:
                raise TriptychError(f"layer '{path}': training needs a dropout mask for it")
            return ops.dropout(x, run.masks[path], layer.rate)
        case _:
            raise TypeError(f"no reference for {type(layer).__name__}")


def _batch_norm(layer: BatchNorm, x: Array, path: str, run: Pass) -> tuple[Array, ops.Backward]:
    beta, mean, var = (run.parameters[join(path, name)] for name in ("bias", "running_mean", "running_var"))
    gamma = run.parameters.get(join(path, "weight"), np.ones_like(beta))
    train = run.train and not keeps_statistics(path, run.frozen)
    y, back, running = ops.batch_norm(x, gamma, beta, mean, var, layer, train, run.rounding)
    run.statistics.update({join(path, name): value for name, value in running.items()})
    return y, back
