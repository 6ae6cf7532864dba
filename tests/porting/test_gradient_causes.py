"""Why a gradient is another one where what goes forward is right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from triptych.conformance.case import make_case
from triptych.conformance.reference_run import INPUT, ReferenceRun
from triptych.porting import gradient_causes
from triptych.porting.subject import ARRIVING
from triptych.spec.layers import (
    Architecture,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Residual,
    Sigmoid,
    Tanh,
)
from triptych.utils.arrays import Array

NET = Architecture(
    "gradients",
    (3, 8, 9),
    4,
    (
        *(Conv("conv", 6, (3, 3), padding=(1, 1)), Tanh("tanh")),
        Branches(
            "gate",
            (
                Block("same", ()),
                Block("squeeze", (GlobalAvgPool("mean"), Conv("fc", 6, (1, 1)), Sigmoid("sigmoid"))),
            ),
            "multiply",
        ),
        Residual("unit", Block("body", (Conv("conv", 6, (1, 1)),))),
        *(Flatten("flatten"), Dense("dense", 4)),
    ),
)
RUN = ReferenceRun(make_case(NET, 0, 2))


def finding(name: str, **others: Array) -> Any:
    """Gradients as they are, but for these."""
    observed = dict(RUN.gradients.items()) | {name.replace("__", "."): value for name, value in others.items()}
    return SimpleNamespace(run=RUN, observed=observed, check=SimpleNamespace(tensor=name, budget=1e-12, problem=""))


def arrives(path: str, value: Array, **before: Array) -> tuple[str, str]:
    made = finding(ARRIVING + path)
    made.observed |= {ARRIVING + path: value} | {ARRIVING + name: each for name, each in before.items()}
    return gradient_causes.what_arrives(made, ARRIVING + path)


def test_a_part_that_does_not_come_back_is_told() -> None:
    trace = RUN.trace(True)
    text, layer = arrives("tanh", trace.arriving["tanh"] - trace.leaving["gate.squeeze.mean"])
    assert ("no gradient comes back from 'gate.squeeze.mean'" in text, layer) == (True, "gate.squeeze.mean")
    text, layer = arrives("tanh", trace.leaving["gate.squeeze.mean"])
    assert ("no gradient comes back from 'gate'" in text, layer) == (True, "gate")


def test_a_factor_of_what_comes_back_is_told() -> None:
    trace = RUN.trace(True)
    text, layer = arrives("tanh", trace.arriving["tanh"] + trace.leaving["gate.squeeze.mean"])
    assert text == "the gradient that comes back from 'gate.squeeze.mean' is multiplied by 2"
    assert layer == "gate.squeeze.mean"


def test_a_gradient_that_goes_through_a_layer_as_it_is_is_told() -> None:
    trace = RUN.trace(True)
    for text, layer in (
        arrives("conv", trace.arriving["tanh"]),
        arrives("tanh", np.zeros_like(trace.arriving["tanh"]), conv=trace.arriving["tanh"]),
    ):
        assert ("straight-through" in text, layer) == (True, "tanh")


def test_nothing_is_claimed_where_a_gradient_goes_around_a_layer() -> None:
    arriving = RUN.trace(True).arriving
    assert arrives("tanh", np.zeros_like(arriving["tanh"]), conv=arriving["conv"] ** 2) == ("", "tanh")


def test_a_merge_that_hands_nothing_to_a_branch_is_told() -> None:
    arriving = RUN.trace(True).arriving
    made = finding(ARRIVING + "gate.squeeze.sigmoid")
    for name in ("gate.squeeze.fc.weight", "gate.squeeze.fc.bias"):
        made.observed[name] = np.zeros_like(RUN.gradients[name])
    made.observed[made.check.tensor] = np.zeros_like(arriving["gate.squeeze.sigmoid"])
    text, layer = gradient_causes.what_arrives(made, made.check.tensor)
    assert layer == "gate"
    assert "from 'gate' into its branch 'squeeze'" in text
    zeros = {
        f"unit__body__conv__{name}": np.zeros_like(RUN.gradients[f"unit.body.conv.{name}"])
        for name in ("weight", "bias")
    }
    text, layer = gradient_causes.cut_off(finding("unit.body.conv.weight", **zeros), "unit.body.conv.weight")
    assert ("from 'unit' into its branch 'body'" in text, layer) == (True, "unit")


def test_what_a_merge_does_not_hand_back_is_told_by_the_parameters_before_where_nothing_else_is_seen() -> None:
    trace = RUN.trace(True)
    arriving = trace.leaving["gate.squeeze.mean"]  # and not what the gate hands back to its empty branch
    x = trace.inputs["conv"]
    back = RUN.alone("conv", x, RUN.alone("tanh", trace.inputs["tanh"], arriving, True)[INPUT], True)
    name = "conv.weight"
    made = finding(name, **{each.replace(".", "__"): back[each] for each in (name, "conv.bias")})
    text, layer = gradient_causes.cut_off(made, name)
    assert (text, layer) == ("no gradient comes back from 'gate' (detach, stop_gradient, BlockGrad, no_grad)", "gate")
    other = finding(name, **{each.replace(".", "__"): back[each] ** 2 for each in (name, "conv.bias")})
    assert gradient_causes.cut_off(other, name) == ("", "conv")


@pytest.mark.parametrize("power", [2, 3])
def test_what_does_not_fit_is_not_told(power: int) -> None:
    assert arrives("tanh", RUN.trace(True).arriving["tanh"] ** power) == ("", "")
