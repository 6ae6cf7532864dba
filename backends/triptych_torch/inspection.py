"""Single passes for conformance: every layer's output, the loss, every gradient."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from triptych.backend.contract import Masks, Targets
from triptych.spec.layers import join
from triptych.utils.arrays import Array
from triptych.weights.initializers import Parameters
from triptych_torch.loss import on_device, total_loss
from triptych_torch.model import Network, first
from triptych_torch.weights import to_numpy


def forward(network: Network, images: Array, *, train: bool = False, masks: Masks | None = None) -> Parameters:
    """Every layer's output by path; the running statistics stay as they were."""
    outputs: Parameters = {}

    def keep(path: str) -> object:
        return lambda module, inputs, output: outputs.update({path: to_numpy(first(output))})

    hooks = [module.register_forward_hook(keep(path)) for path, module in network.named_modules() if path]
    network.train(train)
    with torch.no_grad(), _statistics_kept(network), network.dropout_masks(masks or {}):
        network(to_tensor(network, images))
    for hook in hooks:
        hook.remove()
    return outputs


def gradients(network: Network, images: Array, targets: Targets, *, masks: Masks) -> tuple[float, Parameters]:
    """The training loss and its gradient by path; the running statistics stay as they were."""
    network.train()
    network.zero_grad()  # a trainer's last gradients would be added to
    x = to_tensor(network, images).requires_grad_()
    with _statistics_kept(network):
        with network.dropout_masks(masks):
            loss = total_loss(network, network(x), on_device(targets, network))
        loss.backward()
    by_path = {path: _taken(p) for path, p in network.named_parameters() if p.requires_grad}
    return loss.item(), by_path | {"input": to_numpy(x.grad)}


def layer_pass(
    network: Network, path: str, x: Array, gradient: Array | None, *, train: bool, masks: Masks
) -> tuple[Array, Array | None, Parameters]:
    """One layer alone: its output, and with the gradient of that the gradients of `x` and of its parameters."""
    module = network.get_submodule(path)
    network.train(train)
    network.zero_grad()
    value = to_tensor(network, x).requires_grad_()
    with _statistics_kept(network), network.dropout_masks(masks):
        y = module(value)
        if gradient is None:
            return to_numpy(y), None, {}
        y.backward(to_tensor(network, gradient))
    by_path = {join(path, name): _taken(p) for name, p in module.named_parameters() if p.requires_grad}
    return to_numpy(y), to_numpy(value.grad), by_path


def loss_pass(network: Network, outputs: Sequence[Array], targets: Targets) -> tuple[float, list[Array]]:
    """The training loss of given outputs (those of the auxiliary classifiers last) and its gradients by them."""
    values = [to_tensor(network, value).requires_grad_() for value in outputs]
    loss = total_loss(network, tuple(values), on_device(targets, network))
    loss.backward()
    return loss.item(), [to_numpy(value.grad) for value in values]


def to_tensor(network: Network, images: Array) -> torch.Tensor:
    """Float images on the network's device, in its type."""
    like = next(network.parameters())
    return torch.from_numpy(images).to(like.device, like.dtype)


def _taken(parameter: torch.nn.Parameter) -> Array:
    """Its gradient, which it has no more: a copy beside it could be a gigabyte."""
    gradient, parameter.grad = parameter.grad, None
    return gradient.cpu().contiguous().numpy()


@contextmanager
def _statistics_kept(network: Network) -> Iterator[None]:
    """Put the running statistics back at the end: a training-mode forward pass changes them in PyTorch."""
    before = {path: buffer.clone() for path, buffer in network.named_buffers()}
    try:
        yield
    finally:
        for path, buffer in network.named_buffers():
            buffer.copy_(before[path])
