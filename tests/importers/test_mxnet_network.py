"""Networks of MXNet's become the spec's, Gluon's zoo and strangers' as MXNet runs them; bad ones are one line."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import python
from marks import later
from mxnet_runs import (
    GLUON_ZOO,
    MODELS,
    bare_outputs,
    distance,
    draw,
    gluon_input,
    largest_distance,
    run_mxnet,
    run_reference,
)
from symbol_json import node, top, variable
from triptych.backend import registry
from triptych.importers import mxnet_symbol
from triptych.importers.mxnet_network import CONVERTERS, convert, load, read_arrays
from triptych.importers.mxnet_operators import OPERATORS
from triptych.importers.steps import Imported, Request
from triptych.spec import analysis
from triptych.spec.layers import BatchNorm, Dropout, Shape, Softmax, walk
from triptych.utils.errors import TriptychError
from triptych.weights.formats import mxnet_params

needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of strangers' models is not there")
SYMBOLS = sorted(MODELS.glob("*/*.json"))
PAIRS = [
    (symbol, params)
    for symbol in SYMBOLS
    for params in sorted(symbol.parent.glob(f"{symbol.name.removesuffix('-symbol.json')}-*.params"))
]
ROUNDS_SLOPES = {"LeakyReLU"}  # MXNet multiplies by a slope in 32 bits, whatever the arrays have
FILES = ("net-symbol.json", "net.params")


@pytest.fixture(scope="module")
def mx() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


def imported_of(graph: dict[str, Any], arrays: Any = None, input: Shape | None = (3, 8, 8), **request: Any) -> Imported:
    symbol = mxnet_symbol.parse(json.dumps(graph), FILES[0])
    return convert(symbol, arrays, Request(input=input, **request), name="net", files=FILES)  # type: ignore[arg-type]


def convolution(name: str, *inputs: int | list[int], channels: int = 4, **attributes: str) -> dict[str, Any]:
    return node("Convolution", name, *inputs, kernel="(3, 3)", num_filter=str(channels), no_bias="True", **attributes)


def net(*nodes: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Data (0) into a convolution (2), and what follows it."""
    return top(variable("data"), variable("conv_weight"), convolution("conv", 0, 1), *nodes, **options)


def kinds(imported: Imported) -> list[str]:
    return [type(layer).__name__ for _, layer in walk(imported.architecture.layers)]


# As MXNet runs them

ALWAYS = ("mobilenet0.25", "mobilenetv2_0.25", "squeezenet1.1", "resnet18_v1", "resnet18_v2")


@needs_mxnet
@pytest.mark.parametrize("name", [name if name in ALWAYS else pytest.param(name, marks=later) for name in GLUON_ZOO])
def test_a_network_of_gluons_zoo_computes_and_learns_as_in_mxnet(name: str, mx: Any) -> None:
    symbol = mx.gluon.model_zoo.vision.get_model(name)(mx.sym.var("data"))
    shape = gluon_input(name)
    arrays = draw(symbol, shape)
    x = np.random.default_rng(0).normal(size=shape)
    imported = imported_of(json.loads(symbol.tojson()), arrays, shape[1:])
    theirs = run_mxnet(symbol, arrays, x, False, "float64")
    assert largest_distance(imported, arrays, theirs, run_reference(imported, x, False)) < 1e-12
    without_dropout = mx.sym.load_json(symbol.tojson().replace('"p": "0.5"', '"p": "0"'))
    assert ("Dropout" in kinds(imported)) == (without_dropout.tojson() != symbol.tojson())
    imported = imported_of(json.loads(without_dropout.tojson()), arrays, shape[1:])
    theirs = run_mxnet(without_dropout, arrays, x, True, "float64")
    # Batch norms of few values multiply rounding; the largest over the zoo is 3e-12 where the outputs have 1e-15.
    assert largest_distance(imported, arrays, theirs, run_reference(imported, x, True)) < 1e-11


