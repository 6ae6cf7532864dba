"""Arrays of floating-point numbers: the names of their types, and their size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from triptych.utils.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.floating[Any]]
else:
    Array = Any
Arrays: TypeAlias = Mapping[str, Array]


BLOCK = 2**20  # values that are subtracted at a time


def largest_difference(left: Array, right: Array) -> float:
    """The largest absolute difference of two arrays of one shape, in float64, block by block."""
    one, other = left.reshape(-1), right.reshape(-1)
    blocks = range(0, one.size, BLOCK)
    return max(
        (largest(np.subtract(one[i : i + BLOCK], other[i : i + BLOCK], dtype=np.float64)) for i in blocks), default=0.0
    )


def largest(array: Array) -> float:
    """The largest absolute value, 0 for an empty array; NaN if there is one."""
    # without a copy as large as the array; 0.0 is added because -0.0 of an array of zeros would be printed so
    return float(np.maximum(array.max(initial=0.0), -array.min(initial=0.0))) + 0.0
