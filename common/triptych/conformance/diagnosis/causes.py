"""The likely cause of a difference: the one fault of the catalogue with which the reference reproduces it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice, pairwise

import numpy as np

from triptych.conformance import inputs
from triptych.conformance.compare import Arrays, Check
from triptych.conformance.diagnosis.alone import hypothesis_of, onward, parts_of, run_alone, same
from triptych.conformance.diagnosis.faults import FAULTS, other_merges, other_sums
from triptych.conformance.diagnosis.field_faults import other_fields
from triptych.conformance.diagnosis.fits import of_output
from triptych.conformance.diagnosis.hypothesis import Fault, Hypothesis
from triptych.conformance.diagnosis.relations import ANY_ORDER, by_channel
from triptych.conformance.diagnosis.weight_faults import KEPT
from triptych.conformance.reference_run import OUTPUT, ReferenceRun, layer_of
from triptych.data.preprocess import apply_reference
from triptych.spec.layers import ELU, BatchNorm, Branches, Dropout, LeakyReLU, Residual, Shape, join
from triptych.spec.shapes import layer_output
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError


@dataclass(frozen=True)
class Cause:
    """What explains a difference, in words, and the layer that is to blame if not the one that showed it."""

    text: str = ""
    layer: str = ""
    vague: bool = False  # describes the difference, and names no fault
    others: tuple[str, ...] = ()  # faults that explain it as well

    def __bool__(self) -> bool:
        return bool(self.text)


NONE = Cause()
ROUNDINGS = 1e-3  # of the largest value: what rounding to 11 bits (TF32) makes in a layer
UNRELATED = 0.3  # of the cosine between a difference and the values
ROUNDED = "it differs by no more than rounding of a lower precision"
BOUNDED = "its output is bounded at"
REORDERED = "the same values in another order"
FACTOR = "constant factor"
UNTOLD = (ROUNDED, REORDERED)  # what a fit may say more of
BY_SHAPE = " (as its shape has it)"  # ends a cause that the values did not tell
BY_VALUE = 1e-4  # of the largest value, in float32, too: shapes leave few faults to be told apart
MOST = 3  # causes that are named where several explain a difference


def is_told(text: str) -> bool:
    """Whether a cause says more than that the values stand in some other order."""
    return bool(text) and not text.startswith((*UNTOLD, ANY_ORDER, FACTOR))


def of_shape(
    run: ReferenceRun, path: str, observed: Shape | None, value: Array | None = None, train: bool = True
) -> str:
    """The faults in the record of `path` that give the observed output shape; those that give the observed `value`, if
    one is there and any does."""
    if observed is None or path not in run.trace(train).inputs:
        return ""
    texts, told = [], []
    for text, fault, hypothesis in _hypotheses(hypothesis_of(run, path, train), path):
        with suppress(TriptychError, ValueError, IndexError):
            if fault.result and value is not None:
                made = fault.result(hypothesis, run_alone(hypothesis, path, None)[OUTPUT])
                told += [text] * (made is not None and same(made, value, BY_VALUE * largest(made)))
            if not fault.result and layer_output(hypothesis.layer, hypothesis.x.shape[1:], path) == observed:
                texts.append(text)
                if value is None:
                    continue
                made = run_alone(hypothesis, path, None)[OUTPUT]
                if same(made, value, BY_VALUE * largest(made)):
                    told.append(text)
    if not texts and not told:
        layer, size = run.layers[path], run.trace(train).inputs[path].shape[1:]
        for text, record in other_fields(layer):
            with suppress(TriptychError, ValueError, IndexError):
                if layer_output(record, size, path) == observed:
                    texts.append(text)
                    made = run_alone(replace(hypothesis_of(run, path, train), layer=record), path, None)[OUTPUT]
                    told += [text] * (value is not None and same(made, value, BY_VALUE * largest(made)))
    if told:
        return " or ".join(islice(dict.fromkeys(told), MOST))
    return f"{' or '.join(islice(dict.fromkeys(texts), MOST))}{BY_SHAPE}" if texts else ""


def _hypotheses(
    right: Hypothesis, path: str, parameters: Arrays | None = None
) -> Iterator[tuple[str, Fault, Hypothesis]]:
    """Every fault that can be made in this layer, in words, and the layer with it."""
    for fault in (*FAULTS.get(type(right.layer), ()), *_shared_weights(parameters or {}, path, right)):
        with suppress(ValueError, LookupError):  # a fault that does not fit this layer
            hypothesis = fault.change(right)
            if hypothesis is not None:
                yield fault.text.format(wrong=hypothesis.layer, right=right.layer), fault, hypothesis


def _results(run: ReferenceRun, path: str, train: bool, backward: bool) -> Iterator[tuple[str, Arrays]]:
    """Every fault that can be made in this layer, with what the reference computes then."""
    gradient = run.trace(train).arriving.get(path) if backward else None
    for text, fault, hypothesis in _hypotheses(hypothesis_of(run, path, train), path, run.parameters):
        with suppress(ValueError, IndexError, TriptychError):  # a fault that does not fit this layer
            arrays = run_alone(hypothesis, path, gradient)
            output = fault.result(hypothesis, arrays[OUTPUT]) if fault.result else arrays[OUTPUT]
            if output is not None:
                yield text, {OUTPUT: output} if fault.result else arrays


def _shared_weights(parameters: Arrays, path: str, right: Hypothesis) -> Iterator[Fault]:
    """The weights of another layer of the same shape in place of its own."""
    weight = parameters.get(join(path, "weight"))
    for name, value in parameters.items():
        other = layer_of(name)
        if weight is not None and name.endswith(".weight") and other != path and value.shape == weight.shape:
            values = {k: parameters.get(join(other, k), v) for k, v in right.values.items()}
            if len(right.values) > 1:
                yield Fault(f"it has the parameters of '{other}'", partial(replace, values=values))
            one = {**right.values, "weight": value}
            yield Fault(f"it has the weight of '{other}'", partial(replace, values=one))
        bias = right.values.get("bias")
        if bias is not None and name.endswith(".bias") and other != path and value.shape == bias.shape:
            yield Fault(f"it has the bias of '{other}'", partial(replace, values={**right.values, "bias": value}))


def of_layer(
    run: ReferenceRun, path: str, observed: Arrays, budgets: Mapping[str, float], train: bool, backward: bool
) -> Cause:
    """Of one layer alone: the catalogue's faults, else what the difference itself looks like."""
    layer, names = run.layers[path], [name for name in budgets if name in observed]
    right = run.layer(path, train, backward)

    def texts() -> Iterator[str]:
        if OUTPUT in names and isinstance(layer, Branches | Residual):
            yield _of_junction(run, path, layer, observed[OUTPUT], budgets[OUTPUT], train)
        for text, arrays in _results(run, path, train, backward):
            if names and all(name in arrays and same(arrays[name], observed[name], budgets[name]) for name in names):
                yield text
        if OUTPUT in names:
            yield bound_of(right[OUTPUT], observed[OUTPUT], budgets[OUTPUT])
        if isinstance(layer, ELU | LeakyReLU) and OUTPUT in names:
            yield _of_slope(layer, right[OUTPUT], observed[OUTPUT], budgets[OUTPUT])
        if isinstance(layer, BatchNorm) and OUTPUT in names and not train:
            yield _of_eps(hypothesis_of(run, path, train), observed[OUTPUT])
        if isinstance(layer, Dropout) and OUTPUT in names:
            yield _of_mask(run.trace(train).inputs[path], observed[OUTPUT], layer.rate, train)

    if named_faults := list(islice(dict.fromkeys(filter(None, texts())), MOST)):
        first, *others = named_faults
        return Cause(first, others=tuple(text for text in others if text not in first))
    seen = {name: (right[name], observed[name], budgets[name]) for name in names if name in right}
    return Cause(looks_like(seen), vague=True)


