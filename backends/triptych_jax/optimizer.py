"""SGD as the spec has it, and its state to and from canonical."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from triptych.initializers import Parameters
from triptych.optimizers import Optimizer, Rates, decay_of, float32
from triptych.spec import Architecture
from triptych_jax.model import Arrays, Network
from triptych_jax.parameters import _canonical_name, _from_numpy, to_numpy


class Sgd:
    """SGD of optax's pieces, the learning rate outside the velocity. `moving`: whether there is a velocity."""

    def __init__(self, network: Network, optimizer: Optimizer) -> None:
        self.named = network.variables(nnx.Param)
        self.load_state({})

    @staticmethod
    def step(
        optimizer: Optimizer,
        architecture: Architecture,
        rates: tuple[jax.Array, jax.Array],
        parameters: Arrays,
        gradients: Arrays,
        velocity: Arrays,
    ) -> tuple[Arrays, Arrays]:
        """The parameters and the velocity after one update; part of the compiled step."""
        learning_rate, momentum = rates
        decay = decay_of(optimizer, architecture)
        native = optax.chain(
            # First: behind the trace the decay would not enter the velocity.
            optax.add_decayed_weights(
                float32(optimizer.weight_decay), {path: decay[_canonical_name(path)] != 0 for path in parameters}
            ),
            optax.trace(momentum),
            optax.scale_by_learning_rate(learning_rate),
        )
        state = optax.tree_utils.tree_set(native.init(parameters), trace=velocity)
        updates, state = native.update(gradients, state, parameters)
        # optax keeps the gradient as a velocity when the momentum is 0; the spec, like PyTorch, keeps none.
        velocity = jax.tree.map(lambda v: jnp.where(momentum == 0, 0, v), optax.tree_utils.tree_get(state, "trace"))
        return optax.apply_updates(parameters, updates), velocity

    def keep(self, velocity: Arrays, rates: Rates) -> None:
        """Take over what a step has computed."""
        self.velocity = velocity
        self.moving = rates.momentum != 0

    def state(self) -> Parameters:
        """The velocity by path; empty while there is none."""
        return to_numpy(self.velocity) if self.moving else {}

    def load_state(self, state: Parameters) -> None:
        """Continue from a velocity; what it does not name starts at zero."""
        self.velocity, self.moving = {}, bool(state)
        for path, variable in self.named.items():
            like, value = variable[...], state.get(_canonical_name(path))
            zeros = np.zeros(like.shape, like.dtype)
            self.velocity[path] = jax.device_put(zeros, like.device) if value is None else _from_numpy(value, like)
