"""Devices that explain themselves: each way in which an NPU can be missing, with packages that are faked here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest

from triptych import zoo
from triptych.backend import registry
from triptych.backend.execution import Execution
from triptych.backend.precision import Flag
from triptych.utils import stderr
from triptych.utils.errors import TriptychError

if find_spec("torch") is None:
    pytest.skip("torch is not installed", allow_module_level=True)
if find_spec("torch_npu") is not None:
    pytest.skip("torch_npu is installed here, and the tests fake it", allow_module_level=True)

import torch

from triptych_torch.device import get_device
from triptych_torch.precision import apply_execution

TORCH = registry.load("torch")
needs_cpu_build = pytest.mark.skipif(torch.version.cuda is not None, reason="torch_npu needs a CPU build of torch")
VERSION = torch.__version__.partition("+")[0]
WORKING = """
import torch, types
torch.npu = types.SimpleNamespace(
    is_available=lambda: {count} > 0, device_count=lambda: {count}, get_device_name=lambda i: "Ascend910B1",
    set_compile_mode=lambda **mode: None, set_device=lambda name: None,
    conv=types.SimpleNamespace(allow_hf32=True), matmul=types.SimpleNamespace(allow_hf32=False))
print("Warning: a line on standard output, as torch_npu prints them")
"""
MISSING = """
import ctypes
try: ctypes.CDLL("{library}")
except OSError as error: raise ImportError(str(error)) from None
"""
# what torch_npu and the machine are like: the cause and the way out that the message must hold
CASES = {
    "not installed": ({}, ["torch_npu is not installed", f"pip install 'torch-npu=={VERSION.rpartition('.')[0]}.*'"]),
    "no CANN": (
        {"source": MISSING.format(library="libhccl.so")},
        ["CANN is not on the library path", "libhccl.so: cannot open shared object", "install its toolkit"],
    ),
    "no driver": (
        {"source": MISSING.format(library="libascend_hal.so")},
        ["the Ascend driver is not on the library path (libascend_hal.so", "install it"],
    ),
    "CANN not sourced": (
        {"source": MISSING.format(library="libhccl.so"), "toolkit": True},
        ["CANN is found, but its environment is not sourced", "source {home}/Ascend/ascend-toolkit/set_env.sh"],
    ),
    "CANN linked, not sourced": (
        {"source": WORKING.format(count=0)},
        ["CANN is found, but its environment is not sourced", "ASCEND_HOME_PATH is not set", "run: source "],
    ),
    "operators not found": (
        {"source": "raise RuntimeError('no operators. Please run source set_env.sh in the CANN installation path.')"},
        ["CANN is found, but its environment is not sourced (no operators); run: source "],
    ),
    "other version": (
        {"source": "", "version": "2.1.0"},
        [f"torch_npu 2.1.0 is not for torch {torch.__version__}", "pip install 'torch-npu=="],
    ),
    "CUDA build": ({"source": "", "cuda": "12.8"}, ["is built for CUDA", "pip install torch --index-url"]),
    "no device": (
        {
            "source": WORKING.format(count=0),
            "environment": {"ASCEND_HOME_PATH": "/x", "ASCEND_RT_VISIBLE_DEVICES": "7"},
        },
        ["no device is visible", "npu-smi info", "ASCEND_RT_VISIBLE_DEVICES (here 7)"],
    ),
    "index": ({"source": WORKING.format(count=2)}, ["npu:0: Ascend910B1; npu:1: Ascend910B1"]),
    "nothing said": ({"source": "raise RuntimeError"}, ["torch_npu cannot be used (RuntimeError: RuntimeError)"]),
    "anything": (
        {"source": "raise RuntimeError('ERR00100\\nlong story')"},
        ["torch_npu cannot be used (RuntimeError: ERR00100)", "of one release"],
    ),
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(source=..., version=...)` makes a torch_npu that can be imported, until the test ends."""

    def make(source=None, version=VERSION, toolkit=False, cuda=None, environment=None):
        monkeypatch.setenv("HOME", str(tmp_path))
        for name in ("ASCEND_HOME_PATH", "ASCEND_RT_VISIBLE_DEVICES"):
            monkeypatch.delenv(name, raising=False)
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)
        if toolkit:
            (tmp_path / "Ascend" / "ascend-toolkit").mkdir(parents=True)
            (tmp_path / "Ascend" / "ascend-toolkit" / "set_env.sh").touch()
        monkeypatch.setattr(torch.version, "cuda", cuda)
        monkeypatch.setattr(torch, "npu", None, raising=False)
        if source is not None:
            packages = tmp_path / "packages"
            (packages / "torch_npu").mkdir(parents=True)
            (packages / "torch_npu" / "__init__.py").write_text(source)
            info = packages / f"torch_npu-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: torch_npu\nVersion: {version}\n")
            (info / "entry_points.txt").write_text("[torch.backends]\ntorch_npu = torch_npu:_autoload\n")
            monkeypatch.syspath_prepend(packages)
        return tmp_path

    yield make
    sys.modules.pop("torch_npu", None)