def by_fit(
    run: ReferenceRun,
    path: str,
    observed: Array,
    budget: float,
    train: bool,
    known: Cause,
    made: Sequence[Array] | None = None,
) -> Cause:
    """What no fault of the catalogue explains, told by fit; `known`: what was found, which stays if it says as much;
    `made`: see `fits.of_output`."""
    right = run.outputs(train).get(path)
    if right is None or (known and not (known.vague and known.text.startswith(UNTOLD))):
        return known
    fits = of_output(run, path, observed, budget, train, made)
    if fits:
        (_, text, layer), *others = sorted(fits, key=lambda fit: fit[0])
        return Cause(text, layer, others=tuple(dict.fromkeys(fit[1] for fit in others[: MOST - 1])))
    return known or Cause(by_channel(right, observed, budget), vague=True)


def of_parameter(run: ReferenceRun, expected: Arrays, path: str, observed: Array) -> str:
    """The fault in a parameter itself that makes the observed values of the expected ones."""
    layer, _, name = path.rpartition(".")
    values = {key.rpartition(".")[2]: value for key, value in expected.items() if layer_of(key) == layer}
    right = replace(hypothesis_of(run, layer, train=True), values=values)
    for text, _, hypothesis in _hypotheses(right, layer, expected):
        if name in hypothesis.values and np.array_equal(hypothesis.values[name], observed):
            return text
    value = np.asarray(expected[path], np.float64)
    with np.errstate(all="ignore"):  # the root of a negative number explains nothing
        for text, of in KEPT:
            if same(of(value), np.asarray(observed, np.float64), 1e-6 * largest(observed)):
                return f"it is {text}"
    return _pattern(value, np.asarray(observed, np.float64), 1e-6 * largest(value))


