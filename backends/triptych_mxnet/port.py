"""Somebody's own Gluon block, taken apart into its operators; see `triptych.backend.contract`."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from numpy.typing import NDArray

from triptych.backend.contract import Captured, Drawn, PortParameter, PortRun, dropout_kind
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import mxnet_network, mxnet_symbol
from triptych.importers.steps import Imported, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.frames import selves
from triptych.utils.reading import read_bounded
from triptych.utils.shelf import Shelf
from triptych.weights.layouts import GLUON
from triptych_mxnet.device import DTYPES
from triptych_mxnet.precision import apply_execution
from triptych_mxnet.weights import to_numpy

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
ONE_BY_ONE = 1 << 30  # operators, up to which a graph runs like a block that is not hybridized
FIXED = ("True", "1", "true")
# What an operator's inputs are, by their place, where a name may not tell.
ROLES = {
    "BatchNorm": ("", "weight", "bias", "running_mean", "running_var"),
    "Convolution": ("", "weight", "bias"),
    "FullyConnected": ("", "weight", "bias"),
    "LeakyReLU": ("", "slope"),
}
LABEL = "label"  # ends the names of a loss's second input
OPENS = ("-symbol.json",)
FILES_TRAIN = True


def matches(candidate: Any) -> bool:
    """A block of this framework."""
    return isinstance(candidate, gluon.Block)


def import_network(candidate: gluon.Block, request: Request) -> Imported:
    """The block as the symbol that it makes of a variable; without weights where they are not initialized."""
    symbol = mxnet_symbol.parse(mx.sym.Group(_traced(candidate)).tojson(), candidate.name)
    parameters = candidate.collect_params().values()
    known = all(parameter._data is not None for parameter in parameters)
    arrays = {p.name: p.data().asnumpy() for p in parameters} if known else None
    name = request.name or candidate.name
    return mxnet_network.convert(symbol, arrays, request, name=name, files=(name, "its parameters"))


def open_file(path: Path, weights: Path | None, *, bare: bool, training: bool = True) -> gluon.Block:
    """A block of a symbol and its parameters."""
    try:
        text = read_bounded(path).decode()
        symbol = mx.sym.load_json(_bare(text) if bare else text)
    except Exception as error:
        raise TriptychError(f"MXNet does not read {path.name}: {str(error).strip().splitlines()[-1]}") from error
    arrays = {} if weights is None else mxnet_network.read_arrays(weights)
    unknown = [name for name in symbol.list_inputs() if name not in arrays]
    data = [name for name in unknown if not name.endswith(LABEL)]
    if len(data) != 1:
        raise TriptychError(f"{path.name} has no parameters for {', '.join(data[1:4]) or 'its images'}")
    labels = [name for name in unknown if name.endswith(LABEL)]
    block = gluon.SymbolBlock(symbol, [mx.sym.var(name, dtype="float32") for name in (*data, *labels)])
    for name, parameter in block.collect_params().items():
        parameter.shape = arrays[name].shape
        parameter.initialize(ctx=mx.cpu())
        parameter.set_data(mx.nd.array(arrays[name]))
    return block


def _bare(text: str) -> str:
    """A symbol's JSON whose outputs are what their softmax is given."""
    graph = json.loads(text)
    nodes = graph["nodes"]
    ends = {number for number, node in enumerate(nodes) if node["op"] in SOFTMAXES}
    heads = [nodes[head[0]]["inputs"][0] if head[0] in ends else head for head in graph["heads"]]
    return json.dumps({**graph, "heads": heads})


def _handed_over(graph: dict[str, Any]) -> dict[str, Any]:
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


def _traced(block: gluon.Block) -> list[mx.sym.Symbol]:
    """What the block makes of a variable. Raises TriptychError for a block that takes none."""
    if isinstance(block, gluon.SymbolBlock) and len(block._cached_graph[0]) > 1:
        return list(block._cached_graph[1])  # it takes its labels, too
    try:
        output = block(mx.sym.var("data"))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TriptychError(f"the Gluon block takes no symbol, so it cannot be taken apart: {reason}") from error
    return list(_symbols_in(output))


def _blocks_in(block: gluon.Block, path: str = "") -> Iterator[tuple[str, gluon.Block]]:
    """A block and all in it by path."""
    yield path, block
    for name, child in block._children.items():
        yield from _blocks_in(child, f"{path}.{name}" if path else name)


def _arrays_in(value: Any) -> Iterator[mx.nd.NDArray]:
    """The arrays of what a block returns, in their order."""
    if isinstance(value, mx.nd.NDArray):
        yield value
    elif isinstance(value, Mapping):
        yield from _arrays_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _arrays_in(entry)


def _symbols_in(value: Any) -> Iterator[mx.sym.Symbol]:
    """The symbols of what a block returns, in their order."""
    if isinstance(value, mx.sym.Symbol):
        yield from value
    elif isinstance(value, Mapping):
        yield from _symbols_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _symbols_in(entry)


