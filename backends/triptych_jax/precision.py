"""The switches of JAX and XLA that make float32 less than float32."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from triptych.backend.execution import Execution, dtype_of
from triptych.backend.precision import Flag, environment
from triptych_jax.device import DTYPES, get_device

_FULL = ("highest", "float32")
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
_BITS = "jax_default_dtype_bits"  # gone from later versions of JAX
# Options of XLA, read once: `--name` and `--name=true` turn one on. Without them all are off.
_XLA = ("xla_cpu_enable_fast_math", "xla_cpu_enable_fast_min_max", "xla_gpu_enable_fast_min_max", "xla_gpu_ftz")


def precision_flags(device: str = "cpu") -> list[Flag]:
    """Every switch that is there, with its value."""
    precision = jax.default_matmul_precision.value
    # The default is full precision on a CPU, TF32 on a GPU, bfloat16 on a TPU.
    full = precision in _FULL or (precision is None and device == "cpu")
    flags = [Flag("default_matmul_precision", precision, full)]
    if hasattr(jax.config, _BITS):
        bits = getattr(jax.config, _BITS)
        flags.append(Flag("default_dtype_bits", bits, bits == "64"))
    words = (word.removeprefix("--").partition("=") for word in os.environ.get("XLA_FLAGS", "").split())
    options = {name: value if equals else "true" for name, equals, value in words}
    for name in _XLA:
        chosen = options.get(name, "false")
        exact = chosen.lower() in ("false", "0")
        flags.append(Flag(name, chosen, exact, "take it out of XLA_FLAGS and start again"))
    return [*flags, environment("NVIDIA_TF32_OVERRIDE", "0")]


def apply_execution(execution: Execution, device: str) -> None:
    """Set what holds for the whole process as `execution` says. Shorter factors are a choice of each layer here."""
    dtype_of("jax", execution.precision, DTYPES)
    if execution.precision == "fp64":
        # Without it JAX turns every float64 array into float32, silently. It makes float64 the default type, so this
        # backend names the type of every array that it makes.
        jax.config.update("jax_enable_x64", True)
    flags = os.environ.get("XLA_FLAGS", "").split()
    if execution.deterministic and _DETERMINISTIC not in flags:  # read when JAX first meets the device
        os.environ["XLA_FLAGS"] = " ".join((*flags, _DETERMINISTIC))
    get_device(device)  # after the flags


@contextmanager
def precise(device: str = "cpu") -> Iterator[None]:
    """Exact arithmetic in here; afterwards every switch is as it was."""
    bits, x64 = getattr(jax.config, _BITS, None), jax.config.read("jax_enable_x64")
    with jax.default_matmul_precision("highest"):  # for this thread, over what the process has
        try:
            if bits not in (None, "64"):
                jax.config.update(_BITS, "64")
            yield
        finally:
            jax.config.update("jax_enable_x64", x64)  # a float64 network that was built in here turned it on
            if bits not in (None, "64"):
                jax.config.update(_BITS, bits)
