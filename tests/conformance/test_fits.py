"""What no fault of the catalogue explains is told by fit: the simplest step, sum or form; nothing where none fits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import expit

from triptych.conformance.case import make_case
from triptych.conformance.diagnosis import fits
from triptych.conformance.diagnosis.activation_forms import with_number
from triptych.conformance.diagnosis.alone import hypothesis_of, onward, run_alone, same
from triptych.conformance.diagnosis.causes import NONE, by_fit, is_told, of_layer, of_shape
from triptych.conformance.diagnosis.explain import unseen
from triptych.conformance.diagnosis.faults import _SAMPLES, FAULTS
from triptych.conformance.diagnosis.forward_causes import of_another_source, of_cut
from triptych.conformance.diagnosis.junctions import formulas
from triptych.conformance.diagnosis.norm_forms import forms
from triptych.conformance.diagnosis.pool_forms import pooled_otherwise
from triptych.conformance.diagnosis.relations import relations, simplest
from triptych.conformance.diagnosis.value_faults import MISSING
from triptych.conformance.reference_run import OUTPUT, ReferenceRun
from triptych.spec.layers import (
    Architecture,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    ReLU,
    Sigmoid,
)
from triptych.utils.arrays import Array

MAP = np.random.default_rng(0).standard_normal((2, 6, 5, 5))
BUDGET = 1e-12
SQUEEZE = Block("squeeze", (GlobalAvgPool("mean"), Conv("fc", 6, (1, 1)), Sigmoid("sigmoid")))
NET = Architecture(
    "fitted",
    (3, 10, 12),
    4,
    (
        *(Conv("conv", 6, (3, 3), padding=(1, 1)), BatchNorm("norm"), ReLU("relu")),
        Branches("gate", (Block("same", ()), SQUEEZE), "multiply"),
        *(MaxPool("pool", (2, 2), (2, 2)), Flatten("flatten"), Dense("dense", 4)),
    ),
)
RUN = ReferenceRun(make_case(NET, 0, 2))


def said(right: Array, observed: Array) -> list[str]:
    return simplest(relations(right, observed, BUDGET))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda y: -y, "sign"),
        (lambda y: y + 3, "3 is added"),
        (lambda y: 2 * y - 1, "multiplied by 2, and -1 is added"),
        (lambda y: y[..., ::-1], "mirrored"),
        (lambda y: y[:, :, ::-1], "upside down"),
        (lambda y: 2 * y[:, :, ::-1], "upside down (flipped rows), multiplied by 2"),
        (lambda y: y.transpose(0, 3, 2, 1).reshape(y.shape), "read in width-height-channels order"),
        (lambda y: np.roll(y, 1, 2), "+1 along the rows, from the other end"),
        (lambda y: np.roll(y, -1, 0), "-1 along the images"),
        (lambda y: y[:, [1, 0, 2, 3, 4, 5]], "channels 0 and 1 are exchanged"),
        (lambda y: y[:, [0, 3, 1, 4, 2, 5]], "shuffled, in 2 groups"),
        (lambda y: y[:, [3, 4, 5, 0, 1, 2]], "rolled by 3"),
        (lambda y: y[:, [2, 0, 4, 1, 5, 3]], "in another order: 2, 0, 4, 1, 5, 3"),
        (lambda y: y[:, [0, 1, 2, 3, 4, 0]], "0 for 5"),
        (np.tanh, "tanh is applied"),
        (lambda y: y.astype(np.float16).astype(np.float64), "rounded to float16"),
        (lambda y: np.round(y, 1), "rounded to 1 decimals"),
        (lambda y: np.sign(y) * np.abs(y) ** 1.5, "raised to the power 1.5"),
        (lambda y: y - y.mean((2, 3), keepdims=True), "its mean over rows and columns"),
        (lambda y: y / y.std((1, 2, 3), keepdims=True), "divided by its deviation over each image"),
    ],
)
def test_a_step_is_told(make: Callable[[Array], Array], words: str) -> None:
    texts = said(MAP, make(MAP))
    assert any(words in text for text in texts), texts
    assert len(texts) == 1 or "images" in words  # of two images: in reverse order, too


def test_of_values_that_have_nothing_to_do_with_each_other_nothing_is_told() -> None:
    other = np.random.default_rng(1).standard_normal(MAP.shape)
    assert list(relations(MAP, other, BUDGET)) == []
    assert formulas({"a": MAP, "b": np.tanh(other)}, np.cosh(other), BUDGET) == []


def test_what_fits_nearly_does_not_fit() -> None:
    assert list(relations(MAP, np.tanh(MAP) + 1e-9 * np.random.default_rng(1).standard_normal(MAP.shape), BUDGET)) == []


def test_steps_that_cannot_be_told_apart_are_all_told() -> None:
    flat = np.random.default_rng(2).standard_normal((2, 3, 1, 5))
    texts = said(flat, flat - flat.mean((2, 3), keepdims=True))
    assert [any(words in text for text in texts) for words in ("rows and columns", "the columns is")] == [True, True]


@pytest.mark.parametrize(
    ("make", "formula"),
    [
        (lambda a, b: a + a * b, "a + a * b"),
        (lambda a, b: a - a * b, "a - a * b"),
        (lambda a, b: 0.5 * a + 0.5 * b, "0.5 a + 0.5 b"),
        (np.maximum, "max(a, b)"),
        (lambda a, b: np.maximum(a, 0) + b, "b + relu(a)"),
        (lambda a, b: a * b + 1, "a * b + 1"),
    ],
)
def test_a_merge_is_told_as_the_shortest_sum(make: Callable[[Array, Array], Array], formula: str) -> None:
    other = np.random.default_rng(3).standard_normal(MAP.shape)
    assert formulas({"a": MAP, "b": other}, make(MAP, other), BUDGET) == [formula]


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (lambda x: x * expit(1.702 * x), "x * sigmoid(1.702 x)"),
        (lambda x: np.where(x > 0, x, 0.07 * x), "below 0 is multiplied by 0.07"),
        (lambda x: np.clip(x, 0, 1.25), "clipped to 0 .. 1.25"),
        (lambda x: np.maximum(x - 0.3, 0), "ReLU of x + -0.3"),
        (lambda x: np.tanh(0.5 * x), "tanh(0.5 x)"),
        (lambda x: x * np.clip(0.2 * x + 0.5, 0, 1), "hard sigmoid of slope 0.2"),
    ],
)
def test_a_number_in_an_activation_is_told(of: Callable[[Array], Array], text: str) -> None:
    assert any(text in found for found in with_number(MAP, np.maximum(MAP, 0), of(MAP), BUDGET))
    assert not list(with_number(MAP, np.maximum(MAP, 0), of(MAP) + 0.01 * MAP**2, BUDGET))


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c, v, g, b: c / (np.sqrt(v) + 0.01) * g + b, "outside the root; eps is 0.01, not 1e-05"),
        (lambda c, v, g, b: c / np.sqrt(v + 1e-5) * (1 + g) + b, "1 is added to it"),
        (lambda c, v, g, b: c / np.sqrt(v + 1e-5) * g - b, "beta is subtracted"),
        (lambda c, v, g, b: c / np.sqrt(v + 2e-3) * g + b, "eps is 0.002, not 1e-05"),
    ],
)
def test_the_form_of_a_batch_norm_is_told(make: Callable[..., Array], words: str, train: bool) -> None:
    right = hypothesis_of(RUN, "norm", train)
    values = {name: value.reshape(1, -1, 1, 1) for name, value in right.values.items()}
    mean, var = values["running_mean"], values["running_var"]
    if train:
        mean, var = right.x.mean((0, 2, 3), keepdims=True), right.x.var((0, 2, 3), keepdims=True)
    observed = make(right.x - mean, var, values["weight"], values["bias"])
    assert any(words in text for text in forms(right, observed, 1e-9)), list(forms(right, observed, 1e-9))
    assert list(forms(right, RUN.outputs(train)["norm"] ** 2, 1e-9)) == []


def test_a_change_of_an_input_is_told_of_the_layer_that_puts_it_out() -> None:
    given = np.tanh(RUN.outputs(False)["relu"])
    hypothesis = hypothesis_of(RUN, "pool", False)
    observed = run_alone(replace(hypothesis, x=given), "pool", None)[OUTPUT]
    assert fits.of_output(RUN, "conv", RUN.outputs(False)["conv"] + 1, 1e-12, False, ())[0][1] == "1 is added"
    x = RUN.trace(False).inputs["pool"]
    halved = run_alone(replace(hypothesis, x=0.5 * x + 1), "pool", None)[OUTPUT]
    ((_, text, layer), *_) = fits.of_output(RUN, "pool", halved, 1e-12, False, (0.5 * x + 1,))
    assert layer == "gate"
    assert "multiplied by 0.5, and 1 is added" in text
    assert fits.of_output(RUN, "pool", observed**3, 1e-12, False, (given,)) == []


def test_a_change_of_a_weight_is_told() -> None:
    hypothesis = hypothesis_of(RUN, "conv", False)
    for make, words in ((np.abs, "absolute value"), (lambda w: w * w, "squared"), (lambda w: 2 * w, "multiplied by 2")):
        values = {**hypothesis.values, "weight": make(hypothesis.values["weight"])}
        observed = run_alone(replace(hypothesis, values=values), "conv", None)[OUTPUT]
        texts = [text for _, text, _ in fits.of_output(RUN, "conv", observed, 1e-11, False)]
        assert any(text.startswith("of its weight: ") and words in text for text in texts), texts


def test_a_number_that_weights_are_clipped_to_is_searched_for() -> None:
    hypothesis = hypothesis_of(RUN, "conv", False)
    values = {**hypothesis.values, "weight": np.clip(hypothesis.values["weight"], -0.05, 0.05)}
    observed = run_alone(replace(hypothesis, values=values), "conv", None)[OUTPUT]
    texts = [text for _, text, _ in fits.of_output(RUN, "conv", observed, 1e-12, False)]
    assert texts == ["of its weight: it is clipped to -0.05 .. 0.05"]


def test_two_numbers_of_an_activation_are_told() -> None:
    x = RUN.trace(False).inputs["gate.squeeze.sigmoid"]
    observed = 1.7159 * expit(2 / 3 * x)
    texts = [text for _, text, _ in fits.of_output(RUN, "gate.squeeze.sigmoid", observed, 1e-12, False)]
    assert texts == ["of its input: it is multiplied by 0.666667, and what comes out is multiplied by 1.7159"]
    both = fits.of_output(RUN, "gate.squeeze.sigmoid", observed, 1e-12, False, ())
    assert [layer for _, _, layer in both] == [""]  # what comes out is changed as well: no layer before it does that


def test_what_another_layer_puts_out_is_told() -> None:
    texts = [text for _, text, _ in fits.of_output(RUN, "relu", RUN.outputs(False)["conv"], 1e-12, False)]
    assert texts == ["what 'conv' puts out is taken in its place"]


def test_one_part_of_a_sum_is_told() -> None:
    part, other = MAP, np.random.default_rng(4).standard_normal(MAP.shape)
    observed = other + np.broadcast_to(part.mean(1, keepdims=True), part.shape)
    parts = {"shortcut": part, "body": other}
    (text,) = fits._of_one_part(parts, part + other, observed, BUDGET, True)
    assert text == "of its part 'shortcut': its mean over the channels stands in its place"


def test_a_step_that_a_line_does_as_well_is_not_told() -> None:
    positive = np.abs(MAP)  # of which SELU is a factor
    assert said(positive, 0.5 * positive) == []
    parts = {"a": positive, "b": MAP}
    (text,) = fits._of_parts(parts, np.concatenate([0.5 * positive, MAP], axis=1), BUDGET)
    assert text == "in the part of 'a': it is multiplied by 0.5"


def test_two_fields_that_are_others_are_told_by_shape_and_by_value() -> None:
    right = hypothesis_of(RUN, "pool", False)
    wrong = replace(right.layer, kernel=(3, 3), stride=(3, 3))
    observed = run_alone(replace(right, layer=wrong), "pool", None)[OUTPUT]
    text = of_shape(RUN, "pool", observed.shape[1:], observed, False)
    assert "the kernel is (3, 3), not (2, 2)" in text
    assert "the stride is (3, 3), not (2, 2)" in text


def test_a_pool_over_some_axes_is_told_by_shape_and_by_value() -> None:
    path = "gate.squeeze.mean"
    observed = RUN.trace(False).inputs[path].mean(3, keepdims=True)
    assert "over the columns alone" in of_shape(RUN, path, observed.shape[1:], observed, False)
    assert of_shape(RUN, path, observed.shape[1:], observed**2, False) == ""


def test_the_average_of_a_map_that_was_cut_off_is_told() -> None:
    right = hypothesis_of(RUN, "gate.squeeze.mean", False)
    y = right.x[:, :, :-1].mean((2, 3), keepdims=True)
    made = {fault.text: fault.result(right, y) for fault in FAULTS[GlobalAvgPool] if fault.result}
    told = [text for text, value in made.items() if same(value, y, BUDGET)]
    assert told == ["the last row is left out of the average"]


def test_a_flatten_of_single_values_is_not_blamed() -> None:
    layers = (Conv("conv", 6, (3, 3)), GlobalAvgPool("pool"), Flatten("flatten"), Dense("dense", 4))
    run = ReferenceRun(make_case(replace(NET, layers=layers), 0, 2))
    assert unseen(run, "dense", {"pool": MAP}, False) == []
    assert unseen(run, "dense", {"conv": MAP}, False) == ["pool", "flatten"]
    halved = 0.5 * run.outputs(False)["pool"]
    observed = run.alone("dense", halved.reshape(2, 6), None, False)[OUTPUT]
    ((_, text, layer), *_) = fits.of_output(run, "dense", observed, 1e-12, False, (halved,))
    assert (layer, "multiplied by 0.5" in text) == ("pool", True)


def test_an_order_is_no_more_than_a_description() -> None:
    assert is_told("it is upside down (flipped rows)")
    for text in (
        "",
        "its channels are in another order: 2, 0, 1",
        "constant factor 0.25",
        "the same values in another order",
    ):
        assert not is_told(text)


def test_a_layer_behind_of_which_a_step_is_seen_contradicts_nothing() -> None:
    wrong = RUN.outputs(False)["norm"] ** 3
    seen = {"norm": wrong, "relu": np.tanh(wrong)}  # that of the layer behind is what a step of it puts out
    for made, told in (((wrong, np.maximum(wrong, 0)), ""), ((wrong, seen["relu"]), "relu")):
        assert fits.contradicted(RUN, "norm", seen, 1e-12, False, lambda made=made: made) == told


def test_a_pool_of_stride_1_that_is_missing_is_not_a_sampled_one() -> None:
    pool = MaxPool("pool", (3, 3), (1, 1), (1, 1))
    right = replace(hypothesis_of(RUN, "pool", False), layer=pool)
    made = [fault.result(right, right.x) for fault in FAULTS[MaxPool] if fault.result and fault is not MISSING]
    assert len(made) == len(_SAMPLES)
    assert all(value is None for value in made)


def test_a_fault_in_a_gate_is_found_by_what_is_merged() -> None:
    y = np.tanh(RUN.outputs(False)["gate.squeeze.fc"])
    product = onward(RUN, "gate.squeeze.sigmoid", "gate", y, False)
    assert np.array_equal(product, y * RUN.outputs(False)["relu"])
    found = fits.revealed(
        RUN, ["gate.squeeze.sigmoid", "gate"], {"gate": product}, 1e-12, (RUN.case.images, y, product), False
    )
    assert found is not None
    assert found[0] == "gate.squeeze.sigmoid"
    with pytest.raises(ValueError, match="does not take"):
        onward(RUN, "conv", "pool", RUN.outputs(False)["conv"], False)


def test_a_cause_that_is_known_stays() -> None:
    known = replace(NONE, text="a fault of the catalogue")
    assert by_fit(RUN, "conv", -RUN.outputs(False)["conv"], 1e-12, False, known) == known
    vague = replace(NONE, text="the same values in another order", vague=True)
    told = by_fit(RUN, "conv", RUN.outputs(False)["conv"][..., ::-1], 1e-12, False, vague)
    assert "mirrored" in told.text


def _average(x: Array, top: int, bottom: int, left: int, right: int) -> Array:
    return x[:, :, top:bottom, left:right].mean((2, 3), keepdims=True)


def test_an_average_of_a_part_of_the_map_is_told() -> None:
    pool = GlobalAvgPool("pool")
    (said,) = pooled_otherwise(pool, MAP, _average(MAP, 1, 4, 0, 5), BUDGET)
    assert said == "the average is taken over the rows 1:4 and the columns 0:5 alone"
    assert pooled_otherwise(pool, MAP, np.tanh(_average(MAP, 1, 4, 0, 5)), BUDGET) == []
    assert pooled_otherwise(pool, MAP, _average(MAP, 0, 5, 0, 5), BUDGET) == []  # the right one


def test_a_weighted_window_in_the_place_of_a_pool_is_told() -> None:
    x = np.random.default_rng(4).standard_normal((4, 6, 16, 18))
    weights = np.array([1, 3, 3, 1]) / 8
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = sliding_window_view(padded, (4, 4), (2, 3))[:, :, ::2, ::2]
    resized = np.einsum("nchwij,i,j->nchw", windows, weights, weights)
    (said,) = pooled_otherwise(AvgPool("pool", (2, 2), (2, 2)), x, resized, BUDGET)
    assert said.startswith("it is a weighted sum of 4x4 values")
    assert "0.01562 0.04688 0.04688 0.01562" in said or "0.015625 0.046875" in said
    assert pooled_otherwise(AvgPool("pool", (2, 2), (2, 2)), x, resized**2, BUDGET) == []


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((2, 6, -1), (2,), "an instance norm"),
        ((2, 3, -1), (2,), "a group norm of 3 groups"),
        ((2, 1, -1), (2,), "a layer norm over each image"),
        ((2, 6, 10, 12), (1,), "a layer norm over the channels, place by place"),
    ],
)
def test_another_norm_is_told(shape: tuple[int, ...], axes: tuple[int, ...], words: str) -> None:
    right = hypothesis_of(RUN, "norm", False)
    x = right.x.reshape(shape)
    made = ((x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + right.layer.eps)).reshape(
        right.x.shape
    )
    observed = made * right.values["weight"][:, None, None] + right.values["bias"][:, None, None]
    cause = of_layer(RUN, "norm", {OUTPUT: observed}, {OUTPUT: BUDGET}, False, False)
    assert words in cause.text


def test_a_number_behind_a_linear_layer_is_told() -> None:
    right = RUN.outputs(False)["dense"]
    texts = [text for _, text, _ in fits.of_output(RUN, "dense", 10 * np.tanh(right / 10), BUDGET, False)]
    assert texts == ["tanh of 0.1 times it is taken, and what comes out is multiplied by 10"]


def test_one_of_two_layers_that_takes_what_another_one_puts_out_is_told() -> None:
    outputs = RUN.outputs(False)
    wrong = RUN.alone("gate.squeeze.mean", outputs["norm"], None, False)[OUTPUT]
    made = [outputs["norm"], outputs["relu"], wrong]
    cause = of_another_source(RUN, "relu", BUDGET, made, False)
    assert (cause.text, cause.layer) == ("it takes what 'norm' puts out, not what 'relu' does", "gate.squeeze.mean")
    assert not of_another_source(RUN, "relu", BUDGET, [outputs["norm"], wrong], False)  # the ReLU is not there
    assert not of_another_source(RUN, "relu", BUDGET, [*made, outputs["gate.squeeze.mean"]], False)


def test_what_is_cut_to_the_right_shape_behind_a_layer_is_told() -> None:
    right = RUN.outputs(False)["conv"]
    whole = hypothesis_of(RUN, "conv", False)
    moved = run_alone(replace(whole, x=np.pad(whole.x, ((0, 0), (0, 0), (0, 1), (0, 1)))), "conv", None)[OUTPUT]
    cause = of_cut(RUN, "conv", [right, moved, moved[:, :, 1:, 1:]], False)
    assert "above and left 0, below and right 2" in cause.text
    assert not of_cut(RUN, "conv", [right, moved], False)
