"""A difference that no fault of the catalogue explains, told by fit: the simplest step, or sum, that explains it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from triptych.conformance.compare import Arrays
from triptych.conformance.diagnosis.activation_forms import with_number
from triptych.conformance.diagnosis.alone import hypothesis_of, moves_nothing, onward, parts_of, run_alone, same
from triptych.conformance.diagnosis.field_faults import other_fields
from triptych.conformance.diagnosis.junctions import formulas
from triptych.conformance.diagnosis.norm_forms import forms
from triptych.conformance.diagnosis.one_number import OUT, searched
from triptych.conformance.diagnosis.pool_forms import pooled_otherwise
from triptych.conformance.diagnosis.relations import fitted, line, relations, simplest
from triptych.conformance.diagnosis.steps import OF_WEIGHTS, steps
from triptych.conformance.reference_run import OUTPUT, ReferenceRun
from triptych.spec.layers import (
    AvgPool,
    BatchNorm,
    Branches,
    Composite,
    Conv,
    ConvTranspose,
    Dense,
    Elementwise,
    GlobalAvgPool,
    MaxPool,
    Residual,
    Shape,
)
from triptych.spec.shapes import layer_output
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError

NEARLY = 1e-6  # of what a layer behind puts out: more is another computation, in float32, too
FROM_FLOAT = 1e-12  # of the largest value: nearer, they are the right ones
Fit = tuple[int, str, str]  # how simple, in words, and the layer to blame if it is another one
MOST = 3  # that are told of as simple ones
LARGE = 1 << 27  # of inputs times weights: such a layer is not run some hundred times


def of_output(
    run: ReferenceRun, path: str, observed: Array, budget: float, train: bool, made: Sequence[Array] | None = None
) -> list[Fit]:
    """The simplest fits of what a layer put out, several where they are as simple. `made`: all that the network puts
    out anywhere, among which may be what the layer was given; None where it was given the right input alone."""
    right, observed = run.outputs(train)[path], np.asarray(observed, np.float64)
    if right.shape != observed.shape or not np.isfinite(observed).all():
        return []
    source = "" if made is None else _source(run, path, train)
    if given := list(_of_given(run, path, observed, budget, made or (), source, train)):
        return given
    found: list[Fit] = [(cost, text, "") for cost, text in relations(right, observed, budget)]
    found += [(0, text, "") for text in _of_kind(run, path, observed, budget, train)]
    if not found:
        found += [(2, text, "") for text in searched(right, right, observed, budget, np.asarray)]
    if not found or min(found)[0] > 0:
        found += _of_arrays(run, path, observed, budget, train, source)
    return [each for each in found if each[0] == min(found)[0]]


def _of_given(
    run: ReferenceRun, path: str, observed: Array, budget: float, made: Sequence[Array], source: str, train: bool
) -> Iterator[Fit]:
    """What was done to the output of the layer before, if what came of it is seen: the layer makes of it what it put
    out, to rounding."""
    x = run.trace(train).inputs.get(path)
    if x is None or isinstance(run.layers[path], Branches | Residual):
        return
    for value in (np.asarray(value, np.float64).reshape(x.shape) for value in made if value.size == x.size):
        near = FROM_FLOAT * largest(x)
        if largest(value - x) <= near:
            continue
        with suppress(ValueError, IndexError, TriptychError), np.errstate(all="ignore"):
            if not same(run.alone(path, value, None, train)[OUTPUT], observed, budget):
                continue
            what = _between(source, path)
            allowed = max(budget, near)
            texts = [(cost, what + text) for cost, text in relations(x, value, allowed, with_factor=True)]
            if source and run.outputs(train)[source].shape == value.shape and value.ndim > 1:
                texts += [(0, text) for text in _of_kind(run, source, value, allowed, train)]
            yield from ((cost, text, source) for cost, text in texts if cost == min(texts)[0])
            if texts:
                return


def _between(source: str, path: str) -> str:
    return f"what comes from '{source}' is changed before '{path}' takes it: " if source else "of its input: "


def _of_kind(run: ReferenceRun, path: str, observed: Array, budget: float, train: bool) -> Iterator[str]:
    layer = run.layers[path]
    for other, value in run.outputs(train).items():
        if other != path and largest(value) and same(value, observed, budget):
            yield f"what '{other}' puts out is taken in its place"
    if path in run.trace(train).inputs and not isinstance(layer, get_args(Composite)):
        yield from _of_fields(run, path, observed, budget, train)
    if isinstance(layer, get_args(Elementwise)):
        yield from with_number(run.trace(train).inputs[path], run.outputs(train)[path], observed, budget)
    if isinstance(layer, BatchNorm) and path in run.trace(train).inputs:
        yield from forms(hypothesis_of(run, path, train), observed, budget)
    if isinstance(layer, AvgPool | GlobalAvgPool | MaxPool) and path in run.trace(train).inputs:
        yield from pooled_otherwise(layer, run.trace(train).inputs[path], observed, budget)
    if isinstance(layer, Residual) or (isinstance(layer, Branches) and layer.merge != "concatenate"):
        parts = parts_of(run, path, train)
        right = {"add": " + ", "multiply": " * "}["add" if isinstance(layer, Residual) else layer.merge].join(parts)
        sums = formulas(parts, observed, budget)
        yield from (f"what comes out is {text}, not {right}" for text in sums)
        yield from () if sums else _of_one_part(parts, run.outputs(train)[path], observed, budget, " + " in right)
    elif isinstance(layer, Branches):
        yield from _of_parts(parts_of(run, path, train), observed, budget)


def _of_fields(run: ReferenceRun, path: str, observed: Array, budget: float, train: bool) -> Iterator[str]:
    """Other values in the layer's record."""
    right = hypothesis_of(run, path, train)
    for text, record in other_fields(right.layer):
        with suppress(ValueError, IndexError, TriptychError), np.errstate(all="ignore"):
            if layer_output(record, right.x.shape[1:], path) == observed.shape[1:]:
                made = run_alone(replace(right, layer=record), path, None)[OUTPUT]
                if same(made, observed, budget):
                    yield text