def npus():
    """What the probe in a process of its own says."""
    return [device for device in TORCH.devices() if device.name.startswith("npu")]


@pytest.mark.parametrize("case", CASES)
def test_a_missing_npu_is_explained(case, machine, capsys):
    options, expected = CASES[case]
    home = machine(**options)
    with pytest.raises(TriptychError) as refused:
        TORCH.build(None, device="npu:2")
    assert str(refused.value).startswith("backend 'torch' has no device 'npu:2' here (cpu: ")
    assert [part for part in expected if part.format(home=home) not in str(refused.value)] == []
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


@needs_cpu_build
@pytest.mark.parametrize("case", ["CANN not sourced"])
def test_the_probe_gives_the_same_reason(case, machine):
    options, expected = CASES[case]
    home = machine(**options)
    (found,) = npus()
    assert (found.name, found.available) == ("npu", False)
    assert [part for part in expected if part.format(home=home) not in found.reason] == []
    assert "torch_npu" not in sys.modules


@needs_cpu_build
def test_the_probe_lists_devices_and_their_kind(machine):
    machine(source=WORKING.format(count=2))
    assert [(d.name, d.available, d.reason) for d in npus()] == [(f"npu:{i}", True, "Ascend910B1") for i in range(2)]
    assert "torch_npu" not in sys.modules


def test_the_cpu_is_taken_without_a_look_at_the_npu(machine, monkeypatch):
    machine(source="raise RuntimeError")
    monkeypatch.setattr("triptych_torch.npu.npus_elsewhere", lambda: pytest.fail("a process was started"))
    TORCH.build(zoo.build("lenet"), device="cpu")


