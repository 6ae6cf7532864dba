"""Devices and precisions of JAX."""

import os
import warnings
from importlib.util import find_spec
from typing import Any

import flax
import jax
import jaxlib
import numpy as np
import optax

from triptych.backend.execution import Device, check_device
from triptych.utils.files import machine_cache
from triptych.utils.memory import check_threads
from triptych.utils.process import cores, vector_features

# Otherwise JAX takes three quarters of a GPU's memory at its first use, and leaves the other backends a quarter.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

THREADS = 8  # for each core: XLA's pools of threads, for running and for compiling, and what else a small network takes
check_threads(THREADS * cores(), "JAX")

# What was compiled once is read back by the next process, which starts in a second instead of ten or more. Code of one
# processor may not run on another that shares the home folder, so each kind has a folder of its own.
COMPILED, SECONDS = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
if getattr(jax.config, COMPILED) is None and (folder := machine_cache("jax")) is not None:
    jax.config.update(COMPILED, str(folder))
    jax.config.update(SECONDS, 0.2)  # JAX's own default of a second leaves out most of a small network
# Where it cannot be written or is damaged, JAX compiles as it would without one, but warns for every part.
warnings.filterwarnings("ignore", ".*persistent compilation cache", UserWarning)

# bf16: float32 weights, bfloat16 layers
DTYPES: dict[str, type[np.floating[Any]]] = {"fp32": np.float32, "bf16": np.float32, "fp64": np.float64}
# by platform: the extra of the package jax, and the modules that it installs
PLUGINS = {"cuda": ("cuda12", "jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("tpu", "libtpu")}


def versions() -> dict[str, str]:
    """The packages this backend runs on."""
    return {package.__name__: package.__version__ for package in (jax, jaxlib, flax, optax)}


def devices() -> list[Device]:
    """The CPU, every CUDA device and every TPU, or why there is none."""
    listed = [Device("cpu", True, ", ".join((f"{cores()} threads, XLA", *vector_features())))]
    for platform, plugins in PLUGINS.items():
        missing = f"this installation of JAX has no plugin for it; pip install 'jax[{plugins[0]}]'"
        seen = f"no {platform.upper()} device is visible; JAX_PLATFORMS and the driver's own tool tell more"
        reason = seen if any(map(find_spec, plugins[1:])) else missing
        names = _names(platform)
        listed += [Device(name, True, device.device_kind) for name, device in names.items()]
        listed += [] if names else [Device(platform, False, reason)]
    return listed


def get_device(name: str) -> jax.Device:
    """The device called `name`. Raises TriptychError, with the reason, if it is not there."""
    platform, _, number = name.partition(":")
    if name == "cpu":
        return jax.local_devices(backend="cpu")[0]  # the first of all may be another process's
    wanted = f"{platform}:{number or 0}"
    check_device("jax", name, wanted, devices())
    return _names(platform)[wanted]


def peak_memory(device: str) -> int:
    """The most bytes that arrays have held on the device so far; 0 for the CPU, which does not count."""
    return (get_device(device).memory_stats() or {}).get("peak_bytes_in_use", 0)


def out_of_memory(error: Exception) -> bool:
    """JAX has one type for all that XLA refuses, with its status in front."""
    return isinstance(error, jax.errors.JaxRuntimeError) and str(error).startswith("RESOURCE_EXHAUSTED")


def _names(platform: str) -> dict[str, jax.Device]:
    try:
        return {f"{platform}:{i}": device for i, device in enumerate(jax.local_devices(backend=platform))}
    except RuntimeError:  # JAX knows no such platform here
        return {}
