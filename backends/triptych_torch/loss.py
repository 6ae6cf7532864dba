"""The loss that training minimises."""

from typing import TypeAlias

import torch
from torch import nn

from triptych.backend.targets import Targets, map_targets
from triptych.spec.analysis import auxiliary_weights
from triptych_torch.model import Network

Tensors: TypeAlias = torch.Tensor | tuple[torch.Tensor, ...]


def on_device(targets: Targets, network: Network) -> Tensors:
    """Labels, or cotangents in the network's type, on its device."""
    like = next(network.parameters())
    dtypes = {"f": like.dtype, "i": torch.int64}
    return map_targets(lambda values: torch.from_numpy(values).to(like.device, dtypes[values.dtype.kind]), targets)


def total_loss(network: Network, output: Tensors, targets: Tensors, smoothing: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy, plus the weighted losses of the auxiliary classifiers; without classes, the mean over the
    batch of every output times its cotangent."""
    outputs = output if isinstance(output, tuple) else (output,)
    if isinstance(targets, tuple):
        products = [(value * cotangent).sum() for value, cotangent in zip(outputs, targets, strict=True)]
        return torch.stack(products).sum() / len(outputs[0])
    logits, *auxiliaries = outputs
    loss = nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing)
    for weight, auxiliary in zip(auxiliary_weights(network.architecture), auxiliaries, strict=False):
        loss = loss + weight * nn.functional.cross_entropy(auxiliary, targets, label_smoothing=smoothing)
    return loss
