"""Layers that act in training only."""

from __future__ import annotations

from collections.abc import Mapping

from triptych.reference.layers import Array
from triptych.spec.errors import SpecError
from triptych.spec.kinds.kind import Conditions, LayerPass, pointwise
from triptych.spec.layers import Dropout, Shape
from triptych.utils.errors import TriptychError


def _output(layer: Dropout, shape: Shape, path: str) -> Shape:
    if not 0 <= layer.rate < 1:
        raise SpecError(path, f"its rate {layer.rate} must be at least 0 and below 1")
    return shape


def _reference(layer: Dropout, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
    """Zero what the mask does not keep, scale the rest by 1 / (1 - rate)."""
    if conditions.mask is None:
        raise TriptychError(f"layer '{conditions.path}': training needs a dropout mask for it")
    factor = conditions.mask.astype(x.dtype) / (1 - layer.rate)
    return LayerPass(x * factor, lambda dy: (dy * factor, {}))


KINDS = (pointwise(Dropout, _reference, output=_output, training_only=True),)
