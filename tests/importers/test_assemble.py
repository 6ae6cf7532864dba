"""Assembling: what is cleaned away, which arrays go where, and what is said where they do not fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from as_steps import as_graph, below
from triptych.importers.assemble import assemble
from triptych.importers.steps import Imported, Request, Step, merge_only, needed
from triptych.reference import network
from triptych.spec.layers import (
    INPUT,
    Affine,
    Architecture,
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
    Layer,
    MaxPool,
    Pad,
    ReLU,
    Reshape,
    Slice,
    Softmax,
    Upsample,
    outputs,
    walk,
)
from triptych.utils.errors import TriptychError
from triptych.weights import initializers

SHAPE = (4, 6, 5)


def row(*layers: Layer, source: str = INPUT) -> list[Step]:
    """Steps in a row; each is called as its layer is."""
    steps: list[Step] = []
    for layer in layers:
        steps.append(Step(layer.name, layer, (source,)))
        source = layer.name
    return steps


def imported(steps: list[Step], *ends: str, request: Request | None = None) -> Imported:
    ends = ends or (steps[-1].name,)
    return assemble(steps, ends, request or Request(), name="net", source="net.file", input_shape=SHAPE)


def kinds(steps: list[Step], *ends: str, request: Request | None = None) -> str:
    """The kinds of the layers that came of it; and they compute, to the bit, what the steps do."""
    ends = ends or (steps[-1].name,)
    wanted = needed({step.name: step.inputs for step in steps}, ends)
    graph, paths = as_graph([step for step in steps if step.name in wanted], ends)
    loose = Architecture("loose", SHAPE, 0, (graph,))
    arrays = initializers.draw(loose, 0)
    full = [replace(step, arrays=below(arrays, paths.get(step.name, "?"))) for step in steps]
    found = imported(full, *ends, request=request)
    images = np.random.default_rng(0).normal(size=(2, *SHAPE))
    expected = network.forward(loose, arrays, images)
    observed = network.forward(found.architecture, found.parameters or {}, images)
    for one, other in zip(expected.heads, observed.heads, strict=True):
        np.testing.assert_array_equal(observed.outputs[other], expected.outputs[one])
    layers = (layer for _, layer in walk(found.architecture.layers))
    return " ".join(type(layer).__name__ for layer in layers if not isinstance(layer, Block))


CONV = Conv("conv", 3, (3, 3))
IDENTITIES: dict[str, Layer] = {
    "block": Block("x", ()),
    "pad": Pad("x", (0, 0, 0, 0)),
    "slice": Slice("x", "channels", 0, 3),
    "rows": Slice("x", "rows", 0, 4),
    "upsample": Upsample("x", (1, 1)),
    "affine": Affine("x"),
    "reshape": Reshape("x", (3, 4, 3)),
}


@pytest.mark.parametrize("case", IDENTITIES)
def test_what_computes_nothing_is_left_out(case: str) -> None:
    assert kinds(row(CONV, IDENTITIES[case], ReLU("relu"))) == "Conv ReLU"
    assert kinds(row(CONV, IDENTITIES[case])) == "Conv"


def test_what_computes_something_stays() -> None:
    layers = [Slice("x", "channels", 0, 2), Slice("x", "rows", 1, 4), Upsample("x", (1, 2)), Affine("x", (2.0,))]
    layers += [Affine("x", trained=True), Reshape("x", (36,)), Pad("x", (0, 0, 0, 1)), Dropout("x", 0.5), Flatten("x")]
    for layer in layers:
        assert kinds(row(CONV, layer)) == f"Conv {type(layer).__name__}"


def test_a_flatten_of_what_is_flat_is_left_out_and_classes_are_counted() -> None:
    steps = row(Flatten("a"), Dense("b", 7), Flatten("c"), ReLU("d"))
    assert kinds(steps) == "Flatten Dense ReLU"
    assert imported(steps).architecture.classes == 7
    assert imported(row(CONV)).architecture.classes == 0
    assert imported(steps, "d", "b").architecture.classes == 0


PADDED: dict[str, tuple[list[Layer], str]] = {
    "conv": ([Pad("a", (1, 1, 2, 2)), Conv("b", 3, (3, 3), (2, 2), (0, 1))], "Conv"),
    "not alike": ([Pad("a", (0, 1, 0, 1)), Conv("b", 3, (3, 3), (2, 2))], "Pad Conv"),
    "not alike above and below": ([Pad("a", (0, 1, 1, 1)), Conv("b", 3, (3, 3), (2, 2))], "Pad Conv"),
    "not alike left and right": ([Pad("a", (1, 1, 0, 1)), Conv("b", 3, (3, 3), (2, 2))], "Pad Conv"),
    "a value": ([Pad("a", (1, 1, 1, 1), 1.0), Conv("b", 3, (3, 3))], "Pad Conv"),
    "reflected": ([Pad("a", (1, 1, 1, 1), mode="reflect"), Conv("b", 3, (3, 3))], "Pad Conv"),
    "something between": ([Pad("a", (1, 1, 1, 1)), BatchNorm("c"), Conv("b", 3, (3, 3))], "Pad BatchNorm Conv"),
    "maximum": ([Pad("a", (1, 1, 1, 1)), MaxPool("b", (3, 3), (2, 2))], "Pad MaxPool"),
    "mean": ([Pad("a", (1, 1, 1, 1)), AvgPool("b", (3, 3), (2, 2), count_padding=False)], "AvgPool"),
    "mean, padded": ([Pad("a", (1, 1, 1, 1)), AvgPool("b", (4, 4), (2, 2), (1, 1))], "AvgPool"),
    "padding not counted": (
        [Pad("a", (1, 1, 1, 1)), AvgPool("b", (4, 4), (2, 2), (1, 1), count_padding=False)],
        "Pad AvgPool",
    ),
    "more than half": ([Pad("a", (2, 2, 2, 2)), AvgPool("b", (3, 3), (2, 2))], "Pad AvgPool"),
    "hanging over": ([Pad("a", (1, 1, 1, 1)), AvgPool("b", (3, 3), (2, 2), ceil=True)], "Pad AvgPool"),
}


@pytest.mark.parametrize("case", PADDED)
def test_zeros_around_a_map_become_the_padding_of_what_follows(case: str) -> None:
    layers, expected = PADDED[case]
    assert kinds(row(*layers)) == expected


def test_zeros_that_somebody_else_takes_stay_for_them() -> None:
    steps = [
        *row(Pad("a", (1, 1, 1, 1))),
        *row(Conv("b", 4, (1, 1)), source="a"),
        *row(Conv("c", 4, (1, 1)), source="a"),
    ]
    assert kinds([*steps, merge_only("d", ("a", "b", "c"), "concatenate")]).split().count("Pad") == 1
    assert kinds([*steps, merge_only("d", ("b", "c"), "concatenate")]) == "Conv Conv Branches"


def slices(*edges: int) -> list[Step]:
    places = range(len(edges) - 1)
    return [Step(f"s{i}", Slice("s", "channels", edges[i], edges[i + 1]), (INPUT,)) for i in places]


def test_all_slices_in_their_order_are_the_map_itself() -> None:
    whole = [*slices(0, 1, 4), merge_only("a", ("s0", "s1"), "concatenate"), *row(ReLU("b"), source="a")]
    assert kinds(whole) == "ReLU"
    swapped = [*whole[:2], merge_only("a", ("s1", "s0"), "concatenate"), whole[-1]]
    assert kinds(swapped) == "Slice Slice Branches ReLU"
    partly = [*slices(0, 1, 3), *whole[2:]]
    assert kinds(partly) == "Slice Slice Branches ReLU"
    gap = [whole[0], Step("s1", Slice("s", "channels", 2, 4), (INPUT,)), *whole[2:]]
    assert kinds(gap) == "Slice Slice Branches ReLU"


def test_a_densenet_that_joins_all_maps_anew_becomes_a_row() -> None:
    steps = row(CONV)
    names = ["conv"]
    for number in range(3):
        steps.append(Step(f"n{number}", BatchNorm(""), tuple(names)))
        steps += row(Conv(f"c{number}", 2, (1, 1)), source=f"n{number}")
        names.append(f"c{number}")
    steps.append(Step("end", ReLU("end"), tuple(names)))
    found = imported(steps).architecture
    assert kinds(steps) == "Conv BatchNorm Conv" + " Branches BatchNorm Conv" * 2 + " Branches ReLU"
    assert [len(layer.branches) for layer in found.layers if isinstance(layer, Branches)] == [2, 2, 2]


def test_a_softmax_at_the_end_is_taken_off_and_said() -> None:
    steps = row(Flatten("a"), Dense("b", 3), Softmax("prob"))
    found = imported(steps)
    assert isinstance(found.architecture.layers[-1], Dense)
    assert found.remarks == ("softmax 'prob' at the end is taken off (--keep-softmax keeps it)",)
    kept = imported(steps, request=Request(keep_softmax=True))
    assert isinstance(kept.architecture.layers[-1], Softmax)
    assert kept.remarks == ()
    inside = imported([*steps, *row(ReLU("c"), source="prob")], "prob", "c")
    assert any(isinstance(layer, Softmax) for _, layer in walk(inside.architecture.layers))


def test_several_outputs_are_the_last_graph_and_only_what_they_need_is_there() -> None:
    steps = [
        *row(CONV),
        *row(ReLU("a"), source="conv"),
        *row(BatchNorm("b"), source="conv"),
        *row(ReLU("c"), source="b"),
    ]
    found = imported(steps, "b", "a").architecture
    assert outputs(found) == ("heads.b", "heads.a")
    assert isinstance(found.layers[-1], Graph)
    assert kinds(steps, "b", "a") == "Conv ReLU BatchNorm Graph"


def with_arrays(*layers: Layer, **arrays: np.ndarray) -> list[Step]:
    """The last layer gets the arrays."""
    steps = row(*layers)
    return [*steps[:-1], replace(steps[-1], arrays=arrays)]


ones = np.ones
REFUSED: dict[str, tuple[list[Step], str]] = {
    "array of another shape": (
        with_arrays(CONV, weight=ones((3, 4, 3, 2)), bias=ones(3)),
        r"net.file: node 'conv' \(Conv\): its array weight has the shape \(3, 4, 3, 2\), expected \(3, 4, 3, 3\)",
    ),
    "array too many": (
        with_arrays(replace(CONV, bias=False), weight=ones((3, 4, 3, 3)), bias=ones(3)),
        r"net.file: node 'conv' \(Conv\): it has an array bias, of which the layer knows nothing",
    ),
    "array missing": (
        with_arrays(CONV, weight=ones((3, 4, 3, 3))),
        r"net.file: node 'conv' \(Conv\): its array bias of shape \(3,\) is missing; give all arrays, or none",
    ),
    "arrays of another layer missing": (
        with_arrays(CONV, BatchNorm("n"), weight=ones(3)),
        r"net.file: node 'conv' \(Conv\): its array weight of shape .*",
    ),
    "layers that do not fit": (
        row(Dense("some/dense", 3)),
        r"net.file: node 'some/dense' \(Dense\): .* \(the network's input is 4x6x5\)",
    ),
    "too small": (
        row(MaxPool("p", (3, 3), (3, 3)), CONV),
        r"net.file: node 'conv' \(Conv\): .* \(the network's input is 4x6x5\)",
    ),
    "maps that do not fit": (
        [*row(CONV), merge_only("plus", ("conv", INPUT), "add")],
        r"net.file: node 'plus' \(Block\): .*different shapes.* \(the network's input is 4x6x5\)",
    ),
    "nothing": (row(Block("a", ())), "net.file: an output of it is its input, and there is no layer between"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_one_line_with_the_node(case: str) -> None:
    steps, line = REFUSED[case]
    with pytest.raises(TriptychError, match=f"^{line}$"):
        imported(steps)


def test_an_output_that_is_not_there() -> None:
    with pytest.raises(TriptychError, match=r"^unknown output of net.file 'prop'; did you mean 'prob'\?$"):
        imported(row(ReLU("prob")), "prop")
    with pytest.raises(TriptychError, match=r"^f has no outputs; name one \(--output\)$"):
        assemble(row(ReLU("prob")), [], Request(), name="n", source="f", input_shape=SHAPE)


def test_input_and_name_of_the_request_and_precision_of_the_arrays() -> None:
    steps = with_arrays(CONV, weight=ones((3, 4, 3, 3), np.float16), bias=ones(3, np.float64))
    found = imported(steps, request=Request(name="mine", input=(4, 9, 9)))
    assert (found.architecture.name, found.architecture.input) == ("mine", (4, 9, 9))
    assert found.parameters is not None
    assert {path: array.dtype for path, array in found.parameters.items()} == {"conv.weight": "f4", "conv.bias": "f8"}
    assert imported(row(CONV)).parameters is None
    unsaid = assemble(row(GlobalAvgPool("a")), ["a"], Request(), name="n", source="f", input_shape=None)
    assert unsaid.architecture.input == (3, 224, 224)
    assert unsaid.remarks == ("the source does not say its input; 3x224x224 is assumed (--input)",)
