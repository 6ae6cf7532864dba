"""The JAX backend: `flax.nnx` networks, channels last inside, trained with optax in one compiled step."""

# ruff: noqa: F401 (the names of `triptych.backend.contract.Backend`)

from triptych_jax.device import devices, out_of_memory, peak_memory, versions
from triptych_jax.distributed import join, members, place
from triptych_jax.inspection import forward, gradients, layer_pass, loss_pass
from triptych_jax.model import build
from triptych_jax.precision import apply_execution, precise, precision_flags
from triptych_jax.training import Predictor, Trainer
from triptych_jax.weights import from_canonical, initialize, to_canonical

name = "jax"
