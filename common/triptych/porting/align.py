"""Which operation of a port corresponds to which layer of the spec: an alignment in order, by kind and shape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triptych.backend.contract import Captured

# Kinds that may stand for each other, so that a sigmoid in place of a ReLU is compared, and found.
FAMILIES = {
    "ReLU": "activation",
    "Sigmoid": "activation",
    "MaxPool": "pool",
    "AvgPool": "pool",
    "GlobalAvgPool": "pool",
}
SAME_KIND, SAME_SHAPE, SAME_FAMILY = 4, 3, 1


def align(layers: Sequence[tuple[str, str, tuple[int, ...]]], captured: Sequence[Captured]) -> dict[str, int]:
    """`layers` are `(path, kind, output shape)` in the order of execution. Returns the index of the captured operation
    by path, for those that have one: the longest alignment in order, best where kind and shape agree."""
    scores = np.zeros((len(layers) + 1, len(captured) + 1), int)
    for i in range(len(layers) - 1, -1, -1):
        for j in range(len(captured) - 1, -1, -1):
            match = _match(layers[i], captured[j])
            both = match + scores[i + 1, j + 1] if match else 0
            scores[i, j] = max(scores[i + 1, j], scores[i, j + 1], both)
    aligned: dict[str, int] = {}
    i = j = 0
    while i < len(layers) and j < len(captured):
        match = _match(layers[i], captured[j])
        if match and scores[i, j] == match + scores[i + 1, j + 1]:
            aligned[layers[i][0]] = j
            i, j = i + 1, j + 1
        elif scores[i, j] == scores[i, j + 1]:
            j += 1
        else:
            i += 1
    return aligned


def _match(layer: tuple[str, str, tuple[int, ...]], operation: Captured) -> int:
    """How well an operation fits a layer; 0 if it does not."""
    _, kind, shape = layer
    if FAMILIES.get(kind, kind) != FAMILIES.get(operation.kind, operation.kind):
        return 0
    same_shape = int(np.prod(shape)) == operation.value.size
    return SAME_FAMILY + SAME_KIND * (kind == operation.kind) + SAME_SHAPE * same_shape
