"""Whether a network that runs is that of a spec, with its weights: the files of a port as they lie there, or the source
that they come from, in its own framework."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax

from triptych.backend import registry
from triptych.backend.contract import TrainablePort
from triptych.backend.execution import exact
from triptych.conformance import locate
from triptych.conformance.case import Case, make_case
from triptych.conformance.compare import STRANGERS, Check, compare, failures, message, problem, worst
from triptych.conformance.locate import Located
from triptych.conformance.tolerance import UNPERTURBED, budgets, perturbations
from triptych.emitting.emit import dialect_of
from triptych.optim.optimizers import SGD, Rates, decay_of, reference_step
from triptych.porting.own_levels import WATCHED
from triptych.porting.own_network import Own, compare_with, without_dropout
from triptych.porting.source_network import SourceNetwork, adapter_of
from triptych.porting.strangers import is_rounding
from triptych.porting.subject import are_shares
from triptych.reference import network as reference
from triptych.spec import analysis
from triptych.spec.kinds.layer_pass import Rounding
from triptych.spec.kinds.layer_pass import exact as unrounded
from triptych.spec.layers import Architecture, BatchNorm, Layer, outputs, with_children
from triptych.spec.shapes import output_shapes
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator

OUTPUTS, UPDATE = "outputs", "update"
RATES = (Rates(2**-14, 0.875),) * 2  # small, as networks are stiff; numbers that float32 has, as MXNet reads its own
LEAST = 48  # pixels of an image that the search for a difference is given, where a smaller one does as well
SOFTMAXES = {"": lambda y: y, "softmax": lambda y: softmax(y, axis=1), "log_softmax": lambda y: log_softmax(y, axis=1)}
Parameters = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Ported:
    """What became of one network: the search for a difference between it and the spec, given drawn weights (`located`);
    of its outputs with the weights that it has, and of what two training steps make of drawn ones, the check nearest to
    its budget. `not_run`: which of these were left out, and why."""

    subject: str
    located: Located
    checks: tuple[Check, ...]
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """No difference at any level, and in none of the checks."""
        return self.located.difference is None and not failures(self.checks)

    @property
    def lines(self) -> list[str]:
        """What came out, a line each."""
        located, difference = self.located, self.located.difference
        judged = "" if located.precision == "fp64" else f", as far as {located.precision} rounds"
        first = f"{', '.join(located.levels)} agree with the float64 reference on drawn weights{judged}"
        if difference is not None:
            cause = f"; likely cause: {difference.cause}" if difference.cause else ""
            place = f"at layer '{difference.layer}', level {difference.level}"
            first = f"DIFFERS {place}: {difference.check.tensor}: {difference.check.text}{cause}"
        return [first, *map(_line, self.checks), *(f"not run: {what} ({why})" for what, why in self.not_run.items())]


def _line(check: Check) -> str:
    agree, differ = {
        OUTPUTS: ("the reference's outputs with its own weights", "in its outputs with its own weights"),
        UPDATE: (f"update: {len(RATES)} steps of its own SGD are the reference's", f"after {len(RATES)} steps of SGD"),
    }[check.level]
    return f"{agree}: {check.text}" if check.passed else f"DIFFERS {differ}: {check.tensor}: {check.text}"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A network that runs, and how: what makes it (with the weights that it has), the layout of its images, the softmax
    that it ends in and the spec does not, and the precision that it is judged in."""

    name: str
    backend: str
    make: Callable[[], Any]
    layout: str
    softmax: str = ""
    precision: str = "fp64"

    def port(self, count: int) -> TrainablePort:
        """It, watched by its framework's adapter."""
        return adapter_of(self.backend).Port(self.make(), self.layout, exact(self.precision), count)


def of_files(folder: Path, backend: str, source: str, weights: str) -> Candidate:
    """The network that `load` in a file of source makes of the weights beside it."""
    layout = "NHWC" if dialect_of(backend).channels_last else "NCHW"
    registry.load(backend)
    return Candidate(
        f"{folder.resolve().name}/{backend}",
        backend,
        lambda: _load(folder / backend / source, folder / backend / weights),
        layout,
    )


def of_source(name: str, network: SourceNetwork) -> Candidate:
    """The network that was ported, in its own framework."""
    layout = "NHWC" if dialect_of(network.backend).channels_last else "NCHW"

    def make() -> Any:
        try:
            return network.make()
        except TriptychError:
            raise
        except STRANGERS as error:
            raise TriptychError(f"its framework does not run it: {message(error)}") from error

    return Candidate(name, network.backend, make, layout, network.softmax)


def check(candidate: Candidate, architecture: Architecture, parameters: Parameters) -> Ported:
    """Whether it is the spec's network, with these weights. Raises TriptychError for one that does not run at all."""
    framework = registry.load(candidate.backend)
    architecture = as_kept(architecture, candidate.backend)
    with framework.precise():
        first = _own_weights(candidate, architecture, parameters)
        small = search_size(architecture)
        ports: list[TrainablePort] = []

        def adapt(count: int) -> TrainablePort:
            ports.append(candidate.port(count))
            return ports[-1]

        own = Own(
            candidate.name,
            adapt,
            framework,
            candidate.layout,
            precision=candidate.precision,
            softmax=candidate.softmax,
            levels=WATCHED,
        )
        compared = compare_with(own, small)
        located = replace(compared.located, notes=())
        if located.difference is not None or compared.folded:
            why = "it differs before" if located.difference is not None else "its batch norms are folded"
            return Ported(candidate.name, located, (first,), {UPDATE: why})
        update = _update(ports[-1], compared.pairs, small, candidate.precision)
        return Ported(candidate.name, located, (first, update))


