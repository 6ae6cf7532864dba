"""SGD as the spec has it, and its state to and from canonical."""

from __future__ import annotations

import torch

from triptych.initializers import Parameters
from triptych.optimizers import Optimizer, Rates, decay_of
from triptych_torch.model import Network
from triptych_torch.parameters import to_numpy


class Sgd:
    """torch.optim.SGD, the learning rate outside the velocity; one group per weight decay."""

    def __init__(self, network: Network, optimizer: Optimizer) -> None:
        self.named = dict(network.named_parameters())
        decay = decay_of(optimizer, network.architecture)
        groups = [
            {"params": [self.named[path] for path in self.named if decay[path] == strength], "weight_decay": strength}
            for strength in sorted(set(decay.values()))
        ]
        self.native = torch.optim.SGD(groups, lr=0.0)

    def step(self, rates: Rates) -> None:
        """Move every parameter by its gradient."""
        for group in self.native.param_groups:
            group["lr"], group["momentum"] = rates.learning_rate, rates.momentum
        self.native.step()
        if not rates.momentum:  # PyTorch would take up the velocity of an earlier step again
            self.native.state.clear()

    def state(self) -> Parameters:
        """The velocity by path; empty while there is none."""
        buffers = {path: self.native.state[tensor].get("momentum_buffer") for path, tensor in self.named.items()}
        return {path: to_numpy(buffer) for path, buffer in buffers.items() if buffer is not None}

    def load_state(self, state: Parameters) -> None:
        """Continue from a velocity."""
        self.native.state.clear()
        for path, value in state.items():
            tensor = self.named[path]
            buffer = torch.from_numpy(value.copy()).to(tensor.device, tensor.dtype)
            self.native.state[tensor]["momentum_buffer"] = torch.empty_like(tensor).copy_(buffer)
