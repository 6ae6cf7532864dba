"""Devices and precisions of PyTorch: the one file that knows how cpu, cuda and npu differ."""

from __future__ import annotations

import os
from operator import attrgetter

import torch

from triptych.backend.contract import Device
from triptych.utils.errors import TriptychError
from triptych.utils.process import vector_features
from triptych_torch import npu

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the weights stay float32
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp16": torch.float32, "fp64": torch.float64}
# oneDNN and cuDNN convolve channels_last without reordering (a quarter faster on the CPU); Ascend has formats of its
# own and takes NCHW.
LAYOUTS = {"cpu": torch.channels_last, "cuda": torch.channels_last, "npu": torch.contiguous_format}
# Attributes of torch that let a device shorten the factors of float32 products to about ten bits. Convolutions do so
# by default; here fp32 means float32, so all are turned off.
SHORTENED = {
    "cpu": (),
    "cuda": ("backends.cudnn.allow_tf32", "backends.cuda.matmul.allow_tf32"),
    "npu": ("npu.conv.allow_hf32", "npu.matmul.allow_hf32"),
}


def versions() -> dict[str, str]:
    """The packages this backend runs on."""
    theirs = npu.version()
    return {"torch": torch.__version__} | ({"torch_npu": theirs} if theirs else {})


def devices() -> list[Device]:
    """The CPU, every CUDA device and every NPU, or why there is none."""
    return [*_cpus(), *_cudas(), *npu.npus_elsewhere()]


def get_device(name: str) -> torch.device:
    """The device called `name`, ready for use. Raises TriptychError, with the reason, if it is not there."""
    kind, _, number = name.partition(":")
    others = {"cpu": list, "cuda": _cudas, "npu": npu.npus}.get(kind, lambda: devices()[1:])
    found = [*_cpus(), *others()]
    wanted = (
        name if kind == "cpu" or not (number or name == kind) else f"{kind}:{number or os.environ.get('LOCAL_RANK', 0)}"
    )
    if wanted not in [device.name for device in found if device.available]:
        known = "; ".join(f"{device.name}: {device.reason}" for device in found)
        raise TriptychError(f"backend 'torch' has no device '{name}' here ({known})")
    for switch in SHORTENED[kind]:
        holder, _, flag = switch.rpartition(".")
        setattr(attrgetter(holder)(torch), flag, False)
    if kind == "npu":
        torch.npu.set_compile_mode(jit_compile=False)  # else every new shape is compiled, for minutes
    if kind != "cpu":
        getattr(torch, kind).set_device(wanted)
    return torch.device(wanted)


def get_dtype(precision: str) -> torch.dtype:
    """The type of the weights for `--precision`. Raises TriptychError for one that is not supported."""
    if precision not in DTYPES:
        raise TriptychError(f"backend 'torch' has no precision '{precision}'; known: {', '.join(DTYPES)}")
    return DTYPES[precision]


def set_deterministic() -> None:
    """From now on equal steps give equal bits; an operator that cannot do so raises RuntimeError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("HCCL_DETERMINISTIC", "true")
    torch.use_deterministic_algorithms(True)


def peak_memory(device: str) -> int:
    """The most bytes that tensors have held on the device so far; 0 for the CPU, which does not count."""
    kind = device.partition(":")[0]
    return 0 if kind == "cpu" else getattr(torch, kind).max_memory_allocated(get_device(device))


def _cpus() -> list[Device]:
    features = ", ".join((torch.backends.cpu.get_cpu_capability(), *vector_features()))
    return [Device("cpu", True, f"{torch.get_num_threads()} threads, {features}")]


def _cudas() -> list[Device]:
    if torch.cuda.is_available():
        return [Device(f"cuda:{i}", True, torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    if torch.version.cuda:
        reason = "no CUDA device is visible; `nvidia-smi` and CUDA_VISIBLE_DEVICES tell more"
    else:
        reason = "this build of PyTorch has no CUDA; install another from https://pytorch.org/get-started"
    return [Device("cuda", False, reason)]
