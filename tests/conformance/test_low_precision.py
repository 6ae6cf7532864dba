"""Less than float32 is judged by its own unit, in the trainer, where it is applied."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from marks import later, needs_backend
from triptych.backend import registry
from triptych.conformance import low_precision, trained
from triptych.conformance.case import conformance_architecture, make_case
from triptych.conformance.conform import conform, execution_of
from triptych.conformance.low_precision import ROUNDED, UNITS
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.suite import run
from triptych.reference.rounding import Perturbation, Shortened
from triptych.spec.layers import AvgPool, BatchNorm, Clip, Layer, LeakyReLU, MaxPool, ReLU, with_children
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator

ABLE = [("torch", "bf16"), ("torch", "fp16"), ("jax", "bf16")]
able = pytest.mark.parametrize(
    ("backend", "precision"),
    [
        pytest.param(*pair, marks=pytest.mark.skipif(pair[0] not in registry.installed(), reason=pair[0]))
        for pair in ABLE
    ],
)


@cache
def judged(name: str, seed: int = 0) -> ReferenceRun:
    return ReferenceRun(make_case(conformance_architecture(name), seed))


def changed(layer: Layer, kind: type[Layer], other: Any) -> Layer:
    """Every record of a kind replaced."""
    if isinstance(layer, kind):
        return other(layer)
    return with_children(layer, lambda child: changed(child, kind, other))


FAULTS: dict[str, tuple[str, type[Layer], Any]] = {
    "average for max pool": ("vgg11_bn", MaxPool, lambda layer: AvgPool(layer.name, layer.kernel, layer.stride)),
    "leaky ReLU": ("vgg11_bn", ReLU, lambda layer: LeakyReLU(layer.name, 0.1)),
    "a bound at 1": ("vgg11_bn", ReLU, lambda layer: Clip(layer.name, 0.0, 1.0)),
    "eps": ("vgg11_bn", BatchNorm, lambda layer: replace(layer, eps=0.1)),
    "momentum": ("vgg11_bn", BatchNorm, lambda layer: replace(layer, momentum=0.5)),
}


@able
@pytest.mark.parametrize("name", ["lenet", "vgg11_bn", pytest.param("googlenet", marks=later)])
def test_clean_backends_pass(backend: str, precision: str, name: str) -> None:
    report = conform(registry.load(backend), judged(name, seed=3), precision)
    assert report.failures == []
    assert report.passed
    assert {check.level for check in report.checks} == {"structure", low_precision.LEVEL}


@able
@pytest.mark.parametrize("fault", FAULTS)
def test_another_network_is_found(backend: str, precision: str, fault: str) -> None:
    name, kind, other = FAULTS[fault]
    framework = registry.load(backend)

    def build(architecture: Any) -> Any:
        layers = tuple(changed(layer, kind, other) for layer in architecture.layers)
        return framework.build(replace(architecture, layers=layers), execution=execution_of(precision))

    report = conform(framework, judged(name), precision, build=build)
    assert [check for check in report.failures if check.level == low_precision.LEVEL]


@able
def test_gradients_that_are_a_fifth_too_small_are_found(
    backend: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework, state = registry.load(backend), registry.load(backend).Trainer.state

    def shrunk(self: Any) -> Any:
        return {name: 0.8 * value for name, value in state(self).items()}

    monkeypatch.setattr(framework.Trainer, "state", shrunk)
    failed = {check.tensor for check in conform(framework, judged("lenet"), precision).failures}
    assert {"velocity.dense1.weight", "velocity.conv1.weight"} <= failed


@able
def test_what_is_computed_in_float32_is_no_step_in_less(
    backend: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    framework = registry.load(backend)
    monkeypatch.setitem(
        low_precision.EXECUTIONS, precision, replace(low_precision.EXECUTIONS[precision], precision="fp32")
    )
    report = conform(framework, judged("lenet"), precision)
    assert {check.tensor for check in report.failures} == set(ROUNDED)


def test_every_budget_grows_with_the_unit() -> None:
    expected = judged("lenet").low_precision
    coarse, fine = (expected.budgets(precision) for precision in ("bf16", "fp16"))
    assert set(coarse) == set(expected.arrays)
    names = coarse.keys() - ROUNDED.keys()
    assert all(2 < coarse[name] / fine[name] < 40 for name in names)  # 8 where no unit is pushed across an edge


def test_shortened_numbers_are_off_by_units_of_themselves() -> None:
    short = Shortened(Perturbation(generator(0, "test")), UNITS["bf16"])
    value = np.array([1e-20, 1.0, 1e20])
    assert np.abs(short.cast(value) / value - 1).max() <= UNITS["bf16"]
    large = np.full(1000, 3.0)
    off = np.abs(short(large, 1) / large - 1).max() / UNITS["bf16"]
    assert 3 < off <= 4.001


@needs_backend
def test_a_backend_without_the_precision_is_not_run() -> None:
    backends = [registry.load(name) for name in registry.installed()]
    architecture = conformance_architecture("lenet")
    if "mxnet" in registry.installed() and len(backends) > 1:
        verdict = run(architecture, backends, precisions=["bf16"])
        assert "no precision 'bf16'" in verdict.not_run["mxnet"]
        assert verdict.passed
    with pytest.raises(TriptychError, match="a CPU has no such products"):
        run(architecture, backends, precisions=["tf32"])


@pytest.mark.skipif("jax" not in registry.installed(), reason="jax")
@pytest.mark.parametrize("kind", ["dense", "conv", "affine", "prelu", "product"])
def test_flax_sums_gradients_in_float32(kind: str) -> None:
    registry.load("jax")
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from triptych.spec import layers as spec
    from triptych_jax.layers import LAYERS
    from triptych_jax.model import _merged

    records = {
        "dense": (spec.Dense("dense", 3), (2,), "bias"),
        "conv": (spec.Conv("conv", 3, (1, 1)), (2, 100, 100), "bias"),
        "affine": (spec.Affine("affine", trained=True), (2, 100, 100), "bias"),
        "prelu": (spec.PReLU("prelu"), (2, 100, 100), "negative_slope"),
    }
    if kind == "product":
        gate, maps = jnp.ones((1, 1, 1, 2), jnp.bfloat16), jnp.full((1, 100, 100, 2), 0.5, jnp.bfloat16)
        total = jax.jit(jax.grad(lambda gate: _merged((gate, maps), "multiply").astype(jnp.float32).sum()))(gate)
        assert np.abs(np.asarray(total, np.float64) / 5000 - 1).max() < UNITS["bf16"]
        return
    record, shape, name = records[kind]
    layer = LAYERS[type(record)](record, shape)
    if hasattr(layer, "dtype"):
        layer.dtype = jnp.bfloat16
    count = 20_000 if kind == "dense" else 2
    x = jnp.full((count, *shape[1:], shape[0]), -0.5, jnp.bfloat16)
    definition, state = nnx.split(layer)
    factor = jnp.asarray(np.random.default_rng(0).random((count, *shape[1:], 1)), jnp.bfloat16)

    def loss(state: Any, x: jax.Array, factor: jax.Array) -> jax.Array:
        y = nnx.merge(definition, state)(x)
        assert y.dtype == jnp.bfloat16
        return (y * factor).astype(jnp.float32).sum()

    gradients = jax.jit(jax.grad(loss))(state, x, factor)
    expected = np.asarray(factor, np.float64).sum() * (-0.5 if kind == "prelu" else 1)
    assert np.abs(np.asarray(gradients[name][...], np.float64) / expected - 1).max() < UNITS["bf16"]


def test_of_tf32_it_is_not_asked_whether_anything_is_rounded() -> None:
    """A check that no outcome fails is none."""
    arrays = {name: np.ones(()) for name in (*ROUNDED, "prediction")}
    assert trained.visible(arrays, "bf16").keys() == arrays.keys()
    assert trained.visible(arrays, "tf32").keys() == {"prediction"}
