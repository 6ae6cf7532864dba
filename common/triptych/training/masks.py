"""Dropout masks that every backend shares: drawn by NumPy from seed, step and layer, as those of conformance are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.backend.group import Share
from triptych.spec.analysis import primitives
from triptych.spec.layers import Architecture, Dropout
from triptych.utils.randomness import dropout_mask

OWN, SHARED = "own", "shared"  # what a recipe's masks may be


def draw(architecture: Architecture, seed: int, step: int, count: int) -> dict[str, NDArray[np.bool_]]:
    """The masks of one training step on `count` images, by layer path; True where a value is kept."""
    return {
        info.path: dropout_mask(seed, step, info.path, (count, *info.output), info.layer.rate)
        for info in primitives(architecture)
        if isinstance(info.layer, Dropout)
    }


def draw_part(
    architecture: Architecture, seed: int, step: int, count: int, shares: Sequence[Share]
) -> dict[str, NDArray[np.bool_]]:
    """Those of the images that are one process's `shares` of a batch of `count`, so that the number of processes
    changes nothing."""
    images = np.concatenate([np.arange(share.begin, share.end) for share in shares])
    return {path: mask[images] for path, mask in draw(architecture, seed, step, count).items()}
