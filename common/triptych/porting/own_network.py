"""Bring your own port: somebody's network against an architecture of the zoo, layer by layer.

Its parameters are paired with the spec's, it is given the spec's values, and each operation that it runs is set
beside the layer it corresponds to. Dropout is off on both sides, and side classifiers are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from triptych.backend import registry
from triptych.backend.contract import Array, Port, PortRun
from triptych.backend.execution import exact
from triptych.conformance.case import make_case
from triptych.conformance.compare import Check
from triptych.conformance.comparison import BATCH, Comparison, Difference, Result
from triptych.conformance.diagnosis import causes
from triptych.conformance.reference_run import INPUT, OUTPUT, Arrays, Truth, layer_of, maps_before_flatten
from triptych.conformance.subjects import ReferenceSide, exact_arithmetic
from triptych.porting.align import align
from triptych.porting.discover import find_adapter
from triptych.spec import analysis
from triptych.spec.layers import Architecture, Auxiliary, Block, Branches, Dropout, Layer, Residual
from triptych.utils.errors import TriptychError, unknown
from triptych.weights.matching import pair, read_mapping

LAYOUTS = ("NCHW", "NHWC")
PHASES = ("structure", "forward eval", "forward train", "backward")
NOT_RUN = {
    "dropout": "switched off on both sides: a port draws its own masks",
    "update": "a port brings no optimiser",
}
NO_HEADS = {"side classifiers": "left out on both sides"}


def locate_port(
    candidate: Any,
    architecture: Architecture,
    *,
    name: str = "port",
    layout: str | None = None,
    mapping: Path | Mapping[str, str] | None = None,
    precision: str = "fp64",
    seed: int = 0,
) -> Result:
    """The first layer, and the phase, at which a network departs from `architecture` (as `triptych locate` does).

    `candidate`: a `torch.nn.Module`, a Gluon block, a Flax NNX or Linen module, or `(function, parameters)` with a JAX
    function of parameters and images. Images have the architecture's shape. `layout` is that of the images it
    takes: NHWC by default in JAX, NCHW elsewhere. `mapping`: its parameters' names to the spec's paths, where order and
    shape do not tell. Raises TriptychError for what cannot be compared.
    """
    if layout not in (None, *LAYOUTS):
        raise unknown("layout", layout, LAYOUTS)
    found = find_adapter(candidate)
    if found is None:
        raise TriptychError(
            f"a {type(candidate).__name__} is no network of {', '.join(registry.installed())}; expected a module or "
            "block of theirs, or (function, parameters)"
        )
    plain = without_dropout(architecture)
    truth = Truth(make_case(plain, seed, BATCH), precision)
    names, taken = read_mapping(mapping), layout or "its default layout"
    try:
        with exact_arithmetic(registry.load(found[0])):
            port = found[1].Port(candidate, layout, exact(precision))
            work = _Work(name, port, truth, names)
            taken = port.layout
            difference = work.find()
    except TriptychError:
        raise
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise TriptychError(
            f"'{name}' failed on images {truth.images.shape} as {taken}: {type(error).__name__}: {first}"
        ) from error
    heads = any(isinstance(layer, Auxiliary) for layer in architecture.layers)
    not_run = NOT_RUN | NO_HEADS if heads else NOT_RUN
    return Result(
        name, plain.name, plain.name, "accumulated", precision, PHASES, difference, not_run, tuple(work.notes)
    )


def without_dropout(architecture: Architecture) -> Architecture:
    """The architecture with dropout at rate 0 and without side classifiers."""

    def off(layer: Any) -> Any:
        match layer:
            case Dropout():
                return replace(layer, rate=0.0)
            case Block():
                return replace(layer, layers=tuple(map(off, layer.layers)))
            case Branches():
                return replace(layer, branches=tuple(map(off, layer.branches)))
            case Residual():
                shortcut = None if layer.shortcut is None else off(layer.shortcut)
                return replace(layer, body=off(layer.body), shortcut=shortcut)
        return layer

    layers = tuple(off(layer) for layer in architecture.layers if not isinstance(layer, Auxiliary))
    return replace(architecture, layers=layers)


class _Work:
    """One port on one truth."""

    def __init__(self, name: str, port: Port, truth: Truth, mapping: Mapping[str, str]) -> None:
        self.name = name
        self.port = port
        self.truth = truth
        self.mapping = mapping
        self.notes: list[str] = []
        side = ReferenceSide(truth)
        self.compare = Comparison(side, side, truth)  # only for its budgets
        self.permuted: dict[str, Callable[[Array], Array]] = {}

    def find(self) -> Difference | None:
        """The first difference, phase by phase."""
        infos = analysis.parameters(self.truth.case.architecture)
        own = self.port.parameters(self.truth.images)
        self.notes.append(f"images given as {self.port.layout}; {len(own)} parameters")
        self.pairs, wrong = pair(own, infos, self.mapping)
        if wrong is not None:
            return Difference(layer_of(wrong.name), "structure", wrong, (self.name,))
        self.load()
        evaluated = self.port.run(self.truth.images, train=False)
        found = self.forward(evaluated, "forward eval")
        if found is not None and (better := self.other_flatten(found)) is not None:
            evaluated, found = better
            if found is None:
                found = self.forward(evaluated, "forward eval")
        if found is not None:
            return found
        cotangent = self.truth.trained[1].arriving[self.truth.case.architecture.layers[-1].name]
        trained = self.port.run(self.truth.images, train=True, cotangent=cotangent)
        return self.forward(trained, "forward train") or self.backward(trained)

    def load(self) -> None:
        """Give the network the case's parameters."""
        values = self.truth.given
        made = {path: self.permuted[path](value) if path in self.permuted else value for path, value in values.items()}
        self.port.load({name: made[path] for path, name in self.pairs.items()})

    def other_flatten(self, found: Difference) -> tuple[PortRun, Difference | None] | None:
        """Try the first dense layer with its columns in height-width-channels order, if that is where they part."""
        maps = maps_before_flatten(self.truth.case.architecture)
        order = list(self.truth.layers)
        for path, shape in maps.items():
            near = order[max(0, order.index(path) - 2) : order.index(path) + 1]
            if found.layer not in near:
                continue
            channels, rows, columns = shape

            def to_hwc(w: Array, channels: int = channels, rows: int = rows, columns: int = columns) -> Array:
                return w.reshape(len(w), channels, rows, columns).transpose(0, 2, 3, 1).reshape(len(w), -1)

            self.permuted[f"{path}.weight"] = to_hwc
            self.load()
            run = self.port.run(self.truth.images, train=False)
            better = self.forward(run, "forward eval")
            if better is None or order.index(better.layer) > order.index(path):
                self.notes.append(
                    f"flattens height-width-channels: the columns of '{path}' were permuted for it (NCHW weights "
                    "do not fit this network as they are)"
                )
                return run, better
            del self.permuted[f"{path}.weight"]
            self.load()
        return None

    def observed(self, run: PortRun, train: bool) -> dict[str, int]:
        """The index of the captured operation by path of the layer."""
        nodes = list(self.truth.nodes(train))
        outputs = (self.truth.trained if train else self.truth.evaluated)[0].outputs
        return align([(path, type(layer).__name__, outputs[path].shape) for path, layer in nodes], run.captured)

    def value(self, run: PortRun, path: str, index: int, expected: Array) -> Array:
        """A captured output as the spec has it."""
        value = run.captured[index].value
        if path in self.flatten_of_permuted() and value.shape == expected.shape:
            channels, rows, columns = self.flatten_of_permuted()[path]
            value = value.reshape(-1, rows, columns, channels).transpose(0, 3, 1, 2).reshape(expected.shape)
        return value.reshape(expected.shape) if value.size == expected.size else value

    def flatten_of_permuted(self) -> dict[str, tuple[int, ...]]:
        """The flatten layers, and dropouts behind them, whose output comes in another order, with the map's shape."""
        maps, order = maps_before_flatten(self.truth.case.architecture), list(self.truth.layers)
        found: dict[str, tuple[int, ...]] = {}
        for name in self.permuted:
            dense = layer_of(name)
            for path in reversed(order[: order.index(dense)]):
                if len(self.truth.evaluated[0].outputs[path].shape) != 2:
                    break
                found[path] = maps[dense]
        return found

    def forward(self, run: PortRun, phase: str) -> Difference | None:
        """Outputs in the order of execution."""
        train = phase == "forward train"
        truth = self.truth
        outputs = (truth.trained if train else truth.evaluated)[0].outputs
        seen = self.observed(run, train)
        found = {path: self.value(run, path, index, outputs[path]) for path, index in seen.items()}
        last = truth.case.architecture.layers[-1].name
        found[last] = run.logits
        failed = self.failures(phase, {path: outputs[path] for path in outputs if path in found}, found, train)
        if not failed:
            return None
        check = failed[0]
        gap = self.gap(check.name, seen, train)
        cause = self.explain(gap, check, found[check.name], train)
        note = ""
        if len(gap) > 1 and not cause.layer:
            note = f"{', '.join(gap[:-1])} cannot be seen from outside: it is one of these or {gap[-1]}"
        if check.problem.startswith("has the shape"):
            shape = found[check.name].shape[1:]
            text = next((text for path in gap if (text := causes.of_shape(truth, path, shape))), "")
            return Difference(cause.layer or gap[-1], "structure", check, (self.name,), text, note)
        return Difference(cause.layer or gap[0], phase, check, (self.name,), cause.text, note)

    def failures(self, phase: str, expected: Arrays, found: Arrays, train: bool) -> list[Check]:
        """Against the reference, with its budgets."""
        truth = self.truth
        return self.compare.failures(phase, expected, found, expected, lambda: truth.perturbed_forward(train))

    def gap(self, path: str, seen: Mapping[str, int], train: bool) -> list[str]:
        """The layers between the last that was seen to agree and `path`, with it."""
        nodes = [name for name, _ in self.truth.nodes(train)]
        place = nodes.index(path)
        start = place
        while start and nodes[start - 1] not in seen:
            start -= 1
        return nodes[start : place + 1]

    def explain(self, gap: list[str], check: Check, observed: Array, train: bool) -> causes.Cause:
        """A mistake in one layer of the gap, the others right."""
        truth = self.truth
        if check.problem:
            return causes.NONE
        for number, path in enumerate(gap):
            followers: list[tuple[str, Layer]] = [(name, truth.layers[name]) for name in gap[number + 1 :]]
            text = causes.of_chain(truth, path, followers, observed, check.budget, train)
            if text:
                return causes.Cause(text, path)
        if len(gap) == 1:
            return causes.of_layer(truth, gap[0], {OUTPUT: observed}, {OUTPUT: check.budget}, train, False)
        return causes.NONE

    def backward(self, run: PortRun) -> Difference | None:
        """Gradients, the last layer's first: what arrives at each output, then the layer's own parameters."""
        truth = self.truth
        trace = truth.trained[1]
        seen = self.observed(run, train=True)
        own = {name: path for path, name in self.pairs.items()}
        gradients = {own[name]: self.back(own[name], value) for name, value in run.gradients.items()}
        expected: dict[str, Array] = {}
        found: dict[str, Array] = {}
        wanted = truth.trained[2]
        for path, _ in reversed(list(truth.nodes(True))):
            arrived = run.captured[seen[path]].gradient if path in seen else None
            skip = path in self.flatten_of_permuted()
            if arrived is not None and not skip and arrived.size == trace.arriving[path].size:
                expected[_at(path)] = trace.arriving[path]
                found[_at(path)] = arrived.reshape(trace.arriving[path].shape)
            for name in wanted:
                if layer_of(name) == path and name not in ("input", "loss"):
                    expected[name] = wanted[name]
                    if name in gradients:
                        found[name] = gradients[name]
        expected[INPUT] = wanted["input"]
        if run.input_gradient is not None:
            found[INPUT] = run.input_gradient
        failed = self.compare.failures("backward", expected, found, expected, self.perturbed_backward)
        if not failed:
            return None
        check = failed[0]
        layer = self.blamed(check.name, seen)
        return Difference(layer, "backward", check, (self.name,))

    def perturbed_backward(self) -> list[Arrays]:
        """Parameters' and arriving gradients in perturbed executions."""
        runs: list[Arrays] = []
        for run, trace, gradients in self.truth.perturbed_traces():
            del run
            runs.append({**gradients, **{_at(path): value for path, value in trace.arriving.items()}})
        return runs

    def blamed(self, name: str, seen: Mapping[str, int]) -> str:
        """Whose work a gradient is: a parameter's own layer, and for one that arrives the layer behind."""
        nodes = [path for path, _ in self.truth.nodes(True)]
        if name == INPUT:
            return nodes[0]
        if not name.startswith(_at("")):
            return layer_of(name)
        path = name.removeprefix(_at(""))
        return nodes[min(nodes.index(path) + 1, len(nodes) - 1)]

    def back(self, path: str, gradient: Array) -> Array:
        """A gradient with the columns in the spec's order again."""
        if path not in self.permuted:
            return gradient
        channels, rows, columns = maps_before_flatten(self.truth.case.architecture)[layer_of(path)]
        count = len(gradient)
        return gradient.reshape(count, rows, columns, channels).transpose(0, 3, 1, 2).reshape(count, -1)


def _at(path: str) -> str:
    return f"gradient at the output of {path}"
