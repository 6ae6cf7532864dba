"""What has to be settled in a process before a framework is imported, in one place."""

import contextlib
import ctypes
import os
import signal
import threading
import time
from functools import cache

# glibc's mallopt parameters (malloc.h). By default it hands large buffers back to the kernel after each step and
# faults them in again: 200 thousand page faults per training step at 96x96, a third of the time.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8
_KEEP = 2_000_000_000
_MALLOC = {_M_TRIM_THRESHOLD: -1, _M_MMAP_THRESHOLD: _KEEP, _M_TOP_PAD: 268_435_456, _M_ARENA_MAX: 1}
# How OpenMP's threads wait for each other. Awake they look for 3 ms before they sleep, as they do where nothing is set
# (GNU's and LLVM's names for it), and MXNet's, more than there are cores, a hundredth of that and not a thousandth: on
# two idle cores a step of LeNet is 1.2 (PyTorch) and 1.7 times (MXNet) as fast as asleep, VGG-11/4 at 32x32 1.2 times.
# Where others work on the same cores they cost both six to ten times the speed of sleeping ones.
_AWAKE = {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "300000", "KMP_BLOCKTIME": "3"}
_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
_IDLE = 0.3  # of a core, at most, that others use
_SEEN, _STALE = 0.1, 1.0  # seconds that the machine is looked at: at least, and at most before it is looked at anew
_VECTOR_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "sve")


def cores() -> int:
    """The number of processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def vector_features() -> tuple[str, ...]:
    """The processor's vector extensions that change speed most, as Linux names them; empty where it does not tell."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        listed = next((line.split() for line in file if line.startswith(("flags", "Features"))), [])
        return tuple(name for name in _VECTOR_FEATURES if name in listed)
    return ()


_short = threading.Event()


def memory_is_short() -> bool:
    """Whether this process has said so, by `return_large_memory`."""
    return _short.is_set()


def return_large_memory() -> None:
    """What is free is given back now, and from now on buffers of 128 KiB and more as soon as they are free: for work on
    which memory is short, and which asks for most of its buffers once."""
    prepare_process()  # which would set it otherwise later
    _short.set()
    _mallopt({_M_MMAP_THRESHOLD: 2**17, _M_TRIM_THRESHOLD: 2**22, _M_TOP_PAD: 2**20})
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _mallopt(values: dict[int, int]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # not glibc: nothing to set
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in values.items():
            mallopt(parameter, value)


def _busy() -> float | None:
    """Seconds that this process' cores have worked since the machine started; None where it does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    with contextlib.suppress(OSError, ValueError), open("/proc/stat") as file:
        fields = [line.split() for line in file if line.partition(" ")[0] in names]
        ticks = sum(int(user) + int(nice) + int(system) for _, user, nice, system, *_ in fields)
        return ticks / os.sysconf("SC_CLK_TCK") if fields else None
    return None


def _look() -> tuple[float, float, float | None]:
    """The time, what this process has used of its cores, and what all have."""
    return time.monotonic(), time.process_time(), _busy()


_first = _look()


def _alone() -> bool:
    """Whether nothing else works on this process' cores, since this module was imported, or lately."""
    began, own, busy = _first if time.monotonic() < _first[0] + _STALE else _look()
    while time.monotonic() < began + _SEEN:
        pass  # and no sleep: of two that start at once each must see the other
    now = _busy()
    if busy is None or now is None:
        return False
    return now - busy - (time.process_time() - own) < _IDLE * (time.monotonic() - began)


@cache
def prepare_process() -> frozenset[str]:
    """Set the number of threads and the memory allocator; returns the environment variables that were set for it. Call
    it before the first framework is imported.

    Importing MXNet halves OpenMP's threads for every framework in the process unless OMP_NUM_THREADS is set, so it
    is set here, to the cores there are. OpenMP's threads stay awake while they wait if nothing else works on the
    machine, and sleep otherwise. What the user has set stays. Not so for
    TORCH_DEVICE_BACKEND_AUTOLOAD: with it, an unusable torch_npu makes `import torch` itself fail and hides the cause.
    """
    wanted = {"OMP_NUM_THREADS": str(cores())}
    if not _AWAKE.keys() & os.environ.keys():
        wanted |= _AWAKE if _alone() else _ASLEEP
    missing = frozenset(wanted.keys() - os.environ.keys())
    os.environ.update({name: wanted[name] for name in missing})
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    _mallopt(_MALLOC)
    return missing


def begin_worker(threads: int) -> None:
    """The first that a process of a pool does. It computes on so many threads; a process whose parent was killed ends;
    Ctrl-C, which reaches all of them, is the parent's business."""
    from multiprocessing import parent_process  # only here: a tenth of what `triptych --help` takes

    os.environ.update({"OMP_NUM_THREADS": str(threads)} | _ASLEEP)
    os.environ.pop("GOMP_SPINCOUNT", None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
