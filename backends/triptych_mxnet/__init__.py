"""The MXNet backend: `gluon.HybridBlock` networks whose blocks are registered under the canonical names."""

# ruff: noqa: F401 (the names of `triptych.backend.contract.Backend`)

from triptych_mxnet.device import devices, out_of_memory, peak_memory, versions
from triptych_mxnet.distributed import join, members, place
from triptych_mxnet.inspection import forward, gradients, layer_pass, loss_pass
from triptych_mxnet.model import build
from triptych_mxnet.precision import apply_execution, precise, precision_flags
from triptych_mxnet.training import Predictor, Trainer
from triptych_mxnet.weights import from_canonical, initialize, to_canonical

name = "mxnet"
