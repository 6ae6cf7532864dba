"""MXNet's symbol files become the graph that MXNet itself loads, with its defaults, and bad ones are one line."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mxnet_runs import MODELS
from symbol_json import node, top, variable
from triptych.backend import registry
from triptych.importers.mxnet_json import VARIABLE
from triptych.importers.mxnet_operators import OPERATORS
from triptych.importers.mxnet_symbol import Symbol, parse, read
from triptych.utils.errors import TriptychError
from triptych.weights.formats.mxnet_params import read as read_arrays
from triptych.weights.formats.mxnet_params import split_prefixes

FILES = sorted(MODELS.glob("*/*.json"))
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of strangers' models is not there")
needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")

CONVOLUTION = {"kernel": "(3, 3)", "num_filter": "4", "no_bias": "True"}


def net() -> dict[str, Any]:
    """A convolution, a batch norm and a ReLU."""
    states = [variable(f"bn_{name}") for name in ("gamma", "beta", "running_mean", "running_var")]
    return top(
        variable("data"),
        variable("conv_weight", __shape__="(4, 3, 3, 3)"),
        node("Convolution", "conv", 0, 1, **CONVOLUTION),
        *states,
        node("BatchNorm", "bn", 2, 3, 4, 5, 6),
        node("Activation", "relu", 7, act_type="relu"),
    )


def load(graph: Any) -> Symbol:
    return parse(json.dumps(graph), "net-symbol.json")


def refused(content: str | bytes) -> str:
    with pytest.raises(TriptychError) as raised:
        parse(content, "net-symbol.json")
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith("net-symbol.json")
    assert len(line) < 1000
    return line


def by_name(symbol: Symbol) -> dict[str, Any]:
    return {each.name: each for each in symbol.nodes}


# What is read


def test_a_network_is_read_with_every_default_of_its_operators() -> None:
    symbol = load(net())
    assert symbol.arguments == ("data", "conv_weight", "bn_gamma", "bn_beta")
    assert symbol.auxiliary == ("bn_running_mean", "bn_running_var")
    assert (symbol.heads, symbol.version) == (((8, 0),), (1, 9, 1))
    nodes = by_name(symbol)
    assert nodes["conv"].inputs == ((0, 0), (1, 0))
    assert nodes["conv"].values == {
        "kernel": (3, 3),
        "stride": (1, 1),
        "dilate": (1, 1),
        "pad": (0, 0),
        "num_filter": 4,
        "num_group": 1,
        "no_bias": True,
        "layout": None,
    }
    batch_norm = nodes["bn"].values
    assert batch_norm["eps"] == 0.0010000000474974513  # 1e-3 of 32 bits, although the attribute has 64
    assert (batch_norm["fix_gamma"], batch_norm["axis"]) == (True, 1)
    assert batch_norm["momentum"] == pytest.approx(0.9)
    assert nodes["conv_weight"].attributes == {"__shape__": "(4, 3, 3, 3)"}
    assert (nodes["data"].operator, nodes["conv"].attributes) == (VARIABLE, CONVOLUTION)


@pytest.mark.parametrize(
    ("operator", "given", "expected"),
    [
        ("Pooling", {"kernel": "(2,2)"}, {"pool_type": "max", "pooling_convention": "valid", "stride": (1, 1)}),
        ("Pooling", {"global_pool": "True"}, {"kernel": (), "stride": (), "count_include_pad": None}),
        ("Pooling", {"kernel": "(2, 2)", "stride": "()"}, {"stride": (1, 1), "pad": (0, 0)}),
        ("LeakyReLU", {}, {"act_type": "leaky", "slope": 0.25}),
        ("LeakyReLU", {"slope": "0.1"}, {"slope": 0.10000000149011612}),
        ("clip", {"a_min": "0", "a_max": "6"}, {"a_min": 0.0, "a_max": 6.0}),
        ("Dropout", {}, {"p": 0.5, "mode": "training"}),
        ("_mul_scalar", {"scalar": "0.0078125"}, {"scalar": 0.0078125}),
        ("SliceChannel", {"num_outputs": "2"}, {"axis": 1, "squeeze_axis": False}),
        ("slice_axis", {"axis": "1", "begin": "0", "end": "None"}, {"end": None}),
        ("split", {"num_outputs": "2"}, {"axis": 1}),
        # As MXNet 2 writes all of them, with C++'s numbers for true and false.
        (
            "Pooling",
            {"kernel": "[2,2]", "stride": "[2,2]", "pad": "[0,0]", "pool_type": "avg", "pooling_convention": "full"}
            | {"global_pool": "0", "cudnn_off": "0", "p_value": "None", "count_include_pad": "1", "layout": "NCHW"}
            | {"output_size": "None"},
            {"kernel": (2, 2), "global_pool": False, "count_include_pad": True, "p_value": None, "output_size": None},
        ),
    ],
)
def test_defaults_are_applied(operator: str, given: dict[str, str], expected: dict[str, object]) -> None:
    values = load(top(variable("data"), node(operator, "x", 0, **given))).nodes[1].values
    assert {key: values[key] for key in expected} == expected


def test_old_names_of_operators_become_todays() -> None:
    graph = top(variable("data"), node("_Plus", "sum", 0, 0), node("ElementWiseSum", "all", 0, 1, 1))
    assert [each.operator for each in load(graph).nodes] == [VARIABLE, "elemwise_add", "add_n"]
    assert load(graph).nodes[2].values == {"num_args": 3}


def test_before_0_9_attributes_stand_under_param_and_auxiliary_states_are_made_up() -> None:
    old = [each | {"param": each.pop("attrs"), "backward_source_id": -1} for each in net()["nodes"]]
    old[2]["attr"] = {"ctx_group": "stage1", "mood": "blue"}  # the user's own, whatever they are
    del old[5:7]
    old[5]["inputs"] = [[2, 0], [3, 0], [4, 0]]
    old[6]["inputs"] = [[5, 0]]
    symbol = load(top(*old, version=None))
    assert symbol.version == (0, 8, 0)
    assert symbol.auxiliary == ("bn_moving_mean", "bn_moving_var")
    assert by_name(symbol)["bn"].inputs == ((2, 0), (3, 0), (4, 0), (5, 0), (6, 0))
    assert [each.name for each in symbol.nodes][5:] == ["bn_moving_mean", "bn_moving_var", "bn", "relu"]
    assert by_name(symbol)["relu"].inputs == ((7, 0),)
    assert by_name(symbol)["conv"].values == by_name(load(net()))["conv"].values


def test_before_0_9_what_cannot_be_made_up_is_refused() -> None:
    clash = top(variable("data"), variable("bn_beta"), node("BatchNorm", "bn", 0), heads=[[2, 0], [1, 0]], version=None)
    assert "node 2 'bn' (BatchNorm) lacks its input beta, and another node has the name 'bn_beta'" in refused(
        json.dumps(clash)
    )
    unnamed = top(variable("data"), node("Concat", "both", 0, num_args="2"), version=None)
    assert "node 1 'both' (Concat) has 1 inputs, expected 2" in refused(json.dumps(unnamed))


def test_attributes_of_training_are_none_of_the_operators() -> None:
    graph = net()
    graph["nodes"][2]["attrs"] |= {"weight_lr_mult": "2", "__profiler_scope__": "x:", "ctx_group": "a"}
    graph["nodes"][1]["attrs"] = {"lr_mult": "0.1"}
    nodes = by_name(load(graph))
    assert nodes["conv"].attributes == CONVOLUTION
    assert nodes["conv_weight"].attributes == {"__lr_mult__": "0.1"}


def test_a_layer_that_is_called_twice_gets_two_names_and_a_variable_keeps_its_own() -> None:
    graph = top(variable("a"), node("relu", "a", 0), node("relu", "a", 1), node("relu", "a_1", 2))
    assert [each.name for each in load(graph).nodes] == ["a", "a_1", "a_2", "a_1_1"]


def test_nodes_that_no_head_needs_are_left_out() -> None:
    graph = net()
    graph["nodes"][8:8] = [node("Unheard", "loss", 7), variable("relu"), variable("data")]  # which would be refused
    graph["nodes"][11]["inputs"] = [[7, 0, 0]]
    graph["heads"] = [[11, 0, 0], [2, 0, 0]]
    symbol = load(graph)
    assert [each.name for each in symbol.nodes][7:] == ["bn", "relu"]
    assert symbol.heads == ((8, 0), (2, 0))


def test_an_unknown_operator_stays_with_its_strings() -> None:
    symbol = load(top(variable("data"), node("RNN", "lstm", 0, mode="lstm"), heads=[[1, 3, 0]]))
    assert (symbol.nodes[1].operator, symbol.nodes[1].attributes, symbol.nodes[1].values) == (
        "RNN",
        {"mode": "lstm"},
        {},
    )
    assert symbol.heads == ((1, 3),)


def test_the_parts_of_a_split_are_outputs() -> None:
    parts = node("SliceChannel", "parts", 0, num_outputs="2")
    symbol = load(top(variable("data"), parts, node("Concat", "both", [1, 1, 0], [1, 0, 0], num_args="2")))
    assert symbol.nodes[2].inputs == ((1, 1), (1, 0))
    assert symbol.nodes[2].values == {"num_args": 2, "dim": 1}


@pytest.mark.parametrize(
    ("operator", "attributes", "number"),
    [
        ("Convolution", CONVOLUTION | {"no_bias": "False"}, 3),
        ("Convolution", {"kernel": "(1, 1)", "num_filter": "1"}, 3),
        ("Deconvolution", {"kernel": "(1, 1)", "num_filter": "1"}, 2),
        ("LeakyReLU", {"act_type": "prelu"}, 2),
        ("LeakyReLU", {"act_type": "elu"}, 1),
        ("UpSampling", {"scale": "2", "sample_type": "nearest", "num_args": "3"}, 3),
        ("UpSampling", {"scale": "2", "sample_type": "bilinear", "num_args": "1"}, 2),
        ("Crop", {"num_args": "2"}, 2),
        ("softmax", {}, 1),
        ("softmax", {"use_length": "True"}, 2),
    ],
)
def test_the_number_of_inputs_follows_from_the_attributes(
    operator: str, attributes: dict[str, str], number: int
) -> None:
    variables = [variable(f"v{index}") for index in range(4)]
    load(top(*variables, node(operator, "x", *range(number), **attributes)))
    for wrong in (number - 1, number + 1):
        line = refused(json.dumps(top(*variables, node(operator, "x", *range(wrong), **attributes))))
        assert f"node 4 'x' ({operator}) has {wrong} inputs, expected {number}" in line


# What is refused

Change = Callable[[dict[str, Any]], Any]


def changed(index: int, **fields: Any) -> Change:
    return lambda graph: graph["nodes"][index].update(fields)


def attribute(index: int, key: str, value: Any) -> Change:
    return lambda graph: graph["nodes"][index]["attrs"].update({key: value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (changed(2, inputs=[[8, 0, 0], [1, 0, 0]]), "node 2 'conv' (Convolution) takes input 0 from node 8 'relu'"),
        (changed(2, inputs=[[2, 0, 0], [1, 0, 0]]), "a cycle, or a file that is out of order"),
        (changed(2, inputs=[[99, 0, 0]]), "node 2 'conv' (Convolution): input 0 is node 99, but there are 9"),
        (changed(2, inputs=[[-1, 0, 0]]), "input 0 is [-1, 0, 0], expected [node, output]"),
        (changed(2, inputs=[[0]]), "input 0 is [0], expected [node, output]"),
        (changed(2, inputs=[[True, 0]]), "input 0 is [True, 0], expected"),
        (changed(2, inputs=[0]), "input 0 is 0, expected"),
        (changed(2, inputs={}), "inputs is a dict, expected a list"),
        (changed(2, inputs=[[0, 0, 0]]), "'conv' (Convolution) has 1 inputs, expected 2 (data, weight)"),
        (changed(2, inputs=[[0, 1, 0], [1, 0, 0]]), "output 1 of 'data' (null), which has 1"),
        (changed(7, inputs=[[2, 0, 0]] * 5), "takes moving_mean, an auxiliary state, from 'conv', no variable"),
        (changed(1, inputs=[[0, 0, 0]]), "node 1 'conv_weight' (null) is a variable, but has inputs"),
        (changed(1, name="data"), "node 1 'data' (null) is the second variable of its name"),
        (changed(1, name=""), "node 1 has '' name, expected a string"),
        (changed(2, name=7), "node 2 has 7 name, expected a string"),
        (changed(2, op=None), "node 2 'conv' has NoneType op, expected a string"),
        (changed(2, attrs=[]), "has attrs that are no strings by name"),
        (attribute(2, "kernel", 3), "node 2 'conv' (Convolution) has attrs that are no strings by name"),
        (attribute(2, "kernel", "(3, x)"), "has kernel '(3, x)', expected an integer"),
        (attribute(2, "kernel", "(0, 3)"), "has kernel '(0, 3)', expected 1 or more"),
        (attribute(2, "kernel", f"({'9' * 400},)"), "expected an integer of at most 18 digits"),
        (attribute(2, "stride", "(2,)"), "has stride (2,) and kernel (3, 3), which differ in number"),
        (attribute(2, "num_filter", "1e3"), "has num_filter '1e3', expected an integer"),
        (attribute(2, "layout", "CHWN"), "has layout 'CHWN', expected one of NCW, NCHW"),
        (attribute(2, "mood", "blue"), "has the attribute 'mood', which is not known; known: cudnn_off"),
        (lambda graph: graph["nodes"][2]["attrs"].pop("kernel"), "lacks the attribute 'kernel', which has no default"),
        (changed(2, control_deps=[1]), "has control_deps (control flow), which cannot be imported"),
        (changed(2, subgraphs=[{}]), "has subgraphs (control flow), which cannot be imported"),
        (changed(2, backward_source_id=1), "is the gradient of another node"),
        (changed(2, color="red"), "has the key 'color', which is not known"),
        (lambda graph: graph["nodes"].append(7), "node 9 is 7, expected an object"),
        (lambda graph: graph.update(nodes={}), "nodes is a dict, expected a list"),
        (lambda graph: graph.update(heads=[]), "has no heads"),
        (lambda graph: graph.update(heads=7), "heads is a int, expected a list"),
        (lambda graph: graph.update(heads=[[9, 0, 0]]), "head 0 is node 9, but there are 9"),
        (lambda graph: graph.update(heads=[[8, 1, 0]]), "a head is output 1 of 'relu' (Activation), which has 1"),
        (
            lambda graph: graph.update(arg_nodes=[2]),
            "node 2 'conv' (Convolution) is among the arg_nodes, but is no variable",
        ),
        (lambda graph: graph.update(arg_nodes=[10**400]), "arg_nodes names node int, but there are 9"),
        (
            lambda graph: graph.update(attrs={"mxnet_version": "1.9.1"}),
            "attrs holds no mxnet_version as MXNet writes it",
        ),
        (lambda graph: graph.update(layers=[]), "is no symbol of MXNet: it holds 'nodes', 'heads', 'arg_nodes'"),
        (lambda graph: graph.pop("heads"), "is no symbol of MXNet: it holds 'nodes', 'arg_nodes', 'attrs'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "node",
)
def test_what_is_wrong_is_said_with_the_node(change: Change, complaint: str) -> None:
    graph = net()
    change(graph)
    assert complaint in refused(json.dumps(graph))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "is no JSON"),
        ("[1]", "is no symbol of MXNet: it holds a list"),
        (b"\xff\xfe\xff", "is no JSON"),
        ("[" * 10_000, "lie too deep in each other"),
        ('{"nodes": ' + "[" * 10_000 + "]" * 10_000 + ', "heads": []}', "lie too deep in each other"),
        ('{"nodes": [], "heads": [[' + "9" * 5000 + ", 0]]}", "is no JSON"),
    ],
    ids=["nothing", "list", "no text", "open lists", "deep lists", "huge number"],
)
def test_what_is_no_symbol_is_refused(content: str | bytes, complaint: str) -> None:
    assert complaint in refused(content)


@pytest.mark.parametrize("path", [Path("nowhere-symbol.json"), Path(), Path("a\0b")])
def test_what_is_no_file_is_refused(path: Path) -> None:
    with pytest.raises(TriptychError, match="cannot read"):
        read(path)


def chain(length: int) -> str:
    return json.dumps(top(variable("data"), *(node("relu", "x", index) for index in range(length))))


def test_ten_thousand_nodes_of_one_name_take_a_moment() -> None:
    content = chain(10_000)
    began = time.perf_counter()
    symbol = parse(content, "chain")
    assert time.perf_counter() - began < 5  # 0.1 s alone; a quadratic search takes minutes
    assert len(by_name(symbol)) == 10_001


def test_memory_stays_below_ten_times_the_file() -> None:
    content = chain(10_000)
    tracemalloc.start()
    parse(content, "chain")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * len(content)


def survives(content: str) -> None:
    try:
        symbol = parse(content, "net-symbol.json")
    except TriptychError as error:
        line = str(error)
    else:
        line = ""
        assert all(index < number for number, each in enumerate(symbol.nodes) for index, _ in each.inputs)
        assert len(by_name(symbol)) == len(symbol.nodes)
    assert "\n" not in line


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["null", "True", "(3,)"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["op", "name", "attrs", "x"]), inner),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


PLACES = places(net())[1:]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), anything), min_size=1, max_size=3))
def test_altered_fields_give_a_graph_or_the_one_error(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    graph = net()
    for path, value in changes:
        target = graph
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    survives(json.dumps(graph))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.text(max_size=8))
def test_altered_text_gives_a_graph_or_the_one_error(at: int, cut: int, inserted: str) -> None:
    content = json.dumps(net())
    at %= len(content)
    survives(content[:at] + inserted + content[at + cut :])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(OPERATORS)), st.data())
def test_altered_values_give_a_graph_or_the_one_error(operator: str, data: st.DataObject) -> None:
    attributes = {}
    for key in data.draw(st.sets(st.sampled_from([*sorted(OPERATORS[operator].attributes), "other"]), max_size=4)):
        texts = [
            "None",
            "(1, 1)",
            "1",
            "-1",
            "True",
            "nearest",
            "0.5",
            "9" * 400,
            "1e400",
            "(" * 99,
            "(None,)",
            "",
            "inf",
        ]
        attributes[key] = data.draw(st.sampled_from(texts) | st.text(max_size=6))
    number = data.draw(st.integers(0, 5))
    variables = [variable(f"v{index}") for index in range(6)]
    version = data.draw(st.sampled_from([800, 10901]))
    survives(json.dumps(top(*variables, node(operator, "x", *range(number), **attributes), version=version)))


# Against MXNet itself, and strangers' files


@pytest.fixture(scope="module")
def mx() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


def same_graph(symbol: Symbol, loaded: Any) -> None:
    """The variables and outputs that MXNet sees, and every operator in MXNet's own saved form."""
    assert list(symbol.arguments) == loaded.list_arguments()
    assert list(symbol.auxiliary) == loaded.list_auxiliary_states()
    assert len(symbol.heads) == len(loaded.list_outputs())
    saved = parse(loaded.tojson(), "saved by MXNet")
    assert sorted(map(described, saved.nodes)) == sorted(map(described, symbol.nodes))


