"""How and where a network is run, never what it computes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from triptych.utils.errors import TriptychError

T = TypeVar("T")

Compilation: TypeAlias = Literal["full", "quick", "fused", "graphs"]
PRECISIONS = ("fp32", "bf16", "fp16", "fp64")


@dataclass(frozen=True)
class Device:
    """A device by the name that `--device` takes; `reason` says why it is not available, or what it is."""

    name: str
    available: bool
    reason: str


@dataclass(frozen=True)
class Execution:
    """What `build` is told beside the architecture; the network carries it, and its trainer follows it.

    `precision`: the type of weights and layers; "bf16" and "fp16" keep the weights in float32. `compilation`: "quick"
    leaves out what a compiler does for speed alone: for programs that run a few times only; "fused" and "graphs" go
    beyond "full" where a framework by itself compiles nothing (PyTorch: `torch.compile`, and the same replayed as CUDA
    graphs), at the price of a minute or more before the first step. `tf32`: whether the device
    may shorten the factors of float32 products to about ten bits (TF32, Ascend's HF32), which frameworks allow by
    default. `deterministic`: equal steps give equal bits, if need be more slowly, from then on and for the whole
    process; say so for the first network that is built.
    """

    precision: str = "fp32"
    compilation: Compilation = "full"
    tf32: bool = False
    deterministic: bool = False


DEFAULT = Execution()


def exact(precision: str, compilation: Literal["full", "quick"] = "quick") -> Execution:
    """The Execution of conformance in "fp64" or "fp32"; long runs are worth a full compilation."""
    return Execution(precision, compilation)


def dtype_of(backend: str, precision: str, dtypes: Mapping[str, T]) -> T:
    """A backend's type of the weights for a precision. Raises TriptychError for one that it does not support."""
    if precision not in dtypes:
        raise TriptychError(f"backend '{backend}' has no precision '{precision}'; known: {', '.join(dtypes)}")
    return dtypes[precision]


def check_device(backend: str, name: str, wanted: str, devices: Sequence[Device]) -> None:
    """Raises TriptychError, with each one's reason, unless `wanted`, which `name` stands for, is an available one."""
    if wanted not in [device.name for device in devices if device.available]:
        known = "; ".join(f"{device.name}: {device.reason}" for device in devices)
        raise TriptychError(f"backend '{backend}' has no device '{name}' here ({known})")
