"""The JAX backend: `flax.nnx` networks, channels last inside, trained with optax in one compiled step."""

from triptych_jax.device import devices, peak_memory, versions
from triptych_jax.distributed import join_processes
from triptych_jax.inspection import forward, gradients, layer_pass, loss_pass
from triptych_jax.model import build
from triptych_jax.precision import precise, precision_flags
from triptych_jax.training import Predictor, Trainer
from triptych_jax.weights import from_canonical, initialize, to_canonical

name = "jax"

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
