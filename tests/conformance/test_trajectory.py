"""Many steps: the trajectory in float64, bug or chaos in float32, and the equivalence of accuracies."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mutants import networks as nets
from mutants.optimizers import trainer
from mutants.plants import replaced
from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.backend.precision import Flag
from triptych.conformance import chaos, long_run
from triptych.conformance.case import make_case
from triptych.conformance.compare import Check
from triptych.conformance.equivalence import equivalence
from triptych.conformance.trajectory import (
    QUARTERS,
    STEPS,
    Arrays,
    Trajectory,
    follow,
    follow_reference,
    judge_trajectory,
    make_trajectory,
)
from triptych.optim.optimizers import SGD
from triptych.spec.layers import BatchNorm, Conv, Dropout, MaxPool, ReLU
from triptych.utils.errors import TriptychError

every_backend = pytest.mark.parametrize("name", registry.installed())
MIXED = nets.net(
    "mixed_steps",
    Conv("conv", 4, (3, 3), padding=(1, 1), bias=False),
    BatchNorm("norm"),
    ReLU("relu"),
    MaxPool("pool", (2, 2), (2, 2)),
    Dropout("dropout", 0.5),
)


@cache
def trajectory() -> Trajectory:
    return make_trajectory(make_case(MIXED))


@cache
def expected() -> Arrays:
    return follow_reference(trajectory())


def checks_of(framework: Any, name: str) -> list[Check]:
    network = registry.load(name).build(MIXED, execution=exact("fp64", "full"))
    return judge_trajectory(expected(), follow(framework, network, trajectory()))


@every_backend
def test_a_hundred_steps_equal_the_reference(name: str) -> None:
    checks = checks_of(registry.load(name), name)
    assert [check for check in checks if not check.passed] == []
    names = {"loss of every step", "right answers of every step", "predictions at the end", "norm.running_var"}
    assert {check.tensor for check in checks} >= names | {"velocity.dense.weight"}


def test_the_steps_have_all_that_can_go_wrong() -> None:
    rates = [trajectory().rates(step) for step in range(STEPS)]
    changes = [step for step in range(1, STEPS) if rates[step].learning_rate != rates[step - 1].learning_rate]
    assert changes == [25, 50, 75]
    assert len({rate.momentum for rate in rates}) > 1
    batches = trajectory().batches()
    assert len(batches) == STEPS
    assert any(batch.flips.any() for batch in batches)
    assert len({tuple(batch.rows) for batch in batches}) > STEPS / 2
    masks = [trajectory().case.masks(step)["dropout"] for step in range(2)]
    assert (masks[0] != masks[1]).any()


@every_backend
@pytest.mark.parametrize(
    "faults",
    [
        {"rates": lambda rates, last: replace(rates, learning_rate=rates.learning_rate * (1 + 1e-5))},
        {"rates": lambda rates, last: replace(rates, momentum=0.9)},
        {"optimizer": lambda optimizer: replace(optimizer, decayed="all")},
        {"optimizer": lambda optimizer: replace(optimizer, nesterov=True)},
    ],
    ids=["rate", "momentum stays", "decay of biases", "nesterov"],
)
def test_a_wrong_step_is_seen(name: str, faults: dict[str, Any]) -> None:
    with trainer(**faults)(registry.load(name), "fp64") as (framework, _):
        assert any(not check.passed for check in checks_of(framework, name))


@every_backend
@pytest.mark.parametrize("wrong", ["predictions", "right answers"])
def test_what_a_trainer_reports_is_judged(name: str, wrong: str) -> None:
    framework = registry.load(name)

    class Wrong(framework.Trainer):  # type: ignore[misc, name-defined]
        def predict(self, images: Any) -> Any:
            found = super().predict(images)
            return found[::-1] if wrong == "predictions" else found

        def read(self, handles: Any) -> Any:
            found = super().read(handles).copy()
            found[7, 1] += wrong == "right answers"
            return found

    failed = [check.tensor for check in checks_of(replaced(framework, Trainer=Wrong), name) if not check.passed]
    assert len(failed) == 1
    assert failed[0].startswith(wrong)


def test_mxnets_own_sgd_departs_at_the_first_change_of_the_rate() -> None:
    """It keeps the learning rate inside the velocity; until the rate changes, nothing shows."""
    optimizer = pytest.importorskip("triptych_mxnet.optimizer")  # before MXNet itself: it prepares the import
    mx = optimizer.mx

    class Stock(optimizer._Sgd):
        """The operator that mx.optimizer.SGD calls."""

        def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
            rates = {"lr": self._get_lr(index), "wd": self._get_wd(index), "momentum": self.momentum}
            mx.nd.sgd_mom_update(weight, grad, state[0], out=weight, **rates)

    with patch.dict(optimizer.NATIVE, {SGD: Stock}):
        framework = registry.load("mxnet")
        found = follow(framework, framework.build(MIXED, execution=exact("fp64", "full")), trajectory())[
            "loss of every step"
        ]
    right = expected()["loss of every step"]
    first = STEPS // len(QUARTERS)  # this step is the first at another rate; its loss is that of the steps before
    np.testing.assert_allclose(found[: first + 1], right[: first + 1], rtol=1e-12)
    assert np.abs(found - right)[first + 1 : first + 5].min() > 1e-9


@pytest.mark.skipif(len(registry.installed()) < 2, reason="needs two frameworks")
def test_float32_runs_of_backends_are_chaos_and_a_wrong_rate_is_a_bug() -> None:
    left, right = (registry.load(name) for name in registry.installed()[:2])
    (pair,) = chaos.bug_or_chaos([left, right], trajectory())
    assert (pair.verdict, pair.first_step) == ("chaos", None)
    wrong = {"rates": lambda rates, last: replace(rates, learning_rate=1.01 * rates.learning_rate)}
    with trainer(**wrong)(right, "fp32") as (framework, _):
        (pair,) = chaos.bug_or_chaos([left, framework], trajectory())
    assert pair.verdict == "bug"
    assert pair.first_step is not None
    assert pair.first_step < STEPS / 2


def test_a_neighbour_is_one_unit_away_everywhere() -> None:
    case = trajectory().case
    for path, value in chaos.neighbour(case, 0).items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(np.abs(value.view(np.int32) - case.parameters[path].view(np.int32)), 1)
    assert any((chaos.neighbour(case, 0)[p] != chaos.neighbour(case, 1)[p]).any() for p in case.parameters)


@pytest.mark.parametrize(
    ("moved", "twin", "verdict", "first"),
    [
        (1e-4, 1e-4, "chaos", None),
        (1e-2, 1e-4, "bug", 0),
        (1e-4, 0.9, "undecided", None),
        (0.0, 0.0, "chaos", None),
    ],
)
def test_the_verdict_is_relative_to_a_backends_own_runs(moved: float, twin: float, verdict: str, first: Any) -> None:
    base = np.ones(5)
    pair = chaos.judge_pair("a", "b", {"a": [base, base + twin], "b": [base + moved, base + moved + twin]})
    assert (pair.verdict, pair.first_step) == (verdict, first)


def test_what_comes_after_the_runs_are_strangers_is_not_judged() -> None:
    base, twin = np.ones(6), np.array([0, 0, 0, 0.5, 0.5, 0.5])
    other = base + np.array([0, 0, 0, 0, 0, 9.0])
    pair = chaos.judge_pair("a", "b", {"a": [base, base + twin], "b": [other, other]})
    assert (pair.verdict, pair.saturated_at) == ("chaos", 3)


@every_backend
def test_a_long_run_is_not_run_where_a_precision_flag_stays_on(name: str) -> None:
    framework = registry.load(name)
    flag = Flag("A_FLAG", "on", exact=False, way_out="unset it")
    found = long_run.run_long(MIXED, [replaced(framework, precision_flags=lambda device: [flag])], steps=4)
    assert [check.problem for check in found.checks[name]] == [flag.problem]
    assert (found.passed, found.pairs) == (False, ())


def test_a_long_run_without_its_rate_changes_is_refused() -> None:
    with pytest.raises(TriptychError, match="--trajectory 3 must be at least 4 steps"):
        long_run.run_long(MIXED, [], steps=3)
    assert not long_run.LongRun(4, {}, ()).passed


ACCURACIES = [0.912, 0.905, 0.917, 0.909, 0.914]


def test_equivalence_is_two_one_sided_t_tests() -> None:
    """Against scipy's own t test of each side."""
    from scipy import stats

    right = np.add(ACCURACIES, [0.001, -0.003, 0.002, 0.004, -0.001])
    found = equivalence(ACCURACIES, right)
    difference = right - ACCURACIES
    below = stats.ttest_1samp(difference, 0.01, alternative="less").pvalue
    above = stats.ttest_1samp(difference, -0.01, alternative="greater").pvalue
    assert found.p == pytest.approx(max(below, above))
    assert found.equivalent
    assert (found.low + found.high) / 2 == pytest.approx(found.difference) == pytest.approx(difference.mean())


