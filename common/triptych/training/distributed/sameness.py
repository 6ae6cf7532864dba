"""Whether all processes of a training are about to do the same: compared once, before the first step."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych import __version__
from triptych.backend.contract import Backend
from triptych.backend.group import Group
from triptych.data.dataset import Dataset, Split
from triptych.spec import records
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import Parameters

DIGEST_BYTES = 6  # what a float64 holds exactly
HASHED_BYTES = 2**28  # of a larger set of images, so many, spread evenly


def check_same(
    group: Group, backend: Backend, recipe: Recipe, dataset: Dataset, parameters: Parameters, optimizer: Parameters
) -> None:
    """Raises TriptychError, on every process, unless all have the same recipe, data, versions and weights. `optimizer`
    is the state of a run that goes on."""
    parts = {
        "recipe": digest(json.dumps(records.encode(recipe), sort_keys=True)),
        "data": digest(dataset.class_names, *(_of_split(split) for split in (dataset.train, dataset.test))),
        "versions": digest(__version__, *sorted(backend.versions().items())),
        "weights": digest(_of_arrays(parameters), _of_arrays(optimizer)),
    }
    told = group.gather(np.array([float(value) for value in parts.values()]))
    different = {
        rank: " and other ".join(name for name, same in zip(parts, equal, strict=True) if not same)
        for rank, equal in enumerate(told == told[0])
    }
    wrong = [f"process {rank} has other {what}" for rank, what in different.items() if what]
    if wrong:
        raise TriptychError(f"{', '.join(wrong)} than process 0; all must train the same")


def digest(*parts: object) -> int:
    """The beginning of the SHA-256 of what `parts` say, as a number."""
    text = "\0".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:DIGEST_BYTES], "big")


def _of_split(split: Split) -> str:
    """Labels and images; of more than `HASHED_BYTES` of images some, spread evenly."""
    hashed = hashlib.sha256(np.ascontiguousarray(split.labels).tobytes())
    images, step = split.images, 1
    if len(images):
        each = int(np.prod(images.shape[1:]))
        step = max(1, -(-len(images) * each // HASHED_BYTES))
    for image in images[::step]:
        hashed.update(np.ascontiguousarray(image).tobytes())
    return f"{images.shape} {hashed.hexdigest()}"


def _of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    hashed = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        hashed.update(f"{name} {value.shape} {value.dtype}".encode())
        hashed.update(value.tobytes())
    return hashed.hexdigest()
