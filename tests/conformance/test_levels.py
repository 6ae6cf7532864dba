"""Conformance of the zoo on every installed backend, and what keeps it sharp.

One architecture of every kind runs always; the whole zoo runs with TRIPTYCH_TEST_ALL=1 (many minutes). Planted
faults are in `test_mutants.py`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from marks import every_backend, later, needs_backend
from mutants.networks import NORM, PLAIN, reference_run
from mutants.passes import set_entry
from triptych import zoo
from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.conformance import inputs, suite, tails
from triptych.conformance.case import BATCH, conformance_architecture, make_case
from triptych.conformance.conform import conform
from triptych.conformance.levels import ALL_LEVELS, PARAMETERS, TRAINING, VALUES
from triptych.conformance.reference_run import DRAWN, ReferenceRun
from triptych.conformance.updates import MOMENTUM, OTHERS, UPDATES
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import OPTIMIZERS, SGD, Rates
from triptych.reference import network as reference
from triptych.spec.analysis import primitives
from triptych.spec.layers import Architecture, BatchNorm, Dense, Dropout, Flatten, Initializer, PReLU
from triptych.utils.errors import TriptychError


def zoo_names() -> list[Any]:
    """One of each kind of the first families always: 40 s each; JAX compiles the deeper ones for minutes."""
    quick = ("alexnet", "lenet", "vgg11", "vgg13_bn")
    return [name if name in quick else pytest.param(name, marks=later) for name in zoo.registry()]


@needs_backend
@pytest.mark.parametrize("name", zoo_names())
def test_the_zoo_conforms_on_every_backend_and_pairwise(name: str) -> None:
    names = registry.installed()
    verdict = suite.run(conformance_architecture(name), [registry.load(name) for name in names])
    failures = [(r.title, c) for r in verdict.reports for c in r.failures]
    assert failures == []
    assert [(r.name, r.precision) for r in verdict.reports] == [(n, p) for p in suite.PRECISIONS for n in names]
    assert len(verdict.pairs) == 2 * len(names) * (len(names) - 1) // 2
    assert all([check.level for check in pair.checks] == list(ALL_LEVELS[1:]) for pair in verdict.pairs)
    assert verdict.passed
    assert set(verdict.not_run) == set(registry.BACKENDS) - set(names)


SEEDS = {"lenet": 6, "vgg11": 1, "vgg11_bn": 2, "googlenet": 1}  # of 20, without TRIPTYCH_TEST_ALL


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
    run = ReferenceRun(make_case(conformance_architecture(name), seed))
    framework = registry.load(registry.installed()[0])
    for precision in suite.PRECISIONS:
        assert conform(framework, run, precision).failures == []


def test_a_loss_of_little_beside_1_gives_no_false_alarm(framework: Any) -> None:
    """Of this seed every label has the largest of its extreme logits: the loss is 0.0001."""
    architecture = Architecture("flat", (1, 6, 7), 3, (Flatten("flatten"), Dense("hidden", 12), Dense("dense", 3)))
    case = make_case(replace(architecture, initializer=Initializer("xavier_uniform")), 92)
    run = ReferenceRun(case)
    assert 0 < tails.expected(run)["tails: loss"] < 0.001
    for precision in suite.PRECISIONS:
        assert conform(framework, run, precision, levels=[PARAMETERS, VALUES, TRAINING]).failures == []


def has_norm(architecture: Architecture) -> bool:
    return any(isinstance(info.layer, BatchNorm) for info in primitives(architecture))


SHARP = ("alexnet", "lenet", "vgg11", "vgg16_1x1", "googlenet", "squeezenet1.0")


@pytest.mark.parametrize(
    "name",
    [
        name if name in SHARP else pytest.param(name, marks=later)
        for name in zoo.registry()
        if not has_norm(conformance_architecture(name))
    ],
)
def test_budgets_stay_sharp_without_batch_norm(name: str) -> None:
    """No derived budget is wide enough to hide a fault: float32 outputs to 3 digits, everything in float64 to 8."""
    run = ReferenceRun(make_case(conformance_architecture(name)))
    for level, expected in DRAWN:
        for path, value in expected(run).items():
            scale = np.abs(value).max()
            assert run.budgets["fp64"][level][path] <= 1e-8 * scale, (level, path)
            if level.startswith(("data", "forward")):
                assert run.budgets["fp32"][level][path] <= 1e-3 * scale, (level, path)


@needs_backend
@pytest.mark.parametrize("silenced", ["dense.weight", "conv.weight"])
def test_a_case_with_constant_logits_is_refused(silenced: str) -> None:
    case = make_case(PLAIN)
    values = case.parameters | {silenced: np.zeros_like(case.parameters[silenced])}
    with pytest.raises(ValueError, match=r"the reference's output '.*' of 'plain' is constant"):
        conform(registry.load(registry.installed()[0]), ReferenceRun(replace(case, parameters=values)), "fp64")


@every_backend
def test_gradients_that_are_all_0_are_judged(name: str) -> None:
    """Seed 1 gives positive values only, on which no slope has a gradient."""
    case = make_case(Architecture("positive", (1, 1, 1), 0, (PReLU("prelu"),)), 1)
    assert case.images.min() > 0
    assert conform(registry.load(name), ReferenceRun(case), "fp64").passed


def test_a_network_that_trains_nothing_is_refused() -> None:
    norm = BatchNorm("norm", gamma=False, beta=False)
    with pytest.raises(TriptychError, match="'still' has no trained parameters"):
        make_case(Architecture("still", (1, 2, 2), 0, (norm,)))


@every_backend
def test_a_report_without_all_levels_is_no_pass(name: str) -> None:
    report = conform(registry.load(name), reference_run(PLAIN), "fp64")
    for level in ALL_LEVELS:
        assert not replace(report, checks=tuple(check for check in report.checks if check.level != level)).passed
    assert not suite.Verdict(PLAIN, (), (), {}).passed
    assert suite.as_dict(suite.Verdict(PLAIN, (report,), (), {}))["backends"][0]["levels"]["update"]["passed"]


def test_the_case_can_show_faults() -> None:
    """Several different images, neither square nor constant; nothing at a neutral start; a flatten larger than 1x1."""
    case = reference_run(NORM).case
    assert case.images.shape == (BATCH, 2, 6, 9)
    assert len({image.tobytes() for image in case.stored}) == BATCH
    assert case.images.min() < 0 < case.images.max()
    for path, value in case.parameters.items():
        assert np.ptp(value) > 0, path
        assert not np.isin(value, (0.0, 1.0)).any(), path
    same = make_case(NORM)
    np.testing.assert_array_equal(same.stored, case.stored)
    assert not np.array_equal(make_case(NORM, 1).stored, case.stored)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_data_of_a_case_can_show_faults(channels: int) -> None:
    """Both axes are resized, one up and one down; crops, flips and normalisation differ; the last batch is smaller."""
    case = make_case(replace(PLAIN, input=(channels, 6, 9)))
    stored, transform, planned = inputs.stored_images(case), inputs.transform_of(case), inputs.planned(case)
    assert stored.shape[2] < 6
    assert stored.shape[3] > 9
    others = inputs.stored_images(case, inputs.other_channels(case))
    assert others.shape[2] > 6
    assert others.shape[3] < 9
    assert len({*transform.mean, *transform.std}) == 2 * channels
    assert [len(batch) for batch in planned] == [BATCH, BATCH, 1]
    for drawn in ("rows", "columns", "flips"):
        assert len(set(np.concatenate([getattr(batch, drawn) for batch in planned]))) > 1, drawn
    tints = {tuple(shift) for batch in planned if batch.shifts is not None for shift in batch.shifts}
    assert len(tints) == (inputs.IMAGES if channels == 3 else 0)
    observed = inputs.reference_inputs(case)
    blue_first = {"blue first": (inputs.IMAGES, channels, 6, 9)} if channels == 3 else {}
    assert {name: value.shape for name, value in observed.items()} == blue_first | {
        **{f"batch {number}": (len(batch), channels, 6, 9) for number, batch in enumerate(planned)},
        **dict.fromkeys(("evaluation", "other channels", "as wide", "as high"), (inputs.IMAGES, channels, 6, 9)),
    }
    assert {inputs.other_channels(case), channels} == {1, 3}


@needs_backend
def test_processes_that_share_many_architectures_are_begun_anew_and_the_order_stays(monkeypatch: Any) -> None:
    """A second round of processes; the heaviest is begun first, and stands where it was asked for."""
    monkeypatch.setattr(suite, "TASKS_PER_PROCESS", 1)
    asked = [replace(network, name=name) for name, network in (("a", PLAIN), ("b", NORM), ("c", PLAIN))]
    backends = [registry.load(registry.installed()[0])]
    verdicts = list(suite.run_many(asked, backends, jobs=2, precisions=("fp64",)))
    assert [verdict.architecture.name for verdict in verdicts] == ["a", "b", "c"]
    assert all(verdict.passed for verdict in verdicts)


def test_the_reference_alone_is_judged_right() -> None:
    """The reference at the budgets' own place: equal to itself, and not to itself with one weight moved."""
    run = reference_run(PLAIN)
    values = set_entry(run.case.parameters, "conv.weight", 0.123)
    moved = reference.forward(PLAIN, values, run.case.images).outputs
    budget = run.budgets["fp32"]["forward eval"]
    expected = run.outputs(train=False)
    assert all(np.abs(moved[path] - expected[path]).max() > 100 * budget[path] for path in expected)


