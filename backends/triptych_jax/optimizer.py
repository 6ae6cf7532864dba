"""The optimisers as the spec has them, and their state to and from canonical."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from triptych.optim.optimizers import COUNT, SLOTS, Optimizer, Rates, decay_of, float32
from triptych.weights.initializers import Parameters
from triptych.weights.layouts import FLAX
from triptych_jax.model import Arrays, Network, Path
from triptych_jax.weights import from_numpy, to_numpy

NATIVE = {"velocity": "trace", "mean": "mu", "variance": "nu"}  # canonical: optax's


class Updater:
    """optax's pieces, chained as the spec has them, in a compiled function of a trainer's; here is what they keep."""

    def __init__(self, network: Network, optimizer: Optimizer, frozen: frozenset[str]) -> None:
        self.slots = SLOTS[optimizer.name]
        decay = decay_of(optimizer, network.architecture, frozen)
        trained = network.variables(nnx.Param).items()
        self.named = {path: p for path, p in trained if FLAX.canonical_path(path) in decay}
        self.decayed = frozenset(path for path in self.named if decay[FLAX.canonical_path(path)] != 0)
        self.kept: dict[str, Arrays] = {}  # by optax's slot; empty before the first step
        self.used, self.count = False, np.int32(0)

    def run(self, function: Callable[..., Any], inputs: tuple[Any, ...], rates: Rates) -> list[Any]:
        """Call a compiled function that ends in an update, and take over what it moved. Returns the rest."""
        if not self.kept:
            self.load_state({})
        numbers = np.float32(rates.learning_rate), np.float32(rates.momentum)
        *others, moved, self.kept = function(inputs, self.kept, self.count, numbers)
        for path, variable in self.named.items():
            variable[...] = moved[path]
        self.count = np.int32(self.count + 1)
        self.used = self.slots != SLOTS["sgd"] or rates.momentum != 0
        return others

    def state(self) -> Parameters:
        """The velocities, or means and variances, by slot and path; empty before the first step."""
        if not self.used:
            return {}
        found = {
            f"{slot}.{FLAX.canonical_path(path)}": to_numpy(value)
            for slot in self.slots
            for path, value in self.kept[NATIVE[slot]].items()
        }
        return found if self.slots == SLOTS["sgd"] else found | {COUNT: np.asarray(self.count, np.float64)}

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state; what it does not name starts at zero."""
        self.used, self.count = bool(state), np.int32(state.get(COUNT, 0))
        for slot in self.slots:
            self.kept[NATIVE[slot]] = {
                path: _slot(state.get(f"{slot}.{FLAX.canonical_path(path)}"), variable[...])
                for path, variable in self.named.items()
            }


def _slot(value: NDArray[Any] | None, like: jax.Array) -> jax.Array:
    return jax.device_put(np.zeros(like.shape, like.dtype), like.device) if value is None else from_numpy(value, like)


def update_function(optimizer: Optimizer, decayed: frozenset[Path]) -> Callable[..., tuple[Arrays, dict[str, Arrays]]]:
    """`(parameters, gradients, kept, count, rates) -> (parameters, kept)`; not compiled yet."""

    def update(parameters, gradients, kept, count, rates):
        learning_rate, momentum = rates
        native = _native(optimizer, decayed, learning_rate, momentum)
        state = optax.tree_utils.tree_set(native.init(parameters), **kept)
        if optimizer.name != "sgd":
            state = optax.tree_utils.tree_set(state, count=count)
        updates, state = native.update(gradients, state, parameters)
        kept = {name: optax.tree_utils.tree_get(state, name) for name in kept}
        if optimizer.name == "sgd":
            # optax keeps the gradient as a velocity when the momentum is 0; the spec, like PyTorch, keeps none.
            kept = jax.tree.map(lambda v: jnp.where(momentum == 0, 0, v), kept)
        return optax.apply_updates(parameters, updates), kept

    return update


def _native(
    optimizer: Optimizer, decayed: frozenset[Path], learning_rate: jax.Array, momentum: jax.Array
) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(
        float32(optimizer.weight_decay), lambda parameters: {path: path in decayed for path in parameters}
    )
    if optimizer.name == "sgd":
        chain = (decay, optax.trace(momentum, nesterov=optimizer.nesterov))
    else:
        adam = optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.eps)
        # Before Adam the decay enters its moments, behind it does not: coupled and decoupled decay.
        chain = (decay, adam) if optimizer.name == "adam" else (adam, decay)
    return optax.chain(*chain, optax.scale_by_learning_rate(learning_rate))
