"""What the reference's layers share: their arrays, the hook that rounds, and the loss behind the last of them.

A layer's own forward and backward stand with its kind, in `triptych.spec.kinds`. Each result passes through
`rounding(value, length, scale)`, the identity in the exact reference: `length` is the number of terms summed for one
value, `scale` the size of what was summed where that is larger than the sum. `triptych.reference.rounding` perturbs
there to find out what float32 can explain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from triptych.utils.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[np.floating[Any]]
else:
    Array = Any
Arrays: TypeAlias = Mapping[str, Array]
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


def largest(array: Array) -> float:
    """The largest absolute value, 0 for an empty array; NaN if there is one."""
    return float(np.maximum(array.max(initial=0.0), -array.min(initial=0.0)))  # without a copy as large as the array


def cross_entropy(logits: Array, labels: NDArray[np.integer[Any]], rounding: Rounding = exact) -> tuple[float, Array]:
    """The mean over the batch of -log softmax at the label, and its gradient by the logits."""
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_softmax)
    gradient[rows, labels] -= 1
    return float(-log_softmax[rows, labels].mean()), rounding(gradient / len(labels), logits.shape[1])
