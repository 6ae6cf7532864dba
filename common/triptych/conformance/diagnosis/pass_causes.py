"""The likely cause of a difference that no layer alone shows: in the loss, a whole pass, an optimiser's step."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import product

import numpy as np
from scipy.special import log_softmax, softmax

from triptych.backend.targets import Labels
from triptych.conformance.compare import Arrays, Check
from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.causes import (
    NONE,
    Cause,
    looks_like,
    of_layer,
)
from triptych.conformance.diagnosis.faults import IMAGE_FAULTS
from triptych.conformance.diagnosis.update_faults import take_steps, update_faults
from triptych.conformance.reference_run import ReferenceRun, layer_of, parameter_of
from triptych.conformance.updates import labelled
from triptych.reference.loss import cross_entropy
from triptych.spec.kinds.layer_pass import all_but_channels
from triptych.spec.layers import BatchNorm
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError
from triptych.utils.shelf import Shelf

FACTORS = (0.1, 0.2, 0.25, 0.5, 2.0, 4.0, 5.0, 10.0, 16.0, 30.0, 64.0)  # of logits


def of_loss(run: ReferenceRun, observed: Arrays, budget: float, precision: str) -> Cause:
    """Of the loss of the right logits."""
    for text, layer, arrays in _losses(run):
        gradients = arrays if precision == "fp64" else {}
        if same(arrays["loss"], observed["loss"], budget) and all(
            name in observed and same(value, observed[name], 1e-12 * max(1.0, largest(value)))
            for name, value in gradients.items()
        ):
            return Cause(text, layer)
    return _auxiliary_weight(run, observed["loss"]) or Cause(
        looks_like({name: (value, observed[name], budget) for name, value in run.loss().items()})
    )


def _losses(run: ReferenceRun) -> Iterator[tuple[str, str, dict[str, Array]]]:
    right = run.loss()
    yield from _scaled(right, len(run.case.stored))
    labels = run.case.targets
    if isinstance(labels, tuple):
        return
    yield "softmax is applied twice", "", _softmax_twice(run, labels)
    yield "log-softmax is taken over the batch, not the classes", "", _over_the_batch(run, labels)
    for factor in FACTORS:
        text = f"the logits are multiplied by {factor:g} (a temperature of {1 / factor:g})"
        yield text, "", _scaled_logits(run, labels, factor)
    for path, (weight, logits) in run.ran(True).auxiliary.items():
        loss, _ = cross_entropy(logits, labels)
        main = {"loss": right["loss"] - weight * loss, path: np.zeros_like(right[path])}
        yield "the auxiliary classifier's loss is missing", path, {**right, **main}


def _scaled(right: Arrays, batch: int) -> Iterator[tuple[str, str, dict[str, Array]]]:
    """A loss, or its gradients, with the batch size a factor too many."""
    for text, factor in (
        (f"constant factor {batch}: the loss is summed over the batch, not averaged", float(batch)),
        (f"constant factor 1/{batch}: the loss is divided by the batch size twice", 1 / batch),
    ):
        yield text, "", {name: factor * value for name, value in right.items()}


def _softmax_twice(run: ReferenceRun, labels: Labels) -> dict[str, Array]:
    total, gradients = 0.0, {}
    for path, (weight, logits) in run.heads.items():
        shares = softmax(logits, axis=-1)
        loss, gradient = cross_entropy(shares, labels)
        total += weight * loss
        gradients[path] = weight * shares * (gradient - (gradient * shares).sum(1, keepdims=True))
    return {"loss": np.asarray(total), **gradients}


def _over_the_batch(run: ReferenceRun, labels: Labels) -> dict[str, Array]:
    total, gradients = 0.0, {}
    for path, (weight, logits) in run.heads.items():
        chosen = np.eye(logits.shape[1])[labels]
        total += weight * float((chosen * -log_softmax(logits, axis=0)).sum()) / len(labels)
        gradients[path] = weight * (softmax(logits, axis=0) * chosen.sum(0) - chosen) / len(labels)
    return {"loss": np.asarray(total), **gradients}


def _scaled_logits(run: ReferenceRun, labels: Labels, factor: float) -> dict[str, Array]:
    total, gradients = 0.0, {}
    for path, (weight, logits) in run.heads.items():
        loss, gradient = cross_entropy(factor * logits, labels)
        total += weight * loss
        gradients[path] = weight * factor * gradient
    return {"loss": np.asarray(total), **gradients}


def _auxiliary_weight(run: ReferenceRun, loss: Array) -> Cause | None:
    """Another weight of the only auxiliary classifier explains any loss; a round one is named."""
    auxiliary = run.ran(True).auxiliary
    labels = run.case.targets
    if len(auxiliary) != 1 or isinstance(labels, tuple):
        return None
    ((path, (weight, logits)),) = auxiliary.items()
    unweighted, _ = cross_entropy(logits, labels)
    wrong = weight + float(loss - run.gradients["loss"]) / unweighted
    if abs(wrong - round(wrong, 3)) > 1e-6:
        return None
    return Cause(f"the auxiliary classifier's loss is weighted by {wrong:g}, not {weight:g}", path)


def of_gradient(run: ReferenceRun, check: Check, observed: Arrays, alone: bool) -> Cause:
    """Of a whole backward pass. `alone`: every layer agrees by itself, so only what it is given can be wrong."""
    right = run.gradients
    if check.problem or check.tensor not in observed:
        return NONE
    names = [name for name in right if name in observed and observed[name].shape == right[name].shape]
    budget = max(check.budget, 1e-12)
    for text, layer, gradients in _other_gradients(run):
        budgets = {name: budget * max(1.0, largest(gradients[name])) for name in names}
        if all(same(gradients[name], observed[name], allowed) for name, allowed in budgets.items()):
            return Cause(text, layer)
    if check.tensor == "loss" and (weight := _auxiliary_weight(run, observed["loss"])):
        return weight
    layer = layer_of(check.tensor)
    if not alone and layer in run.trace(True).inputs and layer in run.layers:
        arrays = {name: value for name, value in observed.items() if layer_of(name) == layer}
        cause = of_layer(run, layer, arrays, dict.fromkeys(arrays, check.budget), True, True)
        if cause.text:
            return cause
    return Cause(looks_like({name: (right[name], observed[name], budget) for name in names}))


def _other_gradients(run: ReferenceRun) -> Iterator[tuple[str, str, Arrays]]:
    """Whole backward passes of the reference, each with one fault that no layer alone can show."""
    case, masks = run.case, run.case.masks(0)
    yield from _scaled(run.gradients, len(case.stored))
    for path, mask in masks.items():
        kept = {**masks, path: np.ones_like(mask)}
        yield "nothing is dropped in training", path, run.backward(run.parameters, case.images, kept)
    for text, make in IMAGE_FAULTS:
        with suppress(ValueError, TriptychError):
            yield text, "", run.backward(run.parameters, make(case.images), masks)


def of_update(run: ReferenceRun, name: str, observed: Arrays, failed: list[Check]) -> Cause:
    """Of an optimiser's steps or of running statistics."""
    if all(check.problem and check.tensor.startswith("velocity") for check in failed):
        return Cause("there is no velocity: no momentum")
    failed = [check for check in failed if not check.problem]
    if not failed:
        return NONE
    first = failed[0]
    if parameter_of(first.tensor).rpartition(".")[2] in ("running_mean", "running_var"):
        batches = (run.trace(True).inputs, run.second_inputs)
        return of_statistics(run, parameter_of(first.tensor), first, observed, batches)
    budgets = {check.tensor: check.budget for check in failed if check.tensor in observed}
    for text, wrong in update_faults(run, name):
        arrays = labelled(name, Shelf.of(take_steps(run, wrong)))
        if all(same(value, observed[n], budgets.get(n, first.budget)) for n, value in arrays.items() if n in observed):
            return Cause(text)
    return NONE


