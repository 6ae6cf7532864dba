"""The loss that training minimises."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from triptych.backend.targets import Targets, map_targets
from triptych.spec.analysis import auxiliary_weights
from triptych_jax.model import Network

Tensors: TypeAlias = jax.Array | tuple[jax.Array, ...]


def on_device(targets: Targets, network: Network) -> NDArray[Any] | tuple[NDArray[Any], ...]:
    """Labels, or cotangents in the network's type, as a compiled function takes them."""
    dtypes = {"f": network.dtype, "i": np.int32}
    return map_targets(lambda values: np.asarray(values, dtypes[values.dtype.kind]), targets)


def total_loss(network: Network, output: Tensors, targets: Tensors, smoothing: float = 0.0) -> jax.Array:
    """Mean cross-entropy, plus the weighted losses of the auxiliary classifiers; without classes, the mean over the
    batch of every output times its cotangent."""
    outputs = output if isinstance(output, tuple) else (output,)
    if isinstance(targets, tuple):
        products = [(value * cotangent).sum() for value, cotangent in zip(outputs, targets, strict=True)]
        return jnp.stack(products).sum() / len(outputs[0])
    logits, *auxiliaries = outputs
    loss = _cross_entropy(logits, targets, smoothing)
    for weight, auxiliary in zip(auxiliary_weights(network.architecture), auxiliaries, strict=False):
        loss = loss + weight * _cross_entropy(auxiliary, targets, smoothing)
    return loss


def _cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """The mean over the batch."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    if not smoothing:
        return loss
    even = (jax.nn.logsumexp(logits, 1) - logits.mean(1)).mean()
    return (1 - smoothing) * loss + smoothing * even