def test_a_loss_of_two_points_is_detected_and_noise_proves_nothing() -> None:
    assert equivalence(ACCURACIES, ACCURACIES).equivalent
    assert not equivalence(ACCURACIES, np.array(ACCURACIES) - 0.02).equivalent
    assert not equivalence(ACCURACIES, np.add(ACCURACIES, [0.03, -0.03, 0.02, -0.02, 0.0])).equivalent
    with pytest.raises(TriptychError, match="needs 5 or more pairs"):
        equivalence(ACCURACIES[:4], ACCURACIES[:4])
    with pytest.raises(TriptychError, match="5 and 4 accuracies"):
        equivalence(ACCURACIES, ACCURACIES[:4])


@given(st.lists(st.floats(0.5, 1), min_size=5, max_size=8), st.lists(st.floats(-0.05, 0.05), min_size=8, max_size=8))
def test_equivalence_does_not_depend_on_the_side(left: list[float], moves: list[float]) -> None:
    right = [value + move for value, move in zip(left, moves, strict=False)]
    one, other = equivalence(left, right), equivalence(right, left)
    assert one.equivalent == other.equivalent == (one.low > -0.01 and one.high < 0.01)
    assert one.difference == pytest.approx(-other.difference)


def test_the_neighbours_of_a_third_backend_show_a_knifes_edge_too() -> None:
    base = np.ones(10)
    behind = np.where(np.arange(10) < 5, 0.0, 1e-3)  # the other side of the edge, from step 5 on
    two = {"a": [base, base], "b": [base + behind, base + behind]}
    assert chaos.judge_pair("a", "b", two).verdict == "bug"
    assert chaos.judge_pair("a", "b", two | {"c": [base, base + behind]}).verdict == "chaos"
