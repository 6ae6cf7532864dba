"""The switches of MXNet that make float32 less than float32. All are read once: none can be switched off again."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import mxnet as mx

from triptych.backend.execution import Execution, dtype_of
from triptych.backend.precision import Flag, environment
from triptych_mxnet.device import DTYPES, get_device

_NEW_PROCESS = "start a new process without it"


def precision_flags(device: str = "cpu") -> list[Flag]:
    """Every switch that is there, with its value."""
    mixed = sys.modules.get("mxnet.contrib.amp.amp")  # a module of its own, which `amp.init()` marks
    amp = bool(getattr(mixed, "_amp_initialized", False))
    # whether numbers below the smallest normal one become 0: MXNet's threads inherit it at the import
    flushes = float((mx.nd.array([1e-40]) * 1.5).asscalar()) == 0
    return [
        Flag("amp", amp, not amp, _NEW_PROCESS),
        Flag("flush_denormal", flushes, not flushes, _NEW_PROCESS),
        environment("MXNET_CUDA_TENSOR_OP_MATH_ALLOW_CONVERSION", "0"),
        # cuDNN's default for float32 convolutions is TF32, and MXNet has no switch of its own.
        environment("NVIDIA_TF32_OVERRIDE", "0", unset=not device.startswith("cuda")),
        environment("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT"),
        environment("DNNL_DEFAULT_FPMATH_MODE", "STRICT"),
    ]


def apply_execution(execution: Execution, device: str) -> None:
    """Set what holds for the whole process as `execution` says. Shorter factors cannot be forbidden here, only told."""
    get_device(device)
    dtype_of("mxnet", execution.precision, DTYPES)
    if execution.deterministic:  # oneDNN is; cuDNN is told
        os.environ["MXNET_ENFORCE_DETERMINISM"] = "1"


@contextmanager
def precise(device: str = "cpu") -> Iterator[None]:
    """Exact arithmetic in here, as far as MXNet leaves the choice: it leaves none."""
    yield
