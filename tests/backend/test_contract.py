"""Every backend's passes against the NumPy reference, on layers made to be awkward."""

from __future__ import annotations

import numpy as np
import pytest

from awkward_networks import BATCH, CASES, LABELS, assert_close, masks_of, parameters, small, trained
from triptych.backend.contract import Backend
from triptych.backend.execution import Execution, exact
from triptych.reference import network as reference
from triptych.reference import rounding
from triptych.spec.layers import Architecture, Block, Branches, Conv, Dense, Flatten
from triptych.utils.arrays import largest
from triptych.utils.errors import TriptychError

CLOSE = 1e-12  # of a tensor's scale, in float64
NOISE = 4.0  # times what float32 rounding explains


def scale_of(path: str, gradients: dict[str, np.ndarray]) -> float:
    """A gradient's scale: a bias before batch norm has gradient 0, so its layer's weight counts too."""
    layer = path.rpartition(".")[0]
    return max(largest(value) for other, value in gradients.items() if other.rpartition(".")[0] == layer)


@pytest.mark.parametrize("case", CASES)
def test_float64_passes_equal_the_reference(framework: Backend, case: str) -> None:
    architecture = CASES[case]
    values, masks = parameters(architecture), masks_of(architecture)
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input))
    for train in (False, True):
        network = framework.build(architecture, execution=exact("fp64"))
        framework.from_canonical(network, values)
        run = reference.forward(architecture, values, images, train=train, masks=masks)
        outputs = framework.forward(network, images, train=train, masks=masks if train else None)
        assert set(outputs) == set(run.outputs)
        for path, expected in run.outputs.items():
            assert outputs[path].dtype == np.float64
            np.testing.assert_allclose(outputs[path], expected, rtol=0, atol=CLOSE * largest(expected), err_msg=path)
    expected_loss, expected_gradients = reference.backward(run, LABELS)
    loss, gradients = framework.gradients(network, images, LABELS, masks=masks)
    assert loss == pytest.approx(expected_loss, rel=CLOSE)
    assert set(gradients) == set(expected_gradients)
    for path, expected in expected_gradients.items():
        tolerance = CLOSE * scale_of(path, expected_gradients)
        np.testing.assert_allclose(gradients[path], expected, rtol=0, atol=tolerance, err_msg=path)


@pytest.mark.parametrize("case", CASES)
def test_float32_errors_are_rounding(framework: Backend, case: str) -> None:
    architecture = CASES[case]
    values, masks = parameters(architecture), masks_of(architecture)
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input)).astype(np.float32)
    exact, *noisy = (_reference_passes(architecture, values, images, masks, seed) for seed in (None, *range(6)))
    network = framework.build(architecture)
    framework.from_canonical(network, values)
    found = framework.forward(network, images, train=True, masks=masks)
    found |= {f"gradient of {p}": g for p, g in framework.gradients(network, images, LABELS, masks=masks)[1].items()}
    assert set(found) == set(exact)
    for path, expected in exact.items():
        assert found[path].dtype == np.float32
        noise = max(largest(other[path] - expected) for other in noisy)
        assert largest(found[path] - expected) <= NOISE * max(noise, 2**-24 * largest(expected)), path


def _reference_passes(architecture, values, images, masks, seed) -> dict[str, np.ndarray]:
    rounded = {} if seed is None else {"rounding": rounding.Perturbation(np.random.default_rng(seed))}
    run = reference.forward(architecture, values, images, train=True, masks=masks, **rounded)
    _, gradients = reference.backward(run, LABELS)
    return run.outputs | {f"gradient of {path}": gradient for path, gradient in gradients.items()}


def test_float32_cross_entropy_is_accurate(framework: Backend) -> None:
    """MXNet's own log_softmax is off by 3e-6, which the rounding of a whole network would hide."""
    architecture = Architecture("loss", (8, 2, 2), 3, (Flatten("flatten"), Dense("dense", 3)))
    values = parameters(architecture)
    images = 3 * np.random.default_rng(0).standard_normal((BATCH, 8, 2, 2)).astype(np.float32)
    network = framework.build(architecture)
    framework.from_canonical(network, values)
    _, found = framework.gradients(network, images, LABELS, masks={})
    _, expected = reference.backward(reference.forward(architecture, values, images, train=True), LABELS)
    for path, gradient in expected.items():
        assert largest(found[path] - gradient) <= 8e-7 * largest(gradient), path


def test_passes_leave_the_network_as_it_was(framework: Backend) -> None:
    architecture = trained()
    network = framework.build(architecture, execution=exact("fp64"))
    framework.from_canonical(network, parameters(architecture))
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input))
    framework.forward(network, images, train=True, masks=masks_of(architecture))
    framework.gradients(network, images, LABELS, masks=masks_of(architecture))
    assert_close(framework.to_canonical(network), parameters(architecture), 0.0)


@pytest.mark.parametrize("widths", [(24, 16, 24), (12, 8, 20), (3, 5, 7)])
def test_branches_may_have_any_widths(framework: Backend, widths: tuple[int, ...]) -> None:
    """In float32, where oneDNN's blocked layouts are used: MXNet's own concatenation fails for the first two."""
    branches = tuple(Block(f"b{i}", (Conv("conv", width, (3, 3), padding=(1, 1)),)) for i, width in enumerate(widths))
    architecture = small(Branches("mixed", branches), Conv("last", 16, (3, 3), padding=(1, 1)), channels=16)
    network, values = framework.build(architecture), parameters(architecture)
    framework.from_canonical(network, values)
    images = np.random.default_rng(0).standard_normal((BATCH, *architecture.input)).astype(np.float32)
    _, found = framework.gradients(network, images, LABELS, masks={})
    run = reference.forward(architecture, values, images, train=True)
    assert_close(found, reference.backward(run, LABELS)[1], 1e-5)


def test_initialize_depends_on_the_seed_only(framework: Backend) -> None:
    def start(seed: int) -> dict[str, np.ndarray]:
        network = framework.build(trained())
        framework.initialize(network, seed)
        return framework.to_canonical(network)

    assert_close(start(3), start(3), 0.0)
    assert largest(start(3)["conv.weight"] - start(4)["conv.weight"]) > 0


def test_wrong_requests_are_refused(framework: Backend) -> None:
    with pytest.raises(TriptychError, match="no device 'abacus'"):
        framework.build(trained(), device="abacus")
    with pytest.raises(TriptychError, match="no precision 'fp3'"):
        framework.build(trained(), execution=Execution("fp3"))
    network = framework.build(trained())
    with pytest.raises(TriptychError, match="do not fit"):
        framework.from_canonical(network, {})
