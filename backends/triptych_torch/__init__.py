"""The PyTorch backend: `torch.nn.Module` networks whose `state_dict` keys are the canonical names."""

from triptych_torch.device import devices, versions
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
    "forward",
    "from_canonical",
    "gradients",
    "initialize",
    "layer_pass",
    "loss_pass",
    "name",
    "precise",
    "precision_flags",
    "to_canonical",
    "versions",
]
