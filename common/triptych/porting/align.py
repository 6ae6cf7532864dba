"""Which operation of a port corresponds to which layer of the spec: an alignment in order, by kind and shape."""

from collections.abc import Sequence

import numpy as np

from triptych.backend.contract import Captured
from triptych.porting.matching import longest_alignment

# Kinds that may stand for each other, so that a sigmoid in place of a ReLU is compared, and found.
POOLS = dict.fromkeys(("MaxPool", "AvgPool", "GlobalAvgPool"), "pool")
FAMILIES = {"ReLU": "activation", "Sigmoid": "activation"} | POOLS
SAME_KIND, SAME_SHAPE, SAME_FAMILY = 4, 3, 1


def align(layers: Sequence[tuple[str, str, tuple[int, ...]]], captured: Sequence[Captured]) -> dict[str, int]:
    """`layers` are `(path, kind, output shape)` in the order of execution. Returns the index of the captured operation
    by path, for those that have one: the longest alignment in order, best where kind and shape agree."""
    pairs = longest_alignment(len(layers), len(captured), lambda i, j: _match(layers[i], captured[j]))
    return {layers[i][0]: j for i, j in pairs.items()}


def _match(layer: tuple[str, str, tuple[int, ...]], operation: Captured) -> int:
    """How well an operation fits a layer; 0 if it does not."""
    _, kind, shape = layer
    if FAMILIES.get(kind, kind) != FAMILIES.get(operation.kind, operation.kind):
        return 0
    same_shape = int(np.prod(shape)) == operation.value.size
    return SAME_FAMILY + SAME_KIND * (kind == operation.kind) + SAME_SHAPE * same_shape