@needs_models
@needs_mxnet
@pytest.mark.parametrize(("symbol", "params"), PAIRS, ids=lambda path: path.name)
def test_strangers_networks_compute_and_learn_as_in_mxnet(symbol: Path, params: Path, mx: Any) -> None:
    imported, parsed = load(symbol, params, Request()), mxnet_symbol.read(symbol)
    arrays = read_arrays(params)
    x = np.random.default_rng(0).normal(size=(2, *imported.architecture.input))
    bound = 1e-6 if {each.operator for each in parsed.nodes} & ROUNDS_SLOPES else 1e-12
    bare = bare_outputs(mx.sym.load(str(symbol)), parsed)
    for train in (False, True):
        theirs = run_mxnet(bare, arrays, x, train, "float64")
        assert largest_distance(imported, arrays, theirs, run_reference(imported, x, train)) < bound


@needs_models
@needs_mxnet
@pytest.mark.parametrize(
    ("symbol", "size"),
    [
        pytest.param(path, size, marks=later if start == "VGG_FC" else ())
        for path in SYMBOLS
        for start, size in (("VGG_FC", 224), ("vgg16_reduced", 224), ("resnet", 64))
        if path.name.startswith(start)
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_strangers_symbols_without_arrays_compute_as_in_mxnet(symbol: Path, size: int, mx: Any) -> None:
    assert load(symbol, None, Request()).parameters is None
    graph, shape = json.loads(symbol.read_text()), (1, 3, size, size)
    arrays = draw(mx.sym.load(str(symbol)), shape)
    imported = imported_of(graph, arrays, shape[1:])
    x = np.random.default_rng(0).normal(size=shape)
    bare = bare_outputs(mx.sym.load(str(symbol)), mxnet_symbol.read(symbol))
    theirs = run_mxnet(bare, arrays, x, False, "float64")
    assert distance(theirs.outputs[0], run_reference(imported, x, False).outputs[0]) < 1e-12


# What is taken over


@needs_models
@pytest.mark.parametrize(
    ("name", "input", "outputs"),
    [("det1", (3, 224, 224), 2), ("det2", (3, 24, 24), 2), ("det3", (3, 48, 48), 3), ("LeNet", (1, 28, 28), 1)],
)
def test_the_input_is_found_by_the_first_and_the_dense_layers(name: str, input: Shape, outputs: int) -> None:
    symbol, params = next(pair for pair in PAIRS if pair[0].name == f"{name}-symbol.json")
    imported = load(symbol, params, Request())
    assert imported.architecture.input == input
    assert len(run_reference(imported, np.zeros((1, *input)), False).outputs) == outputs
    assert any(("is assumed" if name == "det1" else "fits the dense layers") in line for line in imported.remarks)


def test_the_input_is_what_is_said_else_what_the_symbol_states() -> None:
    graph = net()
    graph["nodes"][0] = variable("data", __shape__="(0, 5, 20, 30)")
    assert imported_of(graph, input=None).architecture.input == (5, 20, 30)
    assert imported_of(graph, input=(5, 9, 9)).architecture.input == (5, 9, 9)
    assert imported_of(graph, input=None).remarks == ()
    graph["nodes"][1] = variable("conv_weight", __shape__="(4, 1, 3, 3)")
    graph["nodes"][0] = variable("data", __shape__="(0, 0, 0, 0)")
    assert imported_of(graph, input=None).architecture.input == (1, 224, 224)


def test_a_dense_network_gets_its_input_from_the_first_weight() -> None:
    graph = top(variable("data"), variable("w"), node("FullyConnected", "fc", 0, 1, num_hidden="4", no_bias="True"))
    for features, shape in ((784, (1, 28, 28)), (3072, (3, 32, 32)), (20, (20, 1, 1))):
        assert imported_of(graph, {"w": np.zeros((4, features))}, None).architecture.input == shape


def test_a_softmax_at_the_end_is_taken_off_and_said_unless_it_is_kept() -> None:
    label = [variable("label"), node("SoftmaxOutput", "prob", 2, 3, multi_output="True")]
    imported = imported_of(net(*label))
    assert "Softmax" not in kinds(imported)
    assert "the softmax 'prob' (SoftmaxOutput) at the end is taken off" in imported.remarks[0]
    kept = imported_of(net(*label), keep_softmax=True)
    assert "Softmax" in kinds(kept)
    assert "its gradient in MXNet is the loss's" in " ".join(kept.remarks)
    inside = net(node("softmax", "attention", 2, axis="1"), node("relu", "relu", 3))
    assert any(isinstance(layer, Softmax) for _, layer in walk(imported_of(inside).architecture.layers))


def test_nodes_become_outputs_and_what_they_do_not_need_is_not_looked_at() -> None:
    graph = net(node("relu", "relu", 2), node("Custom", "mine", 3), node("tanh", "tanh", 3), heads=[[4, 0, 0]])
    arrays = {"conv_weight": np.ones((4, 3, 3, 3))}
    for name in ("relu", "relu_output"):
        imported = imported_of(graph, arrays, outputs=(name,))
        assert run_reference(imported, np.ones((1, 3, 8, 8)), False).outputs[0].shape == (1, 4, 6, 6)
    assert (
        len(run_reference(imported_of(graph, arrays, outputs=("conv", "relu")), np.ones((1, 3, 8, 8)), False).outputs)
        == 2
    )
    assert "did you mean 'relu'" in refusal(graph, outputs=("rleu",))


def test_batch_norm_keeps_every_number_of_mxnets() -> None:
    states = [variable(f"bn_{name}") for name in ("gamma", "beta", "moving_mean", "moving_var")]
    graph = net(*states, node("BatchNorm", "bn", 2, 3, 4, 5, 6), node("Dropout", "drop", 7, p="0.25"))
    layers = [layer for _, layer in walk(imported_of(graph).architecture.layers)]
    layer = next(layer for layer in layers if isinstance(layer, BatchNorm))
    assert (layer.eps, layer.momentum) == (0.0010000000474974513, 1 - 0.8999999761581421)
    assert (layer.gamma, layer.beta, layer.unbiased, layer.frozen) == (False, True, False, False)
    assert [each.rate for each in layers if isinstance(each, Dropout)] == [0.25]
    arrays = {"conv_weight": np.zeros((4, 3, 3, 3))} | {
        f"bn_{name}": np.full(4, number) for number, name in enumerate(("beta", "moving_mean", "moving_var"))
    }
    found = imported_of(graph, arrays).parameters or {}  # without the scale, which is fixed
    assert sorted(path.rpartition(".")[2] for path in found) == ["bias", "running_mean", "running_var", "weight"]


def test_what_is_told_of_arrays() -> None:
    arrays = {"conv_weight": np.ones((4, 3, 3, 3), np.float16), "other": np.ones(3), "another": np.ones(3)}
    assert imported_of(net(), arrays).remarks == ("the symbol has no place for 'other', 'another' of net.params",)
    shared = net(node("Pad", "pad", 2, mode="edge", pad_width="(0, 0, 0, 0, 1, 1, 1, 1)"))
    shared["nodes"][2]["attrs"]["num_filter"] = "3"
    shared["nodes"].append(convolution("again", 3, 1, channels=3))
    shared["heads"] = [[4, 0, 0]]
    imported = imported_of(shared, {"conv_weight": np.ones((3, 3, 3, 3))})
    assert imported.remarks == ("layers share 'conv_weight'; here each has a copy, and training would part them",)
    scaled = net(
        variable("scale"), node("broadcast_mul", "scaled", 2, 3), node("BlockGrad", "stop", 4), node("relu", "r", 5)
    )
    given = {"conv_weight": np.ones((4, 3, 3, 3)), "scale": np.arange(4.0).reshape(1, 4, 1, 1)}
    imported = imported_of(scaled, given)
    assert "the array 'scale' is a constant here; MXNet would train it" in imported.remarks
    assert "gradients go through 'stop' (BlockGrad) here; MXNet stops them" in imported.remarks
    y = run_reference(imported, np.ones((1, 3, 8, 8)), False).outputs[0]
    assert np.array_equal(y[0, :, 0, 0], 27 * np.arange(4))


def test_files_are_read_in_half_precision_and_without_prefixes(tmp_path: Path) -> None:
    symbol, params = tmp_path / "mine-symbol.json", tmp_path / "mine-0003.params"
    symbol.write_text(json.dumps(net()))
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float16)
    for name in ("arg:conv_weight", "conv_weight"):
        mxnet_params.write(params, {name: weight})
        imported = load(symbol, params, Request())
        (value,) = (imported.parameters or {}).values()
        assert value.dtype == np.float32
        assert np.array_equal(value, weight)
    assert imported.architecture.name == "mine"
    assert imported.architecture.source == "mine-symbol.json, MXNet 1.9.1"


def test_mxnet_is_not_needed(tmp_path: Path) -> None:
    symbol = tmp_path / "net-symbol.json"
    symbol.write_text(json.dumps(net(node("relu", "relu", 2))))
    program = """
import sys
from pathlib import Path
from triptych.importers.mxnet_network import load
from triptych.importers.steps import Request
print(load(Path(sys.argv[1]), None, Request()).architecture.input)
print(sorted({"mxnet", "torch", "jax", "flax"} & sys.modules.keys()))
"""
    assert python(program, str(symbol)).stdout == "(3, 224, 224)\n[]\n"


# What is refused


def refusal(graph: dict[str, Any], arrays: Any = None, **options: Any) -> str:
    with pytest.raises(TriptychError) as raised:
        imported_of(graph, arrays, **options)
    line = str(raised.value)
    assert "\n" not in line
    assert len(line) < 2000
    return line


def after(operator: str, *more: int | list[int], **attributes: str) -> dict[str, Any]:
    """A node 'x' on the convolution, which has a map (4, 6, 6)."""
    return net(node(operator, "x", 2, *more, **attributes))


POOL = {"kernel": "(2, 2)", "pool_type": "max"}
STATES = [variable(name) for name in ("gamma", "beta", "mean", "var")]


@pytest.mark.parametrize(
    ("graph", "complaint"),
    [
        (
            after("Custom", op_type="mine"),
            "node 'x' (Custom) is of an operator that cannot be imported (known: Activation",
        ),
        (net(*STATES[:2], node("InstanceNorm", "x", 2, 3, 4)), "node 'x' (InstanceNorm) is of an operator that cannot"),
        (after("elemwise_div", 2), "node 'x' (elemwise_div) divides by what it computes of the images"),
        (after("Activation", act_type="log_sigmoid"), "has the act_type log_sigmoid, and only relu, "),
        (after("LeakyReLU", act_type="rrelu"), "has the act_type rrelu, and only leaky, prelu, elu, "),
        (after("Dropout", mode="always"), "drops in evaluation too"),
        (after("Dropout", axes="(1,)"), "or whole axes"),
        (after("Dropout", p="1"), "is not as the spec has it: its rate 1.0 must be at least 0 and below 1"),
        (
            net(*STATES, node("BatchNorm", "x", 2, 3, 4, 5, 6, axis="3")),
            "has axis 3, and only 1, the channels, is taken",
        ),
        (net(*STATES, node("BatchNorm", "x", 2, 3, 4, 5, 6), node("relu", "y", [7, 1, 0])), "takes output 1 of 'x'"),
        (net(*STATES, node("BatchNorm", "x", 2, 3, 4, 5, 6), heads=[[7, 2, 0]]), "output 2 of 'x' (BatchNorm) is none"),
        (net(variable("w"), convolution("x", 2, 3, layout="NHWC")), "has the layout NHWC, and only NCHW is taken"),
        (
            net(variable("w"), node("Convolution", "x", 2, 3, kernel="(3,)", num_filter="1", no_bias="1")),
            "has 1 values as",
        ),
        (net(convolution("x", 2, 2)), "takes its weight from 'conv' (Convolution), which is no variable"),
        (net(variable("w"), convolution("x", 2, 3, num_group="3")), "3 groups do not divide 4 inputs and 4 outputs"),
        (net(variable("w"), convolution("x", 2, 3, dilate="(4, 4)")), "the input is 3x8x8, another can be given"),
        (
            after("Pooling", **POOL | {"pool_type": "lp", "p_value": "2"}),
            "has the pool_type lp, and only max, avg, sum",
        ),
        (after("Pooling", pooling_convention="same", **POOL), "has the pooling_convention same"),
        (after("Pooling", **POOL, pooling_convention="full", pad="(1, 1)", stride="(5, 5)"), "lie wholly outside"),
        (after("Pooling", **POOL | {"kernel": "(1, 1)", "pad": "(1, 1)"}), "is more than half of the kernel"),
        (
            after(
                "Pooling", **POOL | {"pool_type": "sum", "kernel": "(3, 3)"}, pooling_convention="full", stride="(2, 2)"
            ),
            "has windows that hang over the edge",
        ),
        (after("clip", a_min="-inf", a_max="1"), "has the bounds -inf and 1"),
        (after("_div_scalar", scalar="0"), "has the scalar 0"),
        (after("_mul_scalar", scalar="inf"), "has the scalar inf"),
        (after("LRN", nsize="4"), "its window of 4 channels must be odd"),
        (after("L2Normalization", mode="spatial"), "has the mode spatial, and only instance, channel are taken"),
        (
            net(node("reverse", "t", 2, axis="(2,)"), variable("w"), convolution("x", 3, 4)),
            "takes a tensor whose values were moved ('t', of shape (batch, 4, 6, 6)) as no layers do",
        ),
        (after("transpose", axes="(1, 0, 2, 3)"), "moves the batch"),
        (after("transpose", axes="(0, 1)"), "has the axes (0, 1) for 4"),
        (after("Reshape", shape="(4, -1)"), "has the shape (4, -1), which does not leave the batch as it is"),
        (after("Reshape", shape="(0, 7, -1)"), "has the shape (0, 7, -1), which does not fit (4, 6, 6)"),
        (after("Reshape", shape="(0, 0, 0, 0, 0)"), "needs more axes than there are"),
        (after("Reshape", shape="(0, -4, 3, 3, -2)"), "cannot split 4 into 3 times 3"),
        (after("SwapAxis", dim1="0", dim2="1"), "has axis 0, which is the batch"),
        (after("Concat", num_args="1", dim="2"), "joins along axis 2, and only 1, the channels, is taken"),
        (
            net(node("Flatten", "f", 2), node("Concat", "x", 2, 3, num_args="2")),
            "cannot concatenate flat values and maps",
        ),
        (after("SliceChannel", num_outputs="3"), "makes 3 parts of an axis of 4"),
        (after("SliceChannel", num_outputs="2", axis="0"), "has axis 0, which is the batch"),
        (after("slice_axis", axis="1", begin="3", end="2"), "takes 3 to 2 of an axis of 4"),
        (after("slice", begin="(0, 0)", end="(None, 4)", step="(1, 0)"), "has the step 0"),
        (after("slice", begin="(1, 0)", end="(None, 4)"), "takes a part of the batch"),
        (after("Crop", num_args="1", h_w="(7, 2)"), "takes 0 to 7 of an axis of 6"),
        (after("Pad", mode="constant", pad_width="(0, 0, 1, 0, 0, 0, 0, 0)"), "only rows and columns are padded"),
        (after("Pad", mode="reflect", pad_width="(0, 0, 0, 0, 6, 0, 0, 0)"), "cannot reflect"),
        (after("mean", axis="(1, 2)"), "reduces the axes (1, 2), and only rows, columns (2, 3), both, or channels"),
        (after("depth_to_space", block_size="4"), "has the block_size 4 for 4 channels"),
        (after("reverse", axis="(0,)"), "has axis 0, which is the batch"),
        (after("Cast", dtype="int8"), "rounds to int8"),
        (
            net(
                node("Reshape", "r", 2, shape="(0, 2, 2, 6, 6)"),
                node("FullyConnected", "x", 3, 1, num_hidden="4", no_bias="1", flatten="0"),
            ),
            "has flatten=False on 4 axes",
        ),
        (after("_contrib_AdaptiveAvgPooling2D", output_size="(4, 4)"), "(4, 4), which does not divide 6x6"),
        (after("elemwise_add", 0), "cannot add outputs of different shapes"),
        (
            net(variable("other"), node("elemwise_add", "x", 2, 3)),
            "takes 2 inputs ('data', 'other'), and networks of one",
        ),
        (
            top(variable("data"), node("Flatten", "x", 0), heads=[[1, 0, 0], [0, 0, 0]]),
            "the output 'data' is a variable",
        ),
        (top(variable("data")), "the output 'data' is a variable, with no layer before it"),
        (top(variable("data"), node("Cast", "x", 0, dtype="float32")), "the output 'x' is the input itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "graph",
)
def test_what_the_spec_has_not_is_refused_with_its_node(graph: dict[str, Any], complaint: str) -> None:
    line = refusal(graph)
    assert complaint in line
    assert line.startswith("net-symbol.json")


def test_arrays_of_another_symbol_are_refused_with_names_and_shapes() -> None:
    assert refusal(net(), {"conv_weight": np.zeros((4, 1, 3, 3))}) == (
        "net.params belongs to another symbol than net-symbol.json: array 'conv_weight' has shape (4, 1, 3, 3), but "
        "node 'conv' (Convolution) of the symbol needs (4, 3, 3, 3)"
    )
    assert refusal(net(), {"conv0_weight": np.zeros(1)}) == (
        "net.params belongs to another symbol than net-symbol.json: it lacks the array 'conv_weight'; it has "
        "'conv0_weight'"
    )
    dense = node("FullyConnected", "fc", 2, 3, num_hidden="5", no_bias="True")
    given = {"conv_weight": np.zeros((4, 3, 3, 3)), "fc_weight": np.zeros((5, 100))}
    line = refusal(net(variable("fc_weight"), dense | {"inputs": [[2, 0, 0], [3, 0, 0]]}), given)
    assert "array 'fc_weight' has shape (5, 100), but node 'fc' (FullyConnected) of the symbol gets 144 values" in line
    assert "the input is 3x8x8, another can be given with --input" in line
    line = refusal(net(variable("fc_weight"), dense), given, input=None)
    assert "no other usual size fits" in line


def test_arrays_that_are_no_numbers_or_too_large_are_refused(tmp_path: Path) -> None:
    symbol, params = tmp_path / "net-symbol.json", tmp_path / "net.params"
    symbol.write_text(json.dumps(net()))
    mxnet_params.write(params, {"conv_weight": np.zeros((4, 3, 3, 3), np.int8)})
    with pytest.raises(TriptychError, match="array 'conv_weight' has the type int8, expected floating-point"):
        load(symbol, params, Request())


def test_ten_thousand_nodes_take_a_moment() -> None:
    chain = [node("relu", "x", index + 2) for index in range(10_000)]
    began = time.process_time()
    imported_of(net(*chain))
    assert time.process_time() - began < 100  # 1 s; a quadratic search takes minutes, and bad input has bounded time


TEXTS = [
    "None",
    "(1, 1)",
    "(2, 2)",
    "1",
    "-1",
    "0",
    "3",
    "True",
    "avg",
    "max",
    "full",
    "0.5",
    "inf",
    "(0, 2, -1)",
    "()",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CONVERTERS)), st.data())
def test_whatever_its_attributes_a_node_is_taken_or_refused(operator: str, data: st.DataObject) -> None:
    entry = OPERATORS[operator]
    attributes = {
        key: data.draw(st.sampled_from([*attribute.choices, *TEXTS, *(["(3, 3)"] if key == "kernel" else [])]))
        for key, attribute in entry.attributes.items()
        if attribute.kind != "ignored" and (attribute.default is not None) and data.draw(st.booleans())
    }
    inputs = [2, *range(3, 3 + data.draw(st.integers(0, 4)))]
    graph = net(*(variable(f"v{index}") for index in range(4)), node(operator, "x", *inputs, **attributes))
    line = "net-symbol.json"
    try:
        assert analysis.parameters(imported_of(graph).architecture)
    except TriptychError as error:
        line = str(error)
    assert re.fullmatch(".*net-symbol.json.*", line)