@every_backend
def test_the_dropout_that_training_draws_itself_keeps_the_right_share_at_the_right_scale(name: str) -> None:
    """The levels are given masks. Behind it a dense layer that is all zero: one step leaves the mask in its weights."""
    layers = (Flatten("flatten"), Dropout("dropout", 0.3), Dense("dense", 2, bias=False))
    alone = Architecture("alone", (1, 32, 64), 2, layers, Initializer("kaiming_normal"))
    framework = registry.load(name)
    network = framework.build(alone, execution=exact("fp64"))
    framework.from_canonical(network, {"dense.weight": np.zeros((2, 2048), np.float32)})
    trainer = framework.Trainer(network, SGD(), InputTransform(1, 32, 64), 0)
    trainer.step(np.full((1, 1, 32, 64), 255, np.uint8), np.array([1]), Rates(1.0, 0.0), 0)
    moved = framework.to_canonical(network)["dense.weight"][1]  # half the pixel's value, which is 1, where it was kept
    kept = moved != 0
    assert abs(kept.mean() - 0.7) < 5 * np.sqrt(0.7 * 0.3 / kept.size)
    np.testing.assert_allclose(moved[kept], 0.5 / 0.7, rtol=1e-6)


def test_the_steps_of_every_optimiser_are_compared() -> None:
    assert sorted(UPDATES) == sorted([*OTHERS, "momentum"])
    assert {type(optimizer).name for optimizer in (*OTHERS.values(), MOMENTUM)} == set(OPTIMIZERS)
