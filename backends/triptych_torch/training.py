"""The training step: input, forward, loss, backward, update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from triptych.backend import Gather
from triptych.initializers import Parameters
from triptych.optimizers import Optimizer, Rates
from triptych.preprocess import InputTransform
from triptych.randomness import derive_seed
from triptych_torch.device import AUTOCAST, synchronize
from triptych_torch.input import Input
from triptych_torch.model import Network
from triptych_torch.optimizer import Updater
from triptych_torch.parameters import to_numpy
from triptych_torch.passes import dropout_masks, total_loss

SCALER, SCALER_FIELDS = "(loss scale)", ("scale", "_growth_tracker")


class Trainer:
    """Trains one network; see `triptych.backend.Trainer`."""

    def __init__(self, network: Network, optimizer: Optimizer, transform: InputTransform, seed: int) -> None:
        like = next(network.parameters())
        self.network = network
        self.optimizer = Updater(network, optimizer)
        self.input = Input(transform, like.device, like.dtype)
        self.device = like.device
        self.seed = seed
        # float16 gradients underflow without a scale; switched off, the scaler hands everything through unchanged
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=network.precision == "fp16")

    def step(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
    ) -> torch.Tensor:
        """One update; returns the loss and the number of right answers, still on the device."""
        self.network.train()
        torch.manual_seed(derive_seed(self.seed, "dropout", number))
        target = torch.from_numpy(labels).to(self.device)
        with dropout_masks(self.network, masks or {}):
            output = self.run(self.input(images, gather))
        loss = total_loss(self.network, output, target)
        self.network.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer, rates)
        self.scaler.update()
        logits = output[0] if isinstance(output, tuple) else output
        correct = (logits.detach().argmax(1) == target).sum()
        return torch.stack([loss.detach(), correct.to(loss.dtype)])  # no float64 on an NPU

    def read(self, handles: Sequence[torch.Tensor]) -> np.ndarray:
        """`(steps, 2)`; waits for the device."""
        synchronize(self.device)
        return torch.stack(list(handles)).cpu().double().numpy()

    def prepare(self, images: np.ndarray, gather: Gather | None = None) -> np.ndarray:
        """The network's input, made of stored images."""
        return to_numpy(self.input(images, gather))

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits of stored images."""
        self.network.eval()
        with torch.inference_mode():
            return self.run(self.input(images)).float().cpu().numpy()

    def run(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The network, under autocast for bf16 and fp16; logits come back in float32 then."""
        if self.network.precision not in AUTOCAST:
            return self.network(x)
        with torch.amp.autocast(self.device.type, AUTOCAST[self.network.precision]):
            output = self.network(x)
        return tuple(map(torch.Tensor.float, output)) if isinstance(output, tuple) else output.float()

    def state(self) -> Parameters:
        scale = self.scaler.state_dict()
        found = {SCALER: np.array([scale[name] for name in SCALER_FIELDS])} if scale else {}
        return self.optimizer.state() | found

    def load_state(self, state: Parameters) -> None:
        if SCALER in state and self.scaler.is_enabled():
            values = dict(zip(SCALER_FIELDS, state[SCALER].tolist(), strict=True))
            values["_growth_tracker"] = int(values["_growth_tracker"])
            self.scaler.load_state_dict(self.scaler.state_dict() | values)
        self.optimizer.load_state({path: value for path, value in state.items() if path != SCALER})
