"""Single passes for conformance: every layer's output, the loss, every gradient."""

from collections.abc import Sequence
from functools import reduce

import jax
import numpy as np
from flax import nnx

from triptych.backend.contract import Masks, Targets
from triptych.backend.targets import any_targets
from triptych.spec.layers import join
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import Parameters
from triptych.weights.layouts import FLAX
from triptych_jax.compiled import (
    Pass,
    compile_evaluation,
    compile_layer_pass,
    compile_pass,
    definition_of,
    dropouts,
    jit,
)
from triptych_jax.loss import on_device, total_loss
from triptych_jax.model import Network
from triptych_jax.weights import to_numpy


def forward(network: Network, images: Array, *, train: bool = False, masks: Masks | None = None) -> Parameters:
    """Every layer's output by path."""
    if train:
        outputs = _watched(network, images, any_targets(network.architecture, len(images)), masks or {}).outputs
    else:
        network.eval()
        run = compile_evaluation(definition_of(network), network.execution)
        outputs = run(network.arrays(nnx.Param | nnx.BatchStat), to_tensor(network, images))
    return {path: _to_channels_first(output) for path, output in jax.device_get(outputs).items()}


def gradients(network: Network, images: Array, targets: Targets, *, masks: Masks) -> tuple[float, Parameters]:
    """The training loss and its gradient by path."""
    passed = _watched(network, images, targets, masks)
    arrays = jax.device_get(passed.gradients)
    by_path = {FLAX.canonical_path(path): to_numpy(array) for path, array in arrays.items()}
    return float(passed.figures[0]), by_path | {"input": np.array(passed.input_gradient)}


def layer_pass(
    network: Network, path: str, x: Array, gradient: Array | None, *, train: bool, masks: Masks
) -> tuple[Array, Array | None, Parameters]:
    """One layer alone: its output, and with the gradient of that the gradients of `x` and of its parameters."""
    layer = reduce(getattr, path.split("."), network)
    layer.train() if train else layer.eval()
    parameters, statistics = (nnx.to_flat_state(nnx.state(layer, kind)) for kind in (nnx.Param, nnx.BatchStat))
    parameters, statistics = ({path: v[...] for path, v in flat} for flat in (parameters, statistics))
    inside = {name[len(path) :].lstrip("."): mask for name, mask in masks.items() if f"{name}.".startswith(f"{path}.")}
    value = to_tensor(network, x)
    dy = None if gradient is None else to_tensor(network, gradient)
    run = compile_layer_pass(definition_of(layer), network.execution)
    y, dx, arrays = jax.device_get(run(parameters, statistics, value, dy, inside))
    if gradient is None:
        return np.array(y), None, {}
    by_path = {join(path, FLAX.canonical_path(name)): to_numpy(array) for name, array in arrays.items()}
    return np.array(y), np.array(dx), by_path


def loss_pass(network: Network, outputs: Sequence[Array], targets: Targets) -> tuple[float, list[Array]]:
    """The training loss of given outputs (those of the auxiliary classifiers last) and its gradients by them."""
    values, target = tuple(to_tensor(network, value) for value in outputs), on_device(targets, network)
    differentiate = jax.value_and_grad(lambda values: total_loss(network, values, target))
    loss, arrays = jit(network.execution)(differentiate)(values)
    return float(loss), [np.array(array) for array in arrays]


def to_tensor(network: Network, images: Array) -> jax.Array:
    """Float images on the network's device, in its type."""
    like = next(iter(network.variables(nnx.Param).values()))[...]
    return jax.device_put(np.asarray(images, like.dtype), like.device)


def _watched(network: Network, images: Array, targets: Targets, masks: Masks) -> Pass:
    network.train()
    for name, _ in dropouts(network):
        if name not in masks:
            raise TriptychError(f"layer '{name}': training needs a dropout mask for it")
    run = compile_pass(definition_of(network), network.execution, 0.0, None)
    x, target = to_tensor(network, images), on_device(targets, network)
    return run(network.arrays(nnx.Param), network.arrays(nnx.BatchStat), x, target, dict(masks), np.uint32(0))


def _to_channels_first(output: Array) -> Array:
    output = np.asarray(output, np.result_type(output.dtype, np.float32))  # bfloat16 is no type of NumPy's own
    return np.array(output.transpose(0, 3, 1, 2) if output.ndim == 4 else output, order="C")
