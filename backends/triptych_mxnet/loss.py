"""The loss that training minimises."""

from typing import TypeAlias

import mxnet as mx

from triptych.backend.targets import Targets, map_targets
from triptych.spec.analysis import auxiliary_weights
from triptych_mxnet.model import Network

Tensors: TypeAlias = mx.nd.NDArray | list[mx.nd.NDArray] | tuple[mx.nd.NDArray, ...]


def on_device(targets: Targets, network: Network) -> Tensors:
    """Labels, or cotangents in the network's type, on its device."""
    dtypes = {"f": network.dtype, "i": "int32"}
    return map_targets(lambda values: mx.nd.array(values, network.device, dtypes[values.dtype.kind]), targets)


def total_loss(network: Network, output: Tensors, targets: Tensors, smoothing: float = 0.0) -> mx.nd.NDArray:
    """Mean cross-entropy, plus the weighted losses of the auxiliary classifiers; without classes, the mean over the
    batch of every output times its cotangent."""
    outputs = output if isinstance(output, list | tuple) else (output,)
    if isinstance(targets, tuple):
        products = [(value * cotangent).sum() for value, cotangent in zip(outputs, targets, strict=True)]
        return mx.nd.add_n(*products) / len(outputs[0])
    logits, *auxiliaries = outputs
    loss = _cross_entropy(logits, targets, smoothing)
    for weight, auxiliary in zip(auxiliary_weights(network.architecture), auxiliaries, strict=False):
        loss = loss + weight * _cross_entropy(auxiliary, targets, smoothing)
    return loss


def _cross_entropy(logits: mx.nd.NDArray, labels: mx.nd.NDArray, smoothing: float) -> mx.nd.NDArray:
    """The mean over the batch. MXNet's log_softmax, so its loss block too, is 27 times less accurate in float32."""
    shifted = mx.nd.broadcast_sub(logits, mx.nd.BlockGrad(logits.max(axis=1, keepdims=True)))
    right = shifted.pick(labels, axis=1)
    if smoothing:
        right = (1 - smoothing) * right + smoothing * shifted.mean(axis=1)
    return (shifted.exp().sum(axis=1).log() - right).mean()
