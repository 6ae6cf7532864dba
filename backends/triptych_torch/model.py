"""A spec's tree as a tree of modules with the same names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, get_args

import torch
from torch import nn

from triptych.backend.contract import Masks
from triptych.backend.execution import DEFAULT, Execution, dtype_of
from triptych.backend.group import Share
from triptych.spec import layers as spec
from triptych.spec.analysis import analyse
from triptych.spec.kinds import check_complete
from triptych.spec.layers import Architecture, Composite, Layer, Merge, Shape, join
from triptych.utils import remarks
from triptych_torch import npu
from triptych_torch.device import DTYPES, LAYOUTS, get_device
from triptych_torch.layers import LAYERS, BatchNorm, Dropout
from triptych_torch.precision import apply_execution


def first(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The output, or the first of several: logits, where there are any."""
    return output[0] if isinstance(output, tuple) else output


class _Composite(nn.Module):
    """Holds modules under their names in the spec."""

    def __init__(self, layer: Composite | Architecture, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__()
        for child in spec.children(layer):
            self.add_module(child.name, build_layer(child, join(path, child.name), inputs))


class Sequence(_Composite, nn.Sequential):
    """Named layers in a row."""


def _merge(maps: list[torch.Tensor], merge: Merge) -> torch.Tensor:
    """Several maps as one."""
    if merge == "concatenate":
        return torch.cat(maps, dim=1)
    first, *others = maps
    for other in others:
        first = first + other if merge == "add" else first * other
    return first


class Branches(_Composite):
    """Every branch on the same input, merged."""

    def __init__(self, layer: spec.Branches, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self.merge = layer.merge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _merge([branch(x) for branch in self.children()], self.merge)


class Graph(_Composite):
    """Nodes that take the outputs of other nodes, by their names; one output, or a tuple of several."""

    def __init__(self, layer: spec.Graph, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self.wires = {node.layer.name: (node.inputs, node.merge) for node in layer.nodes}
        self.outputs = layer.outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        values = {spec.INPUT: x}
        for name, module in self.named_children():
            names, merge = self.wires[name]
            values[name] = module(_merge([values[taken] for taken in names], merge))
        return values[self.outputs[0]] if len(self.outputs) == 1 else tuple(values[name] for name in self.outputs)


class Residual(_Composite):
    """`shortcut(x) + scale * body(x)`."""

    def __init__(self, layer: spec.Residual, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__(layer, path, inputs)
        self.scale = layer.scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *shortcut, body = self.children()
        return (shortcut[0](x) if shortcut else x) + self.scale * body(x)


class Auxiliary(Sequence):
    """An auxiliary classifier; `Network` runs it in training only."""


class Network(_Composite):
    """The whole architecture. Returns logits; in training, with auxiliary classifiers, `(logits, *theirs)`; the outputs
    as a tuple where there are several."""

    def __init__(self, architecture: Architecture, execution: Execution) -> None:
        super().__init__(architecture, "", {info.path: info.input for info in analyse(architecture)})
        self.architecture = architecture
        self.execution = execution

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        auxiliaries = []
        for child in self.children():
            if not isinstance(child, Auxiliary):
                x = child(x)
            elif self.training:
                auxiliaries.append(child(x))
        outputs = x if isinstance(x, tuple) else (x,)
        return (*outputs, *auxiliaries) if len(outputs) + len(auxiliaries) > 1 else outputs[0]

    @contextmanager
    def dropout_masks(self, masks: Masks) -> Iterator[None]:
        """Feed the masks to the dropout layers that they name."""
        device = next(self.parameters()).device
        layers = {path: module for path, module in self.named_modules() if isinstance(module, Dropout)}
        for path, layer in layers.items():
            layer.mask = torch.from_numpy(masks[path]).to(device) if path in masks else None
        try:
            yield
        finally:
            for layer in layers.values():
                layer.mask = None

    @contextmanager
    def taking(self, share: Share, synchronised: bool) -> Iterator[None]:
        """Tell the layers that look beyond their own images which of a batch these are. Dropout draws the masks of the
        whole batch; batch norm takes the statistics of all processes if `synchronised`."""
        layers = [module for module in self.modules() if isinstance(module, Dropout | BatchNorm)]
        for layer in layers:
            asks = not share.entire and (synchronised or isinstance(layer, Dropout))
            layer.share = share if asks else None
        try:
            yield
        finally:
            for layer in layers:
                layer.share = None


COMPOSITES: dict[type, Callable[[Any, str, dict[str, Shape]], nn.Module]] = {
    spec.Block: Sequence,
    spec.Branches: Branches,
    spec.Residual: Residual,
    spec.Auxiliary: Auxiliary,
    spec.Graph: Graph,
}
check_complete(COMPOSITES, __name__, get_args(Composite))


def build_layer(layer: Layer, path: str, inputs: dict[str, Shape]) -> nn.Module:
    """The module for one record of the tree, composite or not."""
    if isinstance(layer, spec.Primitive):
        return LAYERS[type(layer)](layer, inputs[path])
    return COMPOSITES[type(layer)](layer, path, inputs)


def build(architecture: Architecture, *, device: str = "cpu", execution: Execution = DEFAULT) -> Network:
    """The network on its device, weights as PyTorch starts them."""
    target, dtype = get_device(device), dtype_of("torch", execution.precision, DTYPES)
    apply_execution(execution, device)
    if target.type == "npu":
        remarks.watch("npu", npu.fallbacks_told)
    return Network(architecture, execution).to(target, dtype, memory_format=LAYOUTS[target.type])
