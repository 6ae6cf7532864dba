"""The MXNet backend: `gluon.HybridBlock` networks whose blocks are registered under the canonical names."""

from triptych_mxnet.device import devices, versions
from triptych_mxnet.model import build
from triptych_mxnet.parameters import from_canonical, initialize, to_canonical
from triptych_mxnet.passes import forward, gradients, layer_pass, loss_pass
from triptych_mxnet.precision import precise, precision_flags
from triptych_mxnet.training import Trainer

name = "mxnet"

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
