"""The training step: input, forward, loss, backward, update."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from triptych.backend.contract import Gather, Images, Masks, Paths, Targets
from triptych.backend.group import ALONE, Group, Share, entire
from triptych.backend.optimizer_state import LOSS_SCALE
from triptych.backend.targets import part_of
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates
from triptych.spec.layers import keeps_statistics
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych_torch.device import AUTOCAST
from triptych_torch.input import Input
from triptych_torch.layers import BatchNorm
from triptych_torch.loss import on_device, total_loss
from triptych_torch.model import Network, first
from triptych_torch.optimizer import Updater
from triptych_torch.weights import from_numpy, to_numpy

# torch.compile's modes by the execution's compilation
COMPILED = {"fused": "max-autotune-no-cudagraphs", "graphs": "max-autotune"}
# batch norm's statistics are not the first process's; before PyTorch 2.13 the option had another name
_OPTIONS = inspect.signature(DistributedDataParallel).parameters
STILL = {"forward_sync_buffers" if "forward_sync_buffers" in _OPTIONS else "broadcast_buffers": False}
SCALER_FIELDS = "scale", "_growth_tracker"


@contextmanager
def _nondeterminism_explained() -> Iterator[None]:
    """With --deterministic PyTorch refuses an operator that cannot be so; say it in one line."""
    try:
        yield
    except RuntimeError as error:
        operator, refused, _ = str(error).partition(" does not have a deterministic implementation")
        if not refused:
            raise
        raise TriptychError(f"{operator} has no deterministic form on this device; leave out --deterministic") from None


class Predictor:
    """Applies one network; see `triptych.backend.contract.Predictor`."""

    def __init__(self, network: Network, transform: InputTransform) -> None:
        like = next(network.parameters())
        self.network = network
        self.device = like.device
        self.input = Input(transform, like.device, like.dtype)

    def prepare(self, images: Images, gather: Gather | None = None) -> Array:
        """The network's input, made of stored images."""
        return to_numpy(self.input(images, gather))

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Logits of stored images."""
        self.network.eval()
        with torch.inference_mode():
            return first(self._run(self.network, self.input(images))).float().cpu().numpy()

    def _run(self, network: nn.Module, x: torch.Tensor) -> Any:
        """The network, under autocast for bf16 and fp16; logits come back in float32 then."""
        precision = self.network.execution.precision
        if precision not in AUTOCAST:
            return network(x)
        with torch.amp.autocast(self.device.type, AUTOCAST[precision]):
            output = network(x)
        return tuple(map(torch.Tensor.float, output)) if isinstance(output, tuple) else output.float()


class Trainer(Predictor):
    """Trains one network; see `triptych.backend.contract.Trainer`."""

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        transform: InputTransform,
        seed: int,
        frozen: Paths = frozenset(),
        smoothing: float = 0.0,
        group: Group = ALONE,
        synchronised: bool = True,
    ) -> None:
        super().__init__(network, transform)
        self.optimizer = Updater(network, optimizer, frozen)
        for path, parameter in network.named_parameters():
            parameter.requires_grad_(path in self.optimizer.named)  # autograd stops below the first that needs it
        self.still = [
            m for path, m in network.named_modules() if isinstance(m, BatchNorm) and keeps_statistics(path, frozen)
        ]
        self.seed, self.smoothing = seed, smoothing
        self.group = group
        self.synchronised = synchronised and group.size > 1
        # batch norm's statistics are settled by the layers and by `settle`
        self.parallel = DistributedDataParallel(network, **STILL) if group.size > 1 else network
        if network.execution.compilation in COMPILED:
            self.parallel = torch.compile(self.parallel, mode=COMPILED[network.execution.compilation])
        # float16 gradients underflow without a scale; switched off, the scaler hands everything through unchanged
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=network.execution.precision == "fp16")

    @_nondeterminism_explained()
    def step(
        self,
        images: Images,
        targets: Targets,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Masks | None = None,
        shares: Sequence[Share] = (),
    ) -> torch.Tensor:
        """One update; returns the loss and the number of right answers, still on the device."""
        self.network.train()
        for layer in self.still:
            layer.eval()  # requires_grad alone would leave the statistics moving
        self.network.zero_grad()
        figures, place = [], 0
        shares = shares or (entire(len(images)),)
        for share in shares:
            mine = slice(place, place + len(share))
            place = mine.stop
            torch.manual_seed(derive_seed(self.seed, "dropout", number))
            target = on_device(part_of(targets, mine), self.network)
            with (
                self.network.dropout_masks({path: mask[mine] for path, mask in (masks or {}).items()}),
                self.network.taking(share, self.synchronised),
                nullcontext() if share is shares[-1] or self.group.size == 1 else self.parallel.no_sync(),
            ):
                output = self._run(self.parallel, self.input(images[mine], gather and gather.part(mine)))
                loss = total_loss(self.network, output, target, self.smoothing)
                # DistributedDataParallel divides by the size
                self.scaler.scale(loss * (share.weight * self.group.size)).backward()
            right = 0 if isinstance(target, tuple) else (first(output).detach().argmax(1) == target).sum()
            figures.append(torch.stack([loss.detach() * share.weight, torch.as_tensor(right).to(loss) / share.copies]))
        self.scaler.step(self.optimizer, rates)
        self.scaler.update()
        self.network.zero_grad()  # now: until the next backward pass they would only take memory
        return torch.stack(figures).sum(0)  # no float64 on an NPU

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone."""
        for path, parameter in self.optimizer.named.items():
            parameter.grad = from_numpy(gradients[path], parameter)
        self.optimizer.step(rates)

    def read(self, handles: Sequence[torch.Tensor]) -> NDArray[np.float64]:
        """`(steps, 2)`; waits for the device and the other processes."""
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize(self.device)  # what failed on the device is raised here
        return self.group.gather(torch.stack(list(handles)).cpu().double().numpy()).sum(0)

    def settle(self) -> None:
        """Local running statistics become the mean of all processes'."""
        if self.group.size > 1 and not self.synchronised:
            for layer in self.network.modules():
                if isinstance(layer, BatchNorm):
                    for value in (layer.running_mean, layer.running_var):
                        value.copy_(from_numpy(self.group.gather(to_numpy(value).astype(float)).mean(0), value))

    def state(self) -> Parameters:
        """The optimiser's state by canonical path, and the scale of float16 losses."""
        scale = self.scaler.state_dict()
        scaler_state = {LOSS_SCALE: np.array([scale[name] for name in SCALER_FIELDS])} if scale else {}
        return self.optimizer.state() | scaler_state

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        if LOSS_SCALE in state and self.scaler.is_enabled():
            values = dict(zip(SCALER_FIELDS, state[LOSS_SCALE].tolist(), strict=True))
            values["_growth_tracker"] = int(values["_growth_tracker"])
            self.scaler.load_state_dict(self.scaler.state_dict() | values)
        self.optimizer.load_state({path: value for path, value in state.items() if path != LOSS_SCALE})
