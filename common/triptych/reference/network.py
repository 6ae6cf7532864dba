"""The independent judge: a plain NumPy float64 execution of the spec, forward and backward.

It shares no code with any framework; the tests check it against numerical differentiation."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triptych.reference.loss import Targets, cross_entropy, linear
from triptych.spec.kinds import composite_of, kind_of
from triptych.spec.kinds.composites import merge
from triptych.spec.kinds.layer_pass import Conditions, Gradients, Rounding, exact
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    Block,
    Layer,
    Primitive,
    children,
    join,
    keeps_statistics,
    outputs,
)
from triptych.utils.arrays import Array
from triptych.utils.shelf import Shelf

Pull = Callable[[Array], Array]  # the gradient of an output to that of the input
Masks = Mapping[str, NDArray[np.bool_]]
Sums = dict[str, tuple[int, float | None]]  # by array, how many terms are summed, and their size if that is larger


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
    by path; `sums` holds of each gradient how many terms are summed, and their size where that is larger than the
    sum; `auxiliary` holds `(weight, logits)` per auxiliary classifier. `logits` is the first of the network's
    outputs, whose paths are `heads`; `pull` takes its gradient back, and with it those in `arriving`, by the path of
    the record at whose output they arrive from outside."""

    parameters: Mapping[str, Array]
    train: bool
    masks: Masks
    rounding: Rounding = exact
    trace: Trace | None = None
    frozen: frozenset[str] = frozenset()
    forward_only: bool = False
    kept: frozenset[str] | None = None
    outputs: dict[str, Array] = field(default_factory=dict)
    gradients: MutableMapping[str, Array] = field(default_factory=Shelf)
    sums: Sums = field(default_factory=dict)
    statistics: dict[str, Array] = field(default_factory=dict)
    auxiliary: dict[str, tuple[float, Array]] = field(default_factory=dict)
    arriving: dict[str, Array] = field(default_factory=dict)
    logits: Array = field(default_factory=lambda: np.zeros((0, 0)))
    pull: Pull = field(default=lambda dy: dy)
    heads: tuple[str, ...] = ()

    def let_go(self) -> None:
        """Of what it needs to go backward, most of which are copies of maps: that refers to the pass itself, so that
        nobody else frees it soon."""
        self.pull = _gone


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
    forward_only: bool = False,
    kept: frozenset[str] | None = None,
) -> ReferencePass:
    """Run `images (N, C, H, W)`, float, through the architecture in float64; `trace` is filled on the way, if given.
    `masks` holds, for training, one boolean array (True: kept) per dropout layer, by path. Raises TriptychError if one
    is missing. Batch norms whose running statistics are `frozen` use them in training, too. `forward_only`
    keeps nothing for a backward pass; of the records' outputs only those in `kept` are, if it is given."""
    run = ReferencePass(parameters, train, masks or {}, rounding, trace, frozen, forward_only, kept)
    run.logits, run.pull = _layer(Block("", architecture.layers), np.asarray(images, np.float64), "", run)
    run.heads = outputs(architecture)
    return run


def backward(run: ReferencePass, targets: Targets, smoothing: float = 0.0) -> tuple[float, MutableMapping[str, Array]]:
    """The loss and its gradients by parameter path; the images' own gradient is under `input`. With labels the loss is
    the mean cross-entropy with that much label `smoothing`, plus the weighted auxiliary ones; with a cotangent for
    every output of the network, `linear` of them."""
    if isinstance(targets, tuple):
        values = [run.logits, *(run.outputs[path] for path in run.heads[1:])]
        loss, (gradient, *others) = linear(values, targets, run.rounding)
        run.arriving = dict(zip(run.heads[1:], others, strict=True))
    else:
        loss, gradient = cross_entropy(run.logits, targets, run.rounding, smoothing)
        for path, (weight, logits) in run.auxiliary.items():
            auxiliary_loss, auxiliary_gradient = cross_entropy(logits, targets, run.rounding, smoothing)
            loss += weight * auxiliary_loss
            run.arriving[path] = weight * auxiliary_gradient
    run.gradients.clear()
    run.gradients["input"] = run.pull(gradient)
    run.let_go()
    return loss, run.gradients


def _gone(dy: Array) -> Array:
    raise RuntimeError("what this pass needed to go backward was let go of")


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
    return (y, None, {}) if gradient is None else (y, pull(gradient), dict(run.gradients))


