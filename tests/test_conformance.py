"""Conformance of the zoo on every installed backend, and planted faults that prove that each level can fail.

One architecture of every kind runs always; the whole zoo, and 20 seeds, run with TRIPTYCH_TEST_ALL=1 (many minutes).
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from triptych import backend, reference, zoo
from triptych.analysis import primitives
from triptych.backend import Backend
from triptych.conformance import ALL_LEVELS, Judge, Report, conform, judge, suite
from triptych.conformance.case import BATCH, conformance_architecture, make_case
from triptych.spec import (
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Sigmoid,
)

ALL = bool(os.environ.get("TRIPTYCH_TEST_ALL"))
later = pytest.mark.skipif(not ALL, reason="takes minutes: set TRIPTYCH_TEST_ALL=1, as `make test-all` does")
needs_backend = pytest.mark.skipif(not backend.installed(), reason="no framework is installed")
every_backend = pytest.mark.parametrize("name", backend.installed())


def zoo_names() -> list[Any]:
    """The first families always; JAX compiles the deeper ones for minutes."""
    quick = [name for name in zoo.registry() if name == "alexnet" or name.startswith(("lenet", "vgg"))]
    return [name if name in quick else pytest.param(name, marks=later) for name in zoo.registry()]


@needs_backend
@pytest.mark.parametrize("name", zoo_names())
def test_the_zoo_conforms_on_every_backend_and_pairwise(name: str) -> None:
    names = backend.installed()
    verdict = suite.run(conformance_architecture(name), [backend.load(name) for name in names])
    failures = [(r.backend, r.precision, c) for r in verdict.reports for c in r.failures]
    assert failures == []
    assert [(r.backend, r.precision) for r in verdict.reports] == [(n, p) for p in suite.PRECISIONS for n in names]
    assert len(verdict.pairs) == 2 * len(names) * (len(names) - 1) // 2
    assert all(set(checks) == set(ALL_LEVELS[1:]) for *_, checks in verdict.pairs)
    assert verdict.passed
    assert set(verdict.not_run) == set(backend.BACKENDS) - set(names)


SEEDS = {"lenet": 20, "vgg11": 4, "vgg11_bn": 4, "googlenet": 1}  # of 20, without TRIPTYCH_TEST_ALL


@needs_backend
@pytest.mark.parametrize(
    ("name", "seed"),
    [
        pytest.param(name, seed, marks=() if seed < count else later)
        for name, count in SEEDS.items()
        for seed in range(20)
    ],
)
def test_no_seed_gives_a_false_alarm(name: str, seed: int) -> None:
    judged = judge(make_case(conformance_architecture(name), seed))
    framework = backend.load(backend.installed()[0])
    for precision in suite.PRECISIONS:
        assert conform(framework, judged, precision).failures == []


def has_norm(architecture: Architecture) -> bool:
    return any(isinstance(info.layer, BatchNorm) for info in primitives(architecture))


@pytest.mark.parametrize("name", [name for name in zoo.registry() if not has_norm(conformance_architecture(name))])
def test_budgets_stay_sharp_without_batch_norm(name: str) -> None:
    """No derived budget is wide enough to hide a fault: float32 outputs to 3 digits, everything in float64 to 8."""
    judged = judge(make_case(conformance_architecture(name)))
    for level, arrays in judged.expected.items():
        for path, value in arrays.items():
            scale = np.abs(value).max()
            assert judged.budgets["fp64"][level][path] <= 1e-8 * scale, (level, path)
            if level.startswith("forward"):
                assert judged.budgets["fp32"][level][path] <= 1e-3 * scale, (level, path)


@pytest.mark.parametrize("silenced", ["dense.weight", "conv.weight"])
def test_a_case_with_constant_logits_is_refused(silenced: str) -> None:
    case = make_case(PLAIN)
    values = case.parameters | {silenced: np.zeros_like(case.parameters[silenced])}
    with pytest.raises(ValueError, match="the reference's logits for 'plain' are constant"):
        judge(replace(case, parameters=values))


def net(name: str, *layers: Layer, size: tuple[int, int, int] = (2, 6, 9)) -> Architecture:
    return Architecture(name, size, 3, (*layers, Flatten("flatten"), Dense("dense", 3)), Initializer("kaiming_normal"))


CONV = Conv("conv", 4, (3, 3), padding=(1, 1))
PLAIN = net("plain", CONV, ReLU("relu"))
SQUARE = net("square", CONV, GlobalAvgPool("mean"), Flatten("flat"), Dense("hidden", 4), Sigmoid("sigmoid"))
FLAT = net("flat", CONV)
STRIDED = net("strided", Conv("conv", 4, (3, 3), (3, 3), (1, 1)), GlobalAvgPool("mean"))
NORM = net("norm", Conv("conv", 4, (3, 3), bias=False), BatchNorm("norm"), ReLU("relu"))
LRN = net("lrn", CONV, LocalResponseNorm("lrn", 3, 0.5, 0.75, 2.0), GlobalAvgPool("mean"))
AVERAGE = net("average", CONV, AvgPool("pool", (3, 3), (2, 2), (1, 1)), GlobalAvgPool("mean"))
CEIL = net("ceil", CONV, MaxPool("pool", (3, 3), (2, 2), ceil=True), GlobalAvgPool("mean"))
DROPOUT = net("dropout", CONV, Dropout("dropout", 0.5))
SIDE = net(
    "side", CONV, Auxiliary("head", (GlobalAvgPool("mean"), Flatten("flat"), Dense("out", 3)), 0.3), ReLU("relu")
)
BRANCHES = net("branches", Branches("mixed", (Block("a", (CONV,)), Block("b", (CONV, ReLU("relu"))))))
RESIDUAL = net("residual", CONV, Residual("unit", Block("body", (CONV,)), scale=0.3))


@cache
def judged(architecture: Architecture) -> Judge:
    return judge(make_case(architecture))


def change(layer: Any, target: str, /, **fields: Any) -> Any:
    """The record or tree with the fields of layer `target` replaced."""
    if isinstance(layer, Layer) and layer.name == target:
        return replace(layer, **fields)
    below = {key: getattr(layer, key) for key in ("layers", "branches") if hasattr(layer, key)}
    below = {key: tuple(change(child, target, **fields) for child in value) for key, value in below.items()}
    if isinstance(layer, Residual):
        below["body"] = change(layer.body, target, **fields)
    return replace(layer, **below)


def swap(architecture: Architecture, name: str, other: Layer) -> Architecture:
    return replace(architecture, layers=tuple(other if layer.name == name else layer for layer in architecture.layers))


Plant = Callable[[Backend, str], tuple[Any, Any]]  # a backend and a precision to the backend and `build` for conform


def other_spec(mutate: Callable[[Architecture], Architecture]) -> Plant:
    """The backend builds another network than the reference."""
    return lambda framework, precision: (
        framework,
        lambda architecture: framework.build(mutate(architecture), precision=precision),
    )


def fields(target: str, /, **values: Any) -> Plant:
    return other_spec(lambda architecture: change(architecture, target, **values))


def wrapped(**overrides: Callable[..., Any]) -> Plant:
    """The backend with functions replaced; each gets the right one first."""

    def plant(framework: Backend, precision: str) -> tuple[Any, Any]:
        names = ("name", "Trainer", "build", "forward", "gradients", "from_canonical", "to_canonical")
        names += ("precise", "precision_flags")
        right = {name: getattr(framework, name) for name in names}
        return SimpleNamespace(**right | {key: partial(other, right[key]) for key, other in overrides.items()}), None

    return plant


def loading(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """One parameter arrives changed in the network."""
    return wrapped(
        from_canonical=lambda right, network, values: right(network, values | {path: np.array(change(values[path]))})
    )


def channels_last(weight: np.ndarray) -> np.ndarray:
    """The columns of a dense weight as if the map had been flattened height-width-channels."""
    return weight.reshape(3, 4, 6, 9).transpose(0, 2, 3, 1).reshape(3, -1)


def set_entry(arrays: dict[str, np.ndarray], path: str, value: float) -> dict[str, np.ndarray]:
    copy = arrays[path].copy()
    copy.flat[3] = value
    return arrays | {path: copy}


def in_training_mode(
    right: Callable, network: Any, images: np.ndarray, *, train: bool = False, masks: Any = None
) -> Any:
    """Training mode when evaluation was asked for: batch statistics, dropout."""
    own = judged(DROPOUT).case.masks(9) if not train else masks
    return right(network, images, train=True, masks=own)


def unmasked(masks: dict[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    return {path: np.ones_like(mask) for path, mask in (masks or {}).items()}


def scaled(factor: float) -> Callable[..., Any]:
    """The loss summed over the batch."""

    def gradients(right: Callable, *given: Any, **masks: Any) -> tuple[float, dict[str, np.ndarray]]:
        loss, found = right(*given, **masks)
        return factor * loss, {path: factor * value for path, value in found.items()}

    return gradients


@dataclass
class WrongTrainer:
    """A trainer whose optimiser, rates or velocity are changed on the way."""

    right: Any
    optimizer: Callable[[Any], Any] = lambda optimizer: optimizer
    rates: Callable[[Any], Any] = lambda rates: rates
    velocity: Callable[[Any], float] = lambda rates: 1.0

    def __call__(self, network: Any, optimizer: Any, transform: Any, seed: int) -> WrongTrainer:
        self.trainer = self.right(network, self.optimizer(optimizer), transform, seed)
        self.last: Any = None
        return self

    def step(self, images: Any, labels: Any, rates: Any, number: int, **masks: Any) -> Any:
        if self.last is not None and (factor := self.velocity((self.last, rates))) != 1.0:
            self.trainer.load_state({path: factor * value for path, value in self.trainer.state().items()})
        self.last = rates
        return self.trainer.step(images, labels, self.rates(rates), number, **masks)

    def state(self) -> Any:
        return self.trainer.state()


def training(**mistakes: Callable[..., Any]) -> Plant:
    return lambda framework, precision: (
        SimpleNamespace(
            **vars(wrapped()(framework, precision)[0]) | {"Trainer": WrongTrainer(framework.Trainer, **mistakes)}
        ),
        None,
    )


# what is planted, in which network, how, and the first level that must fail
MUTANTS: dict[str, tuple[Architecture, Plant, str]] = {
    "flatten order": (FLAT, loading("dense.weight", channels_last), "forward eval"),
    "square weight transposed": (SQUARE, loading("hidden.weight", np.transpose), "forward eval"),
    "kernel flipped": (PLAIN, loading("conv.weight", lambda w: w[:, :, ::-1, ::-1]), "forward eval"),
    "colours reversed": (PLAIN, loading("conv.weight", lambda w: w[:, ::-1]), "forward eval"),
    "bias not used": (PLAIN, loading("conv.bias", np.zeros_like), "forward eval"),
    "bias missing": (PLAIN, fields("conv", bias=False), "structure"),
    "name": (PLAIN, fields("conv", name="conv1"), "structure"),
    "name of the activation": (PLAIN, fields("relu", name="relu1"), "structure"),
    "more channels": (STRIDED, fields("conv", channels=5), "structure"),
    "padding, same shape": (STRIDED, fields("conv", padding=(0, 0)), "forward eval"),
    "padding, other shape": (AVERAGE, fields("conv", padding=(0, 0)), "structure"),
    "padding, other dense": (PLAIN, fields("conv", padding=(0, 1)), "structure"),
    "sigmoid for relu": (PLAIN, other_spec(lambda net: swap(net, "relu", Sigmoid("relu"))), "forward eval"),
    "average for maximum": (
        CEIL,
        other_spec(lambda net: swap(net, "pool", AvgPool("pool", (3, 3), (2, 2), ceil=True))),
        "forward eval",
    ),
    "floor for ceil": (CEIL, fields("pool", ceil=False), "structure"),
    "padding not counted": (AVERAGE, fields("pool", count_padding=False), "forward eval"),
    "eps": (NORM, fields("norm", eps=1e-3), "forward eval"),
    "gamma": (NORM, fields("norm", gamma=False), "structure"),
    "momentum's direction": (NORM, fields("norm", momentum=0.9), "update"),
    "biased variance": (NORM, fields("norm", unbiased=False), "update"),
    "batch statistics in evaluation": (NORM, wrapped(forward=in_training_mode), "forward eval"),
    "alpha": (LRN, fields("lrn", divide_alpha=False), "forward eval"),
    "k": (LRN, fields("lrn", k=1.0), "forward eval"),
    "window": (LRN, fields("lrn", size=5, alpha=0.5 * 5 / 3), "forward eval"),
    "dropout in evaluation": (DROPOUT, wrapped(forward=in_training_mode), "forward eval"),
    "dropout's scale": (DROPOUT, fields("dropout", rate=0.4), "forward train"),
    "no dropout": (
        DROPOUT,
        wrapped(forward=lambda right, *given, masks=None, **mode: right(*given, masks=unmasked(masks), **mode)),
        "forward train",
    ),
    "no dropout in the gradient": (
        DROPOUT,
        wrapped(gradients=lambda right, *given, masks: right(*given, masks=unmasked(masks))),
        "gradient",
    ),
    "branch order": (BRANCHES, other_spec(lambda net: reverse_branches(net)), "forward eval"),
    "residual scale": (RESIDUAL, fields("unit", scale=1.0), "forward eval"),
    "auxiliary weight": (SIDE, fields("head", weight=0.4), "gradient"),
    "images in another order": (
        PLAIN,
        wrapped(forward=lambda right, network, images, **mode: right(network, images[::-1].copy(), **mode)),
        "forward eval",
    ),
    "NaN in an output": (
        PLAIN,
        wrapped(forward=lambda right, *given, **mode: set_entry(right(*given, **mode), "conv", np.nan)),
        "forward eval",
    ),
    "NaN in a gradient": (
        PLAIN,
        wrapped(
            gradients=lambda right, *given, **mode: (
                right(*given, **mode)[0],
                set_entry(right(*given, **mode)[1], "conv.bias", np.nan),
            )
        ),
        "gradient",
    ),
    "output missing": (
        PLAIN,
        wrapped(forward=lambda right, *given, **mode: {p: v for p, v in right(*given, **mode).items() if p != "relu"}),
        "structure",
    ),
    "a crash": (PLAIN, wrapped(gradients=lambda right, *given, **mode: 1 / 0), "forward eval"),
    "loss summed": (PLAIN, wrapped(gradients=scaled(BATCH)), "gradient"),
    "loss summed in training": (
        PLAIN,
        training(rates=lambda rates: replace(rates, learning_rate=BATCH * rates.learning_rate)),
        "update",
    ),
    "decay of biases": (PLAIN, training(optimizer=lambda optimizer: replace(optimizer, decayed="all")), "update"),
    "no decay": (PLAIN, training(optimizer=lambda optimizer: replace(optimizer, weight_decay=0.0)), "update"),
    "no momentum": (PLAIN, training(rates=lambda rates: replace(rates, momentum=0.0)), "update"),
    "rate in the velocity": (
        PLAIN,
        training(velocity=lambda rates: rates[0].learning_rate / rates[1].learning_rate),
        "update",
    ),
}
CLEAR = ("flatten order", "padding, same shape", "bias not used", "alpha", "no dropout", "loss summed", "no momentum")


def reverse_branches(architecture: Architecture) -> Architecture:
    mixed = cast(Branches, architecture.layers[0])
    return change(architecture, "mixed", branches=mixed.branches[::-1])


def first_failure(report: Report) -> str | None:
    failed = {check.level for check in report.failures}
    return next((level for level in ALL_LEVELS if level in failed), None)


@every_backend
@pytest.mark.parametrize(("mutant", "precision"), [(m, "fp64") for m in MUTANTS] + [(m, "fp32") for m in CLEAR])
def test_planted_faults_are_caught_at_their_level(name: str, mutant: str, precision: str) -> None:
    architecture, plant, level = MUTANTS[mutant]
    framework, build = plant(backend.load(name), precision)
    report = conform(framework, judged(architecture), precision, build=build)
    assert not report.passed
    assert first_failure(report) == level


@every_backend
@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        *((architecture, "fp64") for architecture in dict.fromkeys(m[0] for m in MUTANTS.values())),
        *((architecture, "fp32") for architecture in dict.fromkeys(MUTANTS[name][0] for name in CLEAR)),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_without_a_fault_the_same_networks_pass(name: str, architecture: Architecture, precision: str) -> None:
    framework, _ = wrapped()(backend.load(name), precision)
    report = conform(framework, judged(architecture), precision)
    assert report.failures == []
    assert report.passed


@every_backend
def test_softmax_before_the_loss_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted in the backend's own loss; the network's own name keeps compiled functions of other tests out."""
    package = backend.load(name).__name__  # type: ignore[attr-defined]
    right = importlib.import_module(f"{package}.passes").total_loss

    def wrong(network: Any, output: Any, labels: Any) -> Any:
        powers = 2.718281828459045**output
        return right(network, powers / powers.sum(1, keepdims=True), labels)

    for module in ("passes", "training"):
        monkeypatch.setattr(importlib.import_module(f"{package}.{module}"), "total_loss", wrong)
    report = conform(backend.load(name), judged(replace(PLAIN, name="softmax_twice")), "fp64")
    assert first_failure(report) == "gradient"
    assert {check.level for check in report.failures} == {"gradient", "update"}


