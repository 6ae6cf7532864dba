"""Emitted files do what the spec says: executed, loaded, compared with the reference in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import awkward_networks
from emitting import runners
from triptych import zoo
from triptych.backend import registry
from triptych.conformance.case import Case, conformance_architecture, make_case
from triptych.emitting.emit import Emitted, emit
from triptych.reference import network as reference
from triptych.spec.layers import Architecture, BatchNorm, Block, Dropout, Layer, outputs, with_children
from triptych.utils.arrays import Array, largest
from triptych.reference.loss import cross_entropy, linear
from triptych.spec.kinds.layer_pass import exact
from dataclasses import replace
from marks import ALL

BACKENDS = registry.installed()
ZOO = list(zoo.registry())
TOLERANCE = 1e-12
TRAINED = ZOO if ALL else ZOO[::3]


def undropped(layer: Layer) -> Layer:
    """With dropout that drops nothing: the emitted networks draw their own."""
    return replace(layer, rate=0.0) if isinstance(layer, Dropout) else with_children(layer, undropped)


def without_drops(architecture: Architecture) -> Architecture:
    return replace(architecture, layers=tuple(map(undropped, architecture.layers)))


def expected(case: Case, train: bool) -> tuple[runners.Ran, list[Array]]:
    """What the reference makes of a case, and the gradients of the outputs."""
    run = reference.forward(case.architecture, case.exact, case.images, train=train, masks=case.masks(0))
    first = [run.logits, *(run.outputs[path] for path in run.heads[1:])]
    heads = list(run.auxiliary.values())
    if isinstance(case.targets, tuple):
        cotangents = linear(first, case.targets, exact)[1]
    else:
        cotangents = [cross_entropy(run.logits, case.targets, exact)[1]]
        cotangents += [weight * cross_entropy(logits, case.targets, exact)[1] for weight, logits in heads]
    gradients = reference.backward(run, case.targets)[1] if train else {}
    return runners.Ran([*first, *(logits for _, logits in heads)], gradients, run.statistics), list(cotangents)


def check(emitted: Emitted, architecture: Architecture, folder: Path, train: bool) -> None:
    """The emitted network against the reference."""
    case = make_case(architecture)
    known, cotangents = expected(case, train)
    network = runners.load(emitted, case.exact, folder)
    found = runners.run(emitted, network, case.images, train, cotangents)
    for output, value in zip(found.outputs, known.outputs, strict=True):
        assert output.shape == value.shape
        assert largest(output - value) <= TOLERANCE * max(1.0, largest(value))
    for path, value in known.gradients.items():
        assert largest(found.gradients[path] - value) <= TOLERANCE * max(1.0, largest(value)), path
    assert set(found.gradients) == set(known.gradients)
    for path, value in known.state.items():
        assert largest(found.state[path] - value) <= TOLERANCE * max(1.0, largest(value)), path


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ZOO)
def test_the_zoo_in_evaluation(name: str, backend: str, tmp_path: Path) -> None:
    architecture = conformance_architecture(name)
    check(emit(architecture, backend), architecture, tmp_path, train=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", TRAINED)
def test_the_zoo_in_training(name: str, backend: str, tmp_path: Path) -> None:
    architecture = without_drops(conformance_architecture(name))
    check(emit(architecture, backend), architecture, tmp_path, train=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", awkward_networks.CASES)
def test_every_kind_of_layer(name: str, backend: str, tmp_path: Path) -> None:
    architecture = without_drops(awkward_networks.CASES[name])
    emitted = emit(architecture, backend)
    check(emitted, architecture, tmp_path, train=False)
    check(emitted, architecture, tmp_path, train=True)
