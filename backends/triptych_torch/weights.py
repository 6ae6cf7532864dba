"""To and from canonical parameters. In PyTorch these are the state dict, array by array."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from triptych.weights.initializers import Parameters
from triptych.weights.store import check_fit
from triptych_torch.model import Network


def to_canonical(network: Network) -> Parameters:
    """Copies of all parameters and running statistics, by path."""
    return {path: to_numpy(tensor) for path, tensor in network.state_dict().items()}


def from_canonical(network: Network, parameters: Parameters) -> None:
    """Copy `parameters` into the network. Raises TriptychError unless names and shapes fit exactly."""
    check_fit(network.architecture, parameters)
    state = network.state_dict()  # keeps the metadata that stops PyTorch from expecting num_batches_tracked
    state.update({path: torch.from_numpy(np.array(value)) for path, value in parameters.items()})
    network.load_state_dict(state)


def initialize(network: Network, seed: int) -> None:
    """PyTorch's own start: uniform within 1 / sqrt(fan_in) for weights and biases."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()


def to_numpy(value: torch.Tensor) -> NDArray[Any]:
    """A copy on the host, in row order whatever the memory format."""
    return value.detach().cpu().contiguous().numpy().copy()


def from_numpy(value: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    """A canonical array in the memory format, type and place of `like`."""
    return torch.empty_like(like).copy_(torch.from_numpy(np.array(value)).to(like.dtype).to(like.device))
