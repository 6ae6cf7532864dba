"""The likely cause of a difference in a forward pass, told from the layers around the one that shows it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np

from triptych.conformance.compare import Arrays, Check
from triptych.conformance.diagnosis.alone import hypothesis_of, run_alone, same
from triptych.conformance.diagnosis.causes import (
    NONE,
    Cause,
    bound_of,
    hidden_causes,
    of_hidden,
    of_layer,
)
from triptych.conformance.diagnosis.faults import IMAGE_FAULTS
from triptych.conformance.reference_run import OUTPUT, ReferenceRun
from triptych.spec.layers import BatchNorm, Branches, Conv, Dense, Dropout, Residual, join
from triptych.utils.arrays import Array, largest
from triptych.utils.errors import TriptychError

SHAPED = 1e-9  # of the largest value: what is compared where a shape is wrong, and no budget known
MOST_CHANNELS, MOST_EQUATIONS = 4, 20_000  # of images whose change is fitted


def of_forward(run: ReferenceRun, check: Check, observed: Arrays, train: bool, alone: bool) -> Cause:
    """Of a whole forward pass. `alone`: every layer agrees by itself, so only what it is given can be wrong."""
    path, cause = check.tensor, NONE
    if check.problem or path not in observed:
        return NONE
    if not alone or isinstance(run.layers[path], BatchNorm | Dropout):  # these two depend on the mode
        cause = of_layer(run, path, {OUTPUT: observed[path]}, {OUTPUT: check.budget}, train, False)
    return cause if cause.text and not cause.vague else _of_images(run, check, observed, train) or cause


def _of_images(run: ReferenceRun, check: Check, observed: Arrays, train: bool) -> Cause:
    if not np.array_equal(run.trace(train).inputs[check.tensor], run.case.images):
        return NONE
    right = hypothesis_of(run, check.tensor, train)
    for text, make in IMAGE_FAULTS:
        with suppress(ValueError, TriptychError):
            output = run_alone(replace(right, x=make(right.x)), check.tensor, None)[OUTPUT]
            if same(output, observed[check.tensor], check.budget):
                return Cause(text)
    return _of_normalised(run, check, observed[check.tensor], train)


def _of_normalised(run: ReferenceRun, check: Check, observed: Array, train: bool) -> Cause:
    """A first layer that is linear tells by which factors and sums for each channel its images were changed."""
    layer, x = run.layers[check.tensor], run.case.images
    right = run.outputs(train)[check.tensor]
    if not isinstance(layer, Conv | Dense) or x.shape[1] > MOST_CHANNELS or observed.shape != right.shape:
        return NONE
    zero = run.alone(check.tensor, np.zeros_like(x), None, train)[OUTPUT]
    columns = []
    for images in (x, np.ones_like(x)):
        for channel in range(x.shape[1]):
            alone = np.zeros_like(x)
            alone[:, channel] = images[:, channel]
            columns.append((run.alone(check.tensor, alone, None, train)[OUTPUT] - zero).ravel())
    design, target = np.stack(columns, axis=1), (observed - zero).ravel()
    kept = slice(None, None, max(1, target.size // MOST_EQUATIONS))
    fitted, *_ = np.linalg.lstsq(design[kept], target[kept], rcond=None)
    if not same((zero.ravel() + design @ fitted).reshape(observed.shape), observed, 1e-9 * check.scale):
        return NONE
    factors, sums = np.split(fitted, 2)
    said = ", ".join(f"{factor:.4g} x + {shift:.4g}" for factor, shift in zip(factors, sums, strict=True))
    return Cause(f"the images are normalised (again) in the network: by channel {said}")


def of_bound_before(run: ReferenceRun, check: Check, observed: Arrays, made: Sequence[Array], train: bool) -> Cause:
    """What a layer is given is cut off behind the one that puts it out; `made`: what the network puts out anywhere."""
    path, outputs = check.tensor, run.outputs(train)
    if path not in run.trace(train).inputs or path not in observed or isinstance(run.layers[path], Residual):
        return NONE  # in whose branch an activation in place would look so
    x = run.trace(train).inputs[path]
    source = next((name for name, _ in run.nodes(train) if outputs[name] is x), "")
    for value in made if source else ():
        text = bound_of(x, value, 1e-9 * largest(x)) if value.shape == x.shape else ""
        with suppress(ValueError, IndexError, TriptychError):
            if text and same(run.alone(path, value, None, train)[OUTPUT], observed[path], check.budget):
                return Cause(text, source)
    return NONE


def of_another_source(run: ReferenceRun, path: str, budget: float, made: Sequence[Array], train: bool) -> Cause:
    """What is put out at `path` is there as it should be, among all that is `made`, and one of several layers that are
    to take it takes another layer's output, or what that layer is given."""
    outputs, inputs = run.outputs(train), run.trace(train).inputs
    right = outputs[path]

    def is_made(value: Array) -> bool:
        return any(each.size == value.size and same(value, each.reshape(value.shape), budget) for each in made)

    takers = [name for name, layer in run.nodes(train) if inputs.get(name) is right]
    plain = [name for name in takers if not isinstance(run.layers[name], Branches | Residual)]
    if len(takers) < 2 or not is_made(right):
        return NONE
    others = {name: value for name, value in outputs.items() if value.shape == right.shape and value is not right}
    for taker in plain:
        if is_made(outputs[taker]):
            continue
        for name, value in others.items():
            with suppress(ValueError, IndexError, TriptychError):
                y = run.alone(taker, value, None, train)[OUTPUT]
                if not same(y, outputs[taker], budget) and is_made(y):
                    return Cause(f"it takes what '{name}' puts out, not what '{path}' does", taker)
    return NONE


