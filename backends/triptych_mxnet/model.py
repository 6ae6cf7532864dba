"""A spec's tree as a tree of blocks with the same names."""

# ruff: noqa: N803 (Gluon calls the module of operators F)

from collections.abc import Iterator
from collections.abc import Sequence as Values
from contextlib import contextmanager, nullcontext
from functools import reduce
from textwrap import indent
from types import ModuleType
from typing import Any, get_args

import mxnet as mx
from mxnet import autograd, gluon

from triptych.backend.contract import Masks
from triptych.backend.execution import DEFAULT, Execution, dtype_of
from triptych.backend.group import Share
from triptych.spec import analysis
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.layers import INPUT, Architecture, Composite, Layer, Merge, Shape, children, join, keeps_statistics
from triptych.spec.shapes import layer_output
from triptych.weights.layouts import GLUON
from triptych_mxnet.device import DTYPES, get_device
from triptych_mxnet.functions import Tensor
from triptych_mxnet.layers import LAYERS, BatchNorm, Dropout
from triptych_mxnet.precision import apply_execution


def first(output: Any) -> mx.nd.NDArray:
    """The output, or the first of several: logits, where there are any."""
    return output[0] if isinstance(output, list | tuple) else output


class _Composite(gluon.HybridBlock):
    """Holds blocks under their names in the spec."""

    def __init__(self, layer: Composite | Architecture, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__()
        for child in spec.children(layer):
            self.register_child(build_layer(child, join(path, child.name), inputs), child.name)

    def __repr__(self) -> str:
        """Every block under its name, as Gluon's own containers print theirs."""
        shown = (f"  ({name}): {indent(repr(child), '  ').lstrip()}\n" for name, child in self._children.items())
        return f"{type(self).__name__}(\n{''.join(shown)})"

    def __iter__(self) -> Iterator[gluon.HybridBlock]:
        return iter(self._children.values())

    def __len__(self) -> int:
        return len(self._children)

    def __getitem__(self, key: int) -> gluon.HybridBlock:
        return list(self._children.values())[key]


class Sequence(_Composite):
    """Named layers in a row."""

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        for child in self._children.values():
            x = child(x)
        return x


class Branches(_Composite):
    """Every branch on the same input, merged."""

    def __init__(self, layer: spec.Branches, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self.merge = layer.merge

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return _merged(F, [branch(x) for branch in self._children.values()], self.merge)


class Graph(_Composite):
    """Named nodes, called in order; with several outputs, a tuple of them."""

    def __init__(self, layer: spec.Graph, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self.layer = layer

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        values = {INPUT: x}
        for node in self.layer.nodes:
            taken = _merged(F, [values[name] for name in node.inputs], node.merge)
            values[node.layer.name] = self._children[node.layer.name](taken)
        one, *more = (values[name] for name in self.layer.outputs)
        return (one, *more) if more else one


class Residual(_Composite):
    """`shortcut(x) + scale * body(x)`."""

    def __init__(self, layer: spec.Residual, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self.scale = layer.scale
        shapes = {layer_output(child, inputs[path], path) for child in children(layer)}
        self.alike = len(shapes if layer.shortcut else shapes | {inputs[path]}) == 1

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        *shortcut, body = self._children.values()
        one, other = shortcut[0](x) if shortcut else x, self.scale * body(x)
        return one + other if self.alike else F.broadcast_add(one, other)  # + of symbols takes equal shapes only


class Auxiliary(Sequence):
    """An auxiliary classifier; `Network` runs it in training only."""


class Network(_Composite):
    """The whole architecture. Returns logits, or a tuple of several outputs; in training, with auxiliary classifiers,
    `(logits, *theirs)`."""

    def __init__(self, architecture: Architecture, execution: Execution) -> None:
        super().__init__(architecture, "", {info.path: info.input for info in analysis.analyse(architecture)})
        self.architecture = architecture
        self.execution = execution
        self.device = mx.cpu()
        self.dtype = dtype_of("mxnet", execution.precision, DTYPES)

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        auxiliaries = []
        for child in self._children.values():
            if not isinstance(child, Auxiliary):
                x = child(x)
            elif F is mx.sym or autograd.is_training():  # one hybrid graph serves both modes, so it has the heads
                auxiliaries.append(child(x))
        return (x, *auxiliaries) if auxiliaries else x  # a graph with several outputs has no auxiliary classifiers

    def summary(self, *inputs: mx.nd.NDArray) -> None:
        """Gluon's table of layers, which needs a network that is not hybridized: for so long it is not."""
        with self.imperative():
            super().summary(*inputs)

    def named_blocks(self) -> Iterator[tuple[str, gluon.HybridBlock]]:
        """Every block below this one, by path."""

        def walk(block: gluon.HybridBlock, prefix: str) -> Iterator[tuple[str, gluon.HybridBlock]]:
            for name, child in block._children.items():
                yield join(prefix, name), child
                yield from walk(child, join(prefix, name))

        return walk(self, "")

    def named_parameters(self) -> dict[str, gluon.Parameter]:
        """The parameters and running statistics by canonical path."""
        native = self._collect_params_with_prefix()
        return {info.path: native[GLUON.native_path(info)] for info in analysis.parameters(self.architecture)}

    def batch_norms(self) -> list[BatchNorm]:
        """The batch-norm layers, whose running statistics are updated from outside."""
        return [block for _, block in self.named_blocks() if isinstance(block, BatchNorm)]

    def freeze(self, frozen: frozenset[str]) -> None:
        """From now on the parameters and running statistics named in `frozen` stay, and the others do not."""
        for path, parameter in self.named_parameters().items():
            # those of batch norm's statistics stay "null" whatever one says
            parameter.grad_req = "null" if path in frozen else "write"
        for path, block in self.named_blocks():
            if isinstance(block, BatchNorm):
                block.freeze(keeps_statistics(path, frozen))
        self._clear_cached_op()  # the graph, if there is one, knows neither

    @contextmanager
    def imperative(self) -> Iterator[None]:
        """Operator by operator in here, where hooks and masks act; the same bits as hybridized."""
        active, flags = self._active, dict(self._flags)
        self.hybridize(False)
        try:
            yield
        finally:
            self.hybridize(active, **flags)

    @contextmanager
    def dropout_masks(self, masks: Masks) -> Iterator[None]:
        """Feed the masks to the dropout layers that they name; a hybrid graph would not see them."""
        layers = {path: block for path, block in self.named_blocks() if isinstance(block, Dropout) and path in masks}
        with self.imperative() if layers else nullcontext():
            for path, layer in layers.items():
                layer.mask = mx.nd.array(masks[path], self.device, self.dtype)
            try:
                yield
            finally:
                for layer in layers.values():
                    layer.mask = None

    @contextmanager
    def taking(self, share: Share, synchronised: bool) -> Iterator[None]:
        """Tell the layers that look beyond their own images which of a batch these are; a hybrid graph would not see
        it. Dropout draws the masks of the whole batch; batch norm takes the statistics of all processes if
        `synchronised`."""
        kinds = (Dropout, BatchNorm) if synchronised else (Dropout,)
        layers = [] if share.entire else [block for _, block in self.named_blocks() if isinstance(block, kinds)]
        with self.imperative() if layers else nullcontext():
            for layer in layers:
                layer.share = share
            try:
                yield
            finally:
                for layer in layers:
                    layer.share = None


COMPOSITES: dict[type, type[_Composite]] = {
    spec.Block: Sequence,
    spec.Branches: Branches,
    spec.Residual: Residual,
    spec.Auxiliary: Auxiliary,
    spec.Graph: Graph,
}
check_complete(COMPOSITES, __name__, get_args(Composite))


def _merged(F: ModuleType, values: Values[Tensor], merge: Merge) -> Tensor:
    """Several values as one; in a sum or product a map of one pixel or channel counts at every place."""
    if len(values) == 1:
        return values[0]
    if merge != "concatenate":
        return reduce(F.broadcast_add if merge == "add" else F.broadcast_mul, values)
    # oneDNN cannot split a gradient in its blocked layout at 24 and 40 of 64 channels ("could not construct a
    # sub-memory"); a slice of everything hands it over in the plain one (an identity is optimised away).
    return F.slice_axis(F.concat(*values, dim=1), axis=0, begin=0, end=None)


def build_layer(layer: Layer, path: str, inputs: dict[str, Shape]) -> gluon.HybridBlock:
    """The block for one record of the tree, composite or not."""
    if isinstance(layer, spec.Primitive):
        return LAYERS[type(layer)](layer, inputs[path])
    return COMPOSITES[type(layer)](layer, path, inputs)


def build(architecture: Architecture, *, device: str = "cpu", execution: Execution = DEFAULT) -> Network:
    """The network on its device, weights as Gluon starts them."""
    target = get_device(device)
    apply_execution(execution, device)
    network = Network(architecture, execution)
    network.device = target
    network.cast(network.dtype)
    network.initialize(ctx=network.device)
    network.hybridize(static_alloc=True, static_shape=True)
    return network
