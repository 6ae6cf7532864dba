"""The PyTorch backend: `torch.nn.Module` networks whose `state_dict` keys are the canonical names."""

from triptych_torch.device import devices, fallbacks, join_processes, peak_memory, set_deterministic, versions
from triptych_torch.model import build
from triptych_torch.parameters import from_canonical, initialize, to_canonical
from triptych_torch.passes import forward, gradients, layer_pass, loss_pass
from triptych_torch.precision import precise, precision_flags
from triptych_torch.training import Trainer

name = "torch"

__all__ = [
    "Trainer",
    "build",
    "devices",
    "fallbacks",
    "forward",
    "from_canonical",
    "gradients",
    "initialize",
    "join_processes",
    "layer_pass",
    "loss_pass",
    "name",
    "peak_memory",
    "precise",
    "precision_flags",
    "set_deterministic",
    "to_canonical",
    "versions",
]
