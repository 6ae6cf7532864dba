"""How much memory there is, and what is said where it is not enough."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from triptych.utils.errors import TriptychError

SMALLER = "lower --resolution, --classes or --dense-width, or raise --width-ratio"
_MEMINFO, _STATM, _CGROUPS = Path("/proc/meminfo"), Path("/proc/self/statm"), Path("/sys/fs/cgroup")
_CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2, of version 1


class OutOfMemoryError(TriptychError):
    """Memory ended, or would."""


def available() -> int | None:
    """The most bytes that this process can still get: what the machine has free, swap included, and what its limits
    (`ulimit -v`, a container's) leave; None where the system does not tell."""
    known = [limit for limit in (_free(), _left_of_limit(), *_containers()) if limit is not None]
    return min(known) if known else None


def text_of(size: int) -> str:
    """`12.3 GB`; with as few digits as can be read."""
    if size >= _MOST * _UNITS["EB"]:  # what is asked for may be any number
        return f"more than {_MOST:,} EB"
    unit = next((unit for unit in ("EB", "PB", "TB", "GB", "MB") if size >= _UNITS[unit]), "MB")
    number = size / _UNITS[unit]
    return f"{number:,.0f} {unit}" if number >= 100 else f"{number:.1f} {unit}"


_MOST = 10**6
_UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}


def check(needed: int, what: str, way_out: str = SMALLER) -> None:
    """Raises OutOfMemoryError if `what` needs more bytes than there are."""
    free = available()
    if free is not None and needed > free:
        raise OutOfMemoryError(
            f"{what} needs at least {text_of(needed)} of memory, {text_of(free)} are to be had here; {way_out}"
        )


def check_threads(count: int, what: str) -> None:
    """Raises OutOfMemoryError if `ulimit -v` leaves `what` no room for the stacks of so many threads: a library in C++
    aborts the process where it cannot start one."""
    left, stack = _left_of_limit(), resource.getrlimit(resource.RLIMIT_STACK)[0]
    needed = count * (_STACK if stack == resource.RLIM_INFINITY else stack)
    if left is not None and needed > left:
        raise OutOfMemoryError(
            f"{what} takes {count} threads and {text_of(needed)} of address space, `ulimit -v` leaves {text_of(left)}; "
            "raise it"
        )


_STACK = 1 << 21  # bytes of a thread's, where they are not limited


def ended(error: BaseException) -> bool:
    """Whether this is how Python, NumPy or the loader of libraries says that memory ended, or that no memory could hold
    an array."""
    too_large = ("array is too big", "Maximum allowed dimension exceeded")
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, ValueError) and str(error).startswith(too_large))
        or (isinstance(error, ImportError | OSError) and "failed to map segment" in str(error))
    )


def failed(what: str, error: BaseException) -> str:
    """That memory ended with `what`, the first line of the error that tells something, and what to lower."""
    lines = [line for line in str(error).splitlines() if line[:1].strip() and not line.startswith("Traceback")]
    return f"out of memory: {what}{f' ({lines[0][:300]})' if lines else ''}; lower --batch-size, or {SMALLER}"


def _free() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines() if ":" in line)
        return sum(int(lines[name].split()[0]) << 10 for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _left_of_limit() -> int | None:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        used = int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        used = 0
    return max(0, limit - used)


def _containers() -> Iterator[int]:
    """The container's limit itself: what is used of it may be a cache that gives way."""
    for name in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
            yield int((_CGROUPS / name).read_text())
