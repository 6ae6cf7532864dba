"""Single passes for conformance: every layer's output, the loss, every gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from triptych.spec import layers as spec
from triptych.spec.layers import join
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych_jax.layers import Dropout
from triptych_jax.model import Arrays, Network, Outputs, _Composite
from triptych_jax.parameters import to_numpy

# Conformance runs a function once or twice, so compiling is all its time: without optimisation it is a quarter.
# XLA refuses options that it does not know, and dropped the second one in 0.11.
QUICK = (
    ("xla_backend_optimization_level", 0),
    *((("xla_cpu_use_fusion_emitters", False),) if jax.__version_info__ < (0, 11) else ()),
)


class _Pass(NamedTuple):
    """A training pass; `figures` are the loss and the number of right answers. What only conformance looks at is empty
    unless it was asked for (`watch`)."""

    figures: jax.Array
    gradients: Arrays
    statistics: Arrays
    input_gradient: jax.Array | None
    outputs: Outputs


def forward(
    network: Network, images: np.ndarray, *, train: bool = False, masks: Mapping[str, np.ndarray] | None = None
) -> Parameters:
    """Every layer's output by path."""
    if train:
        outputs = _watched(network, images, np.zeros(len(images)), masks or {}).outputs
    else:
        network.eval()
        arrays = network.arrays(nnx.Param | nnx.BatchStat)
        outputs = _evaluate(nnx.graphdef(network), arrays, to_tensor(network, images))
    return {path: _to_channels_first(output) for path, output in jax.device_get(outputs).items()}


def gradients(
    network: Network, images: np.ndarray, labels: np.ndarray, *, masks: Mapping[str, np.ndarray]
) -> tuple[float, Parameters]:
    """The training loss and its gradient by path."""
    found = _watched(network, images, labels, masks)
    return float(found.figures[0]), to_numpy(found.gradients) | {"input": np.array(found.input_gradient)}


def layer_pass(
    network: Network,
    path: str,
    x: np.ndarray,
    gradient: np.ndarray | None,
    *,
    train: bool,
    masks: Mapping[str, np.ndarray],
) -> tuple[Parameters, Parameters | None, Parameters]:
    """One layer alone: its output, and with the gradient of that the gradients of `x` and of its parameters."""
    layer = reduce(getattr, path.split("."), network)
    layer.train() if train else layer.eval()
    parameters, statistics = (nnx.to_flat_state(nnx.state(layer, kind)) for kind in (nnx.Param, nnx.BatchStat))
    parameters, statistics = ({path: v[...] for path, v in flat} for flat in (parameters, statistics))
    inside = {name[len(path) :].lstrip("."): mask for name, mask in masks.items() if f"{name}.".startswith(f"{path}.")}
    value = to_tensor(network, x)
    dy = None if gradient is None else to_tensor(network, gradient)
    y, dx, found = jax.device_get(_layer_pass(nnx.graphdef(layer), parameters, statistics, value, dy, inside))
    if gradient is None:
        return np.array(y), None, {}
    return np.array(y), np.array(dx), {join(path, name): array for name, array in to_numpy(found).items()}


def loss_pass(network: Network, logits: Sequence[np.ndarray], labels: np.ndarray) -> tuple[float, list[Parameters]]:
    """The training loss of given logits (those of the side classifiers last) and its gradients by them."""
    values, target = tuple(to_tensor(network, value) for value in logits), np.asarray(labels, np.int32)

    def loss_of(values: tuple[jax.Array, ...]) -> jax.Array:
        return total_loss(network, values if len(values) > 1 else values[0], target)

    loss, found = jax.jit(jax.value_and_grad(loss_of), compiler_options=dict(QUICK))(values)
    return float(loss), [np.array(value) for value in found]


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


def dropout_masks(network: Network, masks: Mapping[str, jax.Array], key: jax.Array) -> None:
    """Feed the masks to the dropout layers that they name; the others draw from `key`, each its own."""
    for name, layer in _dropouts(network):
        if name in masks:
            layer.mask = masks[name]
        else:
            layer.key = jax.random.fold_in(key, derive_seed(0, name))


