"""Devices and precisions of MXNet. The package imports this module first: here MXNet's own import is prepared."""

import contextlib
import faulthandler
import importlib.util
import os
import socket

from triptych.backend import joining
from triptych.backend.execution import Device, check_device
from triptych.utils.errors import TriptychError
from triptych.utils.leaving import leave
from triptych.utils.process import vector_features
from triptych_mxnet import numpy_names

numpy_names.restore()
if importlib.util.find_spec("distutils") is None:  # MXNet compares versions with it
    raise TriptychError(
        "MXNet imports 'distutils', which Python lost in 3.12 and setuptools brings back: pip install setuptools"
    )
# MXNet's own handler turns a segmentation fault into exit status 255, unless this one was there first.
with contextlib.suppress(OSError, RuntimeError, AttributeError):  # no usable stderr
    if not faulthandler.is_enabled():
        faulthandler.enable()

ROLE, ADDRESS = "DMLC_ROLE", ("DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT")
ROLES, COUNTS = ("scheduler", "server", "worker"), ("DMLC_NUM_SERVER", "DMLC_NUM_WORKER")


def _check_role() -> None:
    """Raises TriptychError for a role that MXNet does not know, which would wait without end, and for one without the
    counts, which would abort the process."""
    said = os.environ
    if said[ROLE] not in ROLES:
        raise TriptychError(f"{ROLE} '{said[ROLE]}' is none of {', '.join(ROLES)}")
    for name in COUNTS:
        if not said.get(name, "").isdecimal() or int(said[name]) == 0:
            raise TriptychError(f"{ROLE} is {said[ROLE]}, and {name} '{said.get(name, '')}' is no number above 0")


def _as_number(host: str) -> str:
    """The address of a host's name: a scheduler cannot listen at a name. What is not known stays, to be told later."""
    try:
        return socket.gethostbyname(host)
    except OSError:
        return host


if ROLE in os.environ:
    _check_role()
    if os.environ.get(ADDRESS[0]):
        os.environ[ADDRESS[0]] = _as_number(os.environ[ADDRESS[0]])
if os.environ.get(ADDRESS[0], "").startswith(("127.", "localhost")):  # else each listens at the machine's own address
    os.environ.setdefault("DMLC_NODE_HOST", joining.LOOPBACK)
    os.environ.setdefault("DMLC_INTERFACE", joining.loopback_interface())
if os.environ.get(ROLE) == "scheduler":  # MXNet would abort the process, and say why in a trace of C++
    _place = joining.read_place("0", "1", joining.said_address(*ADDRESS), " and ".join(ADDRESS))
    joining.check_address(_place, listens=True)
try:
    import mxnet as mx  # a scheduler or server does all its work in here
except SystemExit as ended:
    leave(ended.code if isinstance(ended.code, int) else 0)  # by now the others have ended

DTYPES = {"fp32": "float32", "fp64": "float64"}  # no bf16: Gluon's layers do not train in it


def versions() -> dict[str, str]:
    """The packages this backend runs on."""
    return {"mxnet": mx.__version__}


def devices() -> list[Device]:
    """The CPU, and every CUDA device or why there is none."""
    threads = os.environ.get("OMP_NUM_THREADS", "?")  # MXNet does not tell; see triptych.utils.process
    onednn, cuda = map(mx.runtime.Features().is_enabled, ("MKLDNN", "CUDA"))
    kernels = "oneDNN" if onednn else "no oneDNN"
    cpu = [Device("cpu", True, ", ".join((f"{threads} threads, {kernels}", *vector_features())))]
    count = mx.context.num_gpus() if cuda else 0
    if not count:
        missing = "this build of MXNet has no CUDA; pip install mxnet-cu112, where its wheel fits the machine's CUDA"
        seen = "no CUDA device is visible; `nvidia-smi` and CUDA_VISIBLE_DEVICES tell more"
        return [*cpu, Device("cuda", False, seen if cuda else missing)]
    return cpu + [Device(f"cuda:{i}", True, f"MXNet's gpu({i})") for i in range(count)]


def get_device(name: str) -> mx.Context:
    """The context called `name`. Raises TriptychError, with the reason, if it is not there."""
    wanted = "cuda:0" if name == "cuda" else name
    check_device("mxnet", name, wanted, devices())
    return mx.cpu() if wanted == "cpu" else mx.gpu(int(wanted.partition(":")[2]))


def peak_memory(device: str) -> int:
    """0: MXNet does not tell."""
    return 0


def out_of_memory(error: Exception) -> bool:
    """MXNet has one type for all of its errors; the last is of a thread that finds no room for its stack."""
    said = ("bad_alloc", "out of memory", "Failed to allocate", "Memory allocation failed", "Resource temporarily")
    return isinstance(error, mx.base.MXNetError) and any(words in str(error) for words in said)
