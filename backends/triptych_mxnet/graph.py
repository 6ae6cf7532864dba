"""A symbol's graph: what its operators are by the spec's records, and what they take."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mxnet as mx
from mxnet import gluon

from triptych.backend.contract import Drawn, dropout_kind
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import GLUON

# MXNet's operators by the spec's record or merge; some depend on attributes.
KINDS = {
    "Convolution": "Conv",
    "Deconvolution": "ConvTranspose",
    "FullyConnected": "Dense",
    "BatchNorm": "BatchNorm",
    "LRN": "LocalResponseNorm",
    "L2Normalization": "L2Normalize",
    "Activation": "ReLU",
    "LeakyReLU": "LeakyReLU",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softsign": "Softsign",
    "hard_sigmoid": "HardSigmoid",
    "clip": "Clip",
    "softmax": "Softmax",
    "SoftmaxActivation": "Softmax",
    "Pooling": "MaxPool",
    "mean": "GlobalAvgPool",
    "max": "GlobalMaxPool",
    "Flatten": "Flatten",
    "Reshape": "Flatten",
    "Pad": "Pad",
    "UpSampling": "Upsample",
    "_contrib_BilinearResize2D": "Upsample",
    "slice": "Slice",
    "slice_axis": "Slice",
    "Crop": "Slice",
    "Dropout": "Dropout",
    "Concat": "concatenate",
    "elemwise_add": "add",
    "broadcast_add": "add",
    "add_n": "add",
    "_plus": "add",
    "elemwise_sub": "add",
    "broadcast_sub": "add",
    "_minus": "add",
    "elemwise_mul": "multiply",
    "broadcast_mul": "multiply",
    "_mul": "multiply",
}
# The first whose attributes are all there.
BY_ATTRIBUTES: tuple[tuple[dict[str, str], str], ...] = (
    ({"act_type": "sigmoid"}, "Sigmoid"),
    ({"act_type": "tanh"}, "Tanh"),
    ({"act_type": "prelu"}, "PReLU"),
    ({"act_type": "elu"}, "ELU"),
    ({"act_type": "selu"}, "SELU"),
    ({"act_type": "gelu"}, "GELU"),
    ({"act_type": "softrelu"}, "Softplus"),
    ({"act_type": "softsign"}, "Softsign"),
    ({"pool_type": "avg", "global_pool": "True"}, "GlobalAvgPool"),
    ({"global_pool": "True"}, "GlobalMaxPool"),
    ({"pool_type": "avg"}, "AvgPool"),
)
NOT_FLAT = {"Dense": "", "Flatten": "Reshape"}  # what it is where no vector per image comes out
SOFTMAX_LOSS = ("SoftmaxOutput", "Softmax")  # a loss, which puts out the softmax of its input
SOFTMAXES = (*SOFTMAX_LOSS, "SoftmaxActivation", "softmax", "log_softmax")
WHOLE = {"axis": "0", "begin": "0", "end": "None"}  # the attributes of a slice of everything
CONCATS = ("Concat", "concat")
FIXED = ("True", "1", "true")
# What an operator's inputs are, by their place, where a name may not tell.
ROLES = {
    "BatchNorm": ("", "weight", "bias", "running_mean", "running_var"),
    "Convolution": ("", "weight", "bias"),
    "FullyConnected": ("", "weight", "bias"),
    "LeakyReLU": ("", "slope"),
}


def without_softmax(text: str) -> str:
    """A symbol's JSON whose outputs are what their softmax is given."""
    graph = json.loads(text)
    nodes = graph["nodes"]
    ends = {number for number, node in enumerate(nodes) if node["op"] in SOFTMAXES}
    heads = [nodes[head[0]]["inputs"][0] if head[0] in ends else head for head in graph["heads"]]
    return json.dumps({**graph, "heads": heads})


