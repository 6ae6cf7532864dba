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

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import mxnet_network, mxnet_symbol
from triptych.importers.steps import Imported, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.frames import selves
from triptych.utils.reading import read_bounded
from triptych.utils.shelf import Shelf
from triptych_mxnet.device import DTYPES
from triptych_mxnet.graph import (
    NOT_FLAT,
    SOFTMAX_LOSS,
    WHOLE,
    drawn_by,
    handed_over,
    inputs_of,
    is_fixed,
    kind_of,
    places_of,
    role_of,
    roles_in,
    traced,
    without_softmax,
)
from triptych_mxnet.precision import apply_execution
from triptych_mxnet.weights import to_numpy

ONE_BY_ONE = 1 << 30  # operators, up to which a graph runs like a block that is not hybridized
LABEL = "label"  # ends the names of a loss's second input
OPENS = ("-symbol.json",)
FILES_TRAIN = True


def matches(candidate: Any) -> bool:
    """A block of this framework."""
    return isinstance(candidate, gluon.Block)


def import_network(candidate: gluon.Block, request: Request) -> Imported:
    """The block as the symbol that it makes of a variable; without weights where they are not initialized."""
    symbol = mxnet_symbol.parse(mx.sym.Group(traced(candidate)).tojson(), candidate.name)
    values = {name: _value(parameter) for name, parameter in candidate.collect_params().items()}
    known = {name: value for name, value in values.items() if value is not None}
    arrays = known if len(known) == len(values) else None
    name = request.name or candidate.name
    files = name, "its parameters"
    return mxnet_network.convert(symbol, arrays, request, name=name, files=files, parameters=values)


def _value(parameter: gluon.Parameter) -> Array | None:
    """None where it has none yet; a constant has one before it is initialized."""
    if parameter._data is not None:
        return to_numpy(parameter.data())
    return to_numpy(parameter.value) if isinstance(parameter, gluon.Constant) else None


def open_file(path: Path, weights: Path | None, *, bare: bool, training: bool = True) -> gluon.Block:
    """A block of a symbol and its parameters."""
    try:
        text = read_bounded(path).decode()
        symbol = mx.sym.load_json(without_softmax(text) if bare else text)
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


class Port:
    """See `triptych.backend.contract.Port`."""

    pure = False

    def __init__(self, candidate: gluon.Block, layout: str | None, execution: Execution, outputs: int = 1) -> None:
        self.layout = layout or "NCHW"
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("mxnet", execution.precision, DTYPES)
        self.places: Sequence[int] = range(outputs)
        self.block = candidate
        self.given: dict[str, mx.nd.NDArray] = {}  # by name, once it has run
        self.loaded: dict[str, Array] = {}
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
            for parameter in every.values():  # those alone: MXNet warns of every one that has its values already
                if parameter._data is None:
                    parameter.initialize(None, mx.cpu(), mx.init.Uniform(0.07))
        self.given = {name: p.data() for name, p in self.named.items() if p._data is not None}
        self.block.cast(self.dtype)  # before it runs: what has 16 bits takes no image of 32
        outputs = self._symbols()
        chosen = self._chosen(outputs)
        compared = mx.sym.Group(chosen)
        (data,) = [name for name in compared.list_inputs() if name not in every and not name.endswith(LABEL)]
        self._infer(compared, data, images)
        _, shapes, _ = mx.sym.Group(outputs).infer_shape(**{data: self._native(images).shape})
        self.shapes = [self._canonical_shape(shape) for shape in shapes]
        nodes = json.loads(mx.sym.Group(outputs).tojson())["nodes"]
        roles = dict(roles_in(nodes))
        fixed = {inputs_of(nodes, node)[1] for node in nodes if node["op"] == "BatchNorm" and is_fixed(node)}
        self.named = {name: p for name, p in self.named.items() if name not in fixed}  # 1, whatever is in them
        used = [node["name"] for node in nodes if node["name"] in self.named]
        order = [*used, *(name for name in self.named if name not in used)]
        internals = compared.get_internals()
        numbers = {name: place for place, name in enumerate(internals.list_outputs())}  # a name is looked for in all
        known = {name.removesuffix("_output") for name in numbers if name.endswith("_output")}
        steps = (node for node in nodes if not WHOLE.items() <= node.get("attrs", {}).items())
        self.kinds = [(node["name"], kind_of(node)) for node in steps if node["name"] in known]
        self.whole = gluon.SymbolBlock(
            mx.sym.Group([*(internals[numbers[f"{name}_output"]] for name, _ in self.kinds), *chosen]),
            mx.sym.var(data, dtype=self.dtype),
            params=self.block.collect_params(),
        )
        if not getattr(self.block, "_active", False):  # as it is: hybridized, memory is shared, and that has bugs
            self.whole.hybridize(inline_limit=ONE_BY_ONE)
        kept = {} if self.forgotten else self.named
        self.given = {name: self.given.get(name, p.data().copy()) for name, p in kept.items()}
        places = places_of(nodes)
        needed = {*compared.list_inputs(), *order} - (set(used) - set(compared.list_inputs()))
        return [
            PortParameter(
                name,
                self.named[name].data().shape,
                roles.get(name) or role_of(name),
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
        graph = handed_over(json.loads(mx.sym.Group(traced(self.block)).tojson()))
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

    def choose(self, places: Sequence[int]) -> None:
        """Of its outputs."""
        self.places = places

    def _chosen(self, outputs: Sequence[Any]) -> list[Any]:
        """Those of all outputs that are compared."""
        return [outputs[place] for place in self.places if place < len(outputs)]

    def _canonical_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        n, *rest = shape or (0,)
        return (n, rest[2], *rest[:2]) if self.layout == "NHWC" and len(rest) == 3 else (n, *rest)

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        for name, value in values.items():
            self.named[name].set_data(mx.nd.array(value, dtype=self.dtype))
            if self.named[name].grad_req == "null":  # what a pass in training mode moves
                self.loaded[name] = value

    def values(self) -> dict[str, Array]:
        """As the network was given."""
        return {name: to_numpy(value) for name, value in self.given.items()}

    def imported(self, request: Request) -> Imported:
        """As `import_network` of the block with the parameters that are set."""
        return import_network(self.block, request)

    def forget(self) -> None:
        """They stay what they are."""
        self.forgotten, self.given = True, {}

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
                drawn=drawn_by(self.drawn[name], train) if name in self.drawn else None,
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
        if train:  # which has moved the running statistics
            self.load(dict(self.loaded))
        return run

    def call(self, images: Array) -> tuple[Array, ...]:
        """As a user calls it in evaluation; without the loss at its end."""
        if not self.bare:
            return self.run(images, train=False).outputs
        made = self.block(mx.nd.array(self._native(images), dtype=self.dtype))
        return tuple(map(self._to_canonical, self._chosen(list(_arrays_in(made)))))

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