def _of_one_part(parts: dict[str, Array], right: Array, observed: Array, budget: float, added: bool) -> Iterator[str]:
    """What one of the parts of a sum, or of a product, would have to be, explained by what it should be."""
    for name, part in parts.items():
        if part.shape != observed.shape:
            continue
        if added:
            needed = observed - (right - part)
        else:
            with np.errstate(all="ignore"):
                needed = observed * part / right
        if np.isfinite(needed).all():
            for text in simplest(relations(part, needed, max(budget, FROM_FLOAT * largest(right)), True)):
                yield f"of its part '{name}': {text}"


def _of_parts(parts: dict[str, Array], observed: Array, budget: float) -> Iterator[str]:
    """What is wrong with the parts of what is concatenated, each explained by itself or by another part."""
    places = np.cumsum([part.shape[1] for part in parts.values()])[:-1]
    texts = []
    for (name, part), seen in zip(parts.items(), np.split(observed, places, axis=1), strict=True):
        if same(part, seen, budget):
            continue
        others = [other for other, value in parts.items() if other != name and same(value, seen, budget)]
        known = [f"'{others[0]}' is in its place"] if others else simplest(relations(part, seen, budget, True))
        if not known:
            return
        texts.append(f"in the part of '{name}': {' or '.join(known[:MOST])}")
    yield "; ".join(texts)


def _source(run: ReferenceRun, path: str, train: bool) -> str:
    """The layer whose output this one takes, of one value for each channel before it was flattened; empty for the
    images."""
    given = run.trace(train).inputs.get(path)
    name = next((name for name, _ in run.nodes(train) if run.outputs(train).get(name) is given), "")
    return _source(run, name, train) if name and moves_nothing(run, name, train) else name


