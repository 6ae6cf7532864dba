"""The likely cause of a difference that no layer alone shows: in the loss, a whole pass, an optimiser's step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from triptych.conformance.compare import Check
from triptych.conformance.diagnosis.causes import NONE, Cause, looks_like, of_layer, run, same, trial_of
from triptych.conformance.diagnosis.faults import IMAGE_MISTAKES
from triptych.conformance.diagnosis.update_faults import updates_with_mistakes
from triptych.conformance.diagnosis.weight_faults import softmax
from triptych.conformance.reference_run import OUTPUT, Arrays, Truth, layer_of, parameter_of
from triptych.reference import network as reference
from triptych.reference.layers import Array, cross_entropy, largest
from triptych.spec.layers import Auxiliary, BatchNorm, Dropout, join
from triptych.utils.errors import TriptychError


def of_loss(truth: Truth, observed: Arrays, budget: float) -> Cause:
    """Of the loss of the right logits."""
    found = float(np.asarray(observed.get("loss", np.nan)))
    for text, layer, arrays in _losses(truth):
        if same(np.asarray(arrays["loss"]), np.asarray(found), budget) and all(
            name in observed and same(value, np.asarray(observed[name]), 1e-12 * max(1.0, largest(value)))
            for name, value in arrays.items()
            if truth.precision == "fp64"
        ):
            return Cause(text, layer)
    return _auxiliary_weight(truth, found) or Cause(
        looks_like({name: (value, np.asarray(observed[name]), budget) for name, value in truth.loss().items()})
    )


def _losses(truth: Truth) -> Iterator[tuple[str, str, dict[str, Array]]]:
    right, batch = truth.loss(), len(truth.case.labels)
    for text, factor in (
        (f"constant factor {batch}: the loss is summed over the batch, not averaged", float(batch)),
        (f"constant factor 1/{batch}: the loss is divided by the batch size twice", 1 / batch),
    ):
        yield text, "", {name: factor * np.asarray(value) for name, value in right.items()}
    yield "softmax is applied twice", "", _softmax_twice(truth)
    for path in truth.logits:
        if isinstance(truth.layers[path], Auxiliary):
            main = {name: value for name, value in right.items() if name != path}
            loss, _ = cross_entropy(truth.logits[path], truth.case.labels)
            weight = truth.trained[0].auxiliary[path][0]
            main["loss"] = right["loss"] - weight * loss
            yield "the side classifier's loss is missing", path, {**main, path: np.zeros_like(right[path])}


def _softmax_twice(truth: Truth) -> dict[str, Array]:
    weights = {path: weight for path, (weight, _) in truth.trained[0].auxiliary.items()}
    found: dict[str, Array] = {"loss": np.asarray(0.0)}
    for path, logits in truth.logits.items():
        shares = softmax(logits)
        loss, gradient = cross_entropy(shares, truth.case.labels)
        weight = weights.get(path, 1.0)
        found["loss"] = found["loss"] + weight * loss
        found[path] = weight * shares * (gradient - (gradient * shares).sum(1, keepdims=True))
    return found


def _auxiliary_weight(truth: Truth, loss: float) -> Cause | None:
    """Another weight of the only side classifier explains any loss; it is named where the weight is a round number."""
    auxiliary = truth.trained[0].auxiliary
    if len(auxiliary) != 1:
        return None
    ((path, (weight, logits)),) = auxiliary.items()
    side, _ = cross_entropy(logits, truth.case.labels)
    wrong = weight + (loss - float(truth.trained[2]["loss"])) / side
    if abs(wrong - round(wrong, 3)) > 1e-6:
        return None
    return Cause(f"the side classifier's loss is weighted by {wrong:g}, not {weight:g}", path)


def of_pass(truth: Truth, phase: str, check: Check, observed: Arrays, alone: bool) -> Cause:
    """Of a whole pass. `alone`: every layer agrees by itself, so only what it is given can be wrong."""
    if check.problem or check.name not in observed:
        return NONE
    train = phase != "forward eval"
    if phase == "backward":
        return _of_whole_gradient(truth, check, observed, alone)
    found = NONE
    if not alone or isinstance(truth.layers[check.name], BatchNorm | Dropout):  # these two depend on the mode
        found = of_layer(truth, check.name, {OUTPUT: observed[check.name]}, {OUTPUT: check.budget}, train, False)
    return found if found.text and not found.vague else _of_images(truth, check, observed, train) or found


def _of_images(truth: Truth, check: Check, observed: Arrays, train: bool) -> Cause:
    trace = (truth.trained if train else truth.evaluated)[1]
    if trace.inputs[check.name].shape != truth.case.images.shape or not np.array_equal(
        trace.inputs[check.name], truth.case.images
    ):
        return NONE
    right = trial_of(truth, check.name, train)
    for text, make in IMAGE_MISTAKES:
        try:
            found = run(replace(right, x=make(right.x)), check.name, None)[OUTPUT]
        except (ValueError, TriptychError):
            continue
        if same(found, observed[check.name], check.budget):
            return Cause(text)
    return NONE


def _of_whole_gradient(truth: Truth, check: Check, observed: Arrays, alone: bool) -> Cause:
    names = [
        name for name in truth.trained[2] if name in observed and observed[name].shape == truth.trained[2][name].shape
    ]
    budget = max(check.budget, 1e-12)
    for layer, text, gradients in _other_gradients(truth):
        if all(
            same(gradients[name], np.asarray(observed[name]), budget * max(1.0, largest(gradients[name])))
            for name in names
        ):
            return Cause(text, layer)
    if check.name == "loss" and (weight := _auxiliary_weight(truth, float(np.asarray(observed["loss"])))):
        return weight
    layer = layer_of(check.name)
    if not alone and layer in truth.trained[1].inputs and layer in truth.layers:
        arrays = {name: value for name, value in observed.items() if layer_of(name) == layer}
        own = dict.fromkeys(arrays, check.budget)
        found = of_layer(truth, layer, arrays, own, True, True)
        if found.text:
            return found
    right = truth.trained[2]
    return Cause(looks_like({name: (right[name], np.asarray(observed[name]), budget) for name in names}))


def _other_gradients(truth: Truth) -> Iterator[tuple[str, str, Arrays]]:
    """Whole backward passes of the reference, each with one mistake that no layer alone can show."""
    case = truth.case
    batch = len(case.labels)
    right = truth.trained[2]
    for factor, text in (
        (float(batch), f"constant factor {batch}: the loss is summed over the batch, not averaged"),
        (1 / batch, f"constant factor 1/{batch}: the loss is divided by the batch size twice"),
    ):
        yield "", text, {name: factor * np.asarray(value) for name, value in right.items()}
    for path, mask in case.masks(0).items():
        yield path, "nothing is dropped in training", _whole(truth, masks={path: np.ones_like(mask) * True})
    for text, make in IMAGE_MISTAKES:
        try:
            yield "", text, _whole(truth, images=make(case.images))
        except (ValueError, TriptychError):
            continue


def _whole(truth: Truth, *, masks: Mapping[str, Any] | None = None, images: Array | None = None) -> Arrays:
    case = truth.case
    run = reference.forward(
        case.architecture,
        truth.given,
        case.images if images is None else images,
        train=True,
        masks={**case.masks(0), **(masks or {})},
    )
    loss, gradients = reference.backward(run, case.labels)
    return {**gradients, "loss": np.asarray(loss)}


def of_update(truth: Truth, name: str, observed: Arrays, failed: list[Check]) -> Cause:
    """Of an optimiser's steps or of running statistics."""
    if all(check.problem and check.name.startswith("velocity") for check in failed):
        return Cause("there is no velocity: no momentum")
    failed = [check for check in failed if not check.problem]
    if not failed:
        return NONE
    first = failed[0]
    if parameter_of(first.name).rpartition(".")[2] in ("running_mean", "running_var"):
        return _of_statistics(truth, first, observed)
    budgets = {check.name: check.budget for check in failed if check.name in observed}
    for text, arrays in updates_with_mistakes(truth, name):
        if all(same(value, observed[n], budgets.get(n, first.budget)) for n, value in arrays.items() if n in observed):
            return Cause(text)
    return NONE