def of_data(run: ReferenceRun, failed: list[Check], observed: Arrays) -> str:
    """The fault in the images' way to the network, told from the transform of an evaluation."""
    transform, stored = inputs.transform_of(run.case), inputs.stored_images(run.case)
    budgets = {check.tensor: check.budget for check in failed if not check.problem}
    if "evaluation" not in budgets:
        planned = any(name.startswith("batch ") for name in budgets)
        return "only what a batch plan adds is wrong: order, crop or flip" if planned else ""
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


def of_hidden(run: ReferenceRun, paths: list[str], check: Check, observed: Arrays, train: bool) -> Cause:
    """The first of these."""
    return next(hidden_causes(run, paths, check, observed, train), NONE)


def hidden_causes(run: ReferenceRun, paths: list[str], check: Check, observed: Arrays, train: bool) -> Iterator[Cause]:
    """The faults in one layer of `paths` that explain what comes out behind the last of them, the others right."""
    if check.problem:
        return
    for number, path in enumerate(paths):
        for text, output in _wrong_outputs(run, path, train):
            y = output
            with suppress(ValueError, IndexError, TriptychError), np.errstate(all="ignore"):  # of a fault's NaN
                for before, follower in pairwise(paths[number:]):
                    y = onward(run, before, follower, y, train)
                if same(y, observed[check.tensor], check.budget):
                    yield Cause(text, path)


def _wrong_outputs(run: ReferenceRun, path: str, train: bool) -> Iterator[tuple[str, Array]]:
    """What a layer puts out with each fault that can be made in it; a merge of another kind, or one of its inputs."""
    layer, outputs = run.layers[path], run.outputs(train)
    yield from ((text, arrays[OUTPUT]) for text, arrays in _results(run, path, train, backward=False))
    yield from _one_input(run, path, train)
    if isinstance(layer, Branches):
        yield from other_merges(layer, list(parts_of(run, path, train).values()))
    if isinstance(layer, Residual):
        body, shortcut = outputs[join(path, layer.body.name)], parts_of(run, path, train)["shortcut"]
        yield from other_sums(layer, body, shortcut, outputs[path])  # scales that are fitted are right here