class Port:
    """See `triptych.backend.contract.Port`."""

    pure = False

    def __init__(self, candidate: gluon.Block, layout: str | None, execution: Execution, outputs: int = 1) -> None:
        self.layout = layout or "NCHW"
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("mxnet", execution.precision, DTYPES)
        self.count = outputs
        self.block = candidate
        self.given: dict[str, mx.nd.NDArray] = {}  # by name, once it has run
        self.forgotten = False

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        every = self.block.collect_params()
        self.named = {
            name: p for name, p in every.items() if not (name.endswith(LABEL) or isinstance(p, gluon.Constant))
        }
        loaded = [
            p for p in self.named.values() if p._data is None and p._deferred_init and p._deferred_init[3] is not None
        ]
        if loaded:  # values that wait for the shapes: a first pass puts them in, and a new start would lose them
            self.block(mx.nd.array(self._native(images), dtype=loaded[0].dtype))
        if any(parameter._data is None for parameter in self.named.values()):
            self.block.initialize(mx.init.Uniform(0.07), force_reinit=False)
        self.given = {name: p.data() for name, p in self.named.items() if p._data is not None}
        self.block.cast(self.dtype)  # before it runs: what has 16 bits takes no image of 32
        outputs = self._symbols()
        self.returned = len(outputs)
        compared = mx.sym.Group(outputs[: self.count])
        (data,) = [name for name in compared.list_inputs() if name not in every and not name.endswith(LABEL)]
        self._infer(compared, data, images)
        nodes = json.loads(mx.sym.Group(outputs).tojson())["nodes"]
        roles = dict(_roles(nodes))
        fixed = {_inputs(nodes, node)[1] for node in nodes if node["op"] == "BatchNorm" and _is_fixed(node)}
        self.named = {name: p for name, p in self.named.items() if name not in fixed}  # 1, whatever is in them
        used = [node["name"] for node in nodes if node["name"] in self.named]
        order = [*used, *(name for name in self.named if name not in used)]
        internals = compared.get_internals()
        numbers = {name: place for place, name in enumerate(internals.list_outputs())}  # a name is looked for in all
        known = {name.removesuffix("_output") for name in numbers if name.endswith("_output")}
        steps = (node for node in nodes if not WHOLE.items() <= node.get("attrs", {}).items())
        self.kinds = [(node["name"], _kind(node)) for node in steps if node["name"] in known]
        self.whole = gluon.SymbolBlock(
            mx.sym.Group([*(internals[numbers[f"{name}_output"]] for name, _ in self.kinds), *outputs[: self.count]]),
            mx.sym.var(data, dtype=self.dtype),
            params=self.block.collect_params(),
        )
        if not getattr(self.block, "_active", False):  # as it is: hybridized, memory is shared, and that has bugs
            self.whole.hybridize(inline_limit=ONE_BY_ONE)
        kept = {} if self.forgotten else self.named
        self.given = {name: self.given.get(name, p.data().copy()) for name, p in kept.items()}
        places = _places(nodes)
        needed = {*compared.list_inputs(), *order} - (set(used) - set(compared.list_inputs()))
        return [
            PortParameter(
                name,
                self.named[name].data().shape,
                roles.get(name) or _role(name),
                name in needed,
                places.get(name, ()),
            )
            for name in order
        ]

    def _infer(self, compared: mx.sym.Symbol, data: str, images: Array) -> None:
        """Give the parameters that wait for a first pass their shapes, as that would."""
        if all(parameter._data is not None for parameter in self.named.values()):
            return
        x = mx.nd.array(self._native(images), dtype=self.dtype)
        self.block(x)

    def _native(self, images: Array) -> Array:
        """Images as the network takes them."""
        return images if self.layout == "NCHW" else images.transpose(0, 2, 3, 1)

    def _symbols(self) -> list[mx.sym.Symbol]:
        """The network's outputs as a graph of operators, dropout at rate 0, without a loss at the end."""
        graph = _handed_over(json.loads(mx.sym.Group(_traced(self.block)).tojson()))
        self.drawn: dict[str, dict[str, str]] = {}  # the attributes of every dropout
        names = {node["name"] for node in graph["nodes"] if node["op"] == "null"}
        for place, node in enumerate(graph["nodes"]):
            if node["op"] != "null" and node["name"] in names:  # a block that is called twice
                node["name"] += f"_again{place}"
            names.add(node["name"])
            if node["op"] == "Dropout":
                attributes = node.setdefault("attrs", {})
                self.drawn[node["name"]] = dict(attributes)
                attributes["p"] = "0.0"
            if node["op"] == "SoftmaxActivation":  # the old form of softmax, which computes in float32 only
                over_channels = node.get("attrs", {}).get("mode") == "channel"
                node.update(op="softmax", attrs={"axis": "1" if over_channels else "-1"})
            if node["op"] == "null":
                node.get("attrs", {}).pop("__dtype__", None)  # float32, from before the cast
        nodes = graph["nodes"]
        labelled = any(nodes[place]["name"].endswith(LABEL) for place in graph["arg_nodes"])
        self.bare = not labelled and not any(nodes[head[0]]["op"] in SOFTMAX_LOSS for head in graph["heads"])
        heads = [
            nodes[head[0]]["inputs"][0] if nodes[head[0]]["op"] in SOFTMAX_LOSS else head for head in graph["heads"]
        ]
        return list(mx.sym.load_json(json.dumps({**graph, "heads": heads})))

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        self.loaded = {**getattr(self, "loaded", {}), **values}
        for name, value in self.loaded.items():
            self.named[name].set_data(mx.nd.array(value, dtype=self.dtype))

    def values(self) -> dict[str, Array]:
        """As the network was given."""
        return {name: to_numpy(value) for name, value in self.given.items()}

    def imported(self, request: Request) -> Imported:
        """As `import_network` of the block with the parameters that are set."""
        return import_network(self.block, request)

    def forget(self) -> None:
        """They stay what they are."""
        self.forgotten = True

    def restore(self) -> None:
        """The values and types that the network had."""
        for name, value in self.given.items():
            self.named[name].cast(value.dtype)
            self.named[name].set_data(value)

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass; with `cotangents`, the outputs' gradients, backward too (none of the operators between)."""
        x = mx.nd.array(images, dtype=self.dtype)
        x.attach_grad()
        with autograd.record(train_mode=train):
            made = self.whole(x if self.layout == "NCHW" else x.transpose((0, 2, 3, 1)))
        made = list(made) if isinstance(made, list | tuple) else [made]
        inner, outputs = made[: len(self.kinds)], made[len(self.kinds) :]
        captured = [
            Captured(
                NOT_FLAT.get(kind, kind) if y.ndim != 2 else kind,
                self._to_canonical(y),
                drawn=_drawn(self.drawn[name], train) if name in self.drawn else None,
            )
            for (name, kind), y in zip(self.kinds, inner, strict=True)
            if y.ndim > 1 and len(y) == len(images)
        ]
        run = PortRun(captured, tuple(map(self._to_canonical, outputs)))
        if cotangents or train:  # running statistics move in the backward pass
            given = [y.zeros_like() for y in outputs]
            for place, dy in enumerate(cotangents[: len(outputs)]):
                given[place] = mx.nd.array(self._shaped(dy, outputs[place]), dtype=self.dtype)
            autograd.backward(outputs, given, train_mode=train)
        if cotangents:
            trained = (name for name, parameter in self.named.items() if parameter.grad_req != "null")
            run.gradients = Shelf((name, to_numpy(self.named[name].grad())) for name in trained)
            run.input_gradient = to_numpy(x.grad)
        mx.nd.waitall()
        kept = {name: p for name, p in self.named.items() if p.grad_req == "null"}
        run.statistics = {name: to_numpy(p.data()) for name, p in kept.items()} if train else {}
        self.load({})  # a pass in training mode has changed the running statistics
        return run

    def call(self, images: Array) -> tuple[Array, ...]:
        """As a user calls it in evaluation; without the loss at its end."""
        if not self.bare:
            return self.run(images, train=False).outputs
        made = self.block(mx.nd.array(self._native(images), dtype=self.dtype))
        return tuple(map(self._to_canonical, list(_arrays_in(made))[: self.count]))

    def raised_in(self, error: BaseException) -> str:
        """The path of the block that the error went through last; where shapes are found before anything runs, it only
        names the operator."""
        blocks = dict(_blocks_in(self.block))
        paths = {id(block): path for path, block in blocks.items()}
        named = re.search(r"operator (\w+?)_fwd", str(error))
        if named is not None:
            return next((path for path, block in blocks.items() if block.name == named[1]), "")
        return next((paths[id(one)] for one in selves(error) if id(one) in paths), "")

    def train(self, images: Array, cotangents: Sequence[Array], rates: Sequence[Rates]) -> Mapping[str, Array]:
        """What steps of gluon.Trainer with MXNet's SGD make of it."""
        options = {"learning_rate": rates[0].learning_rate, "momentum": rates[0].momentum, "wd": 0.0}
        trainer = gluon.Trainer(list(self.named.values()), "sgd", options, kvstore=None)
        x = mx.nd.array(self._native(images), dtype=self.dtype)
        for _ in rates:
            with autograd.record():
                made = self.whole(x)
            outputs = (list(made) if isinstance(made, list | tuple) else [made])[len(self.kinds) :]
            given = [
                mx.nd.array(self._shaped(dy, y), dtype=self.dtype) for dy, y in zip(cotangents, outputs, strict=False)
            ]
            autograd.backward(outputs, given)
            trainer.step(1)
        return Shelf((name, to_numpy(parameter.data())) for name, parameter in self.named.items())

    def optimize(self, optimizer: Any, gradients: Iterable[Mapping[str, Array]]) -> Iterator[dict[str, Array]]:
        """What each step of a gluon.Trainer makes of it, on gradients that are a batch's mean."""
        trainer = _made(optimizer, self.block)
        trained = {name: p for name, p in self.named.items() if p.grad_req != "null"}
        if not {id(p) for p in trained.values()} & {id(p) for p in trainer._params}:
            raise TriptychError("the Trainer has none of the network's parameters: give a function of the network")
        for given in gradients:
            for name, parameter in trained.items():
                if name in given:
                    parameter.grad()[:] = mx.nd.array(given[name], dtype=parameter.dtype)
                parameter.data()._fresh_grad = True
            trainer.step(1)
            yield {name: to_numpy(parameter.data()) for name, parameter in self.named.items()}

    def loss(self, loss: Any, outputs: Array, labels: NDArray[np.int64]) -> tuple[Array, Array]:
        """A loss block's value and gradient."""
        y = mx.nd.array(outputs, dtype=self.dtype)
        y.attach_grad()
        with autograd.record():
            value = loss(y, mx.nd.array(labels, dtype=np.int32)).mean()
        value.backward()
        return to_numpy(value).reshape(()), to_numpy(y.grad)

    def _shaped(self, value: Array, like: mx.nd.NDArray) -> Array:
        """A map or vector as the network puts it out."""
        return value.transpose(0, 2, 3, 1) if self.layout == "NHWC" and like.ndim == 4 else value

    def _to_canonical(self, value: mx.nd.NDArray) -> Array:
        """A copy on the host, channels first."""
        array = to_numpy(value)
        return array.transpose(0, 3, 1, 2) if self.layout == "NHWC" and array.ndim == 4 else array


