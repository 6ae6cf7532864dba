"""Whether a network that runs is that of a spec, with its weights: the files of a port as they lie there, or the source
that they come from, in its own framework."""

import gc
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from triptych.backend import registry
from triptych.backend.contract import TrainablePort
from triptych.backend.execution import exact
from triptych.conformance.compare import STRANGERS, Check, compare, failures, message, problem, worst
from triptych.conformance.locate import Located
from triptych.conformance.tolerance import UNPERTURBED
from triptych.emitting import source_lines
from triptych.emitting.emit import dialect_of
from triptych.emitting.port_reference import RATES, Expected, PortReference
from triptych.porting.own_levels import WATCHED
from triptych.porting.own_network import Own, compare_with
from triptych.porting.source_network import SourceNetwork, adapter_of
from triptych.porting.strangers import is_rounding
from triptych.porting.subject import NetworkFailedError, OwnNetwork, are_shares
from triptych.spec.layers import Shape, outputs
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError
from triptych.utils.files import told
from triptych.utils.frames import line_in, locals_in
from triptych.utils.modules import run_file
from triptych.utils.process import return_large_memory
from triptych.utils.reading import open_file, read_bounded

OUTPUTS, UPDATE = "outputs", "update"


@dataclass(frozen=True)
class Ported:
    """What became of one network: the search for a difference between it and the spec, given drawn weights (`located`);
    of its outputs with the weights that it has, and of what two training steps make of drawn ones, the check nearest to
    its budget. `not_run`: which of these were left out, and why; `searched`: the images of all but the outputs;
    `weights`: where its own are not those of the spec, if that is seen in the outputs."""

    subject: str
    located: Located
    checks: tuple[Check, ...]
    not_run: dict[str, str] = field(default_factory=dict)
    searched: Shape = ()
    weights: str = ""

    @property
    def passed(self) -> bool:
        """No difference at any level, and in none of the checks."""
        return self.located.difference is None and not failures(self.checks)

    @property
    def lines(self) -> list[str]:
        """What came out, a line each."""
        located, difference = self.located, self.located.difference
        images = f" and images of {'x'.join(map(str, self.searched))}" if self.searched else ""
        judged = "" if located.precision == "fp64" else f", as far as {located.precision} rounds"
        first = f"{', '.join(located.levels)} agree with the float64 reference on drawn weights{images}{judged}"
        if difference is not None:
            cause = f"; likely cause: {difference.cause}" if difference.cause else ""
            place = f"at layer '{difference.layer}', level {difference.level}"
            first = f"DIFFERS {place}: {difference.check.tensor}: {difference.check.text}{cause}"
        own = [f"DIFFERS in its weights: {self.weights}"] if self.weights else []
        return [
            first,
            *map(_line, self.checks),
            *own,
            *(f"not run: {what} ({why})" for what, why in self.not_run.items()),
        ]


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
    source: Path | None = None

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
        source=folder / backend / source,
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


def check(candidate: Candidate, expect: PortReference) -> Ported:
    """Whether it is the spec's network, with these weights. Raises TriptychError for one that does not run at all, with
    the line of the layer in which it fails, where that is known."""
    try:
        try:
            return _check(candidate, expect)
        except TriptychError:
            if expect.small == expect.architecture:
                raise
        return _check(candidate, expect.whole)
    except NetworkFailedError as error:
        if candidate.source is None:
            raise
        place = _place(candidate.source, error.layer, error.__cause__ or error)
        raise TriptychError(f"{place}: {error}") from error
    finally:
        gc.collect()  # the network, which a framework's hooks and closures refer to in circles
        return_large_memory()


def _check(candidate: Candidate, expect: PortReference) -> Ported:
    framework = registry.load(candidate.backend)
    expect.prepare(candidate.backend)
    with framework.precise():
        port = candidate.port(len(outputs(expect.architecture)))
        first = _own_weights(candidate, port, expect)
        return_large_memory()
        own = Own(
            candidate.name,
            lambda count: port,
            framework,
            candidate.layout,
            precision=candidate.precision,
            softmax=candidate.softmax,
            levels=WATCHED,
            run=expect.run,
        )
        compared = compare_with(own, expect.small)
        expect.run.release(training=True)
        located = replace(compared.located, notes=())
        if located.difference is not None or compared.folded:
            why = "it differs before" if located.difference is not None else "its batch norms are folded"
            return Ported(candidate.name, located, (first,), {UPDATE: why}, expect.small.input)
        update = _update(candidate, port, compared.network, expect)
        return Ported(candidate.name, located, (first, update), {}, expect.small.input)


