"""Functions of each value by itself."""

from __future__ import annotations

from collections.abc import Mapping

from triptych.reference.layers import Array
from triptych.spec.kinds.kind import Conditions, LayerPass, pointwise
from triptych.spec.layers import ReLU, Sigmoid
from triptych.utils.lazy import np


def _relu(layer: ReLU, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
    """Exact in any precision."""
    return LayerPass(np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0.0), {}))


def _sigmoid(layer: Sigmoid, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
    """Without overflow."""
    y = conditions.rounding(np.exp(-np.logaddexp(0, -x)), 1)
    return LayerPass(y, lambda dy: (conditions.rounding(dy * y * (1 - y), 1), {}))


KINDS = (pointwise(ReLU, _relu), pointwise(Sigmoid, _sigmoid))
