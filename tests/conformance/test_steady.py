"""Gradients in float32: what a batch norm over few values hides, fixed statistics show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marks import every_backend, later
from triptych import zoo
from triptych.backend import registry
from triptych.conformance import steady
from triptych.conformance.case import conformance_architecture, make_case
from triptych.conformance.conform import conform
from triptych.conformance.levels import GRADIENT, PARAMETERS, STEADY, VALUES
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.sharpness import sharpness
from triptych.conformance.steady import blunt, fixed
from triptych.spec.layers import BatchNorm, walk

ROWS = [PARAMETERS, VALUES, GRADIENT, STEADY]


@pytest.fixture(scope="module")
def run() -> ReferenceRun:
    return ReferenceRun(make_case(conformance_architecture("vgg16_bn")))


def as_bfloat16(value: Any) -> Any:
    bits = np.asarray(value, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32)


FAULTS = {
    "times 0.98": lambda name, value: 0.98 * value,
    "as bfloat16": lambda name, value: as_bfloat16(value),
    "none in the stem": lambda name, value: 0 * value if name.startswith(("block1.", "input")) else value,
    "one layer's times 0.9": lambda name, value: 0.9 * value if name == "block3.conv2.weight" else value,
}


def with_gradients(framework: Any, fault: Any) -> Any:
    """The backend with a fault in the gradients that it gives to look at, but not in those that it trains with."""

    def gradients(*given: Any, **more: Any) -> Any:
        loss, arrays = framework.gradients(*given, **more)
        return loss, {name: fault(name, value) for name, value in arrays.items()}

    return SimpleNamespace(**{**vars(framework), "gradients": gradients})


def with_trainer(framework: Any, fault: Any) -> Any:
    """The backend whose trainer's step, and nothing else, has the fault."""

    class Trainer(framework.Trainer):  # type: ignore[misc, name-defined]
        def state(self) -> Any:
            slots = super().state()
            return {name: fault(name.removeprefix("velocity."), value) for name, value in slots.items()}

    return SimpleNamespace(**{**vars(framework), "Trainer": Trainer})


@every_backend
def test_a_right_backend_passes(name: str, run: ReferenceRun) -> None:
    report = conform(registry.load(name), run, "fp32", levels=ROWS)
    assert report.failures == []
    again = [check for check in report.at("gradient") if steady.judged_again(check.tensor)]
    assert len(again) > 60
    assert max(check.ratio for check in again) < 0.5


@every_backend
@pytest.mark.parametrize("plant", [with_gradients, with_trainer])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_loose_budget_hides_is_found(name: str, fault: str, plant: Any, run: ReferenceRun) -> None:
    wrong = plant(registry.load(name), FAULTS[fault])
    failed = conform(wrong, run, "fp32", levels=ROWS).failures
    assert any(steady.judged_again(check.tensor) for check in failed)


@later
@every_backend
def test_without_it_a_stem_that_learns_too_slowly_would_pass(name: str) -> None:
    run = ReferenceRun(make_case(conformance_architecture("inception_v3")))
    stem = {name for name in run.gradients if name.split(".")[0].startswith(("conv1", "norm1"))}
    assert stem
    wrong = with_gradients(registry.load(name), lambda path, value: 0.7 * value if path in stem else value)
    assert conform(wrong, run, "fp32", levels=[PARAMETERS, VALUES, GRADIENT]).failures == []
    assert conform(wrong, run, "fp32", levels=ROWS).failures


def test_equal_runs_draw_equal_cases(run: ReferenceRun) -> None:
    again = ReferenceRun(make_case(conformance_architecture("vgg16_bn"))).steady
    assert [case.case.seed for case in again] == [case.case.seed for case in run.steady]
    assert all(left.budgets == right.budgets for left, right in zip(again, run.steady, strict=True))


def test_statistics_are_fixed_in_every_batch_norm() -> None:
    norms = [
        layer
        for _, layer in walk(fixed(conformance_architecture("googlenet_bn")).layers)
        if isinstance(layer, BatchNorm)
    ]
    assert norms
    assert all(layer.frozen for layer in norms)


def test_a_network_whose_budgets_are_sharp_needs_none() -> None:
    run = ReferenceRun(make_case(conformance_architecture("lenet")))
    assert not steady.wanted(run, "fp32")


def test_float64_needs_none(run: ReferenceRun) -> None:
    assert not steady.wanted(run, "fp64")


QUICK = ("vgg11_bn", "alexnet_2012", "resnet18_v2", "mobilenet0.25")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=later) for name in zoo.registry()]
)
def test_every_gradient_of_the_zoo_is_judged_sharply(name: str) -> None:
    run = ReferenceRun(make_case(conformance_architecture(name)))
    told = {array for case in run.steady for array in case.gradients}
    assert blunt(run.budgets["fp32"]["gradient"], run.gradients) <= told
    assert all(not blunt(case.budgets, case.gradients) for case in run.steady)


@every_backend
def test_a_report_says_what_its_budgets_tell(name: str, run: ReferenceRun) -> None:
    of = {level.level: level for level in sharpness(conform(registry.load(name), run, "fp32", levels=ROWS))}
    assert of["gradient"].blunt > 40
    assert of["gradient"].left == ()
    loose = {level.level: level for level in sharpness(conform(registry.load(name), run, "fp32", levels=ROWS[:3]))}
    assert len(loose["gradient"].left) == loose["gradient"].blunt
