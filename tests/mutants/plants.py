"""Ways to put a fault into one backend. Each gives a context in which that backend, and no other, is wrong."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np

from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.conformance import dropped, life, short_lives
from triptych.conformance.conform import Build
from triptych.spec.layers import Architecture, Layer, Residual

# A backend and a precision to the backend and `build` for `conform`.
Plant = Callable[[Backend, str], AbstractContextManager[tuple[Any, Build | None]]]


def part(framework: Backend, name: str) -> ModuleType:
    """A module of a backend's package."""
    return importlib.import_module(f"{framework.__name__}.{name}")  # type: ignore[attr-defined]


def native(framework: Backend) -> ModuleType:
    """The faults that are written in a framework's own terms."""
    return importlib.import_module(f"mutants.native_{framework.name}")


def change(layer: Any, target: str, /, **fields: Any) -> Any:
    """The record or tree with the fields of layer `target` replaced."""
    if isinstance(layer, Layer) and layer.name == target:
        return replace(layer, **fields)
    below = {key: getattr(layer, key) for key in ("layers", "branches") if hasattr(layer, key)}
    below = {key: tuple(change(child, target, **fields) for child in value) for key, value in below.items()}
    if isinstance(layer, Residual):
        below["body"] = change(layer.body, target, **fields)
    return replace(layer, **below)


def other_spec(mutate: Callable[[Architecture], Architecture]) -> Plant:
    """The backend builds another network than the reference."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        yield framework, lambda architecture: framework.build(mutate(architecture), execution=exact(precision))

    return plant


def fields(target: str, /, **values: Any) -> Plant:
    """Arguments of one layer: the fault is the number that the framework is given."""
    return other_spec(lambda architecture: change(architecture, target, **values))


def layer(kind: type, other: str | type) -> Plant:
    """Layers of a kind are built by another function: of `native`, by name, or that of another kind."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        table = part(framework, "layers").LAYERS
        wrong = getattr(native(framework), other) if isinstance(other, str) else table[other]

        def build(architecture: Architecture) -> Any:
            with patch.dict(table, {kind: wrong}):
                return framework.build(architecture, execution=exact(precision))

        yield framework, build

    return plant


def composite(kind: type, fault: str) -> Plant:
    """Composites of a kind are built by what a function of `native` makes of their class."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        table, make = part(framework, "model").COMPOSITES, getattr(native(framework), fault)

        def build(architecture: Architecture) -> Any:
            # A name of its own keeps functions out that were compiled without the fault.
            return framework.build(replace(architecture, name=fault), execution=exact(precision))

        with patch.dict(table, {kind: make(table[kind])}):
            yield framework, build

    return plant


def built(alter: str) -> Plant:
    """The network is altered after it was built, by a function of `native`."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        def build(architecture: Architecture) -> Any:
            network = framework.build(architecture, execution=exact(precision))
            getattr(native(framework), alter)(network)
            return network

        yield framework, build

    return plant


def replaced(framework: Backend, **others: Any) -> Any:
    """The backend with some of its names replaced."""
    return SimpleNamespace(**vars(framework) | others)


def wrapped(**overrides: Callable[..., Any]) -> Plant:
    """The backend with functions replaced; each gets the right one first."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        others = {name: partial(other, getattr(framework, name)) for name, other in overrides.items()}
        yield replaced(framework, **others), None

    return plant


def loading(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """One parameter arrives changed in the network."""
    return wrapped(
        from_canonical=lambda right, network, values: right(network, values | {path: np.array(change(values[path]))})
    )


def patched(name: str, fault: Callable[..., Any] | str) -> Plant:
    """A function or class of the backend is replaced in all its modules by what `fault` makes of it, which may be the
    name of a function of `native`."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        make = getattr(native(framework), fault) if isinstance(fault, str) else fault
        package = f"{framework.__name__}."  # type: ignore[attr-defined]
        users = [module for path, module in sys.modules.items() if path.startswith(package) and hasattr(module, name)]
        wrong = make(getattr(users[0], name))

        def build(architecture: Architecture) -> Any:
            # A name of its own keeps functions out that were compiled without the fault.
            return framework.build(replace(architecture, name=make.__name__), execution=exact(precision))

        with ExitStack() as stack:
            for other in (life, dropped, short_lives):  # their functions, too
                stack.enter_context(patch.object(other, "NAME", make.__name__))
            for module in users:
                stack.enter_context(patch.object(module, name, wrong))
            yield framework, build

    return plant


def everywhere(name: str, make: Callable[..., Any]) -> Plant:
    """A function of the common code is replaced wherever it is known, to backends and to the judge."""

    @contextmanager
    def plant(framework: Backend, precision: str) -> Iterator[Any]:
        packages = ("triptych.", f"{framework.__name__}.")  # type: ignore[attr-defined]
        users = [module for path, module in sys.modules.items() if path.startswith(packages) and hasattr(module, name)]
        wrong = make(getattr(users[0], name))
        with ExitStack() as stack:
            for module in users:
                stack.enter_context(patch.object(module, name, wrong))
            yield framework, None

    return plant
