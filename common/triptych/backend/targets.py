"""What a training step compares a network's outputs with: labels, or, without classes, a cotangent for every output."""

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from triptych.spec.layers import Architecture, outputs
from triptych.spec.shapes import output_shapes

T = TypeVar("T")
Labels: TypeAlias = NDArray[np.int64]
Targets: TypeAlias = Labels | tuple[NDArray[np.floating[Any]], ...]


def map_targets(function: Callable[[NDArray[Any]], T], targets: Targets) -> T | tuple[T, ...]:
    """`function` of the labels, or of every cotangent."""
    return tuple(map(function, targets)) if isinstance(targets, tuple) else function(targets)


def part_of(targets: Targets, images: slice) -> Targets:
    """The labels, or the part of every cotangent, of some images of a batch."""
    return tuple(value[images] for value in targets) if isinstance(targets, tuple) else targets[images]


def any_targets(architecture: Architecture, count: int) -> Targets:
    """What a loss takes where nothing depends on it: label 0, or cotangents of 0."""
    if architecture.classes:
        return np.zeros(count, np.int64)
    shapes = output_shapes(architecture)
    return tuple(np.zeros((count, *shapes[path])) for path in outputs(architecture))
