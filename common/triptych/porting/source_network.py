"""The network that a port comes from, run by its own framework where that is installed."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from triptych.backend import registry
from triptych.backend.contract import PortAdapter
from triptych.porting import discover, sources
from triptych.utils.errors import TriptychError

SPEC = "it is a spec, which no other framework runs"


@dataclass(frozen=True)
class SourceNetwork:
    """Whose framework it is, what makes the network anew, and the softmax at its end that its spec does not have."""

    backend: str
    make: Callable[[], Any]
    softmax: str = ""


def find(arch: str, weights: Path | None = None, softmax: str = "") -> SourceNetwork:
    """The network that `arch` names, as its framework runs it. `weights`: a file of its own, where the source has none;
    `softmax`: what was taken off at its end, which is taken off a file, too. Raises TriptychError, with the reason,
    where there is nothing to run."""
    path = Path(arch)
    if sources.is_zoo(arch) or path.is_dir() or _is_spec(path):
        raise TriptychError(SPEC)
    if not path.is_file():
        return _named(arch, softmax)
    return opened(path, weights, bare=bool(softmax))


def opened(path: Path, weights: Path | None = None, *, bare: bool = False, training: bool = True) -> SourceNetwork:
    """A file as its framework runs it: `bare` of a softmax at its end, for `training` too. Raises TriptychError where
    no framework that is installed does."""
    known = sources.known_name(path)
    for name in registry.installed():
        adapter = adapter_of(name)
        if known.endswith(adapter.OPENS):
            registry.load(name)
            beside = weights or (sources.params_beside(path)[0] if known.endswith(sources.SYMBOL) else None)
            return SourceNetwork(name, partial(adapter.open_file, path, beside, bare=bare, training=training))
    raise TriptychError(f"no framework that is installed here runs {path.name}")


def adapter_of(backend: str) -> PortAdapter:
    """The `port` module of a backend."""
    return cast(PortAdapter, import_module(f"{registry.BACKENDS[backend].package}.port"))


def _is_spec(path: Path) -> bool:
    return path.suffix == ".json" and not sources.known_name(path).endswith(sources.SYMBOL)


def of_object(candidate: Any, softmax: str = "") -> SourceNetwork:
    """Somebody's own object, of which copies run: it stays as it is. Raises TriptychError for one that is a spec, or
    that cannot be copied."""
    adapted = discover.find_adapter(candidate)
    if adapted is None:
        raise TriptychError(SPEC)
    try:
        copy.deepcopy(candidate)
    except Exception as error:
        raise TriptychError(f"it cannot be copied, and a comparison changes it ({type(error).__name__})") from error
    return SourceNetwork(adapted[0], lambda: copy.deepcopy(candidate), softmax)


def _named(arch: str, softmax: str) -> SourceNetwork:
    adapted = discover.find_adapter(discover.find(arch))
    if adapted is None:
        raise TriptychError(SPEC)
    return SourceNetwork(adapted[0], lambda: discover.find(arch), softmax)
