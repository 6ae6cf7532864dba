"""One conformance case: an architecture with parameters, images, labels and dropout masks, all from one seed.

The images are random, several, not constant and not square; biases, gamma, beta and running statistics are not at their
neutral start: otherwise a missing bias, a swapped axis or the wrong statistics could not be seen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych import zoo
from triptych.backend.targets import Targets
from triptych.data.preprocess import InputTransform
from triptych.reference.pixels import network_input
from triptych.spec.analysis import parameters
from triptych.spec.footprint import check_judged
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Architecture, outputs
from triptych.spec.shapes import output_shapes
from triptych.training import masks
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator
from triptych.weights.initializers import Parameters, draw_one

BATCH = 4
LARGE = 2**25  # parameters
EXTRA_WIDTH = 32  # pixels by which the images are wider than high


@dataclass(frozen=True, eq=False)
class Case:
    """What every backend and the reference are given. `stored` are uint8 images, as a trainer takes them; `targets` are
    labels, or cotangents of a network without classes. `tail`: what the last image's values are multiplied by, so that
    values far from 0 are met; its left half is a slope then, on which whole windows have one sign."""

    architecture: Architecture
    seed: int
    parameters: Parameters
    stored: NDArray[np.uint8]
    targets: Targets
    tail: float = 1.0

    @property
    def exact(self) -> "Exact":
        """The parameters in float64."""
        return Exact(self.parameters)

    @property
    def large(self) -> bool:
        """Whether it has so many parameters that memory is what is short."""
        return sum(value.size for value in self.parameters.values()) >= LARGE

    @property
    def transform(self) -> InputTransform:
        """Shifts the stored images around 0, so that no channel is all positive."""
        channels, height, width = self.architecture.input
        return InputTransform(channels, height, width, mean=(0.5,) * channels, std=(0.25,) * channels)

    @property
    def images(self) -> NDArray[np.float64]:
        """The stored images as the network's input, `(N, C, H, W)`."""
        images = network_input(self.stored, self.transform)
        if self.tail != 1:
            height, width = images.shape[2], images.shape[3] // 2
            slopes = generator(self.seed, "conformance", "slopes").random((3, images.shape[1], 1, 1)) - 0.5
            rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, max(width, 1))[:width]
            images[-1, :, :, :width] = 4 * slopes[0] + slopes[1] * rows + slopes[2] * columns
            images[-1] *= self.tail
        return images

    def masks(self, step: int) -> dict[str, NDArray[np.bool_]]:
        """The dropout masks of one training step, by layer path; True where a value is kept."""
        return masks.draw(self.architecture, self.seed, step, len(self.stored))


class Exact(Mapping[str, NDArray[np.float64]]):
    """Parameters in float64, each made when it is asked for: all of them can be a gigabyte."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    def __getitem__(self, path: str) -> NDArray[np.float64]:
        return np.asarray(self._parameters[path], np.float64)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)


def conformance_options(name: str, head: str | None = None) -> zoo.Options:
    """What makes architecture `name` narrow and small but complete, wider than high: as its entry in the zoo states."""
    entry = zoo.get_entry(name)
    ratio, resolution = entry.conformance
    shape = (entry.input[0], resolution, resolution + EXTRA_WIDTH)
    return zoo.Options(10, shape, ratio, head=head)


def conformance_architecture(name: str, *, head: str | None = None) -> Architecture:
    """Architecture `name` (with another `head`, if given) at conformance size."""
    return zoo.build_with(name, conformance_options(name, head))


def make_case(architecture: Architecture, seed: int = 0, batch: int = BATCH) -> Case:
    """A case of `batch` images for `architecture`; equal arguments, equal bits. Raises OutOfMemoryError for what cannot
    be judged in the memory that is here."""
    check_judged(architecture, batch)
    arrays = parameters(architecture)
    random = generator(seed, "conformance", "images")
    stored = (random.random((batch, *architecture.input)) * 256).astype(np.uint8)
    if not any(info.trained for info in arrays):
        raise TriptychError(f"'{architecture.name}' has no trained parameters: there is nothing to train or compare")
    values = {info.path: _value(info, architecture, seed) for info in arrays}
    return Case(architecture, seed, values, stored, _targets(architecture, seed, batch))


def _targets(architecture: Architecture, seed: int, batch: int) -> Targets:
    """Labels; without classes a cotangent for every output, from a bell-shaped curve (float32, so that both precisions
    are given the same)."""
    if architecture.classes:
        return (generator(seed, "conformance", "labels").random(batch) * architecture.classes).astype(np.int64)
    shapes = output_shapes(architecture)
    return tuple(
        generator(seed, "conformance", "cotangent", path).standard_normal((batch, *shapes[path])).astype(np.float32)
        for path in outputs(architecture)
    )


def _value(info: ParameterInfo, architecture: Architecture, seed: int) -> NDArray[np.float32]:
    """The shared initialisation for weights, values off the neutral start for the rest."""
    start = draw_one(info, seed, architecture.initializer)
    if info.role == "weight":
        return start
    shift = generator(seed, "conformance", info.path).random(info.shape) - 0.5
    return (start + 0.5 * shift).astype(np.float32)
