"""Functions of each value by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from triptych.spec.kinds.kind import (
    Conditions,
    Kind,
    LayerPass,
    R,
    at_any_size,
    no_arrays,
    no_macs,
    pointwise,
    same_shape,
)
from triptych.spec.layers import ReLU, Sigmoid
from triptych.utils.lazy import lazy

if TYPE_CHECKING:
    import numpy as np

    from triptych.reference.layers import Array
else:
    np = lazy("numpy")


def _relu(layer: ReLU, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
    """Exact in any precision."""
    return LayerPass(np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0.0), {}))


def _sigmoid(layer: Sigmoid, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
    """Without overflow."""
    y = conditions.rounding(np.exp(-np.logaddexp(0, -x)), 1)
    return LayerPass(y, lambda dy: (conditions.rounding(dy * y * (1 - y), 1), {}))


def _activation(
    record: type[R], reference: Callable[[R, Array, Mapping[str, Array], Conditions], LayerPass]
) -> Kind[R]:
    return Kind(
        record=record,
        output=same_shape,
        macs=no_macs,
        window=pointwise,
        arrays=no_arrays,
        reference=reference,
        any_size=at_any_size,
        training_only=False,
    )


KINDS = (_activation(ReLU, _relu), _activation(Sigmoid, _sigmoid))
