"""Names of NumPy 1 that MXNet 1.9.1 asks for when it is imported, and NumPy 2 does not have any more.

MXNet's metadata says NumPy below 2, but nothing in it depends on more than these names: `mxnet/numpy/fallback.py` looks
up what it hands on to NumPy, `mxnet/numpy/utils.py` the constants and `mxnet/ndarray` the type `bool`. Each stands for
the same object or number as in NumPy 1, so MXNet's numbers are the same to the bit. The financial functions are looked
up by name only: NumPy dropped them in 1.20, and nothing here calls them.

What names cannot mend: MXNet's operators read the text of their arguments, and NumPy 2 writes a number in a tuple or
list as `np.float64(0.1)`. `Normalize((np.float32(0.5),), ...)` and `multi_sgd_mom_update(lrs=[np.float64(0.1)])` are
refused; a number alone is read. So only Python's own numbers are handed to MXNet here.

Source: NumPy 2.0 migration guide (removed names), NEP 32 (financial functions).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

_MOVED: dict[str, Any] = {
    "bool": np.bool_,
    "Inf": np.inf,
    "NAN": np.nan,
    "NaN": np.nan,
    "NINF": -np.inf,
    "PINF": np.inf,
    "NZERO": -0.0,
    "PZERO": 0.0,
    "alltrue": np.all,
    "sometrue": np.any,
    "product": np.prod,
    "round_": np.round,
    "msort": lambda a: np.sort(a, axis=0),
    "in1d": lambda a, b, **options: np.isin(np.ravel(a), b, **options),  # flat, whatever the shape of `a`
}
_GONE = ("mirr", "npv", "pmt", "ppmt", "pv", "rate")


def _no_function(name: str) -> Callable[..., Any]:
    def missing(*_: object, **__: object) -> None:
        raise NotImplementedError(f"NumPy has no function {name} since 1.20; numpy-financial has it")

    return missing


def restore() -> None:
    """Set the names that this NumPy lacks. Call it before the first `import mxnet`."""
    names = _MOVED | {name: _no_function(name) for name in _GONE}
    if hasattr(np, "trapezoid"):  # NumPy 1 has `trapz` itself
        names["trapz"] = np.trapezoid
    for name, value in names.items():
        if name not in vars(np):
            setattr(np, name, value)
