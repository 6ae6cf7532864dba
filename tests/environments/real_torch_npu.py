"""The real torch_npu beside torch, on a machine without an Ascend device: that it fails as said, and what it offers.

Needs an environment with torch_npu; `make test-all` makes one (see `run` beside this file).
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
import stub_cann

STAND_IN = Path(__file__).parents[1] / "standin" / "npu.py"
NPU = "[d.reason for d in registry.load('torch').devices() if d.name.startswith('npu')]"
CPU = ("train", "--backend", "torch", "--recipe", "d2l-lenet", "--data", "synthetic", "--epochs", "1")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600)


def reasons(**environment: str) -> str:
    program = f"import json; from triptych.backend import registry; print(json.dumps({NPU}))"
    run = python("-c", program, **environment)
    (reason,) = json.loads(run.stdout)
    return str(reason)


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which CANN seems to be installed."""
    folder = tmp_path_factory.mktemp("cann")
    stub_cann.make(folder)
    for name in ("runtime", "compiler"):  # torch_npu looks for them below ASCEND_HOME_PATH
        (folder / name).mkdir()
    return {"LD_LIBRARY_PATH": str(folder)}


def test_without_cann_it_breaks_torch_but_not_the_cpu_path(tmp_path: Path) -> None:
    alone = python("-c", "import torch", TORCH_DEVICE_BACKEND_AUTOLOAD="1")
    assert "Failed to load the backend extension: torch_npu" in alone.stderr
    ours = python("-m", "triptych", *CPU, "--out", str(tmp_path / "run"), TORCH_DEVICE_BACKEND_AUTOLOAD="1")
    assert ours.returncode == 0, ours.stderr


def test_without_cann_the_cause_is_named() -> None:
    reason = reasons()
    assert reason.startswith("Ascend CANN is not on the library path (libhccl.so: cannot open shared object")
    refused = python("-m", "triptych", *CPU, "--device", "npu")
    assert refused.returncode == 2
    assert reason in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_with_cann_and_no_device_the_cause_is_named(stubs: dict[str, str]) -> None:
    assert "environment is not sourced (ASCEND_HOME_PATH is not set)" in reasons(**stubs)
    folder = stubs["LD_LIBRARY_PATH"]
    half = reasons(**stubs, ASCEND_HOME_PATH=folder)
    assert "environment is not sourced (ASCEND_OPP_PATH environment variable is not set" in half
    assert "no device is visible" in reasons(**stubs, ASCEND_HOME_PATH=folder, ASCEND_OPP_PATH=folder)


def names_of_the_stand_in() -> list[str]:
    """What the stand-in offers as torch.npu, and so all that the backend can use: methods, and what it sets on self."""
    kind = next(n for n in ast.parse(STAND_IN.read_text()).body if isinstance(n, ast.ClassDef) and n.name == "Npu")
    methods = [node.name for node in kind.body if isinstance(node, ast.FunctionDef)]
    start = next(node for node in kind.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    noted = [n.value for n in ast.walk(start) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    set_here = [n.attr for n in ast.walk(start) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)]
    return sorted({*methods, *noted, *set_here} - {"__init__", "noted"})


def test_every_name_used_here_exists_there(stubs: dict[str, str]) -> None:
    names = names_of_the_stand_in()
    assert {"set_compile_mode", "max_memory_allocated", "conv", "synchronize", "manual_seed_all"} <= set(names)
    program = f"""
import json, torch, torch_npu
print(json.dumps({{
    "missing": [name for name in {names} if not hasattr(torch.npu, name)],
    "hf32": [torch.npu.conv.allow_hf32, torch.npu.matmul.allow_hf32],
    "scaler": torch.amp.GradScaler("npu").is_enabled(),
    "accelerator": str(torch.accelerator.current_accelerator()), "available": torch.npu.is_available()}}))
"""
    run = python("-c", program, **stubs, TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["missing"] == []
    assert found["hf32"] == [True, False]  # the defaults that the stand-in starts with
    assert found["scaler"]  # torch.amp.autocast("npu") asks the device for its types, and cannot be tried here
    assert (found["accelerator"], found["available"]) == ("npu", False)  # why the former is not asked here


def test_its_warning_about_the_cpu_has_the_words_that_are_looked_for() -> None:
    library = Path(str(distribution("torch_npu").locate_file("torch_npu/lib/libtorch_npu.so"))).read_bytes()
    for words in (b"' is not currently supported ", b"on the NPU backend and will fall back to run on the CPU."):
        assert words in library
