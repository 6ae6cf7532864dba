"""One call of a Keras layer on its way to a step: its configuration, every value's type checked, and its arrays."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.importers.network_builder import NetworkBuilder, Tensor
from triptych.importers.steps import ImportRefusedError
from triptych.spec.layers import Pair

# What says nothing of how the layer computes: names, types, and what Keras derives the arrays' start from.
_WITHOUT_EFFECT = {
    "autocast",
    "batch_input_shape",
    "batch_shape",
    "build_config",
    "data_format",
    "dtype",
    "fused",
    "implementation",
    "input_dim",
    "input_dtype",
    "input_shape",
    "interpolation_order",
    "lora_alpha",
    "name",
    "optional",
    "quantization_config",
    "ragged",
    "renorm_momentum",
    "seed",
    "sparse",
    "synchronized",
    "trainable",
}
_STARTS = ("_initializer", "_regularizer", "_constraint")


@dataclass
class LayerCall:
    """What a layer of the table gets. `training`: in which mode the file says that it is called, whatever the network's
    own is. `read` collects the configuration's keys that it asked for: one that it did not
    ask for, and that may change a number, is refused by `check_all_read`."""

    name: str
    config: Mapping[str, Any]
    inputs: Sequence[Tensor]
    arrays: Sequence[NDArray[Any]]
    version: tuple[int, int]
    network: NetworkBuilder
    numbers: tuple[float, ...] = ()
    number_first: bool = False
    training: bool | None = None
    read: set[str] = field(default_factory=set)

    @property
    def x(self) -> Tensor:
        """The one input. Raises ImportRefusedError for several."""
        if len(self.inputs) != 1:
            raise ImportRefusedError(f"takes {len(self.inputs)} inputs, expected 1")
        return self.inputs[0]

    @property
    def settled(self) -> Tensor:
        """The one input; of features any order is left, a map is in the order of the spec."""
        flat = len(self.x.source_shape) == 1 == len(self.x.shape)
        return self.x if flat else self.network.canonical(self.x, f"{self.name}_reshape")

    @property
    def map(self) -> Tensor:
        """The one input, which is a map `(channels, height, width)`."""
        if len(self.x.shape) != 3:
            raise ImportRefusedError(
                f"takes an input of shape {self.x.source_shape}, expected a map with rows and columns"
            )
        if self.config.get("data_format") == "channels_first":
            raise ImportRefusedError("has data_format 'channels_first', expected 'channels_last'")
        return self.x

    def get(self, key: str, default: Any = None) -> Any:
        """The value in the configuration; None counts as not there."""
        self.read.add(key)
        value = self.config.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ImportRefusedError(f"has {key} {_short(value)}, expected a number")
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        value = self.get(key, default)
        if not _is_count(value):
            raise ImportRefusedError(f"has {key} {_short(value)}, expected a whole number from 0")
        return int(value)

    def pair(self, key: str, default: Pair | None = None) -> Pair:
        """Rows and columns; one number stands for both."""
        value = self.get(key, default)
        value = [value, value] if isinstance(value, int) else value
        if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(_is_count, value)):
            raise ImportRefusedError(f"has {key} {_short(value)}, expected two whole numbers")
        return value[0], value[1]

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise ImportRefusedError(f"has {key} {_short(value)}, expected true or false")
        return value

    def choice(self, key: str, allowed: Sequence[str], default: str) -> str:
        value = self.get(key, default)
        if value not in allowed:
            raise ImportRefusedError(f"has {key} {_short(value)}, expected {' or '.join(allowed)}")
        return str(value)

    def check_channel_axis(self, default: int = -1) -> None:
        """Raises ImportRefusedError unless `axis` is the last one, which holds the channels."""
        axis = self.get("axis", default)
        axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
        if axis == []:  # of a normalization: one number for all
            return
        rank = len(self.inputs[0].source_shape)
        if axis not in (-1, rank):
            raise ImportRefusedError(f"has axis {_short(axis)}, expected -1 or {rank}, the channels")

    def weights(self, *names: str) -> dict[str, NDArray[Any]]:
        """The layer's arrays by these names. Raises ImportRefusedError where the file has more or fewer."""
        if len(self.arrays) != len(names):
            raise ImportRefusedError(
                f"has {len(self.arrays)} arrays in the file, expected {len(names)} ({', '.join(names)})"
            )
        return dict(zip(names, self.arrays, strict=True))

    def check_all_read(self) -> None:
        """Raises ImportRefusedError for a key that nobody asked for, has a value, and is not known to be harmless."""
        for key, value in self.config.items():
            known = key in self.read or key in _WITHOUT_EFFECT or key.endswith(_STARTS)
            if not known and value not in (None, False, [], {}):
                raise ImportRefusedError(f"has {key[:40]} {_short(value)}, which is not supported")


Build: TypeAlias = Callable[[LayerCall], Tensor]


def names_of_arrays(call: LayerCall, *kernels: str) -> tuple[str, ...]:
    """The arrays of a layer that may have a bias."""
    return (*kernels, "bias") if call.flag("use_bias", True) else kernels


def numbers(value: Any, what: str) -> tuple[float, ...]:
    """One number or one for every channel, from JSON or an array."""
    try:
        values = tuple(np.asarray(value, np.float64).ravel().tolist())
    except (ValueError, TypeError):
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise ImportRefusedError(f"has {what} {_short(value)}, expected a number, or one for every channel")
    return values


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float | list | tuple) else type(value).__name__
