"""The smallest images on which a network shows what it does on those of its own size, and how many of them."""

import math
from collections.abc import Iterator
from dataclasses import replace

from triptych.conformance import locate
from triptych.spec import analysis
from triptych.spec.layers import Architecture, BatchNorm
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError

# Of two values in training a batch norm makes 1 and -1, and what is left of their gradients is rounding, by the square
# of that through two of them: more than float64's budgets, which are float32's shrunk, allow.
VALUES = 8
LEAST = 48  # pixels of an image that the search for a difference is given, where a smaller one does as well


def images_needed(architecture: Architecture) -> int:
    """So many that every batch norm has `VALUES` values of a channel."""
    maps = [
        math.prod(info.output[1:]) for info in analysis.primitives(architecture) if isinstance(info.layer, BatchNorm)
    ]
    return max(locate.BATCH, -(-VALUES // min(maps, default=VALUES)))


def search_size(architecture: Architecture) -> Architecture:
    """The network on the smallest images on which every window ends as on its own, and no map shrinks to nothing: what
    is true of all layers there is true of them at any such size, and costs a tenth."""
    return next(_smaller(architecture), architecture)


def _smaller(architecture: Architecture) -> Iterator[Architecture]:
    infos = [info for info in analysis.primitives(architecture) if math.prod(info.output[1:]) > 1]  # no global pool
    stride = max((max(info.stride) for info in infos), default=1)
    channels, *size = architecture.input
    shapes, arrays = output_shapes(architecture), analysis.parameters(architecture)
    for least in range(LEAST, max(size), stride):
        height, width = (pixels - max(pixels - least, 0) // stride * stride for pixels in size)
        small = replace(architecture, input=(channels, height, width))
        try:
            found = output_shapes(small)
        except TriptychError:
            continue
        flat = any(1 in shape[1:] and 1 not in shapes[path][1:] for path, shape in found.items())
        if not flat and analysis.parameters(small) == arrays:
            yield small