@lru_cache(maxsize=16)  # a second trainer of the same network compiles nothing
def _compile_pass(definition: nnx.GraphDef, *, watch: bool) -> Callable[..., _Pass]:
    """The function `(parameters, statistics, x, labels, masks, seed) -> _Pass` of a network, for training and for
    conformance, which watches it."""

    @partial(jax.jit, compiler_options=dict(QUICK) if watch else None)
    def run(parameters, statistics, x, labels, masks, seed):
        key = jax.random.key(seed, impl="threefry2x32")

        def loss_of(parameters: Arrays, x: jax.Array) -> tuple[jax.Array, tuple]:
            network = nnx.merge(definition, nnx.from_flat_state({**parameters, **statistics}))
            dropout_masks(network, masks, key)
            outputs: Outputs = {}
            output = network(x, outputs)
            logits = output[0] if isinstance(output, tuple) else output
            correct = (logits.argmax(1) == labels).sum()
            rest = (correct, network.arrays(nnx.BatchStat), outputs if watch else {})
            return total_loss(network, output, labels), rest

        differentiate = jax.value_and_grad(loss_of, (0, 1) if watch else (0,), has_aux=True)
        (loss, (correct, after, outputs)), (found, *dx) = differentiate(parameters, x)
        figures = jnp.stack([loss, correct.astype(loss.dtype)])
        return _Pass(figures, found, after, dx[0] if watch else None, outputs)

    return run


def _watched(network: Network, images: np.ndarray, labels: np.ndarray, masks: Mapping[str, np.ndarray]) -> _Pass:
    network.train()
    for name, _ in _dropouts(network):
        if name not in masks:
            raise TriptychError(f"layer '{name}': training needs a dropout mask for it")
    run = _compile_pass(nnx.graphdef(network), watch=True)
    x, target = to_tensor(network, images), np.asarray(labels, np.int32)
    return run(network.arrays(nnx.Param), network.arrays(nnx.BatchStat), x, target, dict(masks), np.uint32(0))


@partial(jax.jit, static_argnums=0, compiler_options=dict(QUICK))
def _evaluate(definition: nnx.GraphDef, arrays: Arrays, x: jax.Array) -> Outputs:
    outputs: Outputs = {}
    nnx.merge(definition, nnx.from_flat_state(arrays))(x, outputs)
    return outputs


def _dropouts(network: Network) -> list[tuple[str, Dropout]]:
    return [(".".join(path), layer) for path, layer in nnx.iter_graph(network) if isinstance(layer, Dropout)]


@partial(jax.jit, static_argnums=0, compiler_options=dict(QUICK))
def _layer_pass(
    definition: nnx.GraphDef,
    parameters: Arrays,
    statistics: Arrays,
    x: jax.Array,
    gradient: jax.Array | None,
    masks: Mapping[str, jax.Array],
) -> tuple[jax.Array, jax.Array | None, Arrays]:
    def run(parameters: Arrays, x: jax.Array) -> jax.Array:
        layer = nnx.merge(definition, nnx.from_flat_state({**parameters, **statistics}))
        dropout_masks(layer, masks, jax.random.key(0))
        x = jnp.transpose(x, (0, 2, 3, 1)) if x.ndim == 4 else x
        y = layer(x, {}) if isinstance(layer, _Composite) else layer(x)
        return jnp.transpose(y, (0, 3, 1, 2)) if y.ndim == 4 else y

    if gradient is None:
        return run(parameters, x), None, {}
    y, pull = jax.vjp(run, parameters, x)
    found, dx = pull(gradient)
    return y, dx, found


def _to_channels_first(output: np.ndarray) -> np.ndarray:
    output = np.asarray(output, np.result_type(output.dtype, np.float32))  # bfloat16 is no type of NumPy's own
    return np.array(output.transpose(0, 3, 1, 2) if output.ndim == 4 else output, order="C")
