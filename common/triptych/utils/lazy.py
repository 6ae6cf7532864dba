"""`np`: NumPy, imported when the first of its names is used.

The reference of a layer stands beside its shapes, which are asked for by commands that answer before NumPy could be
imported. `importlib.util.LazyLoader` would not do: it puts the module into `sys.modules` at once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["np"]

if TYPE_CHECKING:
    import numpy as np
else:

    class _Lazy:
        def __getattr__(self, attribute: str) -> Any:
            return getattr(import_module("numpy"), attribute)

    np = _Lazy()