def described(each: Any) -> str:
    return f"{each.name} {each.operator} {sorted(each.values.items())} {len(each.inputs)}"


@needs_models
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_strangers_files_are_read_and_all_their_operators_known(path: Path) -> None:
    symbol = read(path)
    assert {each.operator for each in symbol.nodes} - {VARIABLE} <= OPERATORS.keys()


@needs_models
@needs_mxnet
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_strangers_files_are_the_graph_that_mxnet_loads(path: Path, mx: Any) -> None:
    same_graph(read(path), mx.sym.load(str(path)))


LAYERS = [
    ("Convolution", {"kernel": "(3, 3)", "num_filter": "2"}),
    ("Convolution", {"kernel": "(3, 3)", "num_filter": "2", "no_bias": "1"}),
    ("Deconvolution", {"kernel": "(3, 3)", "num_filter": "2"}),
    ("Deconvolution", {"kernel": "(3, 3)", "num_filter": "2", "no_bias": "False"}),
    ("FullyConnected", {"num_hidden": "2"}),
    ("BatchNorm", {}),
    ("InstanceNorm", {}),
    ("SoftmaxOutput", {}),
    ("UpSampling", {"scale": "2", "sample_type": "bilinear", "num_args": "2", "num_filter": "2"}),
    *(("LeakyReLU", {"act_type": act_type}) for act_type in ("leaky", "prelu", "elu", "selu", "gelu")),
]


