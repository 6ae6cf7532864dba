"""Modules that are imported when the first of their names is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class lazy:  # noqa: N801 (reads as the import that it stands for)
    """`np = lazy("numpy")`: NumPy, imported by the first `np.something`. For a type checker, import it as well.

    `importlib.util.LazyLoader` would put the module into `sys.modules` at once, where others take it for imported.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