def _one_input(run: ReferenceRun, path: str, train: bool) -> Iterator[tuple[str, Array]]:
    """What a merge hands on if there is only one of its inputs, with what to say of it."""
    layer, outputs = run.layers[path], run.outputs(train)
    if isinstance(layer, Branches):
        yield from ((f"only branch '{b.name}' is taken", outputs[join(path, b.name)]) for b in layer.branches)
    if isinstance(layer, Residual):
        block = layer.shortcut
        yield "the shortcut is missing", layer.scale * outputs[join(path, layer.body.name)]
        shortcut = run.trace(train).inputs[path] if block is None else outputs[join(path, block.name)]
        yield "only the shortcut is taken", shortcut


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
    run: ReferenceRun, path: str, layer: Branches | Residual, observed: Array, budget: float, train: bool
) -> str:
    outputs = run.outputs(train)
    tries: Iterable[tuple[str, Array]] = ()
    if isinstance(layer, Branches):
        tries = other_merges(layer, [outputs[join(path, branch.name)] for branch in layer.branches])
    elif observed.shape == (body := outputs[join(path, layer.body.name)]).shape:
        block = layer.shortcut
        shortcut = run.trace(train).inputs[path] if block is None else outputs[join(path, block.name)]
        tries = other_sums(layer, body, shortcut, observed)
    return next((text for text, value in tries if same(value, observed, budget)), "")


def _is_random(right: Array, difference: Array) -> bool:
    """Whether a difference has no part in proportion to the values, as an eps or a factor makes one."""
    lengths = float(np.linalg.norm(right) * np.linalg.norm(difference))
    return abs(float((right * difference).sum())) < UNRELATED * lengths


def bound_of(right: Array, observed: Array, budget: float) -> str:
    """Where values are cut off above or below, in words; empty where they are not, or not only."""
    if right.shape != observed.shape or not np.isfinite(observed).all():
        return ""
    low, high = float(observed.min()), float(observed.max())
    if high - low <= budget:
        return ""  # constant: nothing of the values is left, bounded or not
    if largest(np.clip(right, low, high) - observed) > budget:
        return ""
    if largest(right - observed) <= budget:
        return ""
    if high < right.max() - budget:
        return f"{BOUNDED} {high:.6g}"
    return f"{BOUNDED} {low:.6g}" + (": an activation follows, a ReLU, or one that bounds what is larger" * (not low))


def _of_eps(right: Hypothesis, observed: Array) -> str:
    """Any eps that explains all channels of a batch norm in evaluation, to three figures."""
    values, x = right.values, right.x
    if x.shape != observed.shape or not {"running_mean", "running_var"} <= values.keys():
        return ""
    shape = (1, -1, *[1] * (x.ndim - 2))
    ones = np.ones_like(values["running_mean"])
    gamma, beta, mean = (
        v.reshape(shape) for v in (values.get("weight", ones), values.get("bias", 0 * ones), values["running_mean"])
    )
    numerator, shifted = gamma * (x - mean), observed - beta
    axes = (0, *range(2, x.ndim))
    with np.errstate(all="ignore"):
        squares = (numerator * numerator).sum(axes) / (numerator * shifted).sum(axes)
        found = squares**2 - values["running_var"]
    eps = float(np.median(found))
    if not np.isfinite(found).all() or eps < 0 or np.ptp(found) > 1e-2 * eps or abs(eps / right.layer.eps - 1) < 1e-3:
        return ""
    return f"eps is {eps:.3g}, not {right.layer.eps:g}"


def _of_slope(layer: ELU | LeakyReLU, right: Array, observed: Array, budget: float) -> str:
    """Any factor of what is below 0, to four figures."""
    below = right < 0
    energy = float((right[below] ** 2).sum())
    if right.shape != observed.shape or not energy:
        return ""
    factor = float((right[below] * observed[below]).sum()) / energy
    if not same(np.where(below, factor * right, right), observed, budget):
        return ""
    name, value = ("alpha", layer.alpha) if isinstance(layer, ELU) else ("the slope", layer.slope)
    digits = 4 if abs(factor - 1) > 1e-3 else 10
    return f"{name} is {factor * value:.{digits}g}, not {value:.{digits}g}"


def looks_like(arrays: Mapping[str, tuple[Array, Array, float]]) -> str:
    """What can be said of a difference that no fault of the catalogue explains."""
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
        return f"{FACTOR} {factor:.6g}"
    if 0 < largest(observed - right) <= ROUNDINGS * largest(right) and _is_random(right, observed - right):
        return f"{ROUNDED} would (float32, TF32)"
    if right.ndim > 1 and same(np.sort(right, axis=None), np.sort(observed, axis=None), budget):
        return REORDERED
    return ""
