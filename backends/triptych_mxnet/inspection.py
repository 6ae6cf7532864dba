"""Single passes for conformance: every layer's output, the loss, every gradient."""

from collections.abc import Sequence

import mxnet as mx
from mxnet import autograd

from triptych.backend.contract import Masks, Targets
from triptych.utils.arrays import Array
from triptych.weights.initializers import Parameters
from triptych_mxnet.loss import on_device, total_loss
from triptych_mxnet.model import Network, first
from triptych_mxnet.weights import to_numpy


def forward(network: Network, images: Array, *, train: bool = False, masks: Masks | None = None) -> Parameters:
    """Every layer's output by path."""
    outputs: Parameters = {}

    def keep(path: str) -> object:
        return lambda block, inputs, output: outputs.update({path: to_numpy(first(output))})

    with network.imperative(), network.dropout_masks(masks or {}):
        hooks = [block.register_forward_hook(keep(path)) for path, block in network.named_blocks()]
        try:
            with autograd.train_mode() if train else autograd.predict_mode():
                network(to_tensor(network, images))
        finally:  # before the network is hybrid again, which warns of hooks
            for hook in hooks:
                hook.detach()
    return outputs


def gradients(network: Network, images: Array, targets: Targets, *, masks: Masks) -> tuple[float, Parameters]:
    """The training loss and its gradient by path; the running statistics stay as they were."""
    x = to_tensor(network, images)
    x.attach_grad()
    for layer in network.batch_norms():
        layer.keep()
    with network.dropout_masks(masks), autograd.record():
        loss = total_loss(network, network(x), on_device(targets, network))
    loss.backward()
    for layer in network.batch_norms():
        layer.restore()
    by_path = {path: to_numpy(p.grad()) for path, p in network.named_parameters().items() if p.grad_req != "null"}
    return float(loss.asscalar()), by_path | {"input": to_numpy(x.grad)}


def layer_pass(
    network: Network, path: str, x: Array, gradient: Array | None, *, train: bool, masks: Masks
) -> tuple[Array, Array | None, Parameters]:
    """One layer alone: its output, and with the gradient of that the gradients of `x` and of its parameters."""
    block = dict(network.named_blocks())[path]
    value = to_tensor(network, x)
    value.attach_grad()
    for layer in network.batch_norms():
        layer.keep()
    with network.imperative(), network.dropout_masks(masks), autograd.record(train_mode=train):
        y = first(block(value))
    if gradient is None:
        return to_numpy(y), None, {}
    y.backward(to_tensor(network, gradient), train_mode=train)
    for layer in network.batch_norms():
        layer.restore()
    trained = {name: p for name, p in network.named_parameters().items() if p.grad_req != "null"}
    by_path = {name: to_numpy(p.grad()) for name, p in trained.items() if name.startswith(f"{path}.")}
    return to_numpy(y), to_numpy(value.grad), by_path


def loss_pass(network: Network, outputs: Sequence[Array], targets: Targets) -> tuple[float, list[Array]]:
    """The training loss of given outputs (those of the auxiliary classifiers last) and its gradients by them."""
    values = [to_tensor(network, value) for value in outputs]
    for value in values:
        value.attach_grad()
    with autograd.record():
        loss = total_loss(network, values, on_device(targets, network))
    loss.backward()
    return float(loss.asscalar()), [to_numpy(value.grad) for value in values]


def to_tensor(network: Network, images: Array) -> mx.nd.NDArray:
    """Float images on the network's device, in its type."""
    return mx.nd.array(images, network.device, network.dtype)
