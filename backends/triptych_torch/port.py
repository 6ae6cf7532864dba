"""Somebody's own `torch.nn.Module`, watched while it runs; see `triptych.backend.contract`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from triptych.backend.contract import Captured, PortParameter, PortRun
from triptych.backend.execution import Execution, dtype_of
from triptych.importers import torch_export, torch_files
from triptych.importers.steps import Imported, Request
from triptych.optim.optimizers import Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.weights.layouts import TORCH
from triptych_torch.device import DTYPES
from triptych_torch.precision import apply_execution
from triptych_torch.weights import to_numpy

# PyTorch's functions, which the modules call too, by the spec's record or merge; underscores around are taken off.
KINDS = {
    "conv2d": "Conv",
    "conv_transpose2d": "ConvTranspose",
    "linear": "Dense",
    "addmm": "Dense",
    "matmul": "Dense",
    "batch_norm": "BatchNorm",
    "local_response_norm": "LocalResponseNorm",
    "normalize": "L2Normalize",
    "relu": "ReLU",
    "threshold": "ReLU",
    "leaky_relu": "LeakyReLU",
    "prelu": "PReLU",
    "elu": "LeakyReLU",
    "gelu": "SiLU",
    "silu": "SiLU",
    "hardswish": "HardSwish",
    "hardsigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu6": "Clip",
    "hardtanh": "Clip",
    "clamp": "Clip",
    "clip": "Clip",
    "softmax": "Softmax",
    "max_pool2d": "MaxPool",
    "avg_pool2d": "AvgPool",
    "adaptive_avg_pool2d": "GlobalAvgPool",
    "adaptive_max_pool2d": "GlobalMaxPool",
    "mean": "GlobalAvgPool",
    "amax": "GlobalMaxPool",
    "flatten": "Flatten",
    "view": "Flatten",
    "reshape": "Flatten",
    "pad": "Pad",
    "interpolate": "Upsample",
    "upsample": "Upsample",
    "channel_shuffle": "ChannelShuffle",
    "narrow": "Slice",
    "getitem": "Slice",
    "dropout": "Dropout",
    "cat": "concatenate",
    "concat": "concatenate",
    "add": "add",
    "iadd": "add",
    "mul": "multiply",
    "imul": "multiply",
}
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
NOT_FLAT = {"Dense": "", "Flatten": "Reshape"}  # what it is where no vector per image comes out
OPENS = (".pt2", ".pt", ".pth", ".ts")


def matches(candidate: Any) -> bool:
    """A module of this framework."""
    return isinstance(candidate, nn.Module)


def import_network(candidate: nn.Module, request: Request) -> Imported:
    """The module as its exported program has it."""
    return torch_export.load(candidate, request)


def open_file(path: Path, weights: Path | None, *, bare: bool) -> nn.Module:
    """The module of a TorchScript file, which has its own weights."""
    if path.suffix == ".pt2":
        raise TriptychError("an exported program runs for the batch and the mode that it was exported for only")
    if bare:
        raise TriptychError("the softmax at the end of a TorchScript file cannot be taken off")
    script = torch_files.open_script(path)
    if any(getattr(part, "original_name", "").startswith("Dropout") for part in script.modules()):
        raise TriptychError("the dropout in a TorchScript file cannot be switched off")
    return script


class Port:
    """See `triptych.backend.contract.Port`."""

    def __init__(self, candidate: nn.Module, layout: str | None, execution: Execution, outputs: int = 1) -> None:
        self.layout = layout or "NCHW"
        apply_execution(execution, "cpu")
        self.dtype = dtype_of("torch", execution.precision, DTYPES)
        self.count = outputs
        self.module = torch_export.unwrapped(candidate)
        for module in self.module.modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False  # it would overwrite what the layer before has put out
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0

    def parameters(self, images: Array) -> Sequence[PortParameter]:
        """In the order of their first use."""
        used: dict[int, int] = {}
        _, outputs = self._pass_on(
            images, lambda function, tensors, y: [used.setdefault(id(t), len(used)) for t in tensors]
        )
        without = self._without_gradient(outputs)
        self.module.to(self.dtype)  # only now: a lazy module has its parameters by the first pass
        named = self._tensors()
        order = sorted(named, key=lambda name: used.get(self.identities[name], len(used)))
        without = {name for name in without if self.identities[name] in used}
        return [PortParameter(name, tuple(named[name].shape), self._role(name), name not in without) for name in order]

    def _role(self, name: str) -> str:
        owner, _, last = name.rpartition(".")
        module = dict(self.module.named_modules()).get(owner)
        return "slope" if isinstance(module, nn.PReLU) else TORCH.canonical_name(last)

    def _without_gradient(self, outputs: Sequence[torch.Tensor]) -> set[str]:
        """The parameters that the compared outputs do not depend on, and the buffers of modules that have no others."""
        named = dict(self.module.named_parameters())
        reached = [y for y in outputs if y.requires_grad]
        if not reached:
            return set()
        trained = {name: p for name, p in named.items() if p.requires_grad}
        gradients = torch.autograd.grad([y.sum() for y in reached], list(trained.values()), allow_unused=True)
        without = {name for name, gradient in zip(trained, gradients, strict=True) if gradient is None}
        kept = {name.rpartition(".")[0] for name in named if name not in without}
        lost = {name.rpartition(".")[0] for name in without} - kept
        return without | {name for name, _ in self.module.named_buffers() if name.rpartition(".")[0] in lost}

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and running statistics by name; buffers that no state dict has are constants of the code."""
        kept = self.module.state_dict(keep_vars=True)
        buffers = {name: b for name, b in self.module.named_buffers() if b.is_floating_point() and name in kept}
        return {**dict(self.module.named_parameters()), **buffers}

    def load(self, values: Mapping[str, Array]) -> None:
        """Set the parameters of these names."""
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                if name in values:
                    tensor.copy_(torch.from_numpy(np.array(values[name])))

    def run(self, images: Array, *, train: bool, cotangents: Sequence[Array] = ()) -> PortRun:
        """One pass; with `cotangents`, the gradient of every output that is compared, backward too."""
        captured: list[Captured] = []

        # Maps are channels first whatever the images are: so are PyTorch's functions.
        def watch(function: str, tensors: Sequence[torch.Tensor], y: torch.Tensor) -> None:
            if y.ndim < 2 or len(y) != len(images):
                return
            kind = KINDS.get(function.strip("_"), "")
            entry = Captured(NOT_FLAT.get(kind, kind) if y.ndim != 2 else kind, to_numpy(y))
            captured.append(entry)
            if y.requires_grad:
                y.register_hook(lambda gradient: setattr(entry, "gradient", to_numpy(gradient)))

        x, outputs = self._pass_on(images, watch, train)
        run = PortRun(captured, tuple(map(self._to_canonical, outputs)))
        if cotangents:
            self._backward(outputs, cotangents)
            named = self.module.named_parameters()
            run.gradients = {name: to_numpy(p.grad) for name, p in named if p.grad is not None}
            run.input_gradient = None if x.grad is None else to_numpy(x.grad)
            self.module.zero_grad()
        return run

    def train(self, images: Array, cotangents: Sequence[Array], rates: Sequence[Rates]) -> dict[str, Array]:
        """What steps of torch.optim.SGD make of it."""
        optimizer = torch.optim.SGD(self.module.parameters(), rates[0].learning_rate, rates[0].momentum)
        for _ in rates:
            optimizer.zero_grad()
            self._backward(self._pass_on(images, lambda *_: None, train=True)[1], cotangents)
            optimizer.step()
        return {name: to_numpy(tensor) for name, tensor in self._tensors().items()}

    def _backward(self, outputs: Sequence[torch.Tensor], cotangents: Sequence[Array]) -> None:
        pairs = [(y, self._native(dy)) for y, dy in zip(outputs, cotangents, strict=False) if y.requires_grad]
        if pairs:  # a network that is cut off has no gradients, and that is a finding
            torch.autograd.backward([y for y, _ in pairs], [dy for _, dy in pairs])

    def _pass_on(
        self, images: Array, watch: Callable[..., object], train: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Images and outputs of a pass in which `watch` is called for every function."""
        self.module.train(train)
        like = next((p for p in self.module.parameters() if not nn.parameter.is_lazy(p)), None)
        x = torch.from_numpy(np.array(images)).to(self.dtype if like is None else like.dtype).requires_grad_()
        with _Watch(watch, train):
            y = self.module(x if self.layout == "NCHW" else x.permute(0, 2, 3, 1))
        self.identities = {name: id(tensor) for name, tensor in self._tensors().items()}
        outputs = list(_tensors_in(y))
        self.returned = len(outputs)
        return x, outputs[: self.count]

    def _native(self, value: Array) -> torch.Tensor:
        """A map or vector as the network puts it out."""
        tensor = torch.from_numpy(np.array(value)).to(self.dtype)
        return tensor.permute(0, 2, 3, 1) if self.layout == "NHWC" and tensor.ndim == 4 else tensor

    def _to_canonical(self, value: torch.Tensor) -> Array:
        """A copy on the host, channels first."""
        value = value.permute(0, 3, 1, 2) if self.layout == "NHWC" and value.ndim == 4 else value
        return to_numpy(value)


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of what a module returns, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _tensors_in(entry)


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
