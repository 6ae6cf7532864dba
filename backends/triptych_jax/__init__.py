"""The JAX backend: `flax.nnx` networks, channels last inside, trained with optax in one compiled step."""

from triptych_jax.device import devices, versions
from triptych_jax.model import build
from triptych_jax.parameters import from_canonical, initialize, to_canonical
from triptych_jax.passes import forward, gradients, layer_pass, loss_pass
from triptych_jax.precision import precise, precision_flags
from triptych_jax.training import Trainer

name = "jax"

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
