"""Where a derivative is a matter of choice, every backend makes the spec's."""

from __future__ import annotations

import numpy as np
import pytest

from awkward_networks import STEM, parameters, small
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.reference import network as reference
from triptych.spec.layers import (
    Clip,
    GlobalMaxPool,
    HardSigmoid,
    HardSwish,
    L2Normalize,
    Layer,
    LeakyReLU,
    MaxPool,
    PReLU,
    ReLU,
)
from triptych.utils.arrays import largest

# A value in units of 0.25, so that sums and products of the bounds are exact: every bound is hit, and both its sides.
BOUNDS = np.array([-6.0, -3.0, -3.25, -2.0, -0.5, -0.25, 0.0, 0.25, 0.5, 2.0, 2.75, 3.0, 3.25, 5.75, 6.0, 6.25])
TIES: dict[str, Layer] = {
    "relu": ReLU("tied"),
    "relu6": Clip("tied", 0.0, 6.0),
    "clip": Clip("tied", -0.5, 0.25),
    "leaky": LeakyReLU("tied", 0.2),
    "prelu": PReLU("tied"),
    "prelu_shared": PReLU("tied", shared=True),
    "hard_sigmoid": HardSigmoid("tied", 0.25, 0.5),
    "hard_swish": HardSwish("tied"),
    "global_maximum": GlobalMaxPool("tied"),
    "maximum": MaxPool("tied", (2, 2), (2, 2)),
    "maximum_overlapping": MaxPool("tied", (3, 3), (1, 1), (1, 1)),
    "l2_bound": L2Normalize("tied", 0.5, bound=True),
    "l2_bound_whole": L2Normalize("tied", 0.5, bound=True, whole=True),
    "l2": L2Normalize("tied", 0.25),
}


@pytest.mark.parametrize("case", TIES)
def test_derivatives_at_ties_are_the_specs(framework: Backend, case: str) -> None:
    architecture = small(STEM, TIES[case], size=(4, 4))
    values = parameters(architecture)
    x = np.stack([np.resize(BOUNDS[i:], (4, 4, 4)) for i in (0, 3)])
    x[0, :, :2] = 0.0  # equal values in a window, and nothing to normalise
    x[1, :2] = np.minimum(x[1, :2], 3.0)  # several are the largest of the map
    random = np.random.default_rng(0)
    y, _, _ = reference.layer_pass(TIES[case], "tied", values, x, train=True)
    dy = random.standard_normal(y.shape)
    expected = reference.layer_pass(TIES[case], "tied", values, x, dy, train=True)
    network = framework.build(architecture, execution=exact("fp64"))
    framework.from_canonical(network, values)
    found = framework.layer_pass(network, "tied", x, dy, train=True, masks={})
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12 * max(1.0, largest(theirs)))
    assert set(found[2]) == set(expected[2])
    for path, gradient in expected[2].items():
        np.testing.assert_allclose(found[2][path], gradient, rtol=0, atol=1e-12 * largest(gradient))
