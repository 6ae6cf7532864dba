"""The levels of somebody's own network: those of conformance on which it can be watched, and what it does as a user
calls it: its running statistics, its dropout, batches of other sizes, a second call."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from triptych.conformance import levels, tolerance
from triptych.conformance.compare import Arrays, Check
from triptych.conformance.diagnosis import pass_causes
from triptych.conformance.diagnosis.explain import Difference, Finding
from triptych.conformance.levels import Level
from triptych.conformance.reference_run import INPUT, ReferenceRun, layer_of
from triptych.conformance.tolerance import Budgets
from triptych.porting import dropouts, gradient_causes
from triptych.porting.subject import (
    AGAIN,
    ARRIVING,
    CALLED,
    DROPOUT,
    MANY,
    ONE,
    OTHERS,
    STATISTICS,
    OwnNetwork,
    calls_of,
)
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.spec.layers import BatchNorm
from triptych.utils.arrays import Array, largest

FROZEN = "it takes no gradient: if that is meant (a frozen layer), --ignore '{}' leaves it out"
FAR = "seen where values are large: images, and some weights, grow until every activation is given 10,000 and more"
BOUNDED = "values are bounded somewhere, or treated otherwise where they are large"
OVERFLOWS = "it overflows where values are large: the largest is to be subtracted before an exponential"
AS_IT_IS = 1e-4  # of the largest value, in float32, too
CALL_CAUSES = {
    ONE: "a batch of 1 is treated otherwise: an axis is lost (squeeze), or the number of images counts",
    OTHERS: "what comes out of an image depends on the other images, or on their number",
    MANY: "a batch larger than those before is treated otherwise: the number of images counts",
    AGAIN: "a later call gives something else: the network keeps a state, or draws random numbers",
}


def _whose_gradient(finding: Finding) -> Difference:
    """A parameter's own layer, for a gradient that arrives at an output the layer behind, for the images the first."""
    name, nodes = finding.check.tensor, [path for path, _ in finding.run.nodes(True)]
    if name == INPUT:
        return finding.at(nodes[0])
    if not name.startswith(ARRIVING):
        if finding.check.problem:
            return _frozen(finding)
        text, layer = gradient_causes.cut_off(finding, name)
        return finding.at(layer, text)
    behind = nodes.index(name.removeprefix(ARRIVING)) + 1
    text, layer = gradient_causes.what_arrives(finding, name)
    return finding.at(layer or nodes[min(behind, len(nodes) - 1)], text)


def _frozen(finding: Finding) -> Difference:
    """The first layer, in the order of the computation, of whose parameters one takes no gradient."""
    order = [path for path, _ in finding.run.nodes(True)]
    still = [check for check in finding.failed if check.problem and layer_of(check.tensor) in order]
    first = min(still, key=lambda check: order.index(layer_of(check.tensor)), default=finding.check)
    layer, name = layer_of(first.tensor), first.tensor.rpartition(".")[2]
    beta = isinstance(finding.run.layers.get(layer), BatchNorm) and name == "bias"
    cause = "beta is left out: it stays 0 (center, use_bias)" if beta and _alone(still, name) else ""
    where, branch = gradient_causes.branch_of(finding.run, {layer_of(check.tensor) for check in still})
    if where and not cause:
        cause, layer = f"{gradient_causes.into(where, branch)}, or its layers are frozen", where
        return replace(finding, failed=[first]).at(layer, cause, FROZEN.format(f"{where}.{branch}.*"))
    return replace(finding, failed=[first]).at(layer, cause, FROZEN.format(f"{layer}.*"))


def _alone(still: Sequence[Check], name: str) -> bool:
    """Whether of the layers' parameters those of this name alone take no gradient."""
    return {check.tensor.rpartition(".")[2] for check in still} == {name}


def _whose_statistic(finding: Finding) -> Difference:
    """The batch norm whose running statistics are others, and how they would come to be so."""
    run, check = finding.run, finding.check
    path, _, count = check.tensor.partition(" ")
    note = f"nothing else differs: a network that is trained would, in evaluation; --ignore '{path}' leaves it out"
    if check.problem:
        return finding.at(layer_of(path), "", note)
    batches = (run.trace(True).inputs, run.other_inputs)[: int(count.strip("()"))]
    cause = pass_causes.of_statistics(run, path, check, finding.observed, batches)
    return finding.at(layer_of(path), cause.text, note)


def _whose_dropout(finding: Finding) -> Difference:
    return finding.at(finding.check.tensor.removesuffix(dropouts.SURPLUS), finding.check.problem)


def _whose_call(finding: Finding) -> Difference:
    """The end of the network: what it does with a batch, no layer shows."""
    path, _, call = finding.check.tensor.partition(" ")
    if call == MANY and not _differs_as_it_is(finding):
        found = _of(finding.subject).where_far()
        cause = OVERFLOWS if "finite" in finding.check.problem else BOUNDED
        if found is None:
            return finding.at(path, cause, FAR)
        text = cause if "finite" in found.check.problem else found.cause or cause
        return Difference(found.layer, found.level, found.check, found.at_fault, text, FAR)
    return finding.at(path, CALL_CAUSES.get(call, ""), "the network was called as a user calls it")


def _differs_as_it_is(finding: Finding) -> bool:
    """Whether, in the largest call, the two images that are not made brighter are treated otherwise, too."""
    name = finding.check.tensor
    one, other = finding.expected[name], finding.observed.get(name)
    if other is None or other.shape != one.shape:
        return True
    away = np.abs(other[:2] - one[:2])
    return not np.isfinite(away).all() or bool(away.max() > AS_IT_IS * np.abs(one[:2]).max())


def _calls(run: ReferenceRun) -> dict[str, Array]:
    """The outputs in evaluation of several batches, by output and call."""
    outputs = run.outputs(False)
    return {
        f"{path} {call}": outputs[path][list(images)]
        for call, images in calls_of(run.case).items()
        for path in run.ends
    }


def _statistics_budgets(run: ReferenceRun, precision: str, expected: Arrays) -> Budgets:
    """What rounding explains; in float64 that of a momentum kept as float32, as MXNet keeps it, which counts as often
    as the batch's statistics are away from the old ones."""
    if precision != "fp64":
        return tolerance.budgets(expected, (other.statistics for other in run.perturbed()))[precision]
    budgets = {}
    for name, value in expected.items():
        path = name.partition(" ")[0]
        layer = run.layers[layer_of(path)]
        assert isinstance(layer, BatchNorm)
        moved = largest(value - run.parameters[path]) / (layer.momentum or 1.0)
        budgets[name] = FLOAT32_UNIT * (largest(value) + 2 * moved)
    return budgets


def _of(subject: object) -> OwnNetwork:
    assert isinstance(subject, OwnNetwork)
    return subject


WATCHED = (
    *(levels.PARAMETERS, levels.FORWARD_EVAL, levels.FORWARD_TRAIN),
    replace(levels.GRADIENT, explain=_whose_gradient),
)
LEVELS = (
    *WATCHED,
    Level(
        STATISTICS,
        lambda run: run.statistics,
        lambda subject: _of(subject).statistics(),
        _whose_statistic,
        budgets=_statistics_budgets,
    ),
    Level(
        DROPOUT,
        lambda run: {},
        lambda subject: _of(subject).dropouts(),
        _whose_dropout,
        rounded=False,
        compare=dropouts.compare,
    ),
    Level(CALLED, _calls, lambda subject: _of(subject).calls(), _whose_call),
)