def _of_arrays(run: ReferenceRun, path: str, observed: Array, budget: float, train: bool, source: str) -> Iterator[Fit]:
    """The steps that, done to a layer's input or to one of its arrays, give what was observed."""
    if path not in run.trace(train).inputs or isinstance(run.layers[path], Branches | Residual):
        return
    hypothesis, right = hypothesis_of(run, path, train), run.outputs(train)[path]
    arrays = {"": hypothesis.x, **{n: v for n, v in hypothesis.values.items() if n in ("weight", "bias")}}
    if hypothesis.x.size * max(value.size for value in arrays.values()) > LARGE:
        return
    for name, value in arrays.items():
        like = value if value.ndim > 1 else value[None]

        def made_of(changed: Array, name: str = name, shape: Shape = value.shape) -> Array:
            changed = np.asarray(changed).reshape(shape)
            other = {"values": {**hypothesis.values, name: changed}} if name else {"x": changed}
            return np.asarray(run_alone(replace(hypothesis, **other), path, None)[OUTPUT])

        linear = isinstance(hypothesis.layer, Conv | ConvTranspose | Dense)
        zero = made_of(np.zeros_like(value)) if linear else np.zeros(())
        ones = made_of(np.ones_like(value)) - zero if linear else None

        def made_by(step: Callable[[Array], Array], of: Any = made_of, like: Array = like, zero: Array = zero) -> Array:
            return np.asarray(of(step(like)) - zero)

        plain = line(right - zero, observed - zero, budget, ones) if linear else None
        if plain:
            yield 0, *_blamed(name, source, path, plain, False)
        for cost, text in fitted(like, right - zero, observed - zero, budget, made_by, "", ones):
            yield cost, *_blamed(name, source, path, _of_weights(text) if name else text, cost > 1 and not linear)
        if name != "bias":
            of_values = isinstance(hypothesis.layer, get_args(Elementwise))
            for text in searched(value, right, observed, budget, made_of, of_values):
                yield 2, *_blamed(name, source, path, text, OUT in text)


def _blamed(name: str, source: str, path: str, text: str, out: bool) -> tuple[str, str]:
    """In words, and the layer that puts out what was changed, if it is the input; the layer itself where what comes
    `out` of it is changed as well."""
    if name:
        return f"of its {name}: {text}", ""
    return (f"of its input: {text}", "") if out else (_between(source, path) + text, source)


def _of_weights(text: str) -> str:
    for word, of_weight in OF_WEIGHTS.items():
        text = text.replace(word, of_weight)
    return text


def revealed(
    run: ReferenceRun, paths: Sequence[str], observed: Arrays, budget: float, made: Sequence[Array], train: bool
) -> tuple[str, Array] | None:
    """Of layers behind each other, only the last of which is seen, the first that departs and what it puts out: that
    among all that was `made` of which the layers behind it make what was seen."""
    last, outputs = paths[-1], run.outputs(train)
    for number, path in enumerate(paths[:-1]):
        right = outputs[path]
        for value in (value for value in made if value.size == right.size):
            y: Array = np.asarray(value, np.float64).reshape(right.shape)
            value = y
            if largest(value - right) <= budget:
                continue
            with suppress(ValueError, IndexError, TriptychError), np.errstate(all="ignore"):
                for before, follower in pairwise(paths[number:]):
                    y = onward(run, before, follower, y, train)
                if same(y, observed[last], budget):
                    return path, value
    return None


def contradicted(
    run: ReferenceRun, path: str, observed: Arrays, budget: float, train: bool, made: Callable[[], Sequence[Array]]
) -> str:
    """The layer directly behind another one, if it is seen and neither it nor anything else that is `made` is what it
    makes of what was taken for the other one's output; empty if one is, or if nothing can be said."""
    nodes = [name for name, _ in run.nodes(train)]
    behind = next(iter(nodes[nodes.index(path) + 1 :]), "") if path in nodes else ""
    if behind not in observed or isinstance(run.layers[behind], Branches | Residual):
        return ""
    with suppress(ValueError, IndexError, TriptychError), np.errstate(all="ignore"):
        # In any order: of a port with the channels last, where a value is wrong its order is not known either.
        y = np.sort(onward(run, path, behind, observed[path], train), None)

        def agrees(value: Array) -> bool:
            return value.size == y.size and same(y, np.sort(value, None), NEARLY * max(budget, largest(y)))

        # What was taken for the layer behind may be a step of it as well: the sigmoid of x * sigmoid(x).
        return "" if agrees(observed[behind]) or any(map(agrees, made())) else behind
    return ""


def through(
    run: ReferenceRun, paths: Sequence[str], observed: Array, budget: float, train: bool
) -> list[tuple[str, str]]:
    """The steps that, done to what a layer of `paths` puts out that cannot be seen, give what the last one does, and
    that layer; those of the first layer of which there are any."""
    for number, path in enumerate(paths[:-1]):
        right, found = run.outputs(train)[path], []
        for text, step in steps(right.ndim):
            with suppress(ValueError, IndexError, TriptychError), np.errstate(all="ignore"):
                y = step(right)
                if y.shape != right.shape or same(y, right, budget):
                    continue
                for before, follower in pairwise(paths[number:]):
                    y = onward(run, before, follower, y, train)
                if same(y, observed, budget):
                    found.append((text, path))
        if found:
            return found[:MOST]
    return []
