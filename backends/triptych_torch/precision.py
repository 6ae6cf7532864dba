"""The switches of PyTorch that make float32 less than float32."""

import operator
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch

from triptych.backend.execution import Execution, dtype_of
from triptych.backend.precision import Flag, Value, environment
from triptych.utils.errors import TriptychError
from triptych_torch.device import DTYPES, get_device

_OFF: tuple[Value, ...] = (False,)
_IEEE: tuple[Value, ...] = ("ieee", "none")
# Attributes of torch, their exact values (the first is what `precise` sets), and the kind of device on which they let
# products be shortened as the Execution says. The general before the special: a special one that follows the general
# one is then exact as soon as that is. TF32 and HF32 for convolutions are on by default. `fp32_precision` is the newer
# interface to the same switches, and has bf16 (oneDNN). torch_npu adds those of `npu`.
_ATTRIBUTES: tuple[tuple[str, tuple[Value, ...], str], ...] = (
    ("backends.cuda.matmul.allow_tf32", _OFF, "cuda"),
    ("backends.cudnn.allow_tf32", _OFF, "cuda"),
    ("backends.fp32_precision", _IEEE, ""),
    ("backends.cudnn.fp32_precision", _IEEE, ""),
    ("backends.mkldnn.fp32_precision", _IEEE, ""),
    ("backends.cuda.matmul.fp32_precision", _IEEE, ""),
    ("backends.cudnn.conv.fp32_precision", _IEEE, ""),
    ("backends.mkldnn.matmul.fp32_precision", _IEEE, ""),
    ("backends.mkldnn.conv.fp32_precision", _IEEE, ""),
    ("npu.conv.allow_hf32", _OFF, "npu"),
    ("npu.matmul.allow_hf32", _OFF, "npu"),
)


@dataclass(frozen=True)
class _Switch:
    name: str
    read: Callable[[], Value]
    write: Callable[[Value], object]
    exact: tuple[Value, ...]


def precision_flags(device: str = "cpu") -> list[Flag]:
    """Every switch that is there, with its value."""
    return [
        *(Flag(switch.name, value, value in switch.exact) for switch, value in _read(device)),
        environment("NVIDIA_TF32_OVERRIDE", "0"),
        environment("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT"),
        environment("DNNL_DEFAULT_FPMATH_MODE", "STRICT"),
    ]


def apply_execution(execution: Execution, device: str) -> None:
    """Set what holds for the whole process as `execution` says, and make `device` the current one."""
    kind = get_device(device).type
    dtype_of("torch", execution.precision, DTYPES)
    for path, exact, on in _ATTRIBUTES:
        if on == kind:
            _attribute(path, exact).write(execution.tf32)
    if execution.deterministic:  # an operator that cannot be so raises RuntimeError
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        os.environ.setdefault("HCCL_DETERMINISTIC", "true")
        torch.use_deterministic_algorithms(True)
    if kind == "npu":
        torch.npu.set_compile_mode(jit_compile=False)  # else every new shape is compiled, for minutes
    if kind != "cpu":
        getattr(torch, kind).set_device(get_device(device))


@contextmanager
def precise(device: str = "cpu") -> Iterator[None]:
    """Exact arithmetic in here; afterwards every switch is as it was."""
    before = _read(device)
    try:
        for switch in _switches(device) * 2:  # twice: the newer interface makes an old switch readable again
            if _value(switch) not in (None, *switch.exact):
                switch.write(switch.exact[0])
        yield
    finally:
        for switch, value in before:
            if _value(switch) != value:
                switch.write(value)


def _switches(device: str) -> list[_Switch]:
    kind = device.partition(":")[0]
    with suppress(TriptychError):  # loads torch_npu, which adds its switches
        get_device(device)
    return [
        _Switch(
            "float32_matmul_precision",
            torch.get_float32_matmul_precision,
            lambda value: torch.set_float32_matmul_precision(str(value)),
            ("highest",),
        ),
        *(_attribute(path, exact) for path, exact, on in _ATTRIBUTES if on != "npu" or kind == "npu"),
        _Switch(
            "default_dtype",
            lambda: str(torch.get_default_dtype()),
            lambda value: torch.set_default_dtype(getattr(torch, str(value).removeprefix("torch."))),
            ("torch.float32",),
        ),
        _Switch(
            f"autocast {kind}",
            lambda: torch.is_autocast_enabled(kind),
            lambda value: torch.set_autocast_enabled(kind, value),
            (False,),
        ),
        _Switch("flush_denormal", _flushes, lambda value: torch.set_flush_denormal(bool(value)), (False,)),
    ]


def _attribute(path: str, exact: tuple[Value, ...]) -> _Switch:
    owner, _, name = path.rpartition(".")
    find = operator.attrgetter(owner)
    return _Switch(path, lambda: getattr(find(torch), name), lambda value: setattr(find(torch), name, value), exact)


def _read(device: str) -> list[tuple[_Switch, Value]]:
    """The switches that this build has, with their values."""
    values = [(switch, _value(switch)) for switch in _switches(device)]
    return [(switch, value) for switch, value in values if value is not None]


def _value(switch: _Switch) -> Value:
    """None if this build has no such switch, or refuses to state it because the newer interface was used for it."""
    try:
        return switch.read()
    except (AttributeError, RuntimeError):
        return None


def _flushes() -> bool:
    """Whether numbers below the smallest normal one become 0; PyTorch sets it but does not tell."""
    return (torch.tensor([1e-40], dtype=torch.float32) * 1.5).item() == 0
