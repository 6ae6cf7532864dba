"""Precision flags: each one planted, detected, switched off inside `conform`, put back after it, and recorded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers import python
from triptych.__main__ import main
from triptych.backend import registry
from triptych.backend.precision import Flag, Value, values
from triptych.conformance.case import make_case
from triptych.conformance.conform import FLAGS, Report, conform
from triptych.conformance.reference_run import ReferenceRun
from triptych.spec.layers import Architecture, Conv, Dense, Flatten, Initializer

LAYERS = (Conv("conv", 3, (3, 3)), Flatten("flatten"), Dense("dense", 3))
TINY = Architecture("tiny", (2, 6, 9), 3, LAYERS, Initializer("kaiming_normal"))
every_backend = pytest.mark.parametrize("name", registry.installed())


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(name not in registry.installed(), reason=f"{name} is not installed")


@cache
def reference_run() -> ReferenceRun:
    return ReferenceRun(make_case(TINY))


def flags(name: str, device: str = "cpu") -> dict[str, Flag]:
    return {flag.name: flag for flag in registry.load(name).precision_flags(device)}


def conform_watched(name: str, device: str = "cpu") -> tuple[Report, dict[str, Value]]:
    """The report in float32, and the flags as they were when the network was built, in the midst of it."""
    framework, seen = registry.load(name), {}

    def build(architecture: Architecture) -> Any:
        seen.update(values(framework.precision_flags(device)))
        return framework.build(architecture)

    return conform(framework, reference_run(), "fp32", device=device, build=build), seen


@every_backend
def test_every_flag_is_exact_during_the_checks_and_as_before_after_them(name: str) -> None:
    framework = registry.load(name)
    before = values(framework.precision_flags())
    assert len(before) == len(framework.precision_flags())
    report, seen = conform_watched(name)
    assert report.passed
    assert report.precision_flags == seen
    assert {name: before[name] for name in before if before[name] != seen[name]} == report.switched_off
    assert values(framework.precision_flags()) == before
    with framework.precise():
        assert [flag for flag in framework.precision_flags() if not flag.exact] == []


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def set_torch(path: str, value: Value) -> None:
    import torch

    owner = torch
    *parts, name = path.split(".")
    for part in parts:
        owner = getattr(owner, part)
    setattr(owner, name, value)


def torch_call(name: str, *arguments: Any) -> None:
    import torch

    getattr(torch, name)(*(getattr(torch, a.removeprefix("torch.")) if "torch." in str(a) else a for a in arguments))


def has_newer() -> bool:
    import torch

    return hasattr(torch.backends, "fp32_precision")


NEWER = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")
# flag, value, how it is planted
PLANTS: dict[str, tuple[str, Value, Callable[[], None]]] = {
    "matmul high": ("float32_matmul_precision", "high", lambda: torch_call("set_float32_matmul_precision", "high")),
    "matmul medium": (
        "float32_matmul_precision",
        "medium",
        lambda: torch_call("set_float32_matmul_precision", "medium"),
    ),
    "tf32": ("backends.cuda.matmul.allow_tf32", True, lambda: set_torch("backends.cuda.matmul.allow_tf32", True)),
    "cudnn": ("backends.cudnn.allow_tf32", True, lambda: set_torch("backends.cudnn.allow_tf32", True)),
    "default dtype": ("default_dtype", "torch.float64", lambda: torch_call("set_default_dtype", "torch.float64")),
    "bf16 dtype": ("default_dtype", "torch.bfloat16", lambda: torch_call("set_default_dtype", "torch.bfloat16")),
    "autocast": ("autocast cpu", True, lambda: torch_call("set_autocast_enabled", "cpu", True)),
    "denormal": ("flush_denormal", True, lambda: torch_call("set_flush_denormal", True)),
    **{
        f"newer {part}{value}": (
            f"backends.{part}fp32_precision",
            value,
            lambda part=part, value=value: set_torch(f"backends.{part}fp32_precision", value),
        )
        for part, value in (
            ("", "tf32"),
            *((f"{part}.", "tf32") for part in NEWER),
            *((f"{p}.", "bf16") for p in NEWER),
        )
        if value == "tf32" or part.startswith("mkldnn")
    },
}


@pytest.fixture
def torch_defaults() -> Iterator[dict[str, Value]]:
    """Whatever is planted is gone after the test."""
    before = values(flags("torch").values())
    yield before
    torch_call("set_float32_matmul_precision", "highest")
    torch_call("set_default_dtype", "torch.float32")
    torch_call("set_autocast_enabled", "cpu", False)
    torch_call("set_flush_denormal", False)
    for path, value in before.items():
        if path.startswith("backends."):
            set_torch(path, value)
    assert values(flags("torch").values()) == before


@needs("torch")
@pytest.mark.parametrize("plant", PLANTS)
def test_a_flag_of_torch_is_switched_off_for_the_checks(plant: str, torch_defaults: dict[str, Value]) -> None:
    name, value, set_it = PLANTS[plant]
    if plant.startswith("newer") and not has_newer():
        pytest.skip("this PyTorch has no fp32_precision")
    set_it()
    found = flags("torch")
    assert found[name].value == value
    assert not found[name].exact
    report, seen = conform_watched("torch")
    assert report.failures == []
    assert seen[name] not in (value, None)
    assert report.precision_flags[name] == seen[name]
    assert report.switched_off[name] == value
    assert flags("torch") == found


@needs("torch")
def test_flags_of_torch_planted_together_are_put_back(torch_defaults: dict[str, Value]) -> None:
    """The older and the newer interface, and general and special switches, act on each other."""
    framework, random = registry.load("torch"), np.random.default_rng(0)
    plants = [plant for key, (_, _, plant) in PLANTS.items() if "dtype" not in key and "newer" not in key]
    plants.append(lambda: torch_call("set_float32_matmul_precision", "highest"))
    plants += [partial(set_torch, f"backends.{name}.allow_tf32", False) for name in ("cuda.matmul", "cudnn")]
    if has_newer():
        parts = ("", "cudnn.", "mkldnn.", *(f"{part}." for part in NEWER))
        settings = [(part, value) for part in parts for value in ("tf32", "ieee", "none")]
        plants += [partial(set_torch, f"backends.{part}fp32_precision", value) for part, value in settings]
    for _ in range(500):
        for index in random.permutation(len(plants))[: random.integers(1, 4)]:
            plants[index]()
        before = values(framework.precision_flags())
        with framework.precise():
            assert [flag for flag in framework.precision_flags() if not flag.exact] == []
        after = values(framework.precision_flags())
        assert {name: after[name] for name in before} == before


@needs("torch")
def test_hf32_of_an_npu_is_switched_off_for_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for what torch_npu adds to torch: no NPU is here, and the network runs on the CPU."""
    import torch

    npu = SimpleNamespace(conv=SimpleNamespace(allow_hf32=True), matmul=SimpleNamespace(allow_hf32=True))
    monkeypatch.setattr(torch, "npu", npu, raising=False)
    framework = registry.load("torch")
    build = framework.build
    monkeypatch.setattr(framework, "build", lambda network, device="cpu", **more: build(network, **more))
    names = ("npu.conv.allow_hf32", "npu.matmul.allow_hf32")
    assert not set(names) & flags("torch").keys()  # another device does not ask for them
    report, seen = conform_watched("torch", "npu:0")
    assert report.passed
    for name in names:
        assert (seen[name], report.precision_flags[name], report.switched_off[name]) == (False, False, True)
    assert npu.conv.allow_hf32
    assert npu.matmul.allow_hf32
    monkeypatch.delattr(torch, "npu")
    assert not set(names) & flags("torch", "npu").keys()


