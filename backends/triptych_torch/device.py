"""Devices and precisions of PyTorch: the one file that knows how cpu, cuda and npu differ."""

import os

import torch

from triptych.backend.execution import Device, check_device
from triptych.utils.process import vector_features
from triptych_torch import npu

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the weights stay float32
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp16": torch.float32, "fp64": torch.float64}
# oneDNN and cuDNN convolve channels_last without reordering (a quarter faster on the CPU); Ascend has formats of its
# own and takes NCHW.
LAYOUTS = {"cpu": torch.channels_last, "cuda": torch.channels_last, "npu": torch.contiguous_format}


def versions() -> dict[str, str]:
    """The packages this backend runs on."""
    theirs = npu.version()
    return {"torch": torch.__version__} | ({"torch_npu": theirs} if theirs else {})


def devices() -> list[Device]:
    """The CPU, every CUDA device and every NPU, or why there is none."""
    return [*_cpus(), *_cudas(), *npu.npus_elsewhere()]


def get_device(name: str) -> torch.device:
    """The device called `name`. Raises TriptychError, with the reason, if it is not there."""
    kind, _, number = name.partition(":")
    others = {"cpu": list, "cuda": _cudas, "npu": npu.npus}.get(kind, lambda: devices()[1:])
    known = [*_cpus(), *others()]
    wanted = (
        name if kind == "cpu" or not (number or name == kind) else f"{kind}:{number or os.environ.get('LOCAL_RANK', 0)}"
    )
    check_device("torch", name, wanted, known)
    return torch.device(wanted)


def peak_memory(device: str) -> int:
    """The most bytes that tensors have held on the device so far; 0 for the CPU, which does not count."""
    kind = device.partition(":")[0]
    return 0 if kind == "cpu" else getattr(torch, kind).max_memory_allocated(get_device(device))


def out_of_memory(error: Exception) -> bool:
    """PyTorch has a type for it on devices only."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


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