def check_source(candidate: Candidate, architecture: Architecture, parameters: Parameters) -> Ported:
    """The same of a source. Frameworks have layers that compute in float32 whatever they are given: where a difference
    is as small as that, all is judged in float32."""
    ported = check(candidate, architecture, parameters)
    found = [] if ported.located.difference is None else [ported.located.difference.check]
    wrong = failures([*found, *ported.checks])
    if wrong and all(is_rounding(one) for one in wrong):
        return check(replace(candidate, precision="fp32"), architecture, parameters)
    return ported


def search_size(architecture: Architecture) -> Architecture:
    """The network on the smallest images on which every window ends as on its own, and no map shrinks to nothing: what
    is true of all layers there is true of them at any such size, and costs a tenth."""
    stride = max((max(info.stride) for info in analysis.primitives(architecture)), default=1)
    channels, *size = architecture.input
    shapes, infos = output_shapes(architecture), analysis.parameters(architecture)
    for least in range(LEAST, max(size), stride):
        height, width = (pixels - max(pixels - least, 0) // stride * stride for pixels in size)
        small = replace(architecture, input=(channels, height, width))
        try:
            found = output_shapes(small)
        except TriptychError:
            continue
        flat = any(1 in shape[1:] and 1 not in shapes[path][1:] for path, shape in found.items())
        if not flat and analysis.parameters(small) == infos:
            return small
    return architecture


def as_kept(architecture: Architecture, backend: str) -> Architecture:
    """The architecture with batch norms as the framework's own layer computes them and keeps their statistics."""
    kept = dialect_of(backend).kept

    def change(layer: Layer) -> Layer:
        return kept(layer) if isinstance(layer, BatchNorm) else with_children(layer, change)

    return replace(architecture, layers=tuple(map(change, architecture.layers)))


def _load(source: Path, weights: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"ported_{source.parent.name}", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a module looks for its own annotations
    try:
        spec.loader.exec_module(module)
        return module.load(str(weights))
    except STRANGERS as error:
        raise TriptychError(f"{source} cannot be loaded: {message(error)}") from error


def _own_weights(candidate: Candidate, architecture: Architecture, parameters: Parameters) -> Check:
    """Its outputs in evaluation with the weights that it has, against the reference's with the canonical ones."""
    images = generator(0, "port", "images").standard_normal((1, *architecture.input)).astype(np.float32)
    names = outputs(architecture)
    port = candidate.port(len(names))
    try:
        port.parameters(images)
        observed = dict(zip(names, port.run(images, train=False).outputs, strict=True))
    except TriptychError:
        raise
    except STRANGERS as error:
        return problem(OUTPUTS, names[0], message(error))
    ends = {name: candidate.softmax for name, value in observed.items() if are_shares(value, candidate.softmax)}

    def expected(rounding: Rounding = unrounded) -> dict[str, Array]:
        run = reference.forward(without_dropout(architecture), parameters, images, rounding=rounding)
        return {name: SOFTMAXES[ends.get(name, "")](run.outputs[name]) for name in names}

    return _nearest(OUTPUTS, expected, observed, candidate.precision)


def _update(port: TrainablePort, pairs: Mapping[str, str], architecture: Architecture, precision: str) -> Check:
    """Parameters and running statistics after steps of its framework's own SGD with momentum, from drawn weights."""
    case = make_case(without_dropout(architecture), 0, locate.BATCH)
    cotangents = _cotangents(case)
    port.parameters(case.images)  # the comparison has given the network back as it was
    port.load({name: case.exact[path] for path, name in pairs.items()})
    found = port.train(case.images, cotangents, RATES)
    observed = {path: found[name] for path, name in pairs.items()}
    return _nearest(UPDATE, partial(_trained, case, cotangents), observed, precision)


def _cotangents(case: Case) -> list[Array]:
    shapes = output_shapes(case.architecture)
    random = generator(0, "port", "cotangents")
    drawn = [random.standard_normal((len(case.stored), *shapes[name])) for name in outputs(case.architecture)]
    return [dy / dy.size for dy in drawn]  # of a mean: steps that are small, whatever the size of an output


def _trained(case: Case, cotangents: list[Array], rounding: Rounding = unrounded) -> dict[str, Array]:
    """As the reference has them."""
    optimizer = SGD(momentum=RATES[0].momentum)
    values: dict[str, Array] = dict(case.exact)
    state: Mapping[str, Array] = {}
    decay = decay_of(optimizer, case.architecture)
    for rates in RATES:
        run = reference.forward(case.architecture, values, case.images, train=True, rounding=rounding)
        gradients = reference.backward(run, tuple(len(case.stored) * dy for dy in cotangents))[1]  # it takes the mean
        moved, state = reference_step(values, gradients, state, rates, optimizer, decay)
        values |= {path: rounding(value, 1) for path, value in {**moved, **run.statistics}.items()}
    return values


def _nearest(
    level: str, expect: Callable[..., Mapping[str, Array]], observed: Mapping[str, Array], precision: str
) -> Check:
    """The check nearest to its budget; where one exceeds a share of its tensor's scale, by the judge's own rule.
    `expect` is what the reference has, with a rounding."""
    expected = expect()
    allowed = {name: UNPERTURBED[precision] * largest(value) for name, value in expected.items()}
    checks = compare(level, expected, observed, allowed)
    if any(not one.problem for one in failures(checks)):
        allowed = budgets(expected, map(expect, perturbations(0)))[precision]
        checks = compare(level, expected, observed, allowed)
    nearest = worst(checks)
    assert nearest is not None
    return nearest