def check_source(candidate: Candidate, expect: PortReference) -> Ported:
    """The same of a source. Frameworks have layers that compute in float32 whatever they are given: where a difference
    is as small as that, all is judged in float32. An adaptive pool has the spec's kernel on images of the network's own
    size alone: what differs on small ones is judged on those."""
    ported = check(candidate, expect)
    wrong = _failures(ported)
    if wrong and all(is_rounding(one) for one in wrong):
        ported = check(replace(candidate, precision="fp32"), expect)
    if expect.small == expect.architecture or not _failures(ported):
        return ported
    whole = check_source(candidate, expect.whole)
    return ported if _failures(whole) else whole


def _failures(ported: Ported) -> list[Check]:
    found = [] if ported.located.difference is None else [ported.located.difference.check]
    return failures([*found, *ported.checks])


def _load(source: Path, weights: Path) -> Any:
    with told(f"{weights} cannot be read"):
        open_file(weights).close()  # the framework's own reader would wait for a pipe
    try:
        return run_file(source, f"ported_{source.parent.name}").load(str(weights))
    except STRANGERS as error:
        layer = _taken_last(error, source)
        of = f" (layer '{layer}')" if layer else ""
        raise TriptychError(f"{_place(source, layer, error)}{of} cannot be loaded: {message(error)}") from error


def _taken_last(error: BaseException, source: Path) -> str:
    """The layer whose array was taken last by the function that loads the weights: it goes through their names, or the
    error says them."""
    variables = locals_in(error, str(source), source_lines.LOAD)
    keys = variables.get("keys", variables.get("name", ""))
    said = re.search(r"(?:size mismatch for |key\(s\) in state_dict: \")([\w.]+)", str(error))
    path = said[1] if said else ".".join(map(str, keys)) if isinstance(keys, tuple) else str(keys)
    return path.rpartition(".")[0]


def _place(source: Path, layer: str, error: BaseException) -> str:
    """`FILE:LINE` of the layer of this path; else the file's last line that the error went through, if it did."""
    text = ""
    with suppress(OSError, TriptychError):
        text = read_bounded(source).decode(errors="replace")
    line = (source_lines.line_of(text, layer) if layer else 0) or line_in(error, str(source))
    return f"{source}:{line}" if line else str(source)


def _own_weights(candidate: Candidate, port: TrainablePort, expect: PortReference) -> Check:
    """Its outputs in evaluation with the weights that it has, called as a user calls it, against the reference's with
    the canonical ones."""
    names = outputs(expect.architecture)
    try:
        observed = dict(zip(names, _called(port, expect), strict=True))
    except TriptychError:
        raise
    except STRANGERS as error:
        return problem(OUTPUTS, names[0], message(error))
    ends = {name: candidate.softmax for name, value in observed.items() if are_shares(value, candidate.softmax)}
    return _nearest(OUTPUTS, expect.outputs(ends), observed, candidate.precision)


def _called(port: TrainablePort, expect: PortReference) -> tuple[Array, ...]:
    """It shows its parameters on a small image, as that takes a pass with all its maps."""
    port.forget()
    port.parameters(expect.small_images)
    return port.call(expect.images)


def _update(candidate: Candidate, port: TrainablePort, network: OwnNetwork, expect: PortReference) -> Check:
    """Parameters and running statistics after steps of its framework's own SGD with momentum, from drawn weights."""
    return_large_memory()
    expected, case = expect.update(candidate.backend), expect.case
    port.parameters(case.images)  # the comparison has given the network back as it was
    port.load(network.as_its_own(case.exact))
    found = port.train(case.images, expect.cotangents, RATES)
    return _nearest(UPDATE, expected, network.as_the_spec(found), candidate.precision)


def _nearest(level: str, expected: Expected, observed: Mapping[str, Array], precision: str) -> Check:
    """The check nearest to its budget; where one exceeds a share of its tensor's scale, by the judge's own rule."""
    allowed = {name: UNPERTURBED[precision] * largest(value) for name, value in expected.exact.items()}
    checks = compare(level, expected.exact, observed, allowed)
    budgets = expected.budgets()
    while any(not one.problem for one in failures(checks)) and (more := next(budgets, None)):
        checks = compare(level, expected.exact, observed, more[precision])
    nearest = worst(checks)
    assert nearest is not None
    return nearest
