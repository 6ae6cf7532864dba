"""The loss that training minimises."""

import torch
from torch import nn

from triptych.spec.analysis import auxiliary_weights
from triptych_torch.model import Network


def total_loss(network: Network, output: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy, plus the weighted losses of the auxiliary classifiers."""
    logits, *auxiliaries = output if isinstance(output, tuple) else (output,)
    loss = nn.functional.cross_entropy(logits, labels)
    for weight, auxiliary in zip(auxiliary_weights(network.architecture), auxiliaries, strict=False):
        loss = loss + weight * nn.functional.cross_entropy(auxiliary, labels)
    return loss
