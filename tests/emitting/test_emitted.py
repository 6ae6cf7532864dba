"""Emitted files do what the spec says: executed, loaded, compared with the reference in float64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import awkward_networks
from emitting import runners
from marks import ALL
from triptych import zoo
from triptych.backend import registry
from triptych.backend.targets import Targets
from triptych.conformance.case import Case, conformance_architecture, make_case
from triptych.conformance.tolerance import budgets, perturbations
from triptych.emitting.emit import Emitted, emit
from triptych.reference import network as reference
from triptych.reference.loss import cross_entropy, linear
from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.spec.layers import Architecture, BatchNorm, Conv, Dropout, Layer, MaxPool, with_children
from triptych.utils.arrays import Array, largest

BACKENDS = registry.installed()
ZOO = list(zoo.registry())
TOLERANCE = 1e-12
# Without TRIPTYCH_TEST_ALL: of every this many networks one, by turns; JAX compiles each for ten seconds.
EVALUATED = {"torch": 1, "mxnet": 4, "jax": 20}
TRAINED = {"torch": 3, "mxnet": 6, "jax": 32}


def undropped(layer: Layer) -> Layer:
    """With dropout that drops nothing: the emitted networks draw their own."""
    return replace(layer, rate=0.0) if isinstance(layer, Dropout) else with_children(layer, undropped)


def kept_by_mxnet(layer: Layer) -> Layer:
    """With running statistics as MXNet's operator can keep them: the biased variance, and a momentum that float32 has
    (it reads 0.9 as 0.89999998)."""
    if isinstance(layer, BatchNorm):
        return replace(layer, unbiased=False, momentum=0.125)
    return with_children(layer, kept_by_mxnet)


def trainable(architecture: Architecture, backend: str) -> Architecture:
    """What can be compared in training."""
    layers = tuple(map(undropped, architecture.layers))
    return replace(architecture, layers=tuple(map(kept_by_mxnet, layers)) if backend == "mxnet" else layers)


def passed(case: Case, train: bool, rounding: Rounding = exact) -> tuple[runners.Ran, list[Array]]:
    """What the reference makes of a case, and the gradients of the outputs."""
    masks = case.masks(0)
    run = reference.forward(case.architecture, case.exact, case.images, train=train, masks=masks, rounding=rounding)
    first = [run.logits, *(run.outputs[path] for path in run.heads[1:])]
    heads = list(run.auxiliary.values())
    targets: Targets = case.targets
    if isinstance(targets, tuple):
        targets = tuple(np.asarray(value, np.float64) for value in targets)
        cotangents = linear(first, targets)[1]
    else:
        cotangents = [cross_entropy(run.logits, targets)[1]]
        cotangents += [weight * cross_entropy(logits, targets)[1] for weight, logits in heads]
    gradients = reference.backward(run, targets)[1] if train else {}
    return runners.Ran([*first, *(logits for _, logits in heads)], gradients, run.statistics), cotangents


def named(run: runners.Ran) -> dict[str, Array]:
    """All arrays of a pass under one name each; of the state what the reference has, the running statistics."""
    outputs = {f"output {number}": value for number, value in enumerate(run.outputs)}
    return outputs | {f"gradient {path}": value for path, value in run.gradients.items()} | run.state


def check(emitted: Emitted, architecture: Architecture, folder: Path, train: bool) -> float:
    """The emitted network against the reference: every array within 1e-12 of its scale. Where one is not, the judge's
    own rule, which knows what rounding does to small rests of cancellations, has to allow it. The largest difference,
    of its array's scale or of 1, is returned."""
    case = make_case(architecture)
    known, cotangents = passed(case, train)
    network = runners.load(emitted, case.exact, folder)
    found = runners.run(emitted, network, case.images, train, cotangents)
    assert len(found.outputs) == len(known.outputs)
    assert set(found.gradients) == set(known.gradients)
    off = differences(named(known), named(found))
    if any(off[name] > TOLERANCE * max(1.0, largest(value)) for name, value in named(known).items()):
        perturbed = (named(passed(case, train, rounding)[0]) for rounding in perturbations(0))
        allowed = budgets(named(known), perturbed)["fp64"]
        assert {name: value for name, value in off.items() if value > allowed[name]} == {}
    return max(off[name] / max(1.0, largest(value)) for name, value in named(known).items())


def differences(known: dict[str, Array], found: dict[str, Array]) -> dict[str, float]:
    for name, value in known.items():
        assert found[name].shape == value.shape, name
        assert np.isfinite(found[name]).all(), name
    return {name: largest(found[name] - value) for name, value in known.items()}


def chosen(every: dict[str, int]) -> list[tuple[str, str]]:
    """Names of the zoo and backends."""
    return [(name, backend) for backend in BACKENDS for name in ZOO[:: 1 if ALL else every[backend]]]


