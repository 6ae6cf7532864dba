"""What the first layers of a network see of one image: their outputs, from the backend's own forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Images
from triptych.data import preprocess
from triptych.spec import layers as spec
from triptych.spec.layers import Architecture
from triptych.spec.shapes import output_shapes
from triptych.training.models import Model
from triptych.utils.errors import TriptychError

Maps = Mapping[str, NDArray[np.floating[Any]]]  # (C, H, W) by path

BLOCKS = (spec.Block, spec.Branches, spec.Residual)
POOLINGS = (spec.MaxPool, spec.AvgPool)


@dataclass(frozen=True)
class MapStatistics:
    """One layer's maps in numbers: `zeros` is the share of values that are 0, `dead` the channels with nothing else,
    `scale` the largest absolute value."""

    layer: str
    shape: tuple[int, ...]
    zeros: float
    dead: int
    scale: float


def stages(architecture: Architecture, count: int) -> tuple[str, ...]:
    """The first `count` blocks: the composites at the top level; of a network that has none of them, as LeNet and
    AlexNet, the poolings, which are its blocks' ends. Raises TriptychError for a count below 1."""
    if count < 1:
        raise TriptychError(f"--blocks {count} must be at least 1")
    shapes = output_shapes(architecture)
    of_kind = (
        [layer.name for layer in architecture.layers if isinstance(layer, kinds) and len(shapes[layer.name]) == 3]
        for kinds in (BLOCKS, POOLINGS)
    )
    return tuple(next(filter(None, of_kind), []))[:count]


def matching(architecture: Architecture, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers whose path matches a pattern, in the order of execution. Raises TriptychError for a pattern that no
    layer with a map matches."""
    shapes = output_shapes(architecture)
    auxiliary = {layer.name for layer in architecture.layers if isinstance(layer, spec.Auxiliary)}
    paths = [p for p, shape in shapes.items() if len(shape) == 3 and p.partition(".")[0] not in auxiliary]
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise TriptychError(
                f"--layers '{pattern}' matches no layer of '{architecture.name}' with a map, as '{paths[0]}' has one"
            )
    return tuple(path for path in paths if any(fnmatchcase(path, pattern) for pattern in patterns))


def chosen(architecture: Architecture, layers: str | None, blocks: int) -> tuple[str, ...]:
    """The layers that a comma-separated list of patterns matches; without one, the ends of the first `blocks`."""
    patterns = [pattern.strip() for pattern in (layers or "").split(",") if pattern.strip()]
    return matching(architecture, patterns) if patterns else stages(architecture, blocks)


def capture(backend: Backend, model: Model, picture: Images, paths: Sequence[str], device: str = "cpu") -> Maps:
    """The outputs of the layers `paths` in evaluation mode, on one stored picture `(1, C, h, w)`."""
    x = preprocess.apply_reference(picture, model.transform, dtype=np.float32)
    outputs = model.layers(backend, device)(x)
    return {path: outputs[path][0] for path in paths}


def describe(maps: Maps) -> list[MapStatistics]:
    """The maps in numbers, a row per layer."""
    rows = []
    for path, values in maps.items():
        zero, scale = values == 0, float(np.abs(values).max())
        rows.append(MapStatistics(path, values.shape, float(zero.mean()), int(zero.all((1, 2)).sum()), scale))
    return rows


def coarse_share(values: NDArray[np.floating[Any]]) -> float | None:
    """How much of the variance within the maps `(C, H, W)` is left when they are averaged over squares of 2x2: near 1
    for broad shapes, 1/4 for noise, 0 for a chequerboard. None for maps of one value, or of one row or column."""
    channels, height, width = values.shape
    if min(height, width) < 2:
        return None
    even = values[:, : height // 2 * 2, : width // 2 * 2].astype(np.float64)
    squares = even.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4))
    whole = even.var((1, 2)).sum()
    return float(squares.var((1, 2)).sum() / whole) if whole > 0 else None


def likeness(values: NDArray[np.floating[Any]], picture: NDArray[np.floating[Any]]) -> float | None:
    """How much the maps `(C, H, W)` look like the `picture` `(channels, h, w)`, shrunk to their size: the mean over the
    maps that are not flat of the correlation's absolute value. None if all are flat."""
    sizes = zip(picture.shape[1:], values.shape[1:], strict=True)
    rows, columns = (preprocess.resize_matrix(*size) for size in sizes)
    shrunk = rows @ picture.mean(0) @ columns.T
    varied = (channel for channel in values if np.ptp(channel) > 0)
    correlations = [np.corrcoef(channel.ravel(), shrunk.ravel())[0, 1] for channel in varied]
    return float(np.mean(np.abs(correlations))) if correlations and np.ptp(shrunk) > 0 else None
