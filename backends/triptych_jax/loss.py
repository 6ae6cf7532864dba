"""The loss that training minimises."""

import jax
import optax

from triptych.spec.analysis import auxiliary_weights
from triptych_jax.model import Network


def total_loss(network: Network, output: jax.Array | tuple[jax.Array, ...], labels: jax.Array) -> jax.Array:
    """Mean cross-entropy, plus the weighted losses of the auxiliary classifiers."""
    logits, *auxiliaries = output if isinstance(output, tuple) else (output,)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    for weight, auxiliary in zip(auxiliary_weights(network.architecture), auxiliaries, strict=False):
        loss = loss + weight * optax.softmax_cross_entropy_with_integer_labels(auxiliary, labels).mean()
    return loss
