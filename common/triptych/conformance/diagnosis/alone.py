"""One layer of a reference run, as it is and with a fault in it, and whether two arrays are the same."""

import numpy as np

from triptych.conformance.diagnosis.hypothesis import Hypothesis
from triptych.conformance.reference_run import OUTPUT, ReferenceRun, layer_of, maps_before_flatten, named
from triptych.reference import network as reference
from triptych.spec.kinds.composites import merge
from triptych.spec.kinds.kind import Wire
from triptych.spec.kinds.layer_pass import exact
from triptych.spec.layers import Branches, Flatten, Residual, join
from triptych.utils.arrays import Array, largest


def same(value: Array, observed: Array, budget: float) -> bool:
    """Equal within the budget of the right value, which grows with a larger wrong one."""
    if value.shape != observed.shape or not np.isfinite(value).all():
        return False
    return largest(value - observed) <= budget * max(1.0, largest(value))


def hypothesis_of(run: ReferenceRun, path: str, train: bool) -> Hypothesis:
    """The layer at `path` as the reference is about to run it."""
    values = {name.rpartition(".")[2]: v for name, v in run.parameters.items() if layer_of(name) == path}
    mask = run.case.masks(0).get(path)
    flattened = maps_before_flatten(run.case.architecture).get(path)
    return Hypothesis(run.layers[path], values, run.trace(train).inputs[path], train, mask, flattened)


def moves_nothing(run: ReferenceRun, path: str, train: bool) -> bool:
    """Whether a layer flattens maps of one value: its values stay in their order however it is written, or left out."""
    return isinstance(run.layers[path], Flatten) and run.trace(train).inputs[path].shape[2:] == (1, 1)


def run_alone(hypothesis: Hypothesis, path: str, gradient: Array | None) -> dict[str, Array]:
    """The hypothesis's layer alone."""
    values = {join(path, name): value for name, value in hypothesis.values.items()}
    masks = {} if hypothesis.mask is None else {path: hypothesis.mask}
    with np.errstate(all="ignore"):  # a fault may make a NaN, the root of a mean that was taken for a variance
        made = reference.layer_pass(
            hypothesis.layer, path, values, hypothesis.x, gradient, train=hypothesis.train, masks=masks
        )
    return named(made)


def parts_of(run: ReferenceRun, path: str, train: bool) -> dict[str, Array]:
    """What the branches of a merge hand on, by their short names; of a residual its shortcut and its body, scaled."""
    layer, outputs = run.layers[path], run.outputs(train)
    if isinstance(layer, Branches):
        return {branch.name: outputs[join(path, branch.name)] for branch in layer.branches}
    if isinstance(layer, Residual):
        block = layer.shortcut
        shortcut = run.trace(train).inputs[path] if block is None else outputs[join(path, block.name)]
        return {"shortcut": shortcut, "body": layer.scale * outputs[join(path, layer.body.name)]}
    return {}


def onward(run: ReferenceRun, before: str, path: str, y: Array, train: bool) -> Array:
    """What the layer at `path` puts out if the one `before` it puts out `y`, which it takes, or merges with others.
    Raises ValueError where it does neither."""
    layer, right = run.layers[path], run.outputs(train)[before]
    if path in run.trace(train).inputs and isinstance(layer, Branches | Residual):
        parts = parts_of(run, path, train)
        scaled = {"body": layer.scale} if isinstance(layer, Residual) else {}
        names = [name for name, part in parts.items() if np.array_equal(part, scaled.get(name, 1.0) * right)]
        if len(names) == 1:
            parts[names[0]] = scaled.get(names[0], 1.0) * y
            how = layer.merge if isinstance(layer, Branches) else "add"
            return merge(Wire(tuple(range(len(parts))), how), list(parts.values()), exact)[0]
    if not np.array_equal(run.trace(train).inputs[path], right):
        raise ValueError(f"'{path}' does not take what '{before}' puts out")
    return run.alone(path, y, None, train)[OUTPUT]
