"""Somebody's own Gluon block, taken apart into its operators; see `triptych.backend.contract`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import mxnet as mx
from mxnet import autograd, gluon

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import mxnet_network, mxnet_symbol
from triptych.importers.steps import Imported, Request
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import GLUON
from triptych_mxnet.device import DTYPES
from triptych_mxnet.precision import apply_execution
from triptych_mxnet.weights import to_numpy

# MXNet's operators by the spec's record; some depend on an attribute.
KINDS = {
    "Convolution": "Conv",
    "FullyConnected": "Dense",
    "BatchNorm": "BatchNorm",
    "LRN": "LocalResponseNorm",
    "Activation": "ReLU",
    "LeakyReLU": "ReLU",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Sigmoid",
    "Pooling": "MaxPool",
    "mean": "GlobalAvgPool",
    "Flatten": "Flatten",
    "Reshape": "Flatten",
    "Dropout": "Dropout",
    "Concat": "Branches",
    "elemwise_add": "Residual",
    "broadcast_add": "Residual",
    "_plus": "Residual",
}
BY_ATTRIBUTE = {
    ("act_type", "sigmoid"): "Sigmoid",
    ("act_type", "tanh"): "Sigmoid",
    ("pool_type", "avg"): "AvgPool",
    ("global_pool", "True"): "GlobalAvgPool",
}


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


def _traced(block: gluon.Block) -> list[mx.sym.Symbol]:
    """What the block makes of a variable. Raises TriptychError for a block that takes none."""
    try:
        output = block(mx.sym.var("data"))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TriptychError(f"the Gluon block takes no symbol, so it cannot be taken apart: {reason}") from error
    return list(output) if isinstance(output, list | tuple) else [output]


class Port:
    """See `triptych.backend.contract.Port`."""

    def __init__(self, candidate: gluon.Block, layout: str | None, execution: Execution) -> None:
        self.layout = layout or "NCHW"
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("mxnet", execution.precision, DTYPES)
        self.block = candidate

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        if any(parameter._data is None for parameter in self.block.collect_params().values()):
            self.block.initialize(mx.init.Uniform(0.07), force_reinit=False)
        x = mx.nd.array(images if self.layout == "NCHW" else images.transpose(0, 2, 3, 1))
        self.block(x)  # shapes that are inferred are known now
        self.block.cast(self.dtype)
        output = self._symbol()
        nodes = json.loads(output.tojson())["nodes"]
        self.named = dict(self.block.collect_params().items())
        used = [node["name"] for node in nodes if node["name"] in self.named]
        order = [*used, *(name for name in self.named if name not in used)]
        self.kinds = [(node["name"], _kind(node)) for node in nodes if _kind(node)]
        internals = output.get_internals()
        self.whole = gluon.SymbolBlock(
            mx.sym.Group([*(internals[f"{name}_output"] for name, _ in self.kinds), output]),
            mx.sym.var("data", dtype=self.dtype),
            params=self.block.collect_params(),
        )
        return [PortParameter(name, self.named[name].shape, _role(name)) for name in order]

    def _symbol(self) -> mx.sym.Symbol:
        """The network as a graph of operators, dropout at rate 0."""
        graph = json.loads(_traced(self.block)[0].tojson())
        for node in graph["nodes"]:
            if node["op"] == "Dropout":
                node["attrs"]["p"] = "0.0"
            if node["op"] == "null":
                node.get("attrs", {}).pop("__dtype__", None)  # float32, from before the cast
        return mx.sym.load_json(json.dumps(graph))

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        self.values = {**getattr(self, "values", {}), **values}
        for name, value in self.values.items():
            self.named[name].set_data(mx.nd.array(value, dtype=self.dtype))

    def run(self, images: Array, *, train: bool, cotangent: Array | None = None) -> PortRun:
        """One pass; with `cotangent`, the gradient of the logits, backward too (none of the operators between)."""
        x = mx.nd.array(images, dtype=self.dtype)
        x.attach_grad()
        with autograd.record(train_mode=train):
            *outputs, logits = self.whole(x if self.layout == "NCHW" else x.transpose((0, 2, 3, 1)))
        kinds = [kind for _, kind in self.kinds]
        captured = [
            Captured(kind, self._to_canonical(y))
            for kind, y in zip(kinds, outputs, strict=True)
            if not (kind in ("Dense", "Flatten") and y.ndim != 2)
        ]
        run = PortRun(captured, to_numpy(logits))
        if cotangent is not None:
            logits.backward(mx.nd.array(cotangent, dtype=self.dtype), train_mode=train)
            run.gradients = {name: to_numpy(p.grad()) for name, p in self.named.items() if p.grad_req != "null"}
            run.input_gradient = to_numpy(x.grad)
            self.load({})  # the backward pass has changed the running statistics
        return run

    def _to_canonical(self, value: mx.nd.NDArray) -> Array:
        """A copy on the host, channels first."""
        array = to_numpy(value)
        return array.transpose(0, 3, 1, 2) if self.layout == "NHWC" and array.ndim == 4 else array


def _kind(node: dict[str, Any]) -> str:
    kind = KINDS.get(node["op"], "")
    return next((BY_ATTRIBUTE[item] for item in node.get("attrs", {}).items() if item in BY_ATTRIBUTE), kind)


def _role(name: str) -> str:
    """Of `conv0_weight`, `batchnorm0_running_mean`."""
    words = name.replace(".", "_").split("_")
    return next(filter(None, (GLUON.canonical_name("_".join(words[-count:])) for count in (2, 1))), "")