# --- JAX --------------------------------------------------------------------------------------------------------------


@needs("jax")
def test_the_precision_of_jax_is_full_during_the_checks() -> None:
    import jax

    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    try:
        with jax.default_matmul_precision("bfloat16"):  # for this thread, over what the process has
            assert flags("jax")["default_matmul_precision"] == Flag("default_matmul_precision", "bfloat16", False)
            report, seen = conform_watched("jax")
            assert jax.default_matmul_precision.value == "bfloat16"
        assert jax.default_matmul_precision.value == "tensorfloat32"
    finally:
        jax.config.update("jax_default_matmul_precision", None)
    assert report.failures == []
    assert seen["default_matmul_precision"] == report.precision_flags["default_matmul_precision"] == "highest"
    assert report.switched_off["default_matmul_precision"] == "bfloat16"
    # No choice is full precision on a CPU, but TF32 on a GPU.
    assert flags("jax")["default_matmul_precision"].exact
    assert not flags("jax", "cuda")["default_matmul_precision"].exact


@needs("jax")
@pytest.mark.filterwarnings("ignore:The jax_default_dtype_bits:DeprecationWarning")
def test_the_default_type_of_jax_is_put_back() -> None:
    import jax

    if not hasattr(jax.config, "jax_default_dtype_bits"):
        pytest.skip("this JAX has no jax_default_dtype_bits")
    jax.config.update("jax_default_dtype_bits", "32")
    try:
        assert not flags("jax")["default_dtype_bits"].exact
        with registry.load("jax").precise():
            assert flags("jax")["default_dtype_bits"].exact
        assert flags("jax")["default_dtype_bits"].value == "32"
    finally:
        jax.config.update("jax_default_dtype_bits", "64")


