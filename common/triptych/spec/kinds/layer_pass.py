"""What a layer's reference, its forward and backward in NumPy, takes and gives.

Each result passes through `rounding(value, length, scale)`, the identity in the exact reference: `length` is the number
of terms summed for one value, `scale` the size of what was summed where that is larger than the sum.
`triptych.reference.rounding` perturbs there to find out what float32 can explain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from triptych.utils.arrays import Array, Arrays
from triptych.utils.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Gradients: TypeAlias = dict[str, Array]
Backward: TypeAlias = Callable[[Array], tuple[Array, Gradients]]
Rounding: TypeAlias = Callable[..., Array]


@dataclass(frozen=True)
class Conditions:
    """What a layer's reference runs under, beside its input and arrays. `frozen`: the running statistics are used and
    kept in training, too. `mask`: what dropout keeps (True)."""

    rounding: Rounding
    path: str = ""
    train: bool = False
    frozen: bool = False
    mask: NDArray[np.bool_] | None = None


class LayerPass(NamedTuple):
    """What a layer's reference gives: its output, the function that takes the gradient of that to `(gradient of the
    input, {array: gradient})`, and its running statistics after this batch, by name."""

    output: Array
    backward: Backward
    statistics: Arrays = MappingProxyType({})


def exact(value: Array, length: int, scale: float | None = None) -> Array:
    """No rounding beyond NumPy's own."""
    return value


def per_channel(values: Array, like: Array) -> Array:
    """`(channels,)` in the shape that meets `like (N, channels, ...)`."""
    return values.reshape(-1, *(1,) * (like.ndim - 2))


def all_but_channels(x: Array) -> tuple[int, ...]:
    """The axes that are summed over for one value per channel."""
    return (0, *range(2, x.ndim))