@pytest.fixture
def two_cuda_devices(monkeypatch):
    """The switches as they are by default where there is CUDA, or as somebody has set them."""
    fakes = {"is_available": lambda: True, "device_count": lambda: 2, "get_device_name": str, "set_device": str}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    before = switches()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def switches():
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_each_process_of_torchrun_takes_its_own_device(two_cuda_devices, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [get_device(name) for name in ("cuda", "cuda:0")] == [torch.device("cuda:1"), torch.device("cuda:0")]


def test_looking_changes_no_switch(two_cuda_devices, monkeypatch):
    moved = []
    monkeypatch.setattr(torch.cuda, "set_device", moved.append)
    get_device("cuda")
    TORCH.devices()
    flags = {flag.name: flag for flag in TORCH.precision_flags("cuda")}
    assert flags["backends.cuda.matmul.allow_tf32"] == Flag("backends.cuda.matmul.allow_tf32", True, False)
    assert flags["backends.cudnn.allow_tf32"].value is True
    assert switches() == (True, True)
    assert moved == []


def test_the_execution_decides_on_shorter_factors_and_the_guard_puts_back_what_was(two_cuda_devices):
    for allowed in (True, False):
        apply_execution(Execution(tf32=allowed), "cuda")
        assert switches() == (allowed, allowed)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    with TORCH.precise("cuda"):
        assert switches() == (False, False)
        apply_execution(Execution(), "cuda:1")
        assert switches() == (False, False)
    assert switches() == (True, True)
    TORCH.build(zoo.build("lenet"), device="cpu")  # another device's switches are none of its business
    assert switches() == (True, True)


@needs_cpu_build
def test_a_crash_of_torch_npu_is_survived(machine):
    machine(source="import os, sys; print('last words', file=sys.stderr, flush=True); os.abort()")
    (found,) = npus()
    assert "ends the process with SIGABRT (last words)" in found.reason


def test_a_hanging_torch_npu_is_given_up(machine, monkeypatch):
    monkeypatch.setattr("triptych_torch.npu._PROBE_SECONDS", 0.01)
    machine(source="import time; time.sleep(30)")
    assert "takes more than 0.01 s" in npus()[0].reason


@needs_cpu_build
def test_the_cpu_survives_an_unusable_torch_npu(machine):
    """With autoloading, which is the default, `import torch` itself would fail."""
    machine(source=MISSING.format(library="libhccl.so"))
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "TORCH_DEVICE_BACKEND_AUTOLOAD": "1"}

    def run(program):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    alone = run("import torch")
    assert "Failed to load the backend extension: torch_npu" in alone.stderr
    ours = run("from triptych.backend import registry; print(registry.load('torch').devices()[-1].reason)")
    assert "CANN is not on the library path" in ours.stdout, ours.stderr


@pytest.mark.parametrize("name", registry.installed())
def test_what_does_not_work_says_what_to_do(name):
    found = registry.load(name).devices()
    assert found[0].name == "cpu"
    assert found[0].available
    assert "avx" in found[0].reason or "asimd" in found[0].reason or not sys.platform.startswith("linux")
    for device in found:
        assert device.available or "; " in device.reason, device


def test_doctor_says_the_same_as_a_table_and_as_json(tmp_path):
    command = [sys.executable, "-m", "triptych", "doctor", "--json", str(tmp_path / "found.json")]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "400"})
    found = json.loads((tmp_path / "found.json").read_text())
    devices = [device for entry in found for device in entry["devices"]]
    assert {"cpu", "cuda", "npu"} <= {device["name"] for device in devices}
    assert [device["reason"] for device in devices if device["reason"] not in run.stdout] == []


WITHOUT_DISTUTILS = "import sys; sys.modules['distutils'] = None; from triptych.__main__ import main; main(['doctor'])"


@pytest.mark.skipif("mxnet" not in registry.installed(), reason="mxnet is not installed")
def test_doctor_says_what_mxnet_needs_from_python_3_12_on():
    """`distutils`, which setuptools brings: without it there is a line in place of a traceback, and the rest works."""
    command = [sys.executable, "-c", WITHOUT_DISTUTILS]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "400"})
    assert run.stderr == ""
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("mxnet")]
    assert re.search(r"^mxnet +no +MXNet imports 'distutils', .*: pip install setuptools *$", line)
    assert re.search(r"^torch .* cpu +yes", run.stdout, re.MULTILINE)


def test_standard_error_is_read_along_and_still_shown(capfd):
    written: list[str] = []
    with stderr.copied(written):
        os.write(2, b"from C++\n")
        sys.stderr.write("from Python\n")  # print would write the end of the line by itself: tee could come between
    os.write(2, b"later\n")
    assert "from C++\n" in "".join(written)
    assert "later" not in "".join(written)
    assert sorted(capfd.readouterr().err.splitlines()) == ["from C++", "from Python", "later"]


def test_standard_error_survives_an_exception(capfd):
    written: list[str] = []

    def fail():
        with stderr.copied(written):
            os.write(2, b"before\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(2, b"after\n")
    assert "".join(written) == "before\n"
    assert sorted(capfd.readouterr().err.splitlines()) == ["after", "before"]
