"""Devices and precisions of PyTorch: the one file that knows how cpu, cuda and npu differ."""

from __future__ import annotations

import atexit
import contextlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import torch
import torch.distributed

from triptych.backend.contract import Device
from triptych.utils.errors import TriptychError
from triptych.utils.process import vector_features
from triptych.utils.stderr import copied

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the weights stay float32
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp16": torch.float32, "fp64": torch.float64}
# oneDNN and cuDNN convolve channels_last without reordering (a quarter faster on the CPU); Ascend has formats of its
# own and takes NCHW.
LAYOUTS = {"cpu": torch.channels_last, "cuda": torch.channels_last, "npu": torch.contiguous_format}
# Attributes of torch that let a device shorten the factors of float32 products to about ten bits. Convolutions do so
# by default; here fp32 means float32, so all are turned off.
SHORTENED = {
    "cpu": (),
    "cuda": ("backends.cudnn.allow_tf32", "backends.cuda.matmul.allow_tf32"),
    "npu": ("npu.conv.allow_hf32", "npu.matmul.allow_hf32"),
}
# how processes talk: the CPU's group carries what DistributedDataParallel settles at its start
GROUPS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}
_FALLBACK = re.compile(r"operator '([^']+)' is not currently supported on the NPU backend and will fall back")
_PROBE = "from triptych_torch import device; device._print_npus()"
_PROBE_SECONDS = 120
_REINSTALL = "install torch, torch_npu and CANN of one release (table: https://github.com/Ascend/pytorch)"


def versions() -> dict[str, str]:
    """The packages this backend runs on."""
    found = {"torch": torch.__version__}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found["torch_npu"] = importlib.metadata.version("torch_npu")
    return found


def devices() -> list[Device]:
    """The CPU, every CUDA device and every NPU, or why there is none."""
    return [*_cpus(), *_cudas(), *_npus_elsewhere()]


def get_device(name: str) -> torch.device:
    """The device called `name`, ready for use. Raises TriptychError, with the reason, if it is not there."""
    kind, _, number = name.partition(":")
    others = {"cpu": list, "cuda": _cudas, "npu": _npus}.get(kind, lambda: devices()[1:])
    found = [*_cpus(), *others()]
    wanted = (
        name if kind == "cpu" or not (number or name == kind) else f"{kind}:{number or os.environ.get('LOCAL_RANK', 0)}"
    )
    if wanted not in [device.name for device in found if device.available]:
        known = "; ".join(f"{device.name}: {device.reason}" for device in found)
        raise TriptychError(f"backend 'torch' has no device '{name}' here ({known})")
    for switch in SHORTENED[kind]:
        holder, _, flag = switch.rpartition(".")
        setattr(attrgetter(holder)(torch), flag, False)
    if kind == "npu":
        torch.npu.set_compile_mode(jit_compile=False)  # else every new shape is compiled, for minutes
    if kind != "cpu":
        getattr(torch, kind).set_device(wanted)
    return torch.device(wanted)


def get_dtype(precision: str) -> torch.dtype:
    """The type of the weights for `--precision`. Raises TriptychError for one that is not supported."""
    if precision not in DTYPES:
        raise TriptychError(f"backend 'torch' has no precision '{precision}'; known: {', '.join(DTYPES)}")
    return DTYPES[precision]


def set_deterministic() -> None:
    """From now on equal steps give equal bits; an operator that cannot do so raises RuntimeError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    os.environ.setdefault("HCCL_DETERMINISTIC", "true")
    torch.use_deterministic_algorithms(True)


def join_processes(device: str) -> int:
    """Joins the processes that torchrun started, to train together on such a device; the number of this one."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return 0
    kind = get_device(device).type
    torch.distributed.init_process_group(GROUPS[kind])
    atexit.register(torch.distributed.destroy_process_group)
    return torch.distributed.get_rank()


