"""The MXNet backend: `gluon.HybridBlock` networks whose blocks are registered under the canonical names."""

from triptych_mxnet.device import devices, peak_memory, versions
from triptych_mxnet.distributed import join_processes
from triptych_mxnet.inspection import forward, gradients, layer_pass, loss_pass
from triptych_mxnet.model import build
from triptych_mxnet.precision import precise, precision_flags
from triptych_mxnet.training import Predictor, Trainer
from triptych_mxnet.weights import from_canonical, initialize, to_canonical

name = "mxnet"

__all__ = [
    "Predictor",
    "Trainer",
    "build",
    "devices",
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
    "to_canonical",
    "versions",
]
