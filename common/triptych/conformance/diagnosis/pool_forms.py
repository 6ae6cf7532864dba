"""What an average is taken over, told by fit: the part of a map, or the weights of a window."""

from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from triptych.conformance.diagnosis.alone import same
from triptych.conformance.diagnosis.relations import PER_NUMBER, number
from triptych.spec.layers import AvgPool, GlobalAvgPool, MaxPool
from triptych.utils.arrays import Array

WIDER = 2  # pixels beyond the window on every side that may count, too
MOST_RECTANGLES = 4000
NOTHING = 1e-9  # of a fitted weight: as good as 0


def pooled_otherwise(layer: AvgPool | GlobalAvgPool | MaxPool, x: Array, observed: Array, budget: float) -> list[str]:
    """What a pool of the map `x` (N, C, H, W) took that put out `observed`, in words; of several the first."""
    if x.ndim != 4 or observed.shape[:2] != x.shape[:2]:
        return []
    found = (
        _rectangles(x, observed, budget) if isinstance(layer, GlobalAvgPool) else _weights(layer, x, observed, budget)
    )
    return list(found)[:1]


def _rectangles(x: Array, observed: Array, budget: float) -> Iterator[str]:
    """Averages of a part of the rows and columns."""
    spans = [list(combinations(range(size + 1), 2)) for size in x.shape[2:]]
    if len(spans[0]) * len(spans[1]) > MOST_RECTANGLES or observed.size != x.shape[0] * x.shape[1]:
        return
    sums = np.pad(x.cumsum(2).cumsum(3), ((0, 0), (0, 0), (1, 0), (1, 0)))
    for (top, bottom), (left, right) in product(*spans):
        corners = sums[..., bottom, right] - sums[..., top, right] - sums[..., bottom, left] + sums[..., top, left]
        mean = corners / ((bottom - top) * (right - left))
        if (bottom - top, right - left) != x.shape[2:] and same(mean, observed.reshape(mean.shape), budget):
            yield f"the average is taken over the rows {top}:{bottom} and the columns {left}:{right} alone"


def _weights(layer: AvgPool | MaxPool, x: Array, observed: Array, budget: float) -> Iterator[str]:
    """Weights of the values in and around the windows that lie wholly inside the map."""
    margin = [pad + WIDER for pad in layer.padding]
    size = [kernel + 2 * WIDER for kernel in layer.kernel]
    padded = np.pad(x, ((0, 0), (0, 0), *((each, each + max(size)) for each in margin)), constant_values=np.nan)
    rows, columns = layer.stride
    seen = sliding_window_view(padded, size, (2, 3))[:, :, ::rows, ::columns]
    seen = seen[:, :, : observed.shape[2], : observed.shape[3]].reshape(-1, size[0] * size[1])
    if len(seen) != observed.size:
        return
    inside = np.isfinite(seen).all(1)
    design, target = seen[inside], observed.ravel()[inside]
    if len(target) < PER_NUMBER * design.shape[1]:
        return
    fitted, _, rank, _ = np.linalg.lstsq(design, target, rcond=1e-10)
    if rank < design.shape[1] or not same(design @ fitted, target, budget):
        return
    table = np.where(np.abs(fitted) < NOTHING, 0.0, fitted).reshape(size)
    kept = table[np.ix_(np.any(table, 1), np.any(table, 0))]
    if kept.size:
        said = " / ".join(" ".join(number(value) if value else "0" for value in row) for row in kept)
        yield f"it is a weighted sum of {kept.shape[0]}x{kept.shape[1]} values, not a pool (a resize?): {said}"[:200]
