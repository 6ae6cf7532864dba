"""The loss that training minimises."""

import mxnet as mx

from triptych.spec.analysis import auxiliary_weights
from triptych_mxnet.model import Network


def total_loss(network: Network, output: mx.nd.NDArray | list[mx.nd.NDArray], labels: mx.nd.NDArray) -> mx.nd.NDArray:
    """Mean cross-entropy, plus the weighted losses of the auxiliary classifiers."""
    logits, *auxiliaries = output if isinstance(output, list | tuple) else (output,)
    loss = _cross_entropy(logits, labels)
    for weight, auxiliary in zip(auxiliary_weights(network.architecture), auxiliaries, strict=False):
        loss = loss + weight * _cross_entropy(auxiliary, labels)
    return loss


def _cross_entropy(logits: mx.nd.NDArray, labels: mx.nd.NDArray) -> mx.nd.NDArray:
    """The mean over the batch. MXNet's log_softmax, so its loss block too, is 27 times less accurate in float32."""
    shifted = mx.nd.broadcast_sub(logits, mx.nd.BlockGrad(logits.max(axis=1, keepdims=True)))
    return (shifted.exp().sum(axis=1).log() - shifted.pick(labels, axis=1)).mean()
