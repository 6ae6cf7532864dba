"""To and from canonical parameters: Flax's names, and its kernels with the output channels last."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from triptych.initializers import Parameters
from triptych.parameters import check_fit
from triptych_jax.model import Arrays, Network, Path

NAMES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def to_canonical(network: Network) -> Parameters:
    """Copies of all parameters and running statistics, by path."""
    return to_numpy(network.arrays(nnx.Param | nnx.BatchStat))


def from_canonical(network: Network, parameters: Parameters) -> None:
    """Copy `parameters` into the network. Raises TriptychError unless names and shapes fit exactly."""
    check_fit(network.architecture, parameters)
    for path, variable in network.variables(nnx.Param | nnx.BatchStat).items():
        variable[...] = _from_numpy(parameters[_canonical_name(path)], variable[...])


def initialize(network: Network, seed: int) -> None:
    """Flax's own start: LeCun's truncated normal for kernels, zero for biases."""
    rngs = nnx.Rngs(seed)
    for _, module in nnx.iter_graph(network):
        if isinstance(module, nnx.Conv | nnx.Linear):
            like = module.kernel[...]
            kernel = nnx.initializers.lecun_normal()(rngs.params(), like.shape, like.dtype)
            module.kernel[...] = jax.device_put(kernel, like.device)
            if module.use_bias:
                module.bias[...] = jnp.zeros_like(module.bias[...])


def to_numpy(arrays: Arrays) -> Parameters:
    """Copies on the host: canonical names, convolution weights HWIO to OIHW, dense weights (in, out) to (out, in)."""
    found = {}
    for path, array in jax.device_get(dict(arrays)).items():
        if path[-1] == "kernel":
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
        found[_canonical_name(path)] = np.array(array, order="C")
    return found


def _from_numpy(value: np.ndarray, like: jax.Array) -> jax.Array:
    """A canonical array in the layout, type and place of `like`; only kernels have more than one axis."""
    if value.ndim > 1:
        value = value.transpose((2, 3, 1, 0) if value.ndim == 4 else (1, 0))
    return jax.device_put(np.array(value, like.dtype, order="C"), like.device)


def _canonical_name(path: Path) -> str:
    """`("block1", "conv1", "kernel")` to `block1.conv1.weight`."""
    return ".".join((*path[:-1], NAMES[path[-1]]))