# --- What a running process cannot change -----------------------------------------------------------------------------

TENSOR_OP = "MXNET_CUDA_TENSOR_OP_MATH_ALLOW_CONVERSION"
# backend, variable, its value, the flag, and a value that is exact
VARIABLES = [
    *((name, "NVIDIA_TF32_OVERRIDE", "1", "NVIDIA_TF32_OVERRIDE", "0") for name in ("torch", "mxnet", "jax")),
    *(
        (name, f"{prefix}_DEFAULT_FPMATH_MODE", value, f"{prefix}_DEFAULT_FPMATH_MODE", "strict")
        for name in ("torch", "mxnet")
        for prefix, value in (("ONEDNN", "BF16"), ("DNNL", "ANY"))
    ),
    ("mxnet", TENSOR_OP, "1", TENSOR_OP, "0"),
    (
        "jax",
        "XLA_FLAGS",
        "--xla_cpu_enable_fast_math=true",
        "xla_cpu_enable_fast_math",
        "--xla_cpu_enable_fast_math=false",
    ),
    (
        "jax",
        "XLA_FLAGS",
        "--xla_force_host_platform_device_count=1 --xla_gpu_ftz",
        "xla_gpu_ftz",
        "--xla_gpu_ftz=false",
    ),
    ("jax", "XLA_FLAGS", "--xla_cpu_enable_fast_min_max=1", "xla_cpu_enable_fast_min_max", ""),
    ("jax", "XLA_FLAGS", "--xla_gpu_enable_fast_min_max=True", "xla_gpu_enable_fast_min_max", ""),
]


@pytest.mark.parametrize(("name", "variable", "value", "flag", "exact"), VARIABLES)
def test_a_variable_read_at_the_start_is_a_failure_with_a_reason(
    name: str, variable: str, value: str, flag: str, exact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name not in registry.installed():
        pytest.skip(f"{name} is not installed")
    monkeypatch.setenv(variable, value)
    report, seen = conform_watched(name)
    assert seen == {}  # nothing was begun
    assert not report.passed
    (failure,) = report.failures
    assert (failure.level, failure.tensor) == (FLAGS, flag)
    assert "which a running process cannot change; " in failure.problem
    assert failure.problem.endswith("start again")
    assert report.precision_flags[flag] not in ("", None, "false")
    monkeypatch.setenv(variable, exact)
    assert flags(name)[flag].exact


@needs("mxnet")
def test_mxnet_on_a_gpu_needs_the_variable_that_turns_tf32_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    flag = flags("mxnet", "cuda:0")["NVIDIA_TF32_OVERRIDE"]
    assert not flag.exact
    assert flag.problem == "is not set, which a running process cannot change; set it to 0 and start again"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert flags("mxnet", "cuda:0")["NVIDIA_TF32_OVERRIDE"].exact


@needs("torch")
def test_the_command_says_why_and_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with pytest.raises(SystemExit) as stopped:
        main(["conform", "--arch", "lenet", "--backends", "torch", "--precision", "fp32"])
    assert stopped.value.code == 1
    out = capsys.readouterr().out
    assert "torch fp32: precision flags, 'ONEDNN_DEFAULT_FPMATH_MODE': is BF16, which a running process" in out
    assert re.search(r"torch +fp32 +FAIL +not run +not run", out)
    assert "0 of 1 architectures conform" in out


PLANT_IN_MXNET = """
import ctypes, sys
from triptych.backend import registry
if "flush" in sys.argv:  # set before the import, as another library may have: MXNet's threads inherit it
    import torch
    torch.set_flush_denormal(True)
framework = registry.load("mxnet")
if "amp" in sys.argv:
    from mxnet.contrib import amp
    amp.init()
print([flag.name for flag in framework.precision_flags() if not flag.exact])
with framework.precise():
    print([flag.problem for flag in framework.precision_flags() if not flag.exact])
"""


@needs("mxnet")
@needs("torch")
@pytest.mark.parametrize(("plant", "flag"), [("flush", "flush_denormal"), ("amp", "amp")])
def test_what_cannot_be_switched_off_in_mxnet(plant: str, flag: str) -> None:
    run = python(PLANT_IN_MXNET, plant, PYTHONWARNINGS="ignore")
    first, second = run.stdout.splitlines()
    assert first == f"['{flag}']"
    assert second == "['is True, which a running process cannot change; start a new process without it']"