def handed_over(graph: dict[str, Any]) -> dict[str, Any]:
    """A symbol's graph with a slice of everything after each Concat: in float32 oneDNN ends the process where it cannot
    split a gradient in its blocked layout, and a slice hands it over in the plain one."""
    nodes: list[dict[str, Any]] = []
    places: list[int] = []  # where each of the old nodes is, or what stands for it

    def moved(entry: Sequence[int]) -> list[int]:
        return [places[entry[0]], *entry[1:]]

    for node in graph["nodes"]:
        nodes.append({**node, "inputs": [moved(entry) for entry in node["inputs"]]})
        if node["op"] in CONCATS:
            inputs = [[len(nodes) - 1, 0, 0]]
            nodes.append({"op": "slice_axis", "name": f"{node['name']}_whole", "attrs": WHOLE, "inputs": inputs})
        places.append(len(nodes) - 1)
    variables, heads = [places[place] for place in graph["arg_nodes"]], [moved(head) for head in graph["heads"]]
    kept = {name: value for name, value in graph.items() if name != "node_row_ptr"}
    return {**kept, "nodes": nodes, "arg_nodes": variables, "heads": heads}


def traced(block: gluon.Block) -> list[mx.sym.Symbol]:
    """What the block makes of a variable. Raises TriptychError for a block that takes none."""
    if isinstance(block, gluon.SymbolBlock) and len(block._cached_graph[0]) > 1:
        return list(block._cached_graph[1])  # it takes its labels, too
    try:
        output = block(mx.sym.var("data"))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TriptychError(f"the Gluon block takes no symbol, so it cannot be taken apart: {reason}") from error
    return list(_symbols_in(output))


def _symbols_in(value: Any) -> Iterator[mx.sym.Symbol]:
    """The symbols of what a block returns, in their order."""
    if isinstance(value, mx.sym.Symbol):
        yield from value
    elif isinstance(value, Mapping):
        yield from _symbols_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _symbols_in(entry)


def inputs_of(nodes: list[dict[str, Any]], node: dict[str, Any]) -> list[str]:
    """The names of what a node of a graph takes."""
    return [nodes[index]["name"] for index, *_ in node["inputs"]]


def roles_in(nodes: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Name and role of what operators are given."""
    for node in nodes:
        yield from zip(inputs_of(nodes, node), ROLES.get(node["op"], ()), strict=False)


def is_fixed(node: dict[str, Any]) -> bool:
    """Whether a batch norm's gamma is 1, which is MXNet's default."""
    return node.get("attrs", {}).get("fix_gamma", "True") in FIXED


def kind_of(node: dict[str, Any]) -> str:
    """The spec's record or merge that an operator is; empty for none."""
    attributes = node.get("attrs", {}).items()
    by_attributes = (kind for wanted, kind in BY_ATTRIBUTES if wanted.items() <= attributes)
    return next(by_attributes, KINDS.get(node["op"], ""))


def places_of(nodes: Sequence[dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Which operators take a variable, by its name."""
    places: dict[str, tuple[int, ...]] = {}
    for place, node in enumerate(nodes):
        for taken in node["inputs"]:
            name = nodes[taken[0]]["name"]
            places[name] = (*places.get(name, ()), place)
    return places


def drawn_by(attributes: Mapping[str, str], train: bool) -> Drawn:
    """What a dropout of these attributes draws."""
    shared = "".join("NCHW"[int(axis) % 4] for axis in re.findall(r"-?\d+", attributes.get("axes", "")))
    return Drawn(float(attributes.get("p", 0.5)), dropout_kind(shared), train or attributes.get("mode") == "always")


def role_of(name: str) -> str:
    """Of `conv0_weight`, `batchnorm0_running_mean`."""
    words = name.replace(".", "_").split("_")
    if words[-1] == GLUON.names["slope"]:
        return "slope"
    return next(filter(None, (GLUON.canonical_name("_".join(words[-count:])) for count in (2, 1))), "")
