"""Arrays of an imported network against those of the module that it was, whatever they are called there."""

from __future__ import annotations

from typing import Any

import numpy as np

BOUND = 1e-12  # of the scale


def close(mine: Any, theirs: Any, what: str, floor: float = 1e-3) -> None:
    """Within BOUND of the scale, that of theirs but at least `floor`."""
    theirs = np.asarray(theirs.detach() if hasattr(theirs, "detach") else theirs)
    assert mine.shape == theirs.shape, what
    assert np.isfinite(mine).all(), what
    assert abs(mine - theirs).max() <= BOUND * max(abs(theirs).max(), floor), what


def by_value(arrays: dict[str, Any], values: dict[str, Any]) -> dict[bytes, Any]:
    """The values of every array, sorted as the array's own content is, under that content. So a dense layer whose
    columns are permuted is found again; of equal weights the gradients are sorted."""
    ordered = {}
    for name, array in arrays.items():
        if name in values:
            order = np.lexsort((values[name].ravel(), array.ravel()))
            ordered[array.ravel()[order].astype(np.float64).tobytes()] = values[name].ravel()[order]
    return ordered


def compare_all(mine: dict[bytes, Any], theirs: dict[bytes, Any]) -> None:
    """Each array. A bias before a batch norm has the gradient 0, of parts as large as those of others."""
    assert mine.keys() == theirs.keys()
    floor = 0.01 * max((abs(value).max() for value in theirs.values()), default=0)
    for key, value in theirs.items():
        close(mine[key], value, f"an array that begins with {np.frombuffer(key)[:3]}", floor)
