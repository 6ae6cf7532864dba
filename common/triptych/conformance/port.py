"""Bring your own port: somebody's network against an architecture of the zoo, layer by layer.

Its parameters are paired with the spec's, it is given the spec's values, and each operation that it runs is set
beside the layer it corresponds to. Dropout is off on both sides, and side classifiers are left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from triptych import analysis, backend
from triptych.conformance import causes
from triptych.conformance.align import align
from triptych.conformance.case import make_case
from triptych.conformance.comparator import Check
from triptych.conformance.locate import BATCH, Comparison, Difference, Result
from triptych.conformance.sides import ReferenceSide
from triptych.conformance.truth import INPUT, OUTPUT, Arrays, Truth, layer_of, maps_before_flatten
from triptych.errors import TriptychError, unknown
from triptych.ports import Array, Port, PortAdapter, PortParameter, PortRun
from triptych.runtime import prepare_process
from triptych.spec import Architecture, Auxiliary, Block, Branches, Dropout, Layer, Residual

LAYOUTS = ("NCHW", "NHWC")
PHASES = ("structure", "forward eval", "forward train", "backward")
NOT_RUN = {
    "dropout": "switched off on both sides: a port draws its own masks",
    "update": "a port brings no optimiser",
}


def find(reference: str) -> Any:
    """The network that `module:name` stands for: an object there, or what a function or class without arguments
    makes. Raises TriptychError, with the reason, if there is none."""
    place, _, name = reference.partition(":")
    module = _import(place, reference)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise unknown(f"name in '{place}'", name, known)
    found = getattr(module, name)
    if _adapter(found) is not None or not callable(found):
        return found
    required = [
        p.name
        for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    if required:
        raise TriptychError(
            f"'{reference}' needs arguments ({', '.join(required)}): name something that builds the network "
            "without any; for a plain function that is one that returns (function, parameters)"
        )
    try:
        return found()
    except Exception as error:
        raise TriptychError(f"'{reference}' failed: {type(error).__name__}: {error}") from error


def _import(place: str, reference: str) -> Any:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", reference):
        raise TriptychError(f"'{reference}' is not module:name, for example my_package.models:build_torch")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    prepare_process()
    try:
        spec = importlib.util.find_spec(place)
        if spec is None:
            raise TriptychError(f"there is no module '{place}' (looked in {os.getcwd()} and sys.path)")
        _prepare_frameworks(spec.origin)
        return importlib.import_module(place)
    except TriptychError:
        raise
    except Exception as error:
        raise TriptychError(f"module '{place}' cannot be imported: {type(error).__name__}: {error}") from error


def _prepare_frameworks(origin: str | None) -> None:
    """Load the backends whose framework a file mentions first: they settle what an import needs."""
    text = Path(origin).read_text(errors="replace") if origin and origin.endswith(".py") else ""
    for name in backend.installed():
        if re.search(rf"\b{re.escape(backend.BACKENDS[name].requires)}\b", text):
            backend.load(name)


def _adapter(candidate: Any) -> tuple[str, PortAdapter] | None:
    """The backend whose framework a network belongs to, and its `port` module."""
    roots = {kind.__module__.partition(".")[0] for kind in type(candidate).__mro__}
    names = backend.installed()
    likely = [name for name in names if backend.BACKENDS[name].requires in roots]
    for name in likely or (names if isinstance(candidate, tuple) else []):
        backend.load(name)
        adapter = cast(PortAdapter, importlib.import_module(f"{backend.BACKENDS[name].package}.port"))
        if adapter.matches(candidate):
            return name, adapter
    return None


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
    found = _adapter(candidate)
    if found is None:
        raise TriptychError(
            f"a {type(candidate).__name__} is no network of {', '.join(backend.installed())}; expected a module or "
            "block of theirs, or (function, parameters)"
        )
    plain = without_dropout(architecture)
    truth = Truth(make_case(plain, seed, BATCH), precision)
    port = found[1].Port(candidate, layout, precision)
    work = _Work(name, port, truth, _read(mapping))
    try:
        difference = work.find()
    except TriptychError:
        raise
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else ""
        raise TriptychError(
            f"'{name}' failed on images {truth.images.shape} as {port.layout}: {type(error).__name__}: {first}"
        ) from error
    return Result(
        name, plain.name, plain.name, "accumulated", precision, PHASES, difference, NOT_RUN, tuple(work.notes)
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


def _read(mapping: Path | Mapping[str, str] | None) -> dict[str, str]:
    if not isinstance(mapping, Path):
        return dict(mapping or {})
    try:
        content = json.loads(mapping.read_text())
    except OSError as error:
        raise TriptychError(f"cannot read the mapping {mapping}: {error.strerror}") from None
    except ValueError as error:
        raise TriptychError(f"the mapping {mapping} is not JSON: {error}") from None
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise TriptychError(f"the mapping {mapping} must be an object of names: {{'your.name': 'spec.path'}}")
    return content


def pair(
    own: Sequence[PortParameter], infos: Sequence[analysis.ParameterInfo], mapping: Mapping[str, str]
) -> tuple[dict[str, str], Check | None]:
    """The port's name by canonical path, and the first parameter that has no partner, as a failed check.

    By the order of use, where shapes and roles agree in it; by shape where that is unique; and where neither tells by
    `mapping`. Raises TriptychError if it is ambiguous, or if the mapping names what is not there.
    """
    names = {parameter.name: parameter for parameter in own}
    paths = {info.path: info for info in infos}
    for name, path in mapping.items():
        if name not in names:
            raise unknown("parameter of your network in the mapping", name, names)
        if path not in paths:
            raise unknown("parameter of the spec in the mapping", path, paths)
    if len(set(mapping.values())) < len(mapping):
        raise TriptychError("the mapping gives one parameter of the spec to two of your network")
    pairs = {path: name for name, path in mapping.items()}
    left = [parameter for parameter in own if parameter.name not in mapping]
    wanted = [info for info in infos if info.path not in pairs]
    if _same_multiset(left, wanted):
        return pairs | _by_shape(left, wanted), _first_wrong_shape(pairs, names, paths)
    return pairs, _first_unpaired(left, wanted) or _first_wrong_shape(pairs, names, paths)


def _role(path: str) -> str:
    return path.rpartition(".")[2]


def _keys(left: Sequence[PortParameter], wanted: Sequence[analysis.ParameterInfo]) -> tuple[list[Any], list[Any]]:
    """What must agree: the shape, and the role wherever the port's parameters all tell theirs."""
    told = all(parameter.role for parameter in left)
    return (
        [(p.shape, p.role if told else "") for p in left],
        [(i.shape, _role(i.path) if told else "") for i in wanted],
    )


