"""Ascend NPUs: whether torch_npu can be used and why not, and what it leaves to the CPU."""

import contextlib
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch

from triptych.backend.execution import Device
from triptych.utils.remarks import Remarks
from triptych.utils.stderr import copied

_FALLBACK = re.compile(r"operator '([^']+)' is not currently supported on the NPU backend and will fall back")
_PROBE = "from triptych_torch import npu; npu.print_npus()"
_PROBE_SECONDS = 120
_REINSTALL = "install torch, torch_npu and CANN of one release (table: https://github.com/Ascend/pytorch)"


def version() -> str:
    """Of torch_npu; empty if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("torch_npu")
    return ""


def npus() -> list[Device]:
    """Every NPU, or why there is none; loads torch_npu into this process."""
    try:
        reason = _load_torch_npu() or _invisible()
    except Exception as error:  # torch_npu and CANN raise anything
        reason = _explain(error)
    if reason:
        return [Device("npu", False, reason)]
    return [Device(f"npu:{i}", True, torch.npu.get_device_name(i)) for i in range(torch.npu.device_count())]


def npus_elsewhere() -> list[Device]:
    """Every NPU, or why there is none, asked in another process: a failed import of torch_npu cannot be undone, and may
    be a crash."""
    if "torch_npu" in sys.modules or find_spec("torch_npu") is None:
        return npus()
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


def print_npus() -> None:
    print(json.dumps([[device.name, device.available, device.reason] for device in npus()]))


@contextlib.contextmanager
def fallbacks() -> Iterator[list[str]]:
    """The operators that an NPU leaves to the CPU within, complete at the end.

    torch_npu writes their names to standard error, from C++, each once in a process.
    """
    names: list[str] = []
    written: list[str] = []
    try:
        with copied(written):
            yield names
    finally:
        names.extend(sorted(set(_FALLBACK.findall("\n".join(written)))))


@contextlib.contextmanager
def fallbacks_told(remarks: Remarks) -> Iterator[None]:
    """Names them on standard error at the end, and for a report under `ran_on_the_cpu`."""
    with fallbacks() as names:
        yield
    remarks["ran_on_the_cpu"] = names
    if names:
        count = "1 operator" if len(names) == 1 else f"{len(names)} operators"
        print(f"{count} ran on the CPU: {', '.join(names)}", file=sys.stderr)


def _load_torch_npu() -> str:
    """Import torch_npu, which then is `torch.npu`; or say why it cannot be. Empty: it is there."""
    if "torch_npu" in sys.modules:
        return ""
    if find_spec("torch_npu") is None:
        return f"torch_npu is not installed; on a machine with an Ascend NPU: {_install()}"
    theirs = version()
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
