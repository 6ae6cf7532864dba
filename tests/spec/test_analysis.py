"""Analyses that run nothing, against brute force: counted products, perturbed pixels, simulated memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from triptych import zoo
from triptych.reference import network as reference
from triptych.spec.analysis import activation_bytes, analyse, auxiliary_weights, parameters, primitives, totals
from triptych.spec.kinds import kind_of
from triptych.spec.kinds.layer_pass import Conditions, exact
from triptych.spec.layers import (
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
    MaxPool,
    ReLU,
    Residual,
)
from triptych.weights.initializers import draw

SIDE = Auxiliary("side", (GlobalAvgPool("pool"), Flatten("flatten"), Dense("dense", 3)), 0.3)


def network(*layers: Layer, size: tuple[int, int, int] = (1, 4, 4), end: bool = True) -> Architecture:
    tail = (Flatten("flatten"), Dense("dense", 3)) if end else ()
    return Architecture("net", size, 3, (*layers, *tail), Initializer("kaiming_normal"))


MIXED = network(
    Conv("stem", 6, (3, 2), (2, 1), (1, 0), groups=2, bias=False),
    BatchNorm("norm"),
    ReLU("relu"),
    SIDE,
    Branches("mixed", (Block("one", (Conv("conv", 4, (1, 1)),)), Block("same", ()))),
    Residual(
        "unit",
        Block("body", (Conv("conv", 5, (3, 3), padding=(1, 1)), BatchNorm("norm", gamma=False))),
        Block("shortcut", (Conv("conv", 5, (1, 1)),)),
    ),
    MaxPool("pool", (2, 2), (2, 2)),
    size=(2, 9, 8),
)


def test_parameters_by_hand() -> None:
    assert {info.path: (info.shape, info.role) for info in parameters(MIXED)} == {
        "stem.weight": ((6, 1, 3, 2), "weight"),
        "norm.weight": ((6,), "scale"),
        "norm.bias": ((6,), "shift"),
        "norm.running_mean": ((6,), "running_mean"),
        "norm.running_var": ((6,), "running_var"),
        "side.dense.weight": ((3, 6), "weight"),
        "side.dense.bias": ((3,), "bias"),
        "mixed.one.conv.weight": ((4, 6, 1, 1), "weight"),
        "mixed.one.conv.bias": ((4,), "bias"),
        "unit.shortcut.conv.weight": ((5, 10, 1, 1), "weight"),
        "unit.shortcut.conv.bias": ((5,), "bias"),
        "unit.body.conv.weight": ((5, 10, 3, 3), "weight"),
        "unit.body.conv.bias": ((5,), "bias"),
        "unit.body.norm.bias": ((5,), "shift"),
        "unit.body.norm.running_mean": ((5,), "running_mean"),
        "unit.body.norm.running_var": ((5,), "running_var"),
        "dense.weight": ((3, 30), "weight"),
        "dense.bias": ((3,), "bias"),
    }
    sums = totals(MIXED)
    assert sums.auxiliary_parameters == 3 * 6 + 3
    trained = {info.path for info in parameters(MIXED) if info.trained}
    counted = sum(value.size for path, value in draw(MIXED, 0).items() if path in trained)
    assert sums.parameters == counted - sums.auxiliary_parameters
    by_path = {info.path: info for info in analyse(MIXED)}
    assert by_path["unit"].parameters == 5 * 10 + 5 + 5 * 90 + 5 + 5  # running statistics are not counted
    assert by_path["mixed"].parameters == 4 * 6 + 4


def products(layer: Layer, shape: tuple[int, ...]) -> int:
    """Multiply-accumulates, counted by convolving ones with ones (padding included)."""
    if isinstance(layer, Dense):
        return int((np.ones((1, shape[0])) @ np.ones((layer.units, shape[0])).T).sum())
    if not isinstance(layer, Conv):
        return 0
    padded = np.ones((1, shape[0], *(size + 2 * pad for size, pad in zip(shape[1:], layer.padding, strict=True))))
    weight = np.ones((layer.channels, shape[0] // layer.groups, *layer.kernel))
    unpadded = replace(layer, padding=(0, 0), bias=False)
    return int(kind_of(layer).reference(unpadded, padded, {"weight": weight}, Conditions(exact)).output.sum())


@pytest.mark.parametrize(
    "architecture",
    [MIXED, zoo.build("lenet"), zoo.build("alexnet_2012", input=(3, 67, 83), width_ratio=8)],
    ids=["mixed", "lenet", "alexnet_2012"],
)
def test_macs_by_counting(architecture: Architecture) -> None:
    main = side = 0
    for info in primitives(architecture):
        assert info.macs == products(info.layer, info.input), info.path
        main, side = main + info.macs * (not info.auxiliary), side + info.macs * info.auxiliary
    assert (totals(architecture).macs, totals(architecture).auxiliary_macs) == (main, side)
    top = [info for info in analyse(architecture) if info.depth == 0]
    assert sum(info.macs for info in top) == main + side


def test_auxiliary_weights_in_their_order() -> None:
    assert auxiliary_weights(MIXED) == (0.3,)
    assert auxiliary_weights(network(SIDE, replace(SIDE, name="late", weight=0.7))) == (0.3, 0.7)
    assert auxiliary_weights(network()) == ()


FIELDS = (
    Conv("stem", 3, (3, 2), (2, 1), (1, 1)),
    MaxPool("pool", (2, 3), (1, 2), (1, 0), ceil=True),
    SIDE,
    Branches(
        "mixed",
        (
            Block("narrow", (Conv("conv", 2, (1, 1)),)),
            Block("tall", (Conv("conv1", 2, (5, 1), padding=(2, 0)), Conv("conv2", 2, (1, 3), padding=(0, 1)))),
            Block("pool", (AvgPool("pool", (3, 3), (1, 1), (1, 1)),)),
        ),
    ),
    Residual("unit", Block("body", (Conv("conv", 7, (1, 3), padding=(0, 1)), Dropout("dropout", 0.5)))),
    AvgPool("down", (2, 2), (2, 1)),
    Residual(
        "wide", Block("body", (Conv("conv", 2, (1, 1)),)), Block("shortcut", (Conv("conv", 2, (3, 3), (1, 1), (1, 1)),))
    ),
)
PIXELS = (44, 34)


def reached_pixels() -> dict[str, np.ndarray]:
    """By path: whether pixel (row, column) changes value (row, column) of any channel, up or down."""
    architecture = network(*FIELDS, size=(1, *PIXELS))
    base = np.random.default_rng(0).standard_normal((1, 1, *PIXELS))
    values = draw(architecture, 0)
    expected = reference.forward(architecture, values, base).outputs
    reached = {path: np.zeros((*PIXELS, *value.shape[2:]), bool) for path, value in expected.items() if value.ndim == 4}
    for row in range(PIXELS[0]):
        for sign in (-100.0, 100.0):  # a maximum may be blind to one of them
            images = np.repeat(base, PIXELS[1], axis=0)
            images[range(PIXELS[1]), 0, row, range(PIXELS[1])] += sign
            for path, value in reference.forward(architecture, values, images).outputs.items():
                if path in reached:
                    reached[path][row] |= (np.abs(value - expected[path]) > 1e-9).any(1)
    return reached


def span(touched: np.ndarray) -> tuple[int, int]:
    places = np.flatnonzero(touched)
    return int(places[0]), int(places[-1] - places[0] + 1)


def test_receptive_fields_and_strides_by_perturbing_pixels() -> None:
    infos = {info.path: info for info in analyse(network(*FIELDS, size=(1, *PIXELS)))}
    for path, touched in reached_pixels().items():
        centre = (touched.shape[2] // 2, touched.shape[3] // 2)
        for axis in (0, 1):
            beside = list(centre)
            beside[axis] += 1
            start, field = span(touched[:, :, *centre].any(1 - axis))
            next_start, next_field = span(touched[:, :, *beside].any(1 - axis))
            assert field == next_field == infos[path].receptive_field[axis], (path, axis)
            assert next_start - start == infos[path].stride[axis], (path, axis)


def test_a_flatten_sees_what_its_whole_map_sees() -> None:
    infos = {info.path: info for info in analyse(network(*FIELDS, size=(1, *PIXELS)))}
    last, flat = infos["wide"], infos["flatten"]
    for axis in (0, 1):
        whole = last.receptive_field[axis] + (last.output[1 + axis] - 1) * last.stride[axis]
        assert flat.receptive_field[axis] == infos["dense"].receptive_field[axis] == whole


CONV = Conv("conv", 2, (3, 3), padding=(1, 1))  # 16 values to 32
ONE = Conv("conv", 1, (1, 1))
WIDE = Conv("wide", 2, (1, 1))
HEAD = (Conv("wide", 8, (1, 1)), GlobalAvgPool("mean"), Flatten("flatten"), Dense("dense", 3))
# values alive at the worst moment, and all values kept for the backward pass, worked out by hand
MEMORY = {
    "row": (network(CONV, ReLU("relu"), MaxPool("pool", (2, 2), (2, 2))), 32 + 32, 16 + 32 + 32 + 8 + 8 + 3),
    "block": (network(Block("b", (CONV,))), 32 + 32, 16 + 32 + 32 + 3),  # the flatten is the peak, 32 to 32
    "no double counting": (network(Block("b", (CONV,)), GlobalAvgPool("mean")), 16 + 32, 16 + 32 + 2 + 2 + 3),
    "branches": (
        network(Branches("m", (Block("a", (CONV,)), Block("b", (ONE, ReLU("relu"))))), GlobalAvgPool("mean")),
        32 + 16 + 48,  # both ends and the concatenation; the input is not needed any more
        16 + 32 + 16 + 16 + 3 + 3 + 3,
    ),
    "held for a branch": (
        network(
            Branches("m", (Block("a", (CONV, GlobalAvgPool("mean"))), Block("b", (GlobalAvgPool("mean"),)))),
            size=(1, 4, 4),
        ),
        16 + 32 + 2,  # the mean of the first branch, while the input waits for the second
        16 + 32 + 2 + 1 + 3 + 3,
    ),
    "let go by the last branch": (
        network(
            Branches("m", (Block("a", (ONE, GlobalAvgPool("mean"))), Block("b", (ONE, WIDE, GlobalAvgPool("mean"))))),
        ),
        1 + 16 + 32,  # the first branch's end and both sides of the wide convolution
        16 + 16 + 1 + 16 + 32 + 2 + 3 + 3,
    ),
    "wide head": (
        network(ONE, Auxiliary("side", HEAD, 0.3), GlobalAvgPool("mean")),
        16 + 16,
        16 + 16 + 128 + 8 + 8 + 3 + 1 + 1 + 3,
    ),
    "identity": (
        network(Residual("r", Block("body", (CONV, Conv("back", 1, (1, 1))))), GlobalAvgPool("mean")),
        16 + 32 + 16,  # input, wide, body's end
        16 + 32 + 16 + 1 + 1 + 3,
    ),
    "side": (network(CONV, SIDE, GlobalAvgPool("mean")), 16 + 32, 16 + 32 + 2 + 2 + 3 + 2 + 2 + 3),
}


@pytest.mark.parametrize("case", MEMORY)
def test_activation_bytes_by_hand(case: str) -> None:
    architecture, forward, training = MEMORY[case]
    assert activation_bytes(architecture) == (4 * forward, 4 * training)
    assert activation_bytes(architecture, itemsize=2) == (2 * forward, 2 * training)
    assert (totals(architecture).forward_bytes, totals(architecture).training_bytes) == (4 * forward, 4 * training)
