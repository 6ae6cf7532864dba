"""The reference's loss, behind the last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.utils.arrays import Array
from triptych.utils.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cross_entropy(logits: Array, labels: NDArray[np.integer[Any]], rounding: Rounding = exact) -> tuple[float, Array]:
    """The mean over the batch of -log softmax at the label, and its gradient by the logits."""
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    gradient = np.exp(log_softmax)
    gradient[rows, labels] -= 1
    return float(-log_softmax[rows, labels].mean()), rounding(gradient / len(labels), logits.shape[1])
