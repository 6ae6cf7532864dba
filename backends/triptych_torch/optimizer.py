"""The optimisers as the spec has them, and their state to and from canonical."""

from __future__ import annotations

import numpy as np
import torch

from triptych.optim.optimizers import COUNT, SGD, Adam, AdamW, Optimizer, Rates, decay_of
from triptych.weights.initializers import Parameters
from triptych_torch.model import Network
from triptych_torch.weights import to_numpy

BUFFERS = {"velocity": "momentum_buffer", "mean": "exp_avg", "variance": "exp_avg_sq"}  # canonical: PyTorch's


class Updater:
    """torch.optim's SGD, Adam or AdamW, one group per weight decay."""

    def __init__(self, network: Network, optimizer: Optimizer, frozen: frozenset[str]) -> None:
        decay = decay_of(optimizer, network.architecture, frozen)
        self.named = {path: parameter for path, parameter in network.named_parameters() if path in decay}
        groups = [
            {"params": [self.named[path] for path in self.named if decay[path] == strength], "weight_decay": strength}
            for strength in sorted(set(decay.values()))
        ]
        self.native = NATIVE[type(optimizer)](groups, optimizer)

    @property
    def param_groups(self) -> list[dict[str, object]]:
        """What a GradScaler looks through for overflows."""
        return self.native.param_groups

    def step(self, rates: Rates) -> None:
        """Move every parameter by its gradient."""
        for group in self.native.param_groups:
            group["lr"] = rates.learning_rate
            if "momentum" in group:
                group["momentum"] = rates.momentum
        self.native.step()
        if "momentum" in group and not rates.momentum:  # PyTorch would take up an earlier step's velocity again
            self.native.state.clear()

    def state(self) -> Parameters:
        """The velocities, or means and variances, by slot and path; empty before the first step."""
        found = {}
        for path, tensor in self.named.items():
            native = self.native.state[tensor]
            found |= {f"{slot}.{path}": to_numpy(native[key]) for slot, key in BUFFERS.items() if _has(native, key)}
            if "step" in native:
                found[COUNT] = np.asarray(native["step"], np.float64)
        return found

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        self.native.state.clear()
        for name, value in state.items():
            slot, _, path = name.partition(".")
            if path:
                tensor = self.named[path]
                buffer = torch.from_numpy(value.copy()).to(tensor.dtype).to(tensor.device)
                self.native.state[tensor][BUFFERS[slot]] = torch.empty_like(tensor).copy_(buffer)
                if COUNT in state:
                    self.native.state[tensor]["step"] = torch.tensor(float(state[COUNT]))


def _sgd(groups: list[dict], optimizer: SGD) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=0.0, momentum=optimizer.momentum, nesterov=optimizer.nesterov)


def _adam(groups: list[dict], optimizer: Adam) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=0.0, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps)


def _adamw(groups: list[dict], optimizer: AdamW) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=0.0, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.eps)


NATIVE = {SGD: _sgd, Adam: _adam, AdamW: _adamw}


def _has(native: dict, key: str) -> bool:
    return native.get(key) is not None  # SGD without momentum keeps a None
