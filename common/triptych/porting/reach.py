"""A case on which bounds show: drawn values stay small, and an upper bound that no value reaches may be any or none.

The last image is multiplied until some value before every activation is beyond what other activations bound: ReLU6 is
no ReLU then. Where a batch norm or a bound of the network's own keeps values small, the parameters before it grow. One
call in evaluation goes far beyond (`Far`), where any bound shows, and exponentials overflow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np

from triptych.conformance.case import Case
from triptych.conformance.reference_run import ReferenceRun
from triptych.reference import network as reference
from triptych.spec import layers as spec
from triptych.spec.analysis import parameters, primitives
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.shelf import Computed

BEYOND = 2.0  # times the bound, where the largest value is brought
COMMON_BOUND = 6.0  # ReLU6's, for activations that have none
# Bounded above, or, HardSwish, with a place of its own to be brought beyond (`_bound`).
BOUNDED = (spec.Sigmoid, spec.Tanh, spec.Clip, spec.Softsign, spec.HardSigmoid, spec.HardSwish)
UNBOUNDED = tuple(kind for kind in get_args(spec.Elementwise) if kind not in BOUNDED)
SMALLEST_TAIL, LARGEST_TAIL = 2.0, 1e4
FAR, FARTHEST, MOST_SCALED = 1e4, 1e8, 8  # what values reach, what images grow by, layers whose parameters grow
SCALED = ("weight", "scale", "shift", "bias")  # the roles of arrays by which an output grows in proportion


def reaching(case: Case) -> Case:
    """The case with a larger last image, and larger parameters before every bounded activation whose upper bound no
    value reaches."""
    architecture = case.architecture
    if not any(isinstance(info.layer, UNBOUNDED) or _bound(info.layer) for info in primitives(architecture)):
        return case
    case = replace(case, tail=_tail(case, _inputs(case)))
    bounds = {info.path: bound for info in primitives(architecture) if (bound := _bound(info.layer))}
    done: set[str] = set()
    while short := _first_short(case, {path: bound for path, bound in bounds.items() if path not in done}):
        path, factor = short
        done.add(path)  # what is behind it has grown, too: the next one is asked for anew
        grown = {name: case.parameters[name] * np.float32(factor) for name in _scaled_before(architecture, path)}
        case = replace(case, parameters={**case.parameters, **grown})
    return case


def _first_short(case: Case, bounds: Mapping[str, float]) -> tuple[str, float] | None:
    """The first activation that no value brings to its bound, and what brings them beyond; none without values."""
    inputs = _inputs(case) if bounds else {}
    for path, bound in bounds.items():
        highest = float(np.max(inputs.get(path, np.zeros(1))))
        if 0 < highest < bound:
            return path, BEYOND * bound / highest
    return None


@dataclass(frozen=True)
class Far:
    """What the images of a call are multiplied by, growing, and what some parameters are, by path, so that the largest
    is far from 0 before every activation that has no bound. `short`: the activations that stay nearer all the same."""

    factors: tuple[float, ...]
    scales: Mapping[str, float] = field(default_factory=dict)
    short: tuple[str, ...] = ()

    def parameters(self, values: Arrays) -> Computed:
        """The values, those that are scaled larger."""
        return Computed(values, lambda path: np.asarray(values[path], np.float64) * self.scales.get(path, 1.0))


def far(case: Case, count: int) -> Far:
    """For a call of so many images, the first two as they are."""
    if case.large:
        return Far(_growing(FARTHEST / FAR, count))
    architecture = case.architecture
    open_ended = [info.path for info in primitives(architecture) if isinstance(info.layer, UNBOUNDED)]
    near, more = (_highest(case, open_ended, {}, factor) for factor in (1.0, FAR))
    growing = [near[path] for path in open_ended if more[path] > FAR / 2 * near[path] > 0]  # in proportion
    top = min(max(BEYOND * FAR / min(growing, default=1.0), FAR), FARTHEST)
    scales: dict[str, float] = {}
    for _ in range(MOST_SCALED):
        highest = _highest(case, open_ended, scales, top)
        short = [path for path in open_ended if 0 < highest[path] < FAR]
        before = _scaled_before(architecture, short[0]) if short else []
        if not before:
            break
        scales |= {path: scales.get(path, 1.0) * BEYOND * FAR / highest[short[0]] for path in before}
    return Far(_growing(top, count), scales, tuple(short))


def _growing(top: float, count: int) -> tuple[float, ...]:
    return (1.0,) * 2 + tuple(float(value) for value in np.geomspace(8.0, top, count - 2))


def _highest(case: Case, paths: Sequence[str], scales: Mapping[str, float], factor: float) -> dict[str, float]:
    """The largest value before each of these layers, of the first image so many times as bright."""
    trace, values = reference.Trace(), Far((), scales).parameters(case.exact)
    reference.forward(case.architecture, values, factor * case.images[:1], trace=trace, forward_only=True)
    return {path: float(np.max(trace.inputs[path])) if path in trace.inputs else 0.0 for path in paths}


def _scaled_before(architecture: spec.Architecture, path: str) -> list[str]:
    """The arrays of the last layer before another that its output grows in proportion to."""
    roles = {info.path: info.role for info in parameters(architecture)}
    before: list[str] = []
    for info in primitives(architecture):
        if info.path == path:
            break
        own = [name for name in roles if name.rpartition(".")[0] == info.path and roles[name] in SCALED]
        before = own or before
    return before


def far_outputs(run: ReferenceRun, images: Array, away: Far) -> Mapping[str, Array]:
    """What the reference, or a perturbed one, puts out of them."""
    ran = reference.forward(
        run.case.architecture, away.parameters(run.parameters), images, rounding=run.rounding, forward_only=True
    )
    return ran.outputs


def _tail(case: Case, inputs: dict[str, Array]) -> float:
    """What brings every unbounded activation of the last image beyond `COMMON_BOUND`, if values grow in proportion."""
    infos = list(primitives(case.architecture))
    if any(_bound(info.layer) for info in infos):
        return 1.0  # what they are given grows by their own parameters
    highest = [float(np.max(inputs[i.path][-1])) for i in infos if isinstance(i.layer, UNBOUNDED) and i.path in inputs]
    wanted = max((BEYOND * COMMON_BOUND / value for value in highest if value > 0), default=1.0)
    return min(max(wanted, SMALLEST_TAIL), LARGEST_TAIL)


def unreached(case: Case, inputs: dict[str, Array]) -> Iterator[str]:
    """The bounded activations whose upper bound no value of these inputs reaches all the same."""
    for info in primitives(case.architecture):
        bound = _bound(info.layer)
        if bound and info.path in inputs and float(np.max(inputs[info.path])) < bound:
            yield f"no value reaches the bound {bound:g} of '{info.path}' (largest {largest(inputs[info.path]):.3g})"


def _bound(layer: spec.Layer) -> float:
    """From where on it is constant or linear; 0 for what has no such place above 0."""
    match layer:
        case spec.Clip() if np.isfinite(layer.high):
            return max(layer.high, 0.0)
        case spec.HardSwish():
            return 3.0
        case spec.HardSigmoid() if layer.slope > 0:
            return max((1 - layer.offset) / layer.slope, 0.0)
    return 0.0


def _inputs(case: Case) -> dict[str, Array]:
    """Of the last image."""
    trace = reference.Trace()
    reference.forward(case.architecture, case.exact, case.images[-1:], trace=trace, forward_only=True)
    return trace.inputs