def _made(optimizer: Any, block: gluon.Block) -> gluon.Trainer:
    """What somebody's function makes of a network, or of its parameters; an optimizer alone gets a Trainer. Raises
    TriptychError for what is none."""
    made = optimizer
    if callable(optimizer) and not isinstance(optimizer, mx.optimizer.Optimizer):
        try:
            made = optimizer(block)
        except (TypeError, ValueError, AttributeError):  # "First argument must be a list or dict of Parameters"
            made = optimizer(block.collect_params())
    if isinstance(made, mx.optimizer.Optimizer):
        return gluon.Trainer(block.collect_params(), made, kvstore=None)
    if not isinstance(made, gluon.Trainer):
        raise TriptychError(f"a {type(made).__name__} is no gluon.Trainer, nor an mx.optimizer.Optimizer")
    return made


def _inputs(nodes: list[dict[str, Any]], node: dict[str, Any]) -> list[str]:
    return [nodes[index]["name"] for index, *_ in node["inputs"]]


def _roles(nodes: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Name and role of what operators are given."""
    for node in nodes:
        yield from zip(_inputs(nodes, node), ROLES.get(node["op"], ()), strict=False)


def _is_fixed(node: dict[str, Any]) -> bool:
    """Whether a batch norm's gamma is 1, which is MXNet's default."""
    return node.get("attrs", {}).get("fix_gamma", "True") in FIXED


def _kind(node: dict[str, Any]) -> str:
    attributes = node.get("attrs", {}).items()
    by_attributes = (kind for wanted, kind in BY_ATTRIBUTES if wanted.items() <= attributes)
    return next(by_attributes, KINDS.get(node["op"], ""))


def _places(nodes: Sequence[dict[str, Any]]) -> dict[str, tuple[int, ...]]:
    """Which operators take a variable, by its name."""
    places: dict[str, tuple[int, ...]] = {}
    for place, node in enumerate(nodes):
        for taken in node["inputs"]:
            name = nodes[taken[0]]["name"]
            places[name] = (*places.get(name, ()), place)
    return places


def _drawn(attributes: Mapping[str, str], train: bool) -> Drawn:
    """What a dropout of these attributes draws."""
    shared = "".join("NCHW"[int(axis) % 4] for axis in re.findall(r"-?\d+", attributes.get("axes", "")))
    return Drawn(float(attributes.get("p", 0.5)), dropout_kind(shared), train or attributes.get("mode") == "always")


def _role(name: str) -> str:
    """Of `conv0_weight`, `batchnorm0_running_mean`."""
    words = name.replace(".", "_").split("_")
    if words[-1] == GLUON.names["slope"]:
        return "slope"
    return next(filter(None, (GLUON.canonical_name("_".join(words[-count:])) for count in (2, 1))), "")
