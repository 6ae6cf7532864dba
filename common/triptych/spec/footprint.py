"""The least memory that a network needs, by its spec alone: what cannot fit is said before anything is begun."""

import math
from dataclasses import dataclass

from triptych.spec.analysis import activation_bytes, parameters, primitives
from triptych.spec.layers import Architecture, Conv, ConvTranspose, Dense
from triptych.utils import memory

# What trains keeps the results of these for the backward pass, whatever a compiler fuses or does in place.
_KEPT = (Conv, ConvTranspose, Dense)
_DOUBLE = 8  # bytes


@dataclass(frozen=True)
class Footprint:
    """Bytes that are needed however small a batch is, and those of every image in it; both are lower bounds."""

    fixed: int
    per_image: int

    def check(self, what: str, batch: int, images: str, *, fewer: bool = True, parts: int = 1) -> None:
        """Raises OutOfMemoryError if `what`, with `batch` of `images`, needs more than there is here: how much, how
        much there is, and, where there may be `fewer` images, how many may fit, in as many `parts`."""
        free = memory.available()
        needed = self.fixed + batch * self.per_image
        if free is None or needed <= free:
            return
        fits = (free - self.fixed) // self.per_image if self.per_image else 0
        way_out = f"lower --batch-size ({fits * parts} may fit)" if fewer and fits > 0 else memory.SMALLER
        memory.check(needed, f"{what} {batch} images of {images}", way_out)


def trained(architecture: Architecture, slots: int, itemsize: int = 4) -> Footprint:
    """Of training on the processor's memory: parameters, their gradients and `slots` of the optimiser, and the results
    that the backward pass needs, `itemsize` bytes per value."""
    infos = parameters(architecture)
    weights = sum(math.prod(info.shape) for info in infos)
    moved = sum(math.prod(info.shape) for info in infos if info.trained)
    kept = sum(math.prod(info.output) for info in primitives(architecture) if isinstance(info.layer, _KEPT))
    return Footprint((weights + (1 + slots) * moved) * max(4, itemsize), kept * itemsize)


def evaluated(architecture: Architecture, itemsize: int = 4) -> Footprint:
    """Of evaluation on the processor's memory: parameters, and the largest layer's input or output."""
    weights = sum(math.prod(info.shape) for info in parameters(architecture))
    largest = max((math.prod(info.output) for info in primitives(architecture)), default=0)
    return Footprint(weights * max(4, itemsize), max(largest, math.prod(architecture.input)) * itemsize)


def on_device(architecture: Architecture) -> Footprint:
    """Of what is run on a device with memory of its own: the parameters, which are drawn or read here."""
    return Footprint(4 * sum(math.prod(info.shape) for info in parameters(architecture)), 0)


def check_judged(architecture: Architecture, batch: int) -> None:
    """Raises OutOfMemoryError if the float64 reference cannot judge this network here: it keeps every layer's output,
    and each parameter with its gradient."""
    weights = sum(math.prod(info.shape) for info in parameters(architecture))
    footprint = Footprint(2 * _DOUBLE * weights, max(activation_bytes(architecture, _DOUBLE)))
    footprint.check(f"judging '{architecture.name}' on", batch, "x".join(map(str, architecture.input)), fewer=False)