@every_backend
def test_a_report_without_all_levels_is_no_pass(name: str) -> None:
    report = conform(backend.load(name), judged(PLAIN), "fp64")
    for level in ALL_LEVELS:
        assert not replace(report, checks=[check for check in report.checks if check.level != level]).passed
    assert not suite.Verdict(PLAIN, [], [], {}).passed
    assert suite.as_dict(suite.Verdict(PLAIN, [report], [], {}))["backends"][0]["levels"]["update"]["passed"]


def test_the_case_can_show_faults() -> None:
    """Several different images, neither square nor constant; nothing at a neutral start; a flatten larger than 1x1."""
    case = judged(NORM).case
    assert case.images.shape == (BATCH, 2, 6, 9)
    assert len({image.tobytes() for image in case.stored}) == BATCH
    assert case.images.min() < 0 < case.images.max()
    for path, value in case.parameters.items():
        assert np.ptp(value) > 0, path
        assert not np.isin(value, (0.0, 1.0)).any(), path
    same = make_case(NORM)
    np.testing.assert_array_equal(same.stored, case.stored)
    assert not np.array_equal(make_case(NORM, 1).stored, case.stored)


def test_the_reference_alone_is_judged_right() -> None:
    """The reference at the budgets' own place: equal to itself, and not to itself with one weight moved."""
    found = judged(PLAIN)
    values = set_entry(found.case.parameters, "conv.weight", 0.123)
    moved = reference.forward(PLAIN, values, found.case.images).outputs
    budget = found.budgets["fp32"]["forward eval"]
    expected = found.expected["forward eval"]
    assert all(np.abs(moved[path] - expected[path]).max() > 100 * budget[path] for path in expected)