def of_cut(run: ReferenceRun, path: str, made: Sequence[Array], train: bool) -> Cause:
    """Of a layer whose output has another shape, and is cut to the right one behind it: the fault that explains what is
    left; `made`: what the network puts out anywhere."""
    right = run.outputs(train)[path]
    for value in (value for value in made if value.shape == right.shape):
        budget = SHAPED * largest(right)
        if largest(value - right) > budget:
            cause = of_layer(run, path, {OUTPUT: value}, {OUTPUT: budget}, train, False)
            if cause.text and not cause.vague and not cause.layer:
                return cause
    return NONE


def by_follower(
    run: ReferenceRun, path: str, observed: Arrays, failed: Sequence[Check], train: bool
) -> Iterator[Cause]:
    """The faults in the layer at `path` that explain what the layer behind it puts out: what was taken for its own
    output may be a step of it only, or what follows an operation belongs to it."""
    nodes = [name for name, _ in run.nodes(train)]
    behind = nodes[nodes.index(path) + 1 :][:1] if path in nodes else []
    yield from (cause for cause in _of_pair(run, [path, *behind], observed, failed, train) if cause.layer == path)


def of_source(run: ReferenceRun, path: str, observed: Arrays, failed: Sequence[Check], train: bool) -> Cause:
    """The fault in the layer before that at `path` that explains what this one puts out."""
    nodes = [name for name, _ in run.nodes(train)]
    pair = nodes[max(nodes.index(path) - 1, 0) :][:2] if path in nodes else []
    return next((cause for cause in _of_pair(run, pair, observed, failed, train) if cause.layer == pair[0]), NONE)


def _of_pair(
    run: ReferenceRun, pair: list[str], observed: Arrays, failed: Sequence[Check], train: bool
) -> Iterator[Cause]:
    """Of two layers behind each other, the second of which departs."""
    check = next((check for check in failed if pair[1:] == [check.tensor]), None)
    if check is None or not np.array_equal(run.trace(train).inputs[pair[1]], run.outputs(train)[pair[0]]):
        return
    yield from hidden_causes(run, pair, check, observed, train)


def of_part(run: ReferenceRun, check: Check, observed: Arrays, train: bool) -> Cause:
    """The fault at the end of the one branch whose part of what is concatenated departs: layers there that cannot be
    seen, or the last one."""
    layer, outputs = run.layers[check.tensor], run.outputs(train)
    value, right = observed[check.tensor], outputs[check.tensor]
    if not isinstance(layer, Branches) or layer.merge != "concatenate" or value.shape != right.shape:
        return NONE
    ends = [join(check.tensor, branch.name) for branch in layer.branches]
    places = np.cumsum([outputs[end].shape[1] for end in ends])[:-1]
    parts = zip(ends, np.split(value, places, axis=1), np.split(right, places, axis=1), strict=True)
    wrong = [(end, part) for end, part, wanted in parts if largest(part - wanted) > check.budget]
    if len(wrong) != 1:
        return NONE
    ((end, part),) = wrong
    inside = [name for name, _ in run.nodes(train) if name.startswith(f"{end}.")]
    hidden: list[str] = []
    for name in reversed(inside):
        if name in observed:
            break
        hidden.insert(0, name)
    last = hidden or inside[-1:]  # a seen one may be followed by a step of its own
    if not last:
        return NONE
    cause = of_hidden(run, last, replace(check, tensor=last[-1]), {last[-1]: part}, train)
    return cause or (Cause("", hidden[0]) if hidden else NONE)


def of_early_sum(run: ReferenceRun, path: str, budget: float, observed: Arrays, train: bool) -> Cause:
    """The shortcut of a residual unit, added before the last layer of its body and not behind it."""
    outputs, inputs = run.outputs(train), run.trace(train).inputs
    for name, layer in run.layers.items():
        if not isinstance(layer, Residual) or outputs.get(join(name, layer.body.name)) is not outputs[path]:
            continue
        shortcut = inputs[name] if layer.shortcut is None else outputs[join(name, layer.shortcut.name)]
        with suppress(ValueError, IndexError, TriptychError):
            y = run.alone(path, inputs[path] + shortcut, None, train)[OUTPUT]
            if path in observed and same(y, observed[path], budget):
                return Cause(
                    f"the shortcut of '{name}' is added before '{path.rpartition('.')[2]}', not behind it", path
                )
    return NONE


def of_order(run: ReferenceRun, path: str, budget: float, made: Sequence[Array], train: bool) -> Cause:
    """Two layers behind each other, of which the second comes first; `made`: what the network puts out anywhere."""
    nodes = [name for name, _ in run.nodes(train)]
    place, inputs, outputs = nodes.index(path), run.trace(train).inputs, run.outputs(train)
    after = {second: first for first, second in pairwise(reversed(nodes))}
    for first, second in pairwise(nodes[max(place - 1, 0) : place + 2]):
        if inputs[second] is not outputs[first] and not np.array_equal(inputs[second], outputs[first]):
            continue
        with suppress(ValueError, IndexError, TriptychError):
            y = run.alone(second, inputs[first], None, train)[OUTPUT]
            y = run.alone(first, y, None, train)[OUTPUT]
            if same(y, outputs[second], budget) or same(y, outputs[first], budget):
                continue  # their order does not matter, or one of them does nothing here
            if second in after and replace(run.layers[after[second]], name="") == replace(run.layers[first], name=""):
                continue  # its like follows anyway: it is as well missing here
            if any(value.size == y.size and same(y, value.reshape(y.shape), budget) for value in made):
                return Cause(f"'{second}' comes before '{first}'", path)
    return NONE
