"""Devices and precisions of PyTorch."""

from __future__ import annotations

import torch

from triptych.backend import Device
from triptych.errors import TriptychError

DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}  # bf16: float32 weights, autocast


def versions() -> dict[str, str]:
    """The packages this backend runs on."""
    return {"torch": torch.__version__}


def devices() -> list[Device]:
    """The CPU, and every CUDA device or why there is none."""
    found = [Device("cpu", True, f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")]
    if not torch.cuda.is_available():
        built = torch.version.cuda
        reason = "no CUDA device is visible" if built else "this build of PyTorch has no CUDA"
        return [*found, Device("cuda", False, reason)]
    count = torch.cuda.device_count()
    return found + [Device(f"cuda:{i}", True, torch.cuda.get_device_name(i)) for i in range(count)]


def get_device(name: str) -> torch.device:
    """The device called `name`. Raises TriptychError, with the reason, if it is not there."""
    wanted = "cuda:0" if name == "cuda" else name
    for device in devices():
        if device.name == wanted and device.available:
            return torch.device(wanted)
    known = "; ".join(f"{d.name}: {d.reason}" for d in devices())
    raise TriptychError(f"backend 'torch' has no device '{name}' here ({known})")


def get_dtype(precision: str) -> torch.dtype:
    """The type of the weights for `--precision`. Raises TriptychError for one that is not supported."""
    if precision not in DTYPES:
        raise TriptychError(f"backend 'torch' has no precision '{precision}'; known: {', '.join(DTYPES)}")
    return DTYPES[precision]