def _of_statistics(truth: Truth, check: Check, observed: Arrays) -> Cause:
    """The running statistics after two batches, with other momenta and another count."""
    path, name = parameter_of(check.name).rpartition(".")[::2]
    layer = truth.layers[path]
    assert isinstance(layer, BatchNorm)
    for momentum in dict.fromkeys((layer.momentum, 1 - layer.momentum, 0.1, 0.9, 0.01, 0.99, 0.0, 1.0)):
        for unbiased in (layer.unbiased, not layer.unbiased):
            wrong = replace(layer, momentum=momentum, unbiased=unbiased)
            value = _statistics(truth, path, name, wrong)
            if same(value, observed[check.name], check.budget):
                return Cause(_statistics_text(layer, momentum, unbiased))
    return NONE


def _statistics(truth: Truth, path: str, name: str, layer: BatchNorm) -> Array:
    """What `layer` in place of the right one keeps after the batches of the update phase."""
    values = truth.given[join(path, name)]
    for x in (truth.trained[1].inputs[path], truth.second.inputs[path]):
        n = x.size // x.shape[1]
        batch = x.mean((0, 2, 3)) if name == "running_mean" else x.var((0, 2, 3))
        factor = n / (n - 1) if layer.unbiased and name == "running_var" and n > 1 else 1.0
        values = (1 - layer.momentum) * values + layer.momentum * factor * batch
    return values


def _statistics_text(layer: BatchNorm, momentum: float, unbiased: bool) -> str:
    texts = []
    if momentum == 1 - layer.momentum != layer.momentum:
        texts.append(f"momentum {layer.momentum:g} is taken for the weight of the old statistics, not of the batch's")
    elif momentum != layer.momentum:
        texts.append(f"the momentum is {momentum:g}, not {layer.momentum:g}")
    if unbiased != layer.unbiased:
        kept, right = ("unbiased", "biased") if unbiased else ("biased", "unbiased")
        texts.append(f"the running variance is kept {kept}, not {right}")
    return " and ".join(texts)
