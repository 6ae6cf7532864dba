"""Single passes for conformance: every layer's output, the loss, every gradient."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np
import optax
from flax import nnx

from triptych import spec
from triptych.errors import TriptychError
from triptych.initializers import Parameters
from triptych.randomness import derive_seed
from triptych_jax.layers import Dropout
from triptych_jax.model import Arrays, Network, Outputs
from triptych_jax.parameters import to_numpy

# Conformance runs a function once or twice, so compiling is all its time: without optimisation it is a quarter.
QUICK = (("xla_backend_optimization_level", 0), ("xla_cpu_use_fusion_emitters", False))
_compiled = partial(jax.jit, static_argnums=0, compiler_options=dict(QUICK))


def forward(
    network: Network, images: np.ndarray, *, train: bool = False, masks: Mapping[str, np.ndarray] | None = None
) -> Parameters:
    """Every layer's output by path."""
    network.train() if train else network.eval()
    x = to_tensor(network, images)
    outputs = _forward(nnx.graphdef(network), network.arrays(nnx.Param | nnx.BatchStat), x, dict(masks or {}))
    return {path: _to_channels_first(output) for path, output in jax.device_get(outputs).items()}


def gradients(
    network: Network, images: np.ndarray, labels: np.ndarray, *, masks: Mapping[str, np.ndarray]
) -> tuple[float, Parameters]:
    """The training loss and its gradient by path."""
    network.train()
    parameters, statistics = network.arrays(nnx.Param), network.arrays(nnx.BatchStat)
    x, target = to_tensor(network, images), np.asarray(labels, np.int32)
    loss, (found, dx) = _gradients(nnx.graphdef(network), parameters, statistics, x, target, dict(masks))
    return float(loss), to_numpy(found) | {"input": np.array(dx)}


def total_loss(network: Network, output: jax.Array | tuple[jax.Array, ...], labels: jax.Array) -> jax.Array:
    """Mean cross-entropy, plus the weighted losses of the side classifiers."""
    logits, *side = output if isinstance(output, tuple) else (output,)
    weights = [layer.weight for layer in network.architecture.layers if isinstance(layer, spec.Auxiliary)]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    for weight, auxiliary in zip(weights, side, strict=False):
        loss = loss + weight * optax.softmax_cross_entropy_with_integer_labels(auxiliary, labels).mean()
    return loss


def to_tensor(network: Network, images: np.ndarray) -> jax.Array:
    """Float images on the network's device, in its type."""
    like = next(iter(network.variables(nnx.Param).values()))[...]
    return jax.device_put(np.asarray(images, like.dtype), like.device)


def dropout_masks(network: Network, masks: Mapping[str, jax.Array], key: jax.Array | None = None) -> None:
    """Feed the masks to the dropout layers that they name; the others draw from `key`, each its own."""
    for path, layer in nnx.iter_graph(network):
        if isinstance(layer, Dropout):
            name = ".".join(path)
            if name in masks:
                layer.mask = masks[name]
            elif key is not None:
                layer.key = jax.random.fold_in(key, derive_seed(0, name))
            elif not layer.deterministic:
                raise TriptychError(f"layer '{name}': training needs a dropout mask for it")


@_compiled
def _forward(definition: nnx.GraphDef, arrays: Arrays, x: jax.Array, masks: Mapping[str, jax.Array]) -> Outputs:
    network = nnx.merge(definition, nnx.from_flat_state(arrays))
    dropout_masks(network, masks)
    outputs: Outputs = {}
    network(x, outputs)
    return outputs


@_compiled
def _gradients(
    definition: nnx.GraphDef,
    parameters: Arrays,
    statistics: Arrays,
    x: jax.Array,
    labels: jax.Array,
    masks: Mapping[str, jax.Array],
) -> tuple[jax.Array, tuple[Arrays, jax.Array]]:
    def loss_of(parameters: Arrays, x: jax.Array) -> jax.Array:
        network = nnx.merge(definition, nnx.from_flat_state({**parameters, **statistics}))
        dropout_masks(network, masks)
        return total_loss(network, network(x), labels)

    return jax.value_and_grad(loss_of, (0, 1))(parameters, x)


def _to_channels_first(output: np.ndarray) -> np.ndarray:
    output = np.asarray(output, np.result_type(output.dtype, np.float32))  # bfloat16 is no type of NumPy's own
    return np.array(output.transpose(0, 3, 1, 2) if output.ndim == 4 else output, order="C")