@pytest.mark.parametrize(("name", "backend"), chosen(EVALUATED))
def test_the_zoo_in_evaluation(name: str, backend: str, tmp_path: Path) -> None:
    architecture = conformance_architecture(name)
    check(emit(architecture, backend), architecture, tmp_path, train=False)


@pytest.mark.parametrize(("name", "backend"), chosen(TRAINED))
def test_the_zoo_in_training(name: str, backend: str, tmp_path: Path) -> None:
    architecture = trainable(conformance_architecture(name), backend)
    check(emit(architecture, backend), architecture, tmp_path, train=True)


KINDS = list(awkward_networks.CASES)
OF_KINDS = [(name, backend) for backend in BACKENDS for name in KINDS[:: 1 if ALL or backend != "jax" else 9]]


@pytest.mark.parametrize(("name", "backend"), OF_KINDS)
def test_every_kind_of_layer(name: str, backend: str, tmp_path: Path) -> None:
    architecture = trainable(awkward_networks.CASES[name], backend)
    emitted = emit(architecture, backend)
    check(emitted, architecture, tmp_path, train=False)
    check(emitted, architecture, tmp_path, train=True)


def several_outputs() -> Architecture:
    """A graph whose outputs are two, one of them a map."""
    graph = awkward_networks.bridge(("d", "b"))
    return Architecture("two", (3, 7, 8), 0, (awkward_networks.STEM, graph))


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_outputs(backend: str, tmp_path: Path) -> None:
    architecture = several_outputs()
    check(emit(architecture, backend), architecture, tmp_path, train=False)
    check(emit(architecture, backend), architecture, tmp_path, train=True)


POOLS = {
    "caffe": MaxPool("pool", (2, 2), (2, 2), ceil=True),
    "wider": MaxPool("pool", (3, 3), (2, 2), ceil=True),
    "padded": MaxPool("pool", (3, 4), (2, 3), (1, 1), ceil=True),
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pool_that_rounds_up_does_so_at_every_size(backend: str, pool: str, tmp_path: Path) -> None:
    """Also where nothing hangs over at the size that the file was emitted for: detectors see images of any size."""
    architecture = Architecture("net", (3, 9, 9), 0, (Conv("conv", 4, (1, 1)), POOLS[pool], Conv("last", 2, (1, 1))))
    for size in ((8, 11), (9, 9)):
        emitted = emit(replace(architecture, input=(3, *size)), backend)
        assert "rounded up" in emitted.source
        for height, width in ((8, 8), (9, 9), (10, 11)):
            check(emitted, replace(architecture, input=(3, height, width)), tmp_path, train=True)


RATE, STEPS = 0.125, 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_steps_of_training_are_those_of_the_reference(backend: str, tmp_path: Path) -> None:
    """By the framework's own optimiser, hybridized and compiled as its users have it."""
    architecture = trainable(conformance_architecture("resnet18_v1b"), backend)
    case = make_case(architecture)
    emitted = emit(architecture, backend)
    cotangent = passed(case, train=True)[1][0]
    found = runners.train(emitted, runners.load(emitted, case.exact, tmp_path), case.images, cotangent, RATE, STEPS)
    expected = dict(case.exact)
    for _ in range(STEPS):
        run = reference.forward(architecture, expected, case.images, train=True)
        reference.backward(run, (cotangent * len(cotangent),))  # it takes the mean over the batch
        expected |= {path: expected[path] - RATE * run.gradients[path] for path in run.gradients if path != "input"}
        expected |= run.statistics
    for path, value in expected.items():
        assert largest(found[path] - value) <= TOLERANCE * max(1.0, largest(value)), path
        assert path.endswith("running_var") or largest(value - case.exact[path]) > 0, path


@pytest.mark.skipif("torch" not in registry.installed(), reason="PyTorch is not installed")
@pytest.mark.parametrize(("old", "new"), [("padding=1", "padding=0"), ("nn.ReLU()", "nn.Tanh()"), ("0.3", "0.4")])
def test_a_wrong_number_is_seen(old: str, new: str, tmp_path: Path) -> None:
    architecture = awkward_networks.CASES["norm"] if old != "padding=1" else awkward_networks.CASES["depthwise"]
    architecture = replace(architecture, layers=tuple(map(slower, architecture.layers)))
    emitted = emit(architecture, "torch")
    assert old in emitted.source
    with pytest.raises((AssertionError, RuntimeError)):
        check(replace(emitted, source=emitted.source.replace(old, new)), architecture, tmp_path, train=True)


def slower(layer: Layer) -> Layer:
    return replace(layer, momentum=0.3) if isinstance(layer, BatchNorm) else layer
