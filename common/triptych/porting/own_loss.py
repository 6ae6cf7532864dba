"""Somebody's own loss of a network's outputs, beside the cross-entropy: of the reference's logits, and of ones whose
exponentials are no float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from triptych.backend.targets import Labels
from triptych.conformance.diagnosis import explain as explained
from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.explain import Difference, Finding
from triptych.conformance.reference_run import ReferenceRun
from triptych.reference.loss import cross_entropy
from triptych.utils.arrays import Array
from triptych.utils.randomness import generator

LOSS = "loss"
LARGE = "loss of large logits"
SPREAD = 1000.0  # of logits
OVERFLOWS = "it overflows where logits are large: the largest is to be subtracted first, as log_softmax does"


def logits(run: ReferenceRun) -> Iterator[tuple[str, str, Array]]:
    """What the loss, and its gradient, are called, and the logits."""
    (path,) = run.ends
    right = run.origin.heads[path][1]
    yield LOSS, path, right
    drawn = generator(run.case.seed, "porting", "logits").standard_normal(right.shape)
    yield LARGE, f"gradient by {path}, {LARGE}", SPREAD * drawn


def labels_of(run: ReferenceRun) -> Labels:
    """Those of the case. A network without classes has none."""
    assert not isinstance(run.case.targets, tuple)
    return run.case.targets


def expected(run: ReferenceRun) -> dict[str, Array]:
    """The mean over the batch, and the gradients by the logits."""
    arrays: dict[str, Array] = {}
    for name, by, values in logits(run):
        value, arrays[by] = cross_entropy(run.rounding(values, 1), labels_of(run), run.rounding)
        arrays[name] = np.asarray(value)
    return arrays


def explain(finding: Finding) -> Difference:
    """What is wrong with the loss."""
    run, observed = finding.run, finding.observed
    (path,) = run.ends
    large = [each for each in finding.failed if LARGE in each.tensor]
    if len(large) == len(finding.failed) or any("finite" in each.problem for each in large):
        bounded = "it is another one for large logits: bounded, or something is added to what the logarithm is taken of"
        return finding.at(path, OVERFLOWS if any("finite" in each.problem for each in large) else bounded)
    (_, _, values), _ = logits(run)
    labels = labels_of(run)
    even = cross_entropy(values, labels, smoothing=1.0)[0] - cross_entropy(values, labels)[0]
    smoothing = float(observed[LOSS] - finding.expected[LOSS]) / even if LOSS in observed and even else 0.0
    _, gradient = cross_entropy(values, labels, smoothing=smoothing)
    if same(gradient, observed[path], 1e-6) and 1e-6 < smoothing < 1:
        return finding.at(path, f"labels are smoothed by {smoothing:.3g}")
    return explained.loss(finding)
