"""Somebody's network by the name of its module, and the backend that its framework belongs to."""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from pathlib import Path
from typing import Any, cast

from triptych.backend import registry
from triptych.backend.contract import PortAdapter
from triptych.utils.errors import TriptychError, unknown
from triptych.utils.process import prepare_process
from triptych.utils.reading import read_bounded

# By library, or a part of one, what a network of it is, and how it is taken all the same.
OTHERWISE = {
    "keras": (
        "a Keras model",
        "save it, net.save('net.keras'), and name that file; or one of net.export(format='onnx')",
    ),
    "equinox": (
        "an equinox module, which takes one image and keeps its arrays in itself",
        "give (function, parameters) with `parameters, rest = equinox.partition(net, equinox.is_array)` and "
        "`lambda p, x: jax.vmap(equinox.combine(p, rest))(x)`, and --layout NCHW",
    ),
    "torch.export": (
        "an exported program, or the module of one, which has one mode alone",
        "save the program, torch.export.save(program, 'net.pt2'), and name that file",
    ),
}


def find(reference: str) -> Any:
    """The network that `module:name` stands for: an object there, or what a function or class without arguments
    makes. Raises TriptychError, with the reason, if there is none."""
    named = named_by(reference)
    check_taken(named, reference)
    if find_adapter(named) is not None or not callable(named):
        return named
    required = _required(named)
    if required:
        raise TriptychError(
            f"'{reference}' needs arguments ({', '.join(required)}): name something that builds the network "
            "without any; for a plain function that is one that returns (function, parameters)"
        )
    made = _called(named, reference)
    check_taken(made, reference)
    return made


def find_beside(reference: str) -> Any:
    """What `module:name` stands for beside a network: an optimiser, a loss, a preparation of images, or a function;
    what one without arguments makes. Raises TriptychError, with the reason, if there is none."""
    named = named_by(reference)
    if find_adapter(named) is not None or not callable(named) or _required(named):
        return named
    return _called(named, reference)


def named_by(reference: str) -> Any:
    """The object that `module:name` names. Raises TriptychError, with the reason, if there is none."""
    place, _, name = reference.partition(":")
    module = _import(place, reference)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_")]
        raise unknown(f"name in '{place}'", name, known)
    return getattr(module, name)


def _called(named: Any, reference: str) -> Any:
    try:
        return named()
    except (Exception, SystemExit) as error:  # a script that exits must not end this process, with a status of its own
        raise TriptychError(f"'{reference}' failed: {type(error).__name__}: {error}") from error


def check_taken(candidate: Any, name: str) -> None:
    """Raises TriptychError, with the way that there is, for a network of a library that is taken over otherwise."""
    places = {f"{kind.__module__}." for kind in type(candidate).__mro__}
    for library, (kind, way) in OTHERWISE.items():
        if any(place.startswith(f"{library}.") for place in places):
            raise TriptychError(f"'{name}' is {kind}: {way}")


def _required(candidate: Any) -> list[str]:
    """The arguments that something cannot be called without; a type of C may not tell, and is called."""
    try:
        taken = inspect.signature(candidate).parameters.values()
    except (TypeError, ValueError):
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in taken if p.default is p.empty and p.kind not in several]


def _import(place: str, reference: str) -> Any:
    if not re.fullmatch(r"\w+(\.\w+)*:\w+", reference):
        raise TriptychError(f"'{reference}' is not module:name, for example my_package.models:build_torch")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    prepare_process()
    try:
        spec = importlib.util.find_spec(place)
        if spec is None:
            raise TriptychError(f"there is no module '{place}' (looked in {os.getcwd()} and sys.path)")
        _prepare_frameworks(spec.origin)
        return importlib.import_module(place)
    except TriptychError:
        raise
    except (Exception, SystemExit) as error:
        raise TriptychError(f"module '{place}' cannot be imported: {type(error).__name__}: {error}") from error


def _prepare_frameworks(origin: str | None) -> None:
    """Load the backends whose framework a file mentions first: they settle what an import needs."""
    text = read_bounded(Path(origin)).decode(errors="replace") if origin and origin.endswith(".py") else ""
    for name in registry.installed():
        if re.search(rf"\b{re.escape(registry.BACKENDS[name].requires)}\b", text):
            registry.load(name)


def find_adapter(candidate: Any) -> tuple[str, PortAdapter] | None:
    """The backend whose framework a network belongs to, and its `port` module."""
    roots = {kind.__module__.partition(".")[0] for kind in type(candidate).__mro__}
    names = registry.installed()
    likely = [name for name in names if registry.BACKENDS[name].requires in roots]
    for name in likely or (names if isinstance(candidate, tuple) else []):
        registry.load(name)
        adapter = cast(PortAdapter, importlib.import_module(f"{registry.BACKENDS[name].package}.port"))
        if adapter.matches(candidate):
            return name, adapter
    return None
