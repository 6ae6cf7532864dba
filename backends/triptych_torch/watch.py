"""What PyTorch's functions are called with, and what they return, while somebody's network runs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from triptych.backend.contract import Drawn

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
    "silu": "SiLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "mish": "Mish",
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
    "sub": "add",
    "isub": "add",
    "mul": "multiply",
    "imul": "multiply",
}
# What its dropouts draw.
DROPOUTS = {
    "dropout": "dropout",
    **dict.fromkeys(("dropout1d", "dropout2d", "dropout3d", "feature_dropout"), "dropout of whole channels"),
    "alpha_dropout": "alpha dropout",
    "feature_alpha_dropout": "alpha dropout of whole channels",
}
PRODUCTS = ("matmul", "mm", "addmm", "rmatmul")  # whose last operand is an (in, out) matrix
WEIGHTED = ("conv2d", "linear")  # whose second is the weight
NOT_FLAT = {"Dense": "", "Flatten": "Reshape"}  # what it is where no vector per image comes out


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of what a module returns, in their order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from tensors_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from tensors_in(entry)


def axes_of_view(base: torch.Tensor, tensor: torch.Tensor) -> tuple[int, ...]:
    """The order of axes in which a view shows the whole of a matrix or a kernel; empty where it is no such view."""
    if tensor.ndim != base.ndim or base.ndim not in (2, 4):
        return ()
    seen = list(zip(tensor.shape, tensor.stride(), strict=True))
    whole = list(zip(base.shape, base.stride(), strict=True))
    return next((axes for axes in permutations(range(base.ndim)) if [whole[axis] for axis in axes] == seen), ())


class Watch(TorchFunctionMode):
    """Calls `watch(name, tensors given, tensor returned, what a dropout draws)` for every function of PyTorch at the
    outermost level.

    In training mode dropout is off, where a function is called for it, too; in evaluation it is the network's fault.
    """

    def __init__(self, watch: Callable[..., object], train: bool) -> None:
        super().__init__()
        self.watch = watch
        self.train = train

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name, keywords = getattr(function, "__name__", ""), keywords or {}
        drawn = _drawn(name, arguments, keywords)
        off = self.train and drawn is not None
        y = (*arguments, *keywords.values())[0] if off else function(*arguments, **keywords)
        if isinstance(y, torch.Tensor) and y.is_floating_point():
            tensors = [value for value in (*arguments, *keywords.values()) if isinstance(value, torch.Tensor)]
            self.watch(name, tensors, y, drawn)
        return y


def _drawn(name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Drawn | None:
    """What a call of a dropout draws: `(input, p=0.5, training=True)`; None for any other function."""
    kind = DROPOUTS.get(name.rstrip("_"))
    if kind is None:
        return None
    given = dict(zip(("input", "p", "training"), arguments, strict=False)) | dict(keywords)
    return Drawn(float(given.get("p", 0.5)), kind, bool(given.get("training", given.get("train", True))))