def _same_multiset(left: Sequence[PortParameter], wanted: Sequence[analysis.ParameterInfo]) -> bool:
    one, other = _keys(left, wanted)
    return Counter(one) == Counter(other)


def _by_shape(left: Sequence[PortParameter], wanted: Sequence[analysis.ParameterInfo]) -> dict[str, str]:
    one, other = _keys(left, wanted)
    by_key: dict[Any, list[str]] = {}
    for key, parameter in zip(one, left, strict=True):
        by_key.setdefault(key, []).append(parameter.name)
    in_order = sorted(one, key=str) == sorted(other, key=str) and _layer_order(one) == _layer_order(other)
    for key, info in zip(other, wanted, strict=True):
        if not in_order and len(by_key[key]) > 1:
            raise TriptychError(
                f"it is ambiguous which parameter is '{info.path}' {info.shape}: {', '.join(by_key[key][:4])} have its "
                "shape, and their order is not the spec's; say it in a JSON file with --mapping"
            )
    return {info.path: by_key[key].pop(0) for key, info in zip(other, wanted, strict=True)}


def _layer_order(keys: Sequence[Any]) -> list[Any]:
    """The weights in their order; within a layer, frameworks order biases and statistics differently."""
    return [key for key in keys if len(key[0]) > 1]


def _first_unpaired(left: Sequence[PortParameter], wanted: Sequence[analysis.ParameterInfo]) -> Check | None:
    one, other = _keys(left, wanted)
    missing = Counter(other) - Counter(one)
    for key, info in zip(other, wanted, strict=True):
        if missing[key]:
            near = next((p for p in left if len(p.shape) == len(key[0]) and p.role == _role(info.path)), None)
            surplus = Counter(one) - Counter(other)
            spare = [p.shape for k, p in zip(one, left, strict=True) if surplus[k] and len(p.shape) == len(key[0])]
            problem = f"the spec has {info.shape}, your network " + (
                f"{spare[0]} in its place" if spare and near else "nothing of this shape left"
            )
            return _structural(info.path, problem)
    for key, parameter in zip(one, left, strict=True):
        if (Counter(one) - Counter(other))[key]:
            return _structural(parameter.name, f"your network has {parameter.shape}, the spec nothing of this shape")
    return None


def _first_wrong_shape(
    pairs: Mapping[str, str], names: Mapping[str, PortParameter], paths: Mapping[str, analysis.ParameterInfo]
) -> Check | None:
    for path, info in paths.items():
        if path in pairs and names[pairs[path]].shape != info.shape:
            return _structural(path, f"the spec has {info.shape}, '{pairs[path]}' has {names[pairs[path]].shape}")
    return None


def _structural(name: str, problem: str) -> Check:
    return Check("structure", name, float("inf"), 0.0, 0.0, problem)


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


__all__ = ["Architecture", "find", "locate_port", "np", "pair", "without_dropout"]
