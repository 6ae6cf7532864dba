"""Layers that only move values."""

from __future__ import annotations

import math
from collections.abc import Mapping

from triptych.reference.layers import Array
from triptych.spec.kinds.kind import Conditions, Kind, LayerPass, no_arrays, no_macs
from triptych.spec.kinds.windows import whole_map
from triptych.spec.layers import Flatten, Pair, Shape


def _output(layer: Flatten, shape: Shape, path: str) -> Shape:
    return (math.prod(shape),)


def _reference(layer: Flatten, x: Array, arrays: Mapping[str, Array], conditions: Conditions) -> LayerPass:
    return LayerPass(x.reshape(len(x), -1), lambda dy: (dy.reshape(x.shape), {}))


def _left_out(layer: Flatten, shape: Shape, flattened: Pair) -> tuple[None, Pair]:
    """The next dense layer becomes a convolution over the map; a flat input was flattened before."""
    return None, (shape[1], shape[2]) if len(shape) == 3 else flattened


KINDS = (
    Kind(
        record=Flatten,
        output=_output,
        macs=no_macs,
        window=whole_map,
        arrays=no_arrays,
        reference=_reference,
        any_size=_left_out,
        training_only=False,
    ),
)
