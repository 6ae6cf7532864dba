"""What the first layers of a network see of one image: their outputs, from the backend's own forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych import preprocess, spec
from triptych.backend import Backend, Images
from triptych.errors import TriptychError
from triptych.models import Model
from triptych.shapes import output_shapes
from triptych.spec import Architecture

Maps = Mapping[str, NDArray[np.floating[Any]]]  # (C, H, W) by path

STAGES = (spec.Block, spec.Branches, spec.Residual, spec.MaxPool, spec.AvgPool)


@dataclass(frozen=True)
class Row:
    """One layer's maps in numbers: `zeros` is the share of values that are 0, `dead` the channels with nothing else,
    `scale` the largest absolute value."""

    layer: str
    shape: tuple[int, ...]
    zeros: float
    dead: int
    scale: float


def stages(architecture: Architecture, count: int) -> tuple[str, ...]:
    """The first `count` blocks: composites and poolings at the top level, which are LeNet's and AlexNet's blocks' ends.

    Raises TriptychError for a count below 1.
    """
    if count < 1:
        raise TriptychError(f"--blocks {count} must be at least 1")
    shapes = output_shapes(architecture)
    names = [layer.name for layer in architecture.layers if isinstance(layer, STAGES)]
    return tuple(name for name in names if len(shapes[name]) == 3)[:count]


def matching(architecture: Architecture, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers whose path matches a pattern, in the order of execution.

    Raises TriptychError for a pattern that no layer with a map matches.
    """
    shapes = output_shapes(architecture)
    auxiliary = {layer.name for layer in architecture.layers if isinstance(layer, spec.Auxiliary)}
    paths = [p for p, shape in shapes.items() if len(shape) == 3 and p.partition(".")[0] not in auxiliary]
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise TriptychError(
                f"--layers '{pattern}' matches no layer of '{architecture.name}' with a map, as '{paths[0]}' has one"
            )
    return tuple(path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns))


def capture(backend: Backend, model: Model, picture: Images, paths: Sequence[str], device: str = "cpu") -> Maps:
    """The outputs of the layers `paths` in evaluation mode, on one stored picture `(1, C, h, w)`."""
    network = backend.build(model.architecture, device=device, precision=model.recipe.precision)
    backend.from_canonical(network, model.parameters)
    outputs = backend.forward(network, preprocess.apply_reference(picture, model.transform, dtype=np.float32))
    return {path: outputs[path][0] for path in paths}


def describe(maps: Maps) -> list[Row]:
    """The maps in numbers, a row per layer."""
    return [
        Row(
            path,
            values.shape,
            float((values == 0).mean()),
            int((values == 0).all((1, 2)).sum()),
            float(np.abs(values).max()),
        )
        for path, values in maps.items()
    ]