def of_statistics(run: ReferenceRun, path: str, check: Check, observed: Arrays, batches: Sequence[Arrays]) -> Cause:
    """One running statistic after batches (what every layer is given, by path), with other momenta and another
    count."""
    layer = run.layers[layer_of(path)]
    assert isinstance(layer, BatchNorm)
    momenta = dict.fromkeys((layer.momentum, 1 - layer.momentum, 0.1, 0.9, 0.01, 0.99, 0.001, 0.0, 1.0))
    for momentum, unbiased in product(momenta, (layer.unbiased, not layer.unbiased)):
        value = _statistics(run, path, replace(layer, momentum=momentum, unbiased=unbiased), batches)
        if same(value, observed[check.tensor], check.budget):
            return Cause(_statistics_text(layer, momentum, unbiased))
    twice = [batch for batch in batches for _ in range(2)]
    if same(_statistics(run, path, layer, twice), observed[check.tensor], check.budget):
        return Cause("they are updated twice in a pass: it is run again (a checkpoint, or a second call)")
    return NONE


def _statistics(run: ReferenceRun, path: str, layer: BatchNorm, batches: Sequence[Arrays]) -> Array:
    """What `layer` in place of the right one keeps after these batches."""
    values = run.parameters[path]
    for inputs in batches:
        x = inputs[layer_of(path)]
        n, mean = x.size // x.shape[1], path.endswith("running_mean")
        batch = x.mean(all_but_channels(x)) if mean else x.var(all_but_channels(x))
        factor = n / (n - 1) if layer.unbiased and not mean and n > 1 else 1.0
        values = (1 - layer.momentum) * values + layer.momentum * factor * batch
    return values


def _statistics_text(layer: BatchNorm, momentum: float, unbiased: bool) -> str:
    texts = []
    if momentum in (0.0, 1.0) and momentum != layer.momentum:
        kept = "they do not move" if not momentum else "they are the last batch's, or their mean (momentum=None)"
        texts.append(f"the momentum is {momentum:g}, not {layer.momentum:g}: {kept}")
    elif momentum == 1 - layer.momentum != layer.momentum:
        texts.append(f"momentum {layer.momentum:g} is taken for the weight of the old statistics, not of the batch's")
    elif momentum != layer.momentum:
        texts.append(f"the momentum is {momentum:g}, not {layer.momentum:g}")
    if unbiased != layer.unbiased:
        kept, right = ("unbiased", "biased") if unbiased else ("biased", "unbiased")
        texts.append(f"the running variance is kept {kept}, not {right}")
    return " and ".join(texts)
