"""To and from canonical parameters: Flax's names, and its kernels with the output channels last."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from triptych.weights.initializers import Parameters
from triptych.weights.layouts import FLAX
from triptych.weights.store import check_fit
from triptych_jax.functions import nodes, put_like
from triptych_jax.model import PRODUCTS, Network


def to_canonical(network: Network) -> Parameters:
    """Copies of all parameters and running statistics, by path."""
    arrays = jax.device_get(network.arrays(nnx.Param | nnx.BatchStat))
    return {FLAX.canonical_path(path): to_numpy(array) for path, array in arrays.items()}


def from_canonical(network: Network, parameters: Parameters) -> None:
    """Copy `parameters` into the network. Raises TriptychError unless names and shapes fit exactly."""
    check_fit(network.architecture, parameters)
    for path, variable in network.variables(nnx.Param | nnx.BatchStat).items():
        variable[...] = from_numpy(parameters[FLAX.canonical_path(path)], variable[...])


def initialize(network: Network, seed: int) -> None:
    """Flax's own start: LeCun's truncated normal for kernels, zero for biases."""
    rngs = nnx.Rngs(seed)
    for _, module in nodes(network):
        if isinstance(module, PRODUCTS):
            like = module.kernel[...]
            kernel = nnx.initializers.lecun_normal()(rngs.params(), like.shape, like.dtype)
            module.kernel[...] = jax.device_put(kernel, like.device)
            if module.use_bias:
                module.bias[...] = jnp.zeros_like(module.bias[...])


def to_numpy(value: jax.Array) -> NDArray[Any]:
    """A copy on the host with the canonical axes; only kernels have more than one."""
    return FLAX.to_canonical(np.asarray(value))


def from_numpy(value: NDArray[Any], like: jax.Array) -> jax.Array:
    """A canonical array in the layout, type and place of `like`; only kernels have more than one axis."""
    return put_like(FLAX.from_canonical(value, like.dtype), like)