def synchronize(device: torch.device) -> None:
    """Wait until everything asked of the device is done; what failed there is raised here."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def peak_memory(device: str) -> int:
    """The most bytes that tensors have held on the device so far; 0 for the CPU, which does not count."""
    kind = device.partition(":")[0]
    return 0 if kind == "cpu" else getattr(torch, kind).max_memory_allocated(get_device(device))


@contextlib.contextmanager
def fallbacks(device: str) -> Iterator[list[str]]:
    """The operators that the device leaves to the CPU within, complete at the end.

    torch_npu writes their names to standard error, from C++, each once in a process.
    """
    found: list[str] = []
    if not device.startswith("npu"):
        yield found
        return
    written: list[str] = []
    try:
        with copied(written):
            yield found
    finally:
        found.extend(sorted(set(_FALLBACK.findall("\n".join(written)))))


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


def _npus() -> list[Device]:
    """Every NPU, or why there is none; loads torch_npu into this process."""
    try:
        reason = _load_torch_npu() or _invisible()
    except Exception as error:  # torch_npu and CANN raise anything
        reason = _explain(error)
    if reason:
        return [Device("npu", False, reason)]
    return [Device(f"npu:{i}", True, torch.npu.get_device_name(i)) for i in range(torch.npu.device_count())]


def _npus_elsewhere() -> list[Device]:
    """The same from a process of its own: a failed import of torch_npu cannot be undone, and may be a crash."""
    if "torch_npu" in sys.modules or find_spec("torch_npu") is None:
        return _npus()
    path = os.pathsep.join(filter(None, sys.path))
    command, environment = [sys.executable, "-c", _PROBE], {**os.environ, "PYTHONPATH": path}
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return [Device("npu", False, f"importing torch_npu takes more than {_PROBE_SECONDS} s; try `npu-smi info`")]
    if run.returncode:
        end = signal.Signals(-run.returncode).name if run.returncode < 0 else f"status {run.returncode}"
        last = (run.stderr.strip().splitlines() or [""])[-1]
        return [Device("npu", False, f"importing torch_npu ends the process with {end} ({last}); {_REINSTALL}")]
    return [Device(*fields) for fields in json.loads(run.stdout.splitlines()[-1])]


def _print_npus() -> None:
    print(json.dumps([[device.name, device.available, device.reason] for device in _npus()]))


def _load_torch_npu() -> str:
    """Import torch_npu, which then is `torch.npu`; or say why it cannot be. Empty: it is there."""
    if "torch_npu" in sys.modules:
        return ""
    if find_spec("torch_npu") is None:
        return f"torch_npu is not installed; on a machine with an Ascend NPU: {_install()}"
    theirs = versions().get("torch_npu", "")
    if theirs and _minor(theirs) != _minor(torch.__version__):
        return f"torch_npu {theirs} is not for torch {torch.__version__}: major.minor must be equal; {_install()}"
    if torch.version.cuda:
        return (
            f"torch {torch.__version__} is built for CUDA, and torch_npu works only beside a CPU build; "
            "pip install torch --index-url https://download.pytorch.org/whl/cpu"
        )
    with contextlib.redirect_stdout(sys.stderr):  # it prints warnings; standard output may be JSON
        importlib.import_module("torch_npu")
    return ""


def _invisible() -> str:
    """Why the loaded torch_npu finds no device; empty if it finds one."""
    if torch.npu.is_available() and torch.npu.device_count():
        return ""
    if "ASCEND_HOME_PATH" not in os.environ:
        return f"CANN is found, but its environment is not sourced (ASCEND_HOME_PATH is not set); {_source()}"
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES", "not set")
    return (
        "torch_npu and CANN work, but no device is visible; `npu-smi info` must list one, "
        f"/dev/davinci* must be yours to open, and ASCEND_RT_VISIBLE_DEVICES (here {visible}) must name it"
    )


def _explain(error: Exception) -> str:
    """An exception of torch_npu's import as cause and way out."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    text = line.partition(". Please")[0]
    if "libascend_hal" in text:
        return f"the Ascend driver is not on the library path ({text}); install it, then {_source()}"
    if "cannot open shared object" in text and not _set_env():
        return f"Ascend CANN is not on the library path ({text}); install its toolkit, then {_source()}"
    if "cannot open shared object" in text or "set_env.sh" in line:
        return f"CANN is found, but its environment is not sourced ({text}); {_source()}"
    return f"torch_npu cannot be used ({type(error).__name__}: {text}); {_REINSTALL}"


def _set_env() -> Path | None:
    """CANN's script, where its installer puts it for root or for a user."""
    roots = (Path("/usr/local/Ascend"), Path.home() / "Ascend")
    scripts = [root / name / "set_env.sh" for root in roots for name in ("ascend-toolkit", "cann", "nnae")]
    return next((script for script in scripts if script.exists()), None)


def _source() -> str:
    return f"run: source {_set_env() or '.../Ascend/ascend-toolkit/set_env.sh'}"


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


def _install() -> str:
    return f"pip install 'torch-npu=={'.'.join(_minor(torch.__version__))}.*'"
