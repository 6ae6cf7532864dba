"""The optimisers as the spec has them, and their state to and from canonical."""

import math
from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from triptych.backend import optimizer_state
from triptych.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, Rates, RMSprop, decay_of, rates_of
from triptych.weights.initializers import Parameters
from triptych_torch.model import Network
from triptych_torch.weights import from_numpy, to_numpy

BUFFERS = {  # canonical: PyTorch's
    "velocity": "momentum_buffer",
    "mean": "exp_avg",
    "variance": "exp_avg_sq",
    "square": "square_avg",
    "sum": "sum",
}
FACTOR = "times the learning rate"  # in a group; PyTorch keeps what it does not know


class Updater:
    """One of torch.optim, one group per weight decay and multiplier of the learning rate."""

    def __init__(self, network: Network, optimizer: Optimizer, frozen: frozenset[str]) -> None:
        decay = decay_of(optimizer, network.architecture, frozen)
        factors = rates_of(optimizer, network.architecture, frozen)
        self.named = {path: parameter for path, parameter in network.named_parameters() if path in decay}
        members: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for path, parameter in self.named.items():
            members.setdefault((decay[path], factors[path]), []).append(parameter)
        groups = [
            {"params": members[strength, factor], "weight_decay": strength, FACTOR: factor}
            for strength, factor in sorted(members)
        ]
        self.optimizer = optimizer
        self.native = NATIVE[type(optimizer)](groups, optimizer)
        self.native.state.clear()  # Adagrad allocates its own at once

    @property
    def param_groups(self) -> list[dict[str, object]]:
        """What a GradScaler looks through for overflows."""
        return self.native.param_groups

    def step(self, rates: Rates) -> None:
        """Move every parameter by its gradient."""
        for group in self.native.param_groups:
            own = rates.times(group[FACTOR])
            group["lr"] = own.learning_rate
            if isinstance(self.optimizer, Adam) and self.optimizer.eps_added == "before":
                group["lr"], group["eps"] = _uncorrected(self.optimizer, own, self._count() + 1)
            if "momentum" in group:
                group["momentum"] = rates.momentum
        self._complete()
        self.native.step()
        if "momentum" in group and not rates.momentum:  # PyTorch would take up an earlier step's velocity again
            for kept in self.native.state.values():
                kept.pop("momentum_buffer", None)

    def _complete(self) -> None:
        """What RMSprop and Adagrad look for in a step: they make it before the first one or not at all, though a
        schedule can begin with a momentum of 0."""
        if not isinstance(self.optimizer, RMSprop | Adagrad):
            return
        for parameter in self.named.values():
            kept = self.native.state[parameter]
            kept.setdefault("step", torch.tensor(0.0))
            for slot in self.optimizer.slots:
                kept.setdefault(BUFFERS[slot], torch.zeros_like(parameter))

    def state(self) -> Parameters:
        """The velocities, or means and variances, by slot and path; empty before the first step."""

        def read(slot: str, path: str) -> NDArray[Any] | None:
            kept = self.native.state.get(self.named[path], {})
            buffer = kept.get(BUFFERS[slot])
            if buffer is None and "step" in kept:  # a momentum of 0 beside what else is kept
                buffer = torch.zeros_like(self.named[path])
            return None if buffer is None else to_numpy(buffer)  # SGD without momentum keeps a None

        return optimizer_state.collect(self.optimizer, self.named, read, self._count())

    def _count(self) -> int:
        """The steps made."""
        return next((int(kept["step"]) for kept in self.native.state.values() if "step" in kept), 0)

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        self.native.state.clear()
        for slot, path, value in optimizer_state.take_apart(self.optimizer, self.named, state):
            if value is not None:
                kept = self.native.state[self.named[path]]
                kept[BUFFERS[slot]] = from_numpy(value, self.named[path])
                if self.optimizer.counts:
                    kept["step"] = torch.tensor(float(optimizer_state.count_of(state)))


def _uncorrected(optimizer: Adam, rates: Rates, count: int) -> tuple[float, float]:
    """The learning rate and eps with which PyTorch's Adam, which corrects the root before it adds eps, makes a step of
    the size that the spec has, and adds eps before."""
    beta1, beta2, eps = optimizer.moments
    root = math.sqrt(1 - beta2**count)
    return optimizer.size(rates, count) * (1 - beta1**count) / root, eps / root


NATIVE: dict[type[Optimizer], Callable[[list[dict[str, Any]], Any], torch.optim.Optimizer]] = {
    SGD: lambda groups, record: torch.optim.SGD(groups, lr=0.0, momentum=record.momentum, nesterov=record.nesterov),
    Adam: lambda groups, record: torch.optim.Adam(groups, lr=0.0, betas=record.moments[:2], eps=record.eps),
    AdamW: lambda groups, record: torch.optim.AdamW(groups, lr=0.0, betas=(record.beta1, record.beta2), eps=record.eps),
    RMSprop: lambda groups, record: torch.optim.RMSprop(
        groups, lr=0.0, alpha=record.alpha, eps=record.eps, momentum=record.momentum
    ),
    Adagrad: lambda groups, record: torch.optim.Adagrad(groups, lr=0.0, eps=record.eps),
}
