"""The likely cause of a difference: the one mistake of the catalogue with which the reference reproduces it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from triptych.conformance import inputs
from triptych.conformance.compare import Check
from triptych.conformance.diagnosis.faults import (
    MISTAKES,
    branch_orders,
    residual_scale,
)
from triptych.conformance.diagnosis.hypothesis import Mistake, Trial
from triptych.conformance.reference_run import OUTPUT, Arrays, Truth, layer_of, maps_before_flatten, named
from triptych.data.preprocess import apply_reference
from triptych.reference import network as reference
from triptych.reference.layers import Array, largest
from triptych.spec.layers import Branches, Dropout, Layer, Residual, Shape, join
from triptych.spec.shapes import layer_output
from triptych.utils.errors import TriptychError


@dataclass(frozen=True)
class Cause:
    """What explains a difference, in words, and the layer that is to blame if not the one that showed it."""

    text: str = ""
    layer: str = ""
    vague: bool = False  # describes the difference, and names no mistake

    def __bool__(self) -> bool:
        return bool(self.text)


NONE = Cause()


def same(value: Array, observed: Array, budget: float) -> bool:
    """Equal within the budget of the right value, which grows with a larger wrong one."""
    if value.shape != observed.shape or not np.isfinite(value).all():
        return False
    return largest(value - observed) <= budget * max(1.0, largest(value))


def of_shape(truth: Truth, path: str, observed: Shape | None) -> str:
    """The mistake in the record of `path` that gives the observed output shape."""
    layer = truth.layers.get(path)
    if layer is None or observed is None or path not in truth.trained[1].inputs:
        return ""
    for mistake in MISTAKES.get(type(layer), ()):
        trial = mistake.change(trial_of(truth, path, train=True))
        if trial is None or mistake.result is not None:
            continue
        try:
            if layer_output(trial.layer, trial.x.shape[1:], path) == observed:
                return _text(mistake, trial.layer, layer)
        except TriptychError:
            continue
    return ""


def _text(mistake: Mistake, wrong: Layer, right: Layer) -> str:
    return mistake.text.format(wrong=wrong, right=right)


def trial_of(truth: Truth, path: str, train: bool) -> Trial:
    """The layer at `path` as the reference is about to run it."""
    trace = (truth.trained if train else truth.evaluated)[1]
    values = {name.rpartition(".")[2]: v for name, v in truth.given.items() if layer_of(name) == path}
    mask = truth.case.masks(0).get(path)
    flattened = maps_before_flatten(truth.case.architecture).get(path)
    return Trial(truth.layers[path], values, trace.inputs[path], train, mask, flattened)


def _results(truth: Truth, path: str, train: bool, backward: bool) -> Iterator[tuple[str, Arrays]]:
    """Every mistake that can be made in this layer, with what the reference computes then."""
    right = trial_of(truth, path, train)
    gradient = (truth.trained if train else truth.evaluated)[1].arriving.get(path) if backward else None
    for mistake in (*MISTAKES.get(type(right.layer), ()), *_shared_weights(truth.given, path, right)):
        trial = mistake.change(right)
        if trial is None:
            continue
        try:
            found = run(trial, path, gradient)
            if mistake.result is not None:
                made = mistake.result(trial, found[OUTPUT])
                if made is None:
                    continue
                found = {OUTPUT: made}
        except (ValueError, IndexError, TriptychError):  # a mistake that does not fit this layer
            continue
        yield _text(mistake, trial.layer, right.layer), found


def run(trial: Trial, path: str, gradient: Array | None) -> dict[str, Array]:
    """The trial's layer alone."""
    values = {join(path, name): value for name, value in trial.values.items()}
    masks = {} if trial.mask is None else {path: trial.mask}
    with np.errstate(all="ignore"):  # a mistake may make a NaN, the root of a mean that was taken for a variance
        made = reference.layer_pass(trial.layer, path, values, trial.x, gradient, train=trial.train, masks=masks)
    return named(made)


def _shared_weights(given: Arrays, path: str, right: Trial) -> Iterator[Mistake]:
    """The weights of another layer of the same shape in place of its own."""
    weight = given.get(join(path, "weight"))
    for name, value in given.items():
        other = layer_of(name)
        if weight is not None and name.endswith(".weight") and other != path and value.shape == weight.shape:
            values = {k: given.get(join(other, k), v) for k, v in right.values.items()}
            yield Mistake(f"it has the parameters of '{other}'", partial(replace, values=values))
            one = {**right.values, "weight": value}
            yield Mistake(f"it has the weight of '{other}'", partial(replace, values=one))


def of_layer(
    truth: Truth, path: str, observed: Arrays, budgets: Mapping[str, float], train: bool, backward: bool
) -> Cause:
    """Of one layer alone: the catalogue's mistakes, else what the difference itself looks like."""
    layer = truth.layers[path]
    names = [name for name in budgets if name in observed]
    right = truth.kept_layer(path, train, backward)
    if OUTPUT in names and isinstance(layer, Branches | Residual):
        found = _of_junction(truth, path, layer, observed[OUTPUT], budgets[OUTPUT], train)
        if found:
            return Cause(found)
    for text, arrays in _results(truth, path, train, backward):
        if names and all(name in arrays and same(arrays[name], observed[name], budgets[name]) for name in names):
            return Cause(text)
    if isinstance(layer, Dropout) and OUTPUT in names:
        trace = (truth.trained if train else truth.evaluated)[1]
        if text := _of_mask(trace.inputs[path], observed[OUTPUT], layer.rate, train):
            return Cause(text)
    seen = {name: (right[name], observed[name], budgets[name]) for name in names if name in right}
    return Cause(looks_like(seen), vague=True)


