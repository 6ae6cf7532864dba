"""Somebody's own `torch.nn.Module`, watched while it runs; see `triptych.backend.contract`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import torch_export
from triptych.importers.steps import Imported, Request
from triptych.utils.arrays import Array
from triptych.weights.layouts import TORCH
from triptych_torch.device import DTYPES
from triptych_torch.precision import apply_execution
from triptych_torch.weights import to_numpy

# PyTorch's functions, which the modules call too, by the spec's record; a trailing underscore is taken off.
KINDS = {
    "conv2d": "Conv",
    "linear": "Dense",
    "addmm": "Dense",
    "matmul": "Dense",
    "batch_norm": "BatchNorm",
    "local_response_norm": "LocalResponseNorm",
    "relu": "ReLU",
    "threshold": "ReLU",
    "clamp": "ReLU",
    "leaky_relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "Sigmoid",
    "max_pool2d": "MaxPool",
    "avg_pool2d": "AvgPool",
    "adaptive_avg_pool2d": "GlobalAvgPool",
    "mean": "GlobalAvgPool",
    "flatten": "Flatten",
    "view": "Flatten",
    "reshape": "Flatten",
    "dropout": "Dropout",
    "cat": "Branches",
    "concat": "Branches",
    "add": "Residual",
}
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
NEEDS_FLAT = ("Dense", "Flatten")  # count only where a vector per image comes out


def matches(candidate: Any) -> bool:
    """A module of this framework."""
    return isinstance(candidate, nn.Module)


def import_network(candidate: nn.Module, request: Request) -> Imported:
    """The module as its exported program has it."""
    return torch_export.load(candidate, request)


class Port:
    """See `triptych.backend.contract.Port`."""

    def __init__(self, candidate: nn.Module, layout: str | None, execution: Execution) -> None:
        self.layout = layout or "NCHW"
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("torch", execution.precision, DTYPES)
        self.module = candidate
        for module in candidate.modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False  # it would overwrite what the layer before has put out
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        used: dict[int, int] = {}
        self._pass_on(images, lambda function, tensors, y: [used.setdefault(id(t), len(used)) for t in tensors])
        self.module.to(self.dtype)  # only now: a lazy module has its parameters by the first pass
        named = self._tensors()
        order = sorted(named, key=lambda name: used.get(self.identities[name], len(used)))
        return [
            PortParameter(name, tuple(named[name].shape), TORCH.canonical_name(name.rpartition(".")[2]))
            for name in order
        ]

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and running statistics by name."""
        buffers = {name: b for name, b in self.module.named_buffers() if b.is_floating_point()}
        return {**dict(self.module.named_parameters()), **buffers}

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                if name in values:
                    tensor.copy_(torch.from_numpy(np.array(values[name])))

    def run(self, images: Array, *, train: bool, cotangent: Array | None = None) -> PortRun:
        """One pass; with `cotangent`, the gradient of the logits, backward too."""
        captured: list[Captured] = []

        def watch(function: str, tensors: Sequence[torch.Tensor], y: torch.Tensor) -> None:
            kind = KINDS.get(function.rstrip("_"))
            if kind is None or (kind in NEEDS_FLAT and y.ndim != 2):
                return
            entry = Captured(kind, self._to_canonical(y))
            captured.append(entry)
            if y.requires_grad:
                y.register_hook(lambda gradient: setattr(entry, "gradient", self._to_canonical(gradient)))

        x, logits = self._pass_on(images, watch, train)
        run = PortRun(captured, to_numpy(logits))
        if cotangent is not None:
            if logits.requires_grad:  # a network that is cut off has no gradients, and that is a finding
                logits.backward(torch.from_numpy(np.array(cotangent)).to(self.dtype))
            named = self.module.named_parameters()
            run.gradients = {name: to_numpy(p.grad) for name, p in named if p.grad is not None}
            run.input_gradient = None if x.grad is None else self._to_canonical(x.grad)
            self.module.zero_grad()
        return run

    def _pass_on(
        self, images: Array, watch: Callable[..., object], train: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and logits of a pass in which `watch` is called for every function."""
        self.module.train(train)
        like = next((p for p in self.module.parameters() if not nn.parameter.is_lazy(p)), None)
        x = torch.from_numpy(np.array(images)).to(self.dtype if like is None else like.dtype).requires_grad_()
        with _Watch(watch, train):
            logits = self.module(x if self.layout == "NCHW" else x.permute(0, 2, 3, 1))
        self.identities = {name: id(tensor) for name, tensor in self._tensors().items()}
        return x, logits[0] if isinstance(logits, list | tuple) else logits

    def _to_canonical(self, value: torch.Tensor) -> Array:
        """A copy on the host, channels first."""
        value = value.permute(0, 3, 1, 2) if self.layout == "NHWC" and value.ndim == 4 else value
        return to_numpy(value)


class _Watch(TorchFunctionMode):
    """Calls `watch(name, tensors given, tensor returned)` for every function of PyTorch at the outermost level.

    In training mode dropout is off, where a function is called for it, too; in evaluation it is the network's fault.
    """

    def __init__(self, watch: Callable[..., object], train: bool) -> None:
        super().__init__()
        self.watch = watch
        self.train = train

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        off = self.train and getattr(function, "__name__", "").rstrip("_") in DROPOUTS
        y = (*arguments, *(keywords or {}).values())[0] if off else function(*arguments, **(keywords or {}))
        if isinstance(y, torch.Tensor) and y.is_floating_point():
            tensors = [value for value in (*arguments, *(keywords or {}).values()) if isinstance(value, torch.Tensor)]
            self.watch(getattr(function, "__name__", ""), tensors, y)
        return y
