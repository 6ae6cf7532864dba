"""The reference's loss, behind the last layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.utils.arrays import Array, largest
from triptych.utils.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels: TypeAlias = NDArray[np.integer[Any]]
    Targets: TypeAlias = Labels | tuple[Array, ...]
else:
    Labels = Targets = Any


def cross_entropy(
    logits: Array, labels: Labels, rounding: Rounding = exact, smoothing: float = 0.0
) -> tuple[float, Array]:
    """The mean over the batch of -log softmax at the label, and its gradient by the logits. With `smoothing` the label
    has that much less weight, and all classes share it evenly (Szegedy et al. 2016, section 7)."""
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(labels))
    targets = np.full(logits.shape, smoothing / logits.shape[1])
    targets[rows, labels] += 1 - smoothing
    loss = float(-(targets * log_softmax).sum(1).mean())
    return loss, rounding((np.exp(log_softmax) - targets) / len(labels), logits.shape[1])


def linear(
    outputs: Sequence[Array], cotangents: Sequence[Array], rounding: Rounding = exact
) -> tuple[float, list[Array]]:
    """The loss of a network without classes: the mean over the batch of the sum of every output times its cotangent;
    and its gradients by the outputs."""
    cotangents = [np.asarray(cotangent, np.float64) for cotangent in cotangents]  # they come as float32
    products = [output * cotangent for output, cotangent in zip(outputs, cotangents, strict=True)]
    loss = sum(product.sum() for product in products) / len(products[0])
    size = sum(product[0].size for product in products)
    absolute = sum(float(np.abs(product).sum()) for product in products) / len(products[0])
    gradients = [
        rounding(cotangent / len(cotangent), 1, largest(cotangent) / len(cotangent)) for cotangent in cotangents
    ]
    return float(rounding(np.asarray(loss), size, absolute)), gradients
