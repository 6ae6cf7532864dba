"""The one table that names the backends, and how they are found and imported."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from typing import cast

from triptych.backend.contract import Backend, Benchmark
from triptych.utils import memory
from triptych.utils.errors import TriptychError, require_package, unknown
from triptych.utils.interrupt import keyboard
from triptych.utils.process import prepare_process


@dataclass(frozen=True)
class _Package:
    package: str
    requires: str
    extra: str
    textbook: str = ""  # what `bench --vs` calls its framework's own loop


BACKENDS = {
    "torch": _Package("triptych_torch", "torch", "torch"),
    "mxnet": _Package("triptych_mxnet", "mxnet", "mxnet", "gluon"),
    "jax": _Package("triptych_jax", "flax", "jax", "nnx"),
}


def check_installed(name: str) -> None:
    """Raises TriptychError for an unknown backend, and for one whose framework is not installed."""
    if name not in BACKENDS:
        raise unknown("backend", name, BACKENDS)
    entry = BACKENDS[name]
    require_package(entry.requires, entry.extra, f"backend '{name}'")


def installed() -> list[str]:
    """The backends whose framework is installed, in the order of the table; nothing is imported for it."""
    return [name for name, entry in BACKENDS.items() if importlib.util.find_spec(entry.requires) is not None]


def load(name: str, *, prepared: bool = True) -> Backend:
    """Import a backend, after the process is `prepared` for it. Raises TriptychError if it cannot be."""
    check_installed(name)
    if prepared:
        prepare_process()
    try:
        with keyboard.deferred():  # in the middle of what is written in C++, an exception was seen to abort the process
            return cast(Backend, importlib.import_module(BACKENDS[name].package))
    except (ImportError, OSError, AttributeError) as error:
        if memory.ended(error):
            raise memory.OutOfMemoryError(memory.failed(f"importing backend '{name}'", error)) from error
        raise TriptychError(
            f"backend '{name}' is installed but cannot be imported ({type(error).__name__}: {error}); "
            "constraints.txt names the versions that were tested together"
        ) from error


def load_benchmark(name: str, *, prepared: bool = True) -> Benchmark:
    """What a backend's speed is held against; without `prepared` the process keeps the settings that it has."""
    load(name, prepared=prepared)
    return cast(Benchmark, importlib.import_module(f"{BACKENDS[name].package}.benchmark"))


def out_of_memory(error: Exception) -> bool:
    """Whether this says that memory ended: an error of Python's or NumPy's, or of a backend that is loaded."""
    loaded = (sys.modules.get(entry.package) for entry in BACKENDS.values())
    return memory.ended(error) or any(cast(Backend, one).out_of_memory(error) for one in loaded if one)