def of_parameter(truth: Truth, given: Arrays, path: str, observed: Array) -> str:
    """The mistake in a parameter itself that makes the observed values of those `given`."""
    layer, _, name = path.rpartition(".")
    own = {key.rpartition(".")[2]: value for key, value in given.items() if layer_of(key) == layer}
    right = replace(trial_of(truth, layer, train=True), values=own)
    for mistake in (*MISTAKES.get(type(right.layer), ()), *_shared_weights(given, layer, right)):
        try:
            trial = mistake.change(right)
        except (ValueError, IndexError):
            continue
        if trial is not None and name in trial.values and np.array_equal(trial.values[name], observed):
            return _text(mistake, trial.layer, right.layer)
    value = np.asarray(given[path], np.float64)
    return _pattern(value, np.asarray(observed, np.float64), 1e-6 * largest(value))


def of_data(truth: Truth, failed: list[Check], observed: Arrays) -> str:
    """The mistake in the images' way to the network, told from the transform of an evaluation."""
    transform, stored = inputs.transform_of(truth.case), inputs.stored_images(truth.case)
    budgets = {check.name: check.budget for check in failed if not check.problem}
    if "evaluation" not in budgets:
        return "only what a batch plan adds is wrong: order, crop or flip" if budgets else ""
    tries = (
        ("the colours are in reverse order (BGR for RGB)", stored[:, ::-1], transform),
        ("mean and deviation are swapped", stored, replace(transform, mean=transform.std, std=transform.mean)),
        ("the images are not normalised", stored, replace(transform, mean=(), std=())),
        ("the images are mirrored", stored[..., ::-1], transform),
    )
    for text, images, wrong in tries:
        value = np.asarray(apply_reference(images, wrong), np.float64)
        if same(value, observed["evaluation"], budgets["evaluation"]):
            return text
    return ""


def of_chain(
    truth: Truth, path: str, followers: list[tuple[str, Layer]], observed: Array, budget: float, train: bool
) -> str:
    """The mistake in `path` that explains what comes out behind its `followers`, which are right."""
    parent = path.rpartition(".")[0]
    layers = (truth.layers[path], *(layer for _, layer in followers))
    simple = all(not isinstance(layer, Branches | Residual) for layer in layers)
    if not simple or any(name.rpartition(".")[0] != parent for name, _ in followers):
        return ""
    for text, arrays in _results(truth, path, train, backward=False):
        y = arrays[OUTPUT]
        try:
            for name, layer in followers:
                y, _, _ = reference.layer_pass(layer, name, truth.given, y, train=train, masks=truth.case.masks(0))
        except (ValueError, IndexError, TriptychError):
            continue
        if same(y, observed, budget):
            return text
    return ""


def _of_mask(x: Array, observed: Array, rate: float, train: bool) -> str:
    """What a dropout layer that is not right has kept, and by what it has scaled it."""
    if x.shape != observed.shape:
        return ""
    known = np.abs(x) > 1e-6 * largest(x)
    ratios = observed[known] / x[known]
    kept = ratios[ratios != 0]
    if not kept.size or np.ptp(kept) > 1e-6 * abs(kept[0]):
        return ""
    scale = f"what is kept is scaled by {kept[0]:.6g}"
    if not train:
        return f"dropout is active in evaluation: {1 - kept.size / ratios.size:.0%} is dropped, {scale}"
    return f"{scale}, not {1 / (1 - rate):.6g}: as at a rate of {1 - 1 / kept[0]:.6g}"


def _of_junction(
    truth: Truth, path: str, layer: Branches | Residual, observed: Array, budget: float, train: bool
) -> str:
    run, trace = (truth.trained if train else truth.evaluated)[:2]
    if isinstance(layer, Branches):
        tries = branch_orders(layer, [run.outputs[join(path, branch.name)] for branch in layer.branches])
    else:
        body = run.outputs[join(path, layer.body.name)]
        block = layer.shortcut
        shortcut = trace.inputs[path] if block is None else run.outputs[join(path, block.name)]
        if observed.shape != body.shape:
            return ""
        tries = [
            ("the shortcut is missing", layer.scale * body),
            residual_scale(layer, body, shortcut, observed),
        ]
    return next((text for text, value in tries if same(value, observed, budget)), "")


def looks_like(arrays: Mapping[str, tuple[Array, Array, float]]) -> str:
    """What can be said of a difference that no mistake of the catalogue explains."""
    texts = set()
    for name, (right, observed, budget) in arrays.items():
        if right.shape != observed.shape or not np.isfinite(observed).all():
            return ""
        texts.add(_pattern(right, observed, budget) or name)
    return texts.pop() if len(texts) == 1 and not texts & set(arrays) else ""


def _pattern(right: Array, observed: Array, budget: float) -> str:
    energy = float((right * right).sum())
    factor = float((right * observed).sum() / energy) if energy else 0.0
    if not largest(observed):
        return "it is zero everywhere"
    if same(factor * right, observed, budget):
        return f"constant factor {factor:.6g}"
    if largest(observed - right) <= 1e-4 * largest(right):
        return "it differs by rounding of a lower precision (float32 or TF32 in between)"
    if right.ndim > 1 and same(np.sort(right, axis=None), np.sort(observed, axis=None), budget):
        return "the same values in another order"
    return ""
