"""The PyTorch backend: `torch.nn.Module` networks whose `state_dict` keys are the canonical names."""

# ruff: noqa: F401 (the names of `triptych.backend.contract.Backend`)

from triptych_torch.device import devices, out_of_memory, peak_memory, versions
from triptych_torch.distributed import join, members, place
from triptych_torch.inspection import forward, gradients, layer_pass, loss_pass
from triptych_torch.model import build
from triptych_torch.precision import apply_execution, precise, precision_flags
from triptych_torch.training import Predictor, Trainer
from triptych_torch.weights import from_canonical, initialize, to_canonical

name = "torch"
