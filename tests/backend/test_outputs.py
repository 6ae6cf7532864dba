"""Networks without classes, judged by a cotangent for every output; what a step of training moves and what not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from awkward_networks import BATCH, LABELS, STEM, bridge, parameters, small
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.backend.targets import any_targets
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, Rates
from triptych.reference import network as reference
from triptych.spec.layers import (
    Affine,
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Flatten,
    Graph,
    L2Normalize,
    Node,
    PReLU,
    Sigmoid,
    Upsample,
    outputs,
)
from triptych.utils.arrays import largest

CLOSE = 1e-12  # of a tensor's scale, in float64
TWO_KINDS = Graph(
    "heads",
    (Node(Conv("map", 2, (1, 1))), Node(Flatten("flat")), Node(Dense("scores", 5), ("flat",)), Node(Sigmoid("gate"))),
    ("scores", "map", "gate"),
)
NETWORKS = {
    "map": Architecture("map", (3, 7, 8), 0, (STEM, Upsample("up", (2, 1), "bilinear"))),
    "embedding": Architecture("embedding", (3, 7, 8), 0, (Flatten("f"), Dense("d", 6), L2Normalize("norm", 0.1))),
    "maps": Architecture("maps", (3, 7, 8), 0, (STEM, bridge(("d", "a", "sum")))),
    "scores_and_maps": Architecture("heads", (3, 7, 8), 0, (STEM, TWO_KINDS)),
}


def prepared(framework: Backend, architecture: Architecture) -> tuple[Any, dict[str, np.ndarray], np.ndarray]:
    """A network in float64, its parameters, and images."""
    network, values = framework.build(architecture, execution=exact("fp64")), parameters(architecture)
    framework.from_canonical(network, values)
    return network, values, np.random.default_rng(0).standard_normal((BATCH, *architecture.input))


@pytest.mark.parametrize("case", NETWORKS)
def test_outputs_and_gradients_equal_the_reference(framework: Backend, case: str) -> None:
    architecture = NETWORKS[case]
    network, values, images = prepared(framework, architecture)
    random = np.random.default_rng(1)
    targets = tuple(random.standard_normal(zeros.shape) for zeros in any_targets(architecture, BATCH))
    run = reference.forward(architecture, values, images, train=True)
    found = framework.forward(network, images, train=True)
    assert set(found) == set(run.outputs)
    assert set(outputs(architecture)) <= set(found)
    for path, expected in run.outputs.items():
        np.testing.assert_allclose(found[path], expected, rtol=0, atol=CLOSE * largest(expected), err_msg=path)
    expected_loss, expected_gradients = reference.backward(run, targets)
    loss, gradients = framework.gradients(network, images, targets, masks={})
    assert loss == pytest.approx(expected_loss, rel=1e-11)
    assert set(gradients) == set(expected_gradients)
    for path, expected in expected_gradients.items():
        np.testing.assert_allclose(gradients[path], expected, rtol=0, atol=CLOSE * largest(expected), err_msg=path)
    _, by_output = framework.loss_pass(network, [run.outputs[path] for path in outputs(architecture)], targets)
    for found_gradient, target in zip(by_output, targets, strict=True):
        np.testing.assert_allclose(found_gradient, target / BATCH, rtol=0, atol=CLOSE)


def test_a_step_moves_slopes_and_factors_but_no_constants_and_no_frozen_statistics(framework: Backend) -> None:
    """Through the function that trains, which is compiled or hybridized, for three steps."""
    architecture = small(
        Affine("constant", (0.1, 0.2, 0.3), (0.7,)),
        STEM,
        BatchNorm("still", frozen=True, momentum=0.3),
        PReLU("slopes"),
        BatchNorm("moving", beta=False, momentum=0.3),
        Affine("trained", trained=True),
        PReLU("slope", shared=True),
    )
    network, values, _ = prepared(framework, architecture)
    trainer = framework.Trainer(network, SGD(), InputTransform(3, 7, 8, (0.3,) * 3, (0.7,) * 3), 0)
    images = np.random.default_rng(2).integers(0, 256, (BATCH, 3, 7, 8), np.uint8)
    x = np.asarray(trainer.prepare(images), np.float64)
    for number in range(3):
        trainer.read([trainer.step(images, LABELS, Rates(0.1), number)])
        run = reference.forward(architecture, values, x, train=True)
        _, gradients = reference.backward(run, LABELS)
        rate = Rates(0.1).learning_rate
        values = {path: value - rate * gradients.get(path, 0.0) for path, value in values.items()} | run.statistics
    found, start = framework.to_canonical(network), parameters(architecture)
    assert set(found) == set(values)
    for path, expected in values.items():
        np.testing.assert_allclose(found[path], expected, rtol=0, atol=1e-11 * largest(expected), err_msg=path)
        assert (largest(expected - start[path]) == 0) == path.startswith("still.running"), path


def test_a_strided_pointwise_convolution_of_few_channels_does_not_kill_the_process() -> None:
    """PyTorch 2.13 dies in its backward pass in channels_last; in a process of its own, which would take this along."""
    pytest.importorskip("triptych_torch")
    code = (
        "import numpy as np, triptych\n"
        "from triptych.backend import registry\n"
        "from triptych.spec.layers import Architecture, Conv, Dense, Flatten, GlobalAvgPool\n"
        "layers = (Conv('conv', 8, (1, 1), (2, 2)), GlobalAvgPool('pool'), Flatten('flatten'), Dense('dense', 3))\n"
        "network = triptych.build(Architecture('net', (5, 60, 60), 3, layers), backend='torch')\n"
        "torch = registry.load('torch')\n"
        "images = np.ones((4, 5, 60, 60), np.float32)\n"
        "for _ in range(12):\n"
        "    torch.gradients(network, images, np.zeros(4, np.int64), masks={})\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