def _layer(layer: Layer, x: Array, path: str, run: ReferencePass) -> tuple[Array, Pull]:
    """Output and pull of a record; what is in it is noted on the way."""
    if isinstance(layer, Primitive):
        return _primitive(layer, x, path, run)
    wiring = composite_of(layer).wiring(layer)
    values, steps = [x], []
    for child, wire in zip(children(layer), wiring.children, strict=True):
        merged, part = merge(wire, [values[i] for i in wire.sources], run.rounding)
        y, pull = _child(child, merged, path, run)
        values.append(y)
        steps.append((wire.sources, part, pull))
    y, part_output = merge(wiring.output, [values[i] for i in wiring.output.sources], run.rounding)
    if run.forward_only:
        return y, _gone
    shapes = [value.shape for value in values]

    def pull_all(dy: Array) -> Array:
        arrived: list[list[Array]] = [[] for _ in shapes]
        _send(arrived, wiring.output.sources, part_output(dy))
        for place, (sources, part, pull) in reversed(list(enumerate(steps, 1))):
            _send(arrived, sources, part(pull(_total(arrived[place], shapes[place], run.rounding))))
            arrived[place].clear()
        return _total(arrived[0], shapes[0], run.rounding)

    return y, pull_all


def _send(arrived: list[list[Array]], places: Sequence[int], gradients: Sequence[Array]) -> None:
    for place, gradient in zip(places, gradients, strict=True):
        arrived[place].append(gradient)


def _total(gradients: Sequence[Array], shape: tuple[int, ...], rounding: Rounding) -> Array:
    """What arrives at an output from all that take it; none do: zeros."""
    if len(gradients) == 1:
        return gradients[0]
    total = np.zeros(shape)
    for gradient in gradients:
        total += gradient
    return rounding(total, max(1, len(gradients) - 1))


def _child(layer: Layer, x: Array, prefix: str, run: ReferencePass) -> tuple[Array, Pull]:
    path = join(prefix, layer.name)
    if isinstance(layer, Auxiliary):
        return _auxiliary(layer, x, path, run)
    return _noted(path, x, _layer(layer, x, path, run), run)


def _noted(path: str, x: Array, end: tuple[Array, Pull], run: ReferencePass) -> tuple[Array, Pull]:
    """Note the output of a record, and all else for a trace."""
    y, pull = end
    if run.kept is None or path in run.kept:
        run.outputs[path] = y
    trace = run.trace
    if trace is not None:
        trace.inputs[path] = x

    def noted(dy: Array) -> Array:
        dy = dy + run.arriving[path] if path in run.arriving else dy
        dx = pull(dy)
        if trace is not None:
            trace.arriving[path], trace.leaving[path] = dy, dx
        return dx

    return y, noted


def _auxiliary(layer: Auxiliary, x: Array, path: str, run: ReferencePass) -> tuple[Array, Pull]:
    if not run.train:
        return x, lambda dy: dy
    logits, pull = _noted(path, x, _layer(layer, x, path, run), run)
    run.auxiliary[path] = (layer.weight, logits)
    return x, lambda dy: dy + pull(np.zeros_like(logits))


@dataclass
class _Noted:
    """A rounding that notes of its results, while they are `held`, what was summed for each. They are held themselves,
    too: the next array could be where one was that is gone."""

    rounding: Rounding
    held: list[tuple[Array, int, float | None]] | None = None

    def __call__(self, value: Array, length: int, scale: float | None = None) -> Array:
        rounded = self.rounding(value, length, scale)
        if self.held is not None:
            self.held.append((rounded, length, scale))
        return rounded

    def pulled(self, pull: Callable[[], tuple[Array, Gradients]]) -> tuple[Array, Gradients, Sums]:
        """What `pull` gives, and by name what was summed for those of its arrays that are results."""
        held: list[tuple[Array, int, float | None]] = []
        self.held = held
        dx, arrays = pull()
        self.held = None
        sums = {name: (n, size) for name, value in arrays.items() for one, n, size in held if one is value}
        return dx, arrays, sums


def _primitive(layer: Layer, x: Array, path: str, run: ReferencePass) -> tuple[Array, Pull]:
    kind = kind_of(layer)
    if kind.training_only and not run.train:
        return x, lambda dy: dy
    names = [info.path for info in kind.arrays(layer, x.shape[1:])]
    arrays = {name: np.asarray(run.parameters[join(path, name)], np.float64) for name in names}
    frozen = keeps_statistics(path, run.frozen)
    rounding = _Noted(run.rounding)
    conditions = Conditions(rounding, path, run.train, frozen, run.masks.get(path))
    y, backward, statistics = kind.reference(layer, x, arrays, conditions)
    run.statistics.update({join(path, name): value for name, value in statistics.items()})

    if run.forward_only:
        return y, _gone

    def pull(dy: Array) -> Array:
        dx, gradients, sums = rounding.pulled(lambda: backward(dy))
        run.gradients.update({join(path, name): gradients[name] for name in gradients if name in arrays})
        run.sums.update({join(path, name): sums[name] for name in sums if name in arrays})
        return dx

    return y, pull
