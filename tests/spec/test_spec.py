"""The spec and its validation: records are frozen, shapes follow one rule, errors name the layer."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.spec import analysis
from triptych.spec import layers as spec
from triptych.spec.kinds.kind import SpecError, TooSmallError
from triptych.spec.kinds.pooling import overhang
from triptych.spec.kinds.windows import pooled_size
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
    Graph,
    Initializer,
    Layer,
    LocalResponseNorm,
    MaxPool,
    Node,
    ReLU,
    Residual,
    Sigmoid,
)
from triptych.spec.layers import outputs as spec_outputs
from triptych.spec.shapes import output_shapes, smallest_resolution

INPUT = (4, 9, 8)
END = (Flatten("flatten"), Dense("dense", 3))


def network(*layers: Layer, size: tuple[int, int, int] = INPUT) -> Architecture:
    return Architecture("net", size, 3, layers)


def conv(**changes: Any) -> Conv:
    return replace(Conv("conv", 6, (3, 3)), **changes)


def pool(**changes: Any) -> MaxPool:
    return replace(MaxPool("pool", (3, 3), (2, 2)), **changes)


# what is wrong: the layers, the path of the layer at fault, what the message says
REFUSED: dict[str, tuple[tuple[Layer, ...], str, str]] = {
    "empty name": ((ReLU(""), *END), "", "'' is not a name"),
    "dot in a name": ((Block("a", (ReLU("b.c"),)), *END), "a.b.c", "'b.c' is not a name"),
    "digit first": ((ReLU("1a"), *END), "1a", "'1a' is not a name"),
    "name twice": ((ReLU("a"), Sigmoid("a"), *END), "a", "stands twice"),
    "name twice in a block": ((Block("b", (ReLU("a"), ReLU("a"))), *END), "b.a", "stands twice"),
    "branch twice": ((Branches("m", (Block("a", ()), Block("a", ()))), *END), "m.a", "stands twice"),
    "branch name": ((Branches("m", (Block("a-1", ()),)), *END), "m.a-1", "'a-1' is not a name"),
    "no branches": ((Branches("m", ()), *END), "m", "has no branches"),
    "groups of the input": ((Block("b", (conv(groups=3),)), *END), "b.conv", "3 groups do not divide 4 inputs and 6"),
    "groups of the output": ((conv(groups=4), *END), "conv", "4 groups do not divide 4 inputs and 6 outputs"),
    "no groups": ((conv(groups=0), *END), "conv", "0 groups do not divide"),
    "no channels": ((conv(channels=0), *END), "conv", "has 0 channels"),
    "no kernel": ((conv(kernel=(0, 3)), *END), "conv", "must be at least 1"),
    "no stride": ((pool(stride=(2, 0)), *END), "pool", "must be at least 1"),
    "negative padding": ((conv(padding=(0, -1)), *END), "conv", "padding at least 0"),
    "wide padding": ((pool(padding=(1, 2)), *END), "pool", "padding (1, 2) is more than half of the kernel (3, 3)"),
    "conv after flatten": (
        (Flatten("f"), conv(), Dense("dense", 3)),
        "conv",
        "needs a (channels, height, width) input",
    ),
    "pool after flatten": ((Flatten("f"), GlobalAvgPool("pool")), "pool", "needs a (channels, height, width) input"),
    "dense on a map": ((conv(), Dense("dense", 3)), "dense", "got (6, 7, 6): put a Flatten before it"),
    "no units": ((Flatten("f"), Block("b", (Dense("dense", 0),))), "b.dense", "has 0 units"),
    "even window": (
        (Block("b", (LocalResponseNorm("lrn", 4, 1e-4, 0.75, 1),)), *END),
        "b.lrn",
        "4 channels must be odd",
    ),
    "dropout of all": ((Dropout("drop", 1.0), *END), "drop", "its rate 1.0 must be at least 0 and below 1"),
    "negative dropout": ((Dropout("drop", -0.1), *END), "drop", "its rate -0.1"),
    "branches of two sizes": (
        (Block("b", (Branches("m", (Block("one", (conv(),)), Block("two", ()))),)), *END),
        "b.m",
        "end in different sizes: [(6, 7, 6), (4, 9, 8)]",
    ),
    "residual of two shapes": (
        (Residual("r", Block("body", (conv(padding=(1, 1)),))), *END),
        "r",
        "cannot add outputs of different shapes: [(4, 9, 8), (6, 9, 8)]",
    ),
    "inside a residual": ((Residual("r", Block("body", (Dense("d", 3),))), *END), "r.body.d", "needs a flat input"),
    "inside a shortcut": (
        (Residual("r", Block("body", ()), Block("short", (conv(groups=3),))), *END),
        "r.short.conv",
        "3 groups",
    ),
    "body and shortcut of one name": ((Residual("r", Block("a", ()), Block("a", ())), *END), "r.a", "stands twice"),
    "nested auxiliary": ((Block("b", (Auxiliary("side", END, 0.3),)), *END), "b.side", "must stand at the top level"),
    "inside an auxiliary": ((Auxiliary("side", (Dense("dense", 3),), 0.3), *END), "side.dense", "needs a flat input"),
    "wrong end": ((Flatten("flatten"), Dense("last", 4)), "last", "the network ends in (4,), not in (3,)"),
    "no end": ((conv(),), "conv", "the network ends in (6, 7, 6), not in (3,)"),
    "no layers": ((), "net", "the network ends in (4, 9, 8), not in (3,)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_with_the_layers_path(case: str) -> None:
    layers, path, problem = REFUSED[case]
    with pytest.raises(SpecError) as error:
        output_shapes(network(*layers))
    assert error.value.path == path
    assert str(error.value).startswith(f"layer '{path}': ")
    assert problem in str(error.value)


def test_shapes_of_every_record_by_path() -> None:
    body = Block("body", (Conv("conv", 6, (3, 1), padding=(1, 0)), BatchNorm("norm")))
    architecture = network(
        Conv("stem", 6, (3, 2), (2, 1), (0, 1), groups=2),
        Branches("mixed", (Block("same", ()), Block("wide", (Conv("conv", 5, (1, 1)),)))),
        Auxiliary("side", END, 0.3),
        MaxPool("pool", (2, 3), (2, 2), (0, 1), ceil=True),
        Residual("unit", body, Block("short", (Conv("conv", 6, (1, 1)),))),
        GlobalAvgPool("mean"),
        *END,
    )
    assert output_shapes(architecture) == {
        "stem": (6, 4, 9),
        "mixed.same": (6, 4, 9),
        "mixed.wide.conv": (5, 4, 9),
        "mixed.wide": (5, 4, 9),
        "mixed": (11, 4, 9),
        "side.flatten": (396,),
        "side.dense": (3,),
        "side": (3,),
        "pool": (11, 2, 5),
        "unit.short.conv": (6, 2, 5),
        "unit.short": (6, 2, 5),
        "unit.body.conv": (6, 2, 5),
        "unit.body.norm": (6, 2, 5),
        "unit.body": (6, 2, 5),
        "unit": (6, 2, 5),
        "mean": (6, 1, 1),
        "flatten": (6,),
        "dense": (3,),
    }
    assert list(output_shapes(architecture)) == [path for path, _ in spec.walk(architecture.layers)]


@pytest.mark.parametrize("record", [*get_args(spec.Layer), Architecture, Initializer], ids=lambda kind: kind.__name__)
def test_records_are_frozen_and_hashable(record: type) -> None:
    made = record(*(() if record is Initializer else (1,) * len(fields(record))))
    with pytest.raises(FrozenInstanceError):
        made.name = "other"
    assert hash(made) == hash(replace(made))


WINDOWS = st.tuples(st.integers(1, 7), st.integers(1, 6)).flatmap(
    lambda window: st.tuples(
        st.integers(max(1, window[0]), 40), st.just(window[0]), st.just(window[1]), st.integers(0, window[0] // 2)
    )
)


def windows_by_hand(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> list[range]:
    """Windows from left to right until the padded map is covered; those that fit, or (ceil) start before its end."""
    windows = [range(-padding, kernel - padding)]
    while windows[-1].stop < size + padding:
        start = windows[-1].start + stride
        windows.append(range(start, start + kernel))
    if ceil:
        return [window for window in windows if window.start < size]
    return [window for window in windows if window.stop <= size + padding]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(WINDOWS, st.booleans())
def test_pooled_size_counts_the_windows(window: tuple[int, int, int, int], ceil: bool) -> None:
    size, kernel, stride, padding = window
    by_hand = windows_by_hand(size, kernel, stride, padding, ceil)
    assert pooled_size(size, kernel, stride, padding, ceil) == len(by_hand)
    layer = AvgPool("pool", (kernel, 1), (stride, 1), (padding, 0), ceil)
    assert overhang(layer, (1, size, 1)) == (max(0, by_hand[-1].stop - size - padding), 0)


@pytest.mark.parametrize(
    ("size", "padding", "expected"),
    [(7, 0, 3), (8, 0, 4), (9, 0, 4), (6, 1, 4), (5, 1, 3), (4, 1, 3)],
)
def test_the_ceil_rule_is_the_documented_one(size: int, padding: int, expected: int) -> None:
    assert pooled_size(size, 3, 2, padding, True) == expected


def test_ceil_keeps_no_window_that_lies_wholly_in_the_padding() -> None:
    assert pooled_size(6, 3, 4, 1, True) == 2
    assert pooled_size(3, 2, 2, 1, True) == 2  # MXNet: 3


def narrow(kernel: int) -> tuple[Layer, ...]:
    return (pool(), Conv("conv", 6, (kernel, kernel)), *END)


@pytest.mark.parametrize("kernel", [1, 2, 5, 8])
def test_the_smallest_resolution_is_the_smallest(kernel: int) -> None:
    smallest = smallest_resolution(network(*narrow(kernel)))
    assert smallest is not None
    output_shapes(network(*narrow(kernel), size=(4, smallest, smallest)))
    for size in range(1, smallest):
        with pytest.raises(
            TooSmallError, match=f"the smallest resolution that works is {smallest}x{smallest}$"
        ) as error:
            output_shapes(network(*narrow(kernel), size=(4, size, size)))
        assert f"(input 4x{size}x{size})" in str(error.value)
        assert error.value.path == ("pool" if size < 3 else "conv")


def test_a_single_pixel_can_be_enough() -> None:
    assert smallest_resolution(network(Conv("conv", 6, (3, 3), padding=(1, 1)), *END)) == 1


def test_no_resolution_works() -> None:
    with pytest.raises(TooSmallError, match=r"^layer 'conv': its 600x600 window is larger than the 4x3 .*none works$"):
        output_shapes(network(*narrow(600)))


def test_a_size_that_fails_for_another_reason_is_passed_over() -> None:
    """2x2 is too small for the convolution, and at odd sizes the branches differ."""
    mixed = Branches("m", (Block("a", (pool(kernel=(1, 1)),)), Block("b", (pool(kernel=(2, 2)),))))
    layers = (mixed, Conv("conv", 6, (2, 2)), *END)
    with pytest.raises(TooSmallError, match=r"the smallest resolution that works is 4x4$"):
        output_shapes(network(*layers, size=(4, 2, 2)))
    with pytest.raises(SpecError, match="different sizes"):
        output_shapes(network(*layers, size=(4, 3, 3)))


GRAPHS = {
    "later node": ((Node(ReLU("a"), ("b",)), Node(ReLU("b"))), ("b",), "its node 'a' takes 'b', and there is none"),
    "itself": ((Node(ReLU("a"), ("a",)),), ("a",), "its node 'a' takes 'a'"),
    "no inputs": ((Node(ReLU("a"), ()),), ("a",), "its node 'a' takes nothing"),
    "called input": ((Node(ReLU("input")),), ("input",), "a node of it is called 'input'"),
    "unknown output": ((Node(ReLU("a")),), ("a", "z"), "its outputs ['a', 'z'] must be different nodes"),
    "no outputs": ((), (), "its outputs [] must be"),
    "dead end": ((Node(ReLU("a")), Node(ReLU("b"))), ("b",), "nothing takes its node 'a', and it is no output"),
    "output twice": ((Node(ReLU("a")),), ("a", "a"), "must be different nodes"),
}


@pytest.mark.parametrize("case", GRAPHS)
def test_graphs_that_cannot_be(case: str) -> None:
    nodes, outputs, problem = GRAPHS[case]
    with pytest.raises(SpecError, match=rf"^layer 'g': .*{re.escape(problem)}"):
        output_shapes(Architecture("net", (4, 9, 8), 0, (Graph("g", nodes, outputs),)))


def test_several_outputs_stand_at_the_end_and_have_no_classes() -> None:
    graph = Graph("g", (Node(ReLU("a")), Node(Sigmoid("b"))), ("a", "b"))
    for layers in ((graph, ReLU("relu")), (Block("block", (graph,)),)):
        with pytest.raises(SpecError, match="a graph with several outputs must be the last record of the top level"):
            output_shapes(Architecture("net", (4, 9, 8), 0, layers))
    flat = Graph("g", (Node(Flatten("a")), Node(Flatten("b"))), ("a", "b"))
    with pytest.raises(SpecError, match=r"a network with several outputs has no classes \(0\)"):
        output_shapes(Architecture("net", (1, 1, 3), 3, (flat,)))
    assert spec_outputs(Architecture("net", (4, 9, 8), 0, (ReLU("relu"), graph))) == ("g.a", "g.b")


def test_a_graph_of_many_nodes_is_analysed_in_no_time() -> None:
    """10,000 nodes, each added to the one before: what grows with the square of it would take minutes."""
    nodes = [Node(ReLU("n0"))]
    nodes += [Node(Block(f"n{i}", ()), (f"n{i - 1}", f"n{max(0, i - 2)}"), "add") for i in range(1, 10_000)]
    architecture = Architecture("net", (1, 2, 2), 0, (Graph("g", tuple(nodes), ("n9999",)),))
    assert analysis.totals(architecture).forward_bytes == 3 * 16
