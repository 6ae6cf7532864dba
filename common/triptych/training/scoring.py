"""What logits score."""

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Images, Labels, Predictor
from triptych.utils.errors import TriptychError


def logits_of(predictor: Predictor, images: Images, batch_size: int) -> NDArray[np.float64]:
    """Logits `(N, classes)` of stored images in evaluation mode, a batch at a time. Raises TriptychError for none."""
    if not len(images):
        raise TriptychError("there are no images to evaluate on")
    begins = range(0, len(images), batch_size)
    return np.concatenate([predictor.predict(images[begin : begin + batch_size]) for begin in begins]).astype(float)


def totals(logits: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """`(2,)`: the sum of the cross-entropies of logits `(N, classes)`, and the number of right answers."""
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]
    return np.array([losses.sum(), (logits.argmax(1) == labels).sum()])


def score(logits: NDArray[np.float64], labels: Labels) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits `(N, classes)`."""
    loss, right = totals(logits, labels) / len(labels)
    return float(loss), float(right)