@needs_mxnet
@pytest.mark.parametrize(("operator", "attributes"), LAYERS)
def test_inputs_that_are_missing_before_0_9_are_made_up_as_by_mxnet(
    operator: str, attributes: dict[str, str], mx: Any
) -> None:
    content = json.dumps(top(variable("data"), node(operator, "x", 0, **attributes), version=800))
    loaded = mx.sym.load_json(content)
    symbol = parse(content, operator)
    assert list(symbol.arguments) == loaded.list_arguments()
    assert list(symbol.auxiliary) == loaded.list_auxiliary_states()


@needs_models
@pytest.mark.parametrize(
    "path", [path for path in FILES if list(path.parent.glob("*.params"))], ids=lambda path: path.name
)
def test_strangers_files_hold_an_array_for_every_variable_but_the_inputs(path: Path) -> None:
    symbol = read(path)
    arrays = sorted(path.parent.glob(f"{path.name.removesuffix('-symbol.json')}-*.params"))
    arguments, auxiliary = split_prefixes(read_arrays(arrays[0]))
    inputs = {name for name in symbol.arguments if name == "data" or name.endswith("label")}
    assert arguments.keys() == set(symbol.arguments) - inputs
    assert auxiliary.keys() == set(symbol.auxiliary)


@needs_mxnet
@pytest.mark.parametrize(
    "name",
    ["resnet18_v1", "resnet18_v2", "mobilenetv2_0.25", "squeezenet1.0", "densenet121", "vgg11_bn", "inceptionv3"],
)
def test_networks_of_gluons_zoo_are_read(name: str, mx: Any) -> None:
    exported = mx.gluon.model_zoo.vision.get_model(name)(mx.sym.var("data"))
    symbol = parse(exported.tojson(), name)
    same_graph(symbol, exported)
    assert symbol.version == (1, 9, 1)
    assert {each.operator for each in symbol.nodes} - {VARIABLE} <= OPERATORS.keys()
