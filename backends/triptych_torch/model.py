"""A spec's tree as a tree of modules with the same names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from triptych.backend.execution import DEFAULT, Execution
from triptych.spec import layers as spec
from triptych.spec.analysis import analyse
from triptych.spec.layers import Architecture, Layer, Shape, join
from triptych.utils import remarks
from triptych_torch import npu
from triptych_torch.device import LAYOUTS, get_device, get_dtype
from triptych_torch.layers import LAYERS, Dropout
from triptych_torch.precision import apply_execution


class Sequence(nn.Sequential):
    """Named layers in a row."""

    def __init__(self, layers: tuple[Layer, ...], prefix: str, inputs: dict[str, Shape]) -> None:
        super().__init__()
        for layer in layers:
            self.add_module(layer.name, build_layer(layer, join(prefix, layer.name), inputs))


class Branches(nn.Module):
    """Every branch on the same input, concatenated along the channels."""

    def __init__(self, layer: spec.Branches, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__()
        for branch in layer.branches:
            self.add_module(branch.name, build_layer(branch, join(path, branch.name), inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


class Residual(nn.Module):
    """`shortcut(x) + scale * body(x)`."""

    def __init__(self, layer: spec.Residual, path: str, inputs: dict[str, Shape]) -> None:
        super().__init__()
        self.scale = layer.scale
        self.names = tuple(block.name for block in spec.children(layer))
        for block in spec.children(layer):
            self.add_module(block.name, build_layer(block, join(path, block.name), inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *shortcut, body = (getattr(self, name) for name in self.names)
        return (shortcut[0](x) if shortcut else x) + self.scale * body(x)


class Auxiliary(Sequence):
    """A side classifier; `Network` runs it in training only."""


class Network(nn.Module):
    """The whole architecture. Returns logits; in training, with side classifiers, `(logits, *side logits)`."""

    def __init__(self, architecture: Architecture, execution: Execution) -> None:
        super().__init__()
        self.architecture = architecture
        self.execution = execution
        inputs = {info.path: info.input for info in analyse(architecture)}
        for layer in architecture.layers:
            self.add_module(layer.name, build_layer(layer, layer.name, inputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        side = []
        for child in self.children():
            if not isinstance(child, Auxiliary):
                x = child(x)
            elif self.training:
                side.append(child(x))
        return (x, *side) if side else x

    @contextmanager
    def dropout_masks(self, masks: Mapping[str, NDArray[np.bool_]]) -> Iterator[None]:
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


def build_layer(layer: Layer, path: str, inputs: dict[str, Shape]) -> nn.Module:
    """The module for one record of the tree, composite or not."""
    match layer:
        case spec.Block():
            return Sequence(layer.layers, path, inputs)
        case spec.Auxiliary():
            return Auxiliary(layer.layers, path, inputs)
        case spec.Branches():
            return Branches(layer, path, inputs)
        case spec.Residual():
            return Residual(layer, path, inputs)
        case _:
            return LAYERS[type(layer)](layer, inputs[path])


def build(architecture: Architecture, *, device: str = "cpu", execution: Execution = DEFAULT) -> Network:
    """The network on its device, weights as PyTorch starts them."""
    target, dtype = get_device(device), get_dtype(execution.precision)
    apply_execution(execution, device)
    if target.type == "npu":
        remarks.watch("npu", npu.fallbacks_told)
    return Network(architecture, execution).to(target, dtype, memory_format=LAYOUTS[target.type])
