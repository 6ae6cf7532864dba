"""A stand-in for torch_npu: PyTorch's PrivateUse1 device, renamed to `npu` and run on the CPU, in pure Python.

Tensors report `npu:0`, mixing them with CPU tensors is an error as on the hardware, and every operator call is counted.
It tests a program's plumbing: not kernels, float16 behaviour, HCCL or speed. Importing it renames the device for the
whole process and makes `torch_npu` importable. It rests on private names of torch 2.13.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import types
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import backend_registration
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

if not torch.__version__.startswith("2.13."):
    raise ImportError(f"the stand-in is made for torch 2.13, not {torch.__version__}")

CALLS: Counter[str] = Counter()  # operator: its calls on the stand-in
TOLD: Counter[str] = Counter()  # name in torch.npu: its calls
WITHOUT_KERNEL: set[str] = set()  # operators that it shall report as torch_npu reports those it leaves to the CPU
# What autocast casts down, and what it keeps in float32, as on other devices.
LOWER = "conv1d conv2d conv3d convolution linear matmul mm bmm addmm addbmm baddbmm einsum"
KEPT = "cross_entropy_loss nll_loss log_softmax.int softmax.int layer_norm sum prod exp log pow.Tensor_Scalar"
# torch itself hands these CPU tensors beside those of the device
MIXING = ("aten.index.Tensor", "aten.index_put_.default", "aten.copy_.default")
WARNING = (
    "[W 12:00:00 VariableFallbackKernel.cpp:250] Warning: CAUTION: The operator '{}' is not currently supported on the "
    "NPU backend and will fall back to run on the CPU. This may have performance implications. "
    "(function npu_cpu_fallback)\n"
)


class Npu:
    """What becomes `torch.npu`."""

    def __init__(self) -> None:
        self.conv = types.SimpleNamespace(allow_hf32=True)  # torch_npu's defaults
        self.matmul = types.SimpleNamespace(allow_hf32=False)
        for name in ("init", "empty_cache", "set_device", "synchronize", "manual_seed", "manual_seed_all"):
            setattr(self, name, self.noted(name))
        self.set_compile_mode = self.noted("set_compile_mode")

    def noted(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: TOLD.update([name])

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_device_name(self, *device: Any) -> str:
        return "stand-in on the CPU"

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]

    def max_memory_allocated(self, device: Any = None) -> int:
        return 3 << 20


backend_registration._setup_privateuseone_for_python_backend("npu", backend_module=Npu())
sys.modules["torch_npu"] = types.ModuleType("torch_npu")

_set_storage = torch.ops.aten.set_.source_Storage_storage_offset
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)


def wrap(raw: torch.Tensor) -> torch.Tensor:
    """A tensor of the stand-in with `raw`'s shape and strides, whose storage keeps `raw`.

    The storage outlives C++'s shallow copies (saved tensors, `.data`), the Python tensor does not.
    """
    inference = torch.is_inference_mode_enabled()  # views of ordinary tensors must be ordinary tensors
    with torch.inference_mode(False) if inference else contextlib.nullcontext():
        tensor = torch._C._acc.create_empty_tensor((0,), raw.dtype)
    take_shape(tensor, raw)
    tensor.untyped_storage()._raw = raw
    return tensor


def take_shape(tensor: torch.Tensor, raw: torch.Tensor) -> None:
    _set_storage.redispatch(_CPU, tensor, tensor.untyped_storage(), 0, raw.shape, raw.stride())


def unwrap(value: Any) -> Any:
    """The CPU tensor behind a tensor of the stand-in; the CPU for its device; anything else as it is."""
    if isinstance(value, torch.Tensor) and value.device.type == "npu":
        return value.untyped_storage()._raw
    if isinstance(value, torch.device) and value.type == "npu":
        return torch.device("cpu")
    return value


def run(op: Any, *args: Any, **kwargs: Any) -> Any:
    """One operator call: counted, refused if it mixes devices, run on the CPU."""
    name = str(op)
    CALLS[name] += 1
    if name in WITHOUT_KERNEL and CALLS[name] == 1:
        os.write(2, WARNING.format(op.name()).encode())  # as C++ does: past sys.stderr
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    for tensor in tensors:
        if tensor.device.type != "npu" and tensor.dim() and name not in MIXING:
            raise RuntimeError(f"{name}: expected all tensors to be on npu:0, but found one on {tensor.device}")
    own = {id(unwrap(tensor)): tensor for tensor in tensors}
    result = op(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
    for tensor in tensors:  # an out= argument that the operator resized
        if tensor.device.type == "npu" and tensor.shape != unwrap(tensor).shape:
            take_shape(tensor, unwrap(tensor))
    return tree_map_only(torch.Tensor, lambda raw: own[id(raw)] if id(raw) in own else wrap(raw), result)


_everything, _aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
_everything.fallback(run, "PrivateUse1")
_everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")


def kernel(name: str, key: str = "PrivateUse1") -> Callable[[Callable[..., Any]], None]:
    """Registers a function as the kernel of an operator."""
    return lambda function: _aten.impl(name, function, key)


@kernel("_copy_from")
def _copy_from(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    CALLS[f"copy {source.device.type} to {target.device.type}"] += 1
    unwrap(target).copy_(unwrap(source))
    return target


@kernel("_to_copy")
def _to_copy(x: torch.Tensor, *, dtype=None, layout=None, device=None, pin_memory=None, non_blocking=False,
             memory_format=None) -> torch.Tensor:  # fmt: skip
    to_host = device is not None and device.type == "cpu"
    CALLS[f"copy {x.device.type} to {'cpu' if to_host else 'npu'}"] += 1
    raw = unwrap(x).to(dtype=dtype or x.dtype, copy=True, memory_format=memory_format or torch.preserve_format)
    return raw if to_host else wrap(raw)


@kernel("_local_scalar_dense")
def _item(x: torch.Tensor) -> Any:
    CALLS["copy npu to cpu"] += 1
    return unwrap(x).item()


@kernel("empty.memory_format")
def _empty(size, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None) -> torch.Tensor:
    return wrap(torch.empty(size, dtype=dtype, memory_format=memory_format or torch.contiguous_format))


@kernel("empty_strided")
def _empty_strided(size, stride, *, dtype=None, layout=None, device=None, pin_memory=None) -> torch.Tensor:
    return wrap(torch.empty_strided(size, stride, dtype=dtype))


@kernel("resize_")
def _resize(x: torch.Tensor, size: Any, *, memory_format: Any = None) -> torch.Tensor:
    raise NotImplementedError("the stand-in has no resize_")


def find(name: str) -> Any:
    """The operator called `aten::name`."""
    operator, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, operator), overload or "default")


def autocast_to(operator: Any, choose: Callable[[], torch.dtype]) -> Callable[..., Any]:
    """`operator` on tensors cast to the type that `choose` returns."""

    def cast(value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point() and value.device.type == "npu"
        return value.to(choose()) if floating else value

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST):
            return operator(*tree_map(cast, args), **tree_map(cast, kwargs))

    return call


for _name in LOWER.split():
    kernel(_name, "AutocastPrivateUse1")(autocast_to(find(_name), lambda: torch.get_autocast_dtype("npu")))
for _name in KEPT.split():
    kernel(_name, "AutocastPrivateUse1")(autocast_to(find(_name), lambda: torch.float32))


def goes_straight_to_the_cpu(name: str) -> bool:
    """Whether ATen would decompose the operator into calls with out=, which the stand-in had to resize.

    `detach` and `alias` stay C++'s shallow copies: they share the storage, and so the data.
    """
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    explicit = ("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return (
        name.startswith("aten::")
        and name not in ("aten::detach", "aten::alias")
        and not any(has(name, key) for key in ("PrivateUse1", "CompositeImplicitAutograd"))
        and any(has(name, key) for key in explicit)
    )


for _name in torch._C._dispatch_get_all_op_names():
    if goes_straight_to_the_cpu(_name):
        kernel(_name[6:])(functools.partial(run, find(_name[6:])))
