"""Functions of each value by itself: activations and dropout."""

from triptych.spec.kinds.kind import Kind, SpecError, as_is, no_arrays, no_macs, one_place, same_shape
from triptych.spec.kinds.layer_pass import Conditions, LayerPass
from triptych.spec.layers import Dropout, ReLU, Shape, Sigmoid
from triptych.utils.arrays import Array, Arrays
from triptych.utils.errors import TriptychError
from triptych.utils.lazy import np


def _relu(layer: ReLU, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Exact in any precision."""
    return LayerPass(np.maximum(x, 0), lambda dy: (np.where(x > 0, dy, 0.0), {}))


def _sigmoid(layer: Sigmoid, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Without overflow."""
    y = conditions.rounding(np.exp(-np.logaddexp(0, -x)), 1)
    return LayerPass(y, lambda dy: (conditions.rounding(dy * y * (1 - y), 1), {}))


def _rate_in_range(layer: Dropout, shape: Shape, path: str) -> Shape:
    if not 0 <= layer.rate < 1:
        raise SpecError(path, f"its rate {layer.rate} must be at least 0 and below 1")
    return shape


def _dropout(layer: Dropout, x: Array, arrays: Arrays, conditions: Conditions) -> LayerPass:
    """Zero what the mask does not keep, scale the rest by 1 / (1 - rate)."""
    if conditions.mask is None:
        raise TriptychError(f"layer '{conditions.path}': training needs a dropout mask for it")
    factor = conditions.mask.astype(x.dtype) / (1 - layer.rate)
    return LayerPass(x * factor, lambda dy: (dy * factor, {}))


KINDS = (
    Kind(ReLU, same_shape, no_macs, one_place, no_arrays, _relu, as_is, training_only=False),
    Kind(Sigmoid, same_shape, no_macs, one_place, no_arrays, _sigmoid, as_is, training_only=False),
    Kind(Dropout, _rate_in_range, no_macs, one_place, no_arrays, _dropout, as_is, training_only=True),
)
