"""Shared initialisation: every backend starts from the same bits, drawn by NumPy.

Each array is drawn from `(seed, path)` alone, so adding a layer does not change the others' draws.
"""

import math
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from triptych.spec.analysis import parameters
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Architecture, Initializer, InitializerName
from triptych.utils import memory
from triptych.utils.errors import TriptychError, unknown
from triptych.utils.randomness import generator

Parameters = dict[str, NDArray[np.floating[Any]]]

NAMES: tuple[InitializerName, ...] = get_args(InitializerName)
VALUED = ("normal", "constant")  # those that take a number
FACTORS = ("avg", "in", "out")


@dataclass(frozen=True)
class ScaledXavier(Initializer):
    """MXNet's `Xavier` with its `magnitude` and `factor_type`: uniform within sqrt(magnitude / factor), or normal of
    that deviation; the factor is fan in, fan out, or their mean. Uniform with 3 and "avg" is Glorot and Bengio's."""

    magnitude: float = 3.0
    factor: str = "avg"

    def deviation(self, info: ParameterInfo) -> float:
        """Of the weights that are drawn."""
        fans = {"avg": (info.fan_in + info.fan_out) / 2, "in": info.fan_in, "out": info.fan_out}
        bound = math.sqrt(self.magnitude / fans[self.factor])
        return bound / math.sqrt(3) if self.name.endswith("uniform") else bound


def draw(architecture: Architecture, seed: int, initializer: Initializer | None = None) -> Parameters:
    """Canonical float32 parameters for `architecture`; the initializer is the architecture's unless another is
    handed over. Raises OutOfMemoryError for more than there is memory for."""
    initializer = initializer or architecture.initializer
    infos = parameters(architecture)
    memory.check(4 * sum(math.prod(info.shape) for info in infos), f"drawing the parameters of '{architecture.name}'")
    return {info.path: draw_one(info, seed, initializer) for info in infos}


def draw_one(info: ParameterInfo, seed: int, initializer: Initializer) -> NDArray[np.float32]:
    """One float32 array: weights are drawn by `initializer`, all else starts at the constant of `info.start`. Xavier:
    variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010); Kaiming: 2 / fan_in (He et al. 2015)."""
    if info.start is not None:
        return np.full(info.shape, info.start, np.float32)
    if initializer.name == "constant":
        return np.full(info.shape, initializer.value, np.float32)
    deviation = (
        initializer.deviation(info)
        if isinstance(initializer, ScaledXavier)
        else {
            "xavier": math.sqrt(2 / (info.fan_in + info.fan_out)),
            "kaiming": math.sqrt(2 / info.fan_in),
            "normal": initializer.value,
        }[initializer.name.split("_")[0]]
    )
    random = generator(seed, "init", info.path)
    if initializer.name.endswith("uniform"):
        bound = math.sqrt(3) * deviation
        return random.uniform(-bound, bound, info.shape).astype(np.float32)
    return (deviation * random.standard_normal(info.shape)).astype(np.float32)


def parse(text: str) -> Initializer:
    """`xavier_uniform`, `normal:0.01`, `constant:0.1`; `xavier_uniform:2.24` and `xavier_normal:2,in` are MXNet's
    magnitude and factor (see `ScaledXavier`). Raises TriptychError for anything else."""
    name, _, value = text.partition(":")
    for known in NAMES:
        if name == known and name.startswith("xavier") and value:
            return _parse_scaled(known, value, text)
        if name == known:
            return Initializer(known, _parse_value(known, value, text) if value else 0.01)
    raise unknown("initializer", name, NAMES)


def text_of(initializer: Initializer) -> str:
    """What `parse` makes this initializer of."""
    return f"{initializer.name}:{initializer.value:g}" if initializer.name in VALUED else initializer.name


def _parse_scaled(name: InitializerName, value: str, whole: str) -> Initializer:
    number, mark, factor = value.partition(",")
    factor = factor if mark else "avg"
    if factor not in FACTORS:
        raise TriptychError(f"initializer '{whole}': {unknown('factor', factor, FACTORS)}")
    try:
        magnitude = float(number)
    except ValueError:
        raise TriptychError(f"initializer '{whole}': '{number}' is not a number") from None
    if not 0 < magnitude < math.inf:
        raise TriptychError(f"initializer '{whole}': the magnitude {number} must be a number above 0")
    return ScaledXavier(name, magnitude=magnitude, factor=factor)


def _parse_value(name: InitializerName, text: str, whole: str) -> float:
    if name not in VALUED:
        raise TriptychError(f"initializer '{whole}': '{name}' takes no number; write '{name}'")
    try:
        value = float(text)
    except ValueError:
        raise TriptychError(f"initializer '{whole}': '{text}' is not a number") from None
    if not math.isfinite(value) or (name == "normal" and value < 0):
        raise TriptychError(f"initializer '{whole}': {text} is no deviation or value to start from")
    return value
