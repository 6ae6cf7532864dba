"""The optimisers as the spec has them, and their state to and from canonical."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from triptych.optim.optimizers import COUNT, SGD, Adam, AdamW, Optimizer, Rates, decay_of, float32
from triptych.weights.initializers import Parameters
from triptych_jax.inspection import QUICK
from triptych_jax.model import Arrays, Network, Path
from triptych_jax.weights import _canonical_name, _from_numpy, to_numpy

Piece = optax.GradientTransformation
ALL = "all"  # the one parameter of a network seen as a vector
MANY = 40  # arrays; with fewer, joining them costs more than compiling for each (VGG-16 has 32, up to 134 MB large)
BUFFERS = {"velocity": "trace", "mean": "mu", "variance": "nu"}  # canonical: optax's


class Updater:
    """optax's pieces, chained as the spec has them. A training step has them in its own compiled function; `step` is
    for gradients that are there already."""

    def __init__(self, network: Network, optimizer: Optimizer, frozen: frozenset[str]) -> None:
        self.optimizer = optimizer
        decay = decay_of(optimizer, network.architecture, frozen)
        self.named = {path: p for path, p in network.variables(nnx.Param).items() if _canonical_name(path) in decay}
        self.decayed = frozenset(path for path in self.named if decay[_canonical_name(path)] != 0)
        self.compile = partial(_compile_update, optimizer)
        self.load_state({})

    def step(self, gradients: Arrays, rates: Rates) -> None:
        """Move every parameter by its gradient, for conformance: many parameters are joined to one vector, for which
        the same function is compiled in a tenth of the time: it acts on every number alone."""
        given = (_values(self.named), gradients, self.kept)
        if len(self.named) > MANY:
            moved, kept = self._step_as_vector(given, _numbers(rates))
        else:
            moved, kept = self.compile(decayed=self.decayed, options=QUICK)(*given, self.count, _numbers(rates))
        self.take(moved, kept, rates)

    def take(self, moved: Arrays, kept: dict[str, Arrays], rates: Rates) -> None:
        """Parameters and state after a step."""
        self.kept = kept
        for path, variable in self.named.items():
            variable[...] = moved[path]
        self.count = np.int32(self.count + 1)
        self.used = self.optimizer.remembers(rates)

    def _step_as_vector(self, given: tuple[Arrays, Arrays, dict[str, Arrays]], now: tuple) -> tuple:
        parameters: dict[Path, jax.Array] = {}
        kept: dict[str, dict[Path, jax.Array]] = {slot: {} for slot in self.kept}
        for decays in (True, False):
            paths = [path for path in self.named if (path in self.decayed) == decays]
            if paths:
                values, gradients, slots = given
                join = partial(_join, paths=paths)
                vectors = join(values), join(gradients), {slot: join(arrays) for slot, arrays in slots.items()}
                update = self.compile(decayed=frozenset((ALL,) if decays else ()), options=QUICK)
                moved, after = update(*vectors, self.count, now)
                parameters |= self._split(moved[ALL], paths)
                for slot, value in after.items():
                    kept[slot] |= self._split(value[ALL], paths)
        return parameters, kept

    def _split(self, vector: jax.Array, paths: list[Path]) -> dict[Path, jax.Array]:
        likes = [self.named[path][...] for path in paths]
        parts = np.split(np.asarray(vector), np.cumsum([like.size for like in likes])[:-1])
        return {
            path: jax.device_put(part.reshape(like.shape), like.device)
            for path, part, like in zip(paths, parts, likes, strict=True)
        }

    def state(self) -> Parameters:
        """The velocities, or means and variances, by slot and path; empty before the first step."""
        if not self.used:
            return {}
        found = {
            f"{slot}.{path}": value
            for slot in self.optimizer.slots
            for path, value in to_numpy(self.kept[BUFFERS[slot]]).items()
        }
        if self.optimizer.counts:
            found[COUNT] = np.asarray(self.count, np.float64)
        return found

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state; what it does not name starts at zero."""
        self.used, self.count = bool(state), np.int32(state.get(COUNT, 0))
        self.kept: dict[str, Arrays] = {BUFFERS[slot]: {} for slot in self.optimizer.slots}
        for slot in self.optimizer.slots:
            for path, variable in self.named.items():
                like, value = variable[...], state.get(f"{slot}.{_canonical_name(path)}")
                zeros = np.zeros(like.shape, like.dtype)
                self.kept[BUFFERS[slot]][path] = (
                    jax.device_put(zeros, like.device) if value is None else _from_numpy(value, like)
                )


@lru_cache(maxsize=32)  # a second trainer of the same network compiles nothing
def _compile_update(optimizer: Optimizer, decayed: frozenset, options: tuple[tuple[str, Any], ...] = ()) -> Any:
    # Nothing is donated: after an interrupted step the network must still be there to be saved.
    @partial(jax.jit, compiler_options=dict(options))
    def update(parameters, gradients, kept, count, rates):
        learning_rate, momentum = rates
        native = _native(optimizer, decayed, learning_rate, momentum)
        state = optax.tree_utils.tree_set(native.init(parameters), **kept)
        if optimizer.counts:
            state = optax.tree_utils.tree_set(state, count=count)
        updates, state = native.update(gradients, state, parameters)
        kept = {name: optax.tree_utils.tree_get(state, name) for name in kept}
        return optax.apply_updates(parameters, updates), kept

    return update


def _native(optimizer: Optimizer, decayed: frozenset[Path], learning_rate: jax.Array, momentum: jax.Array) -> Piece:
    decay = optax.add_decayed_weights(
        float32(optimizer.weight_decay), lambda parameters: {path: path in decayed for path in parameters}
    )
    chain = NATIVE[type(optimizer)](optimizer, decay, momentum)
    return optax.chain(*chain, optax.scale_by_learning_rate(learning_rate))


def _sgd(optimizer: SGD, decay: Piece, momentum: jax.Array) -> tuple[Piece, ...]:
    native = optax.trace(momentum, nesterov=optimizer.nesterov)

    def update(gradients, state, parameters=None):
        moves, state = native.update(gradients, state, parameters)
        # optax keeps the gradient as a velocity when the momentum is 0; the spec, like PyTorch, keeps none.
        return moves, jax.tree.map(lambda v: jnp.where(momentum == 0, 0, v), state)

    return decay, optax.GradientTransformation(native.init, update)


def _adam(optimizer: Adam, decay: Piece, momentum: jax.Array) -> tuple[Piece, ...]:
    # Before Adam the decay enters its moments, behind it does not: coupled and decoupled decay.
    return decay, optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.eps)


def _adamw(optimizer: AdamW, decay: Piece, momentum: jax.Array) -> tuple[Piece, ...]:
    return optax.scale_by_adam(optimizer.beta1, optimizer.beta2, optimizer.eps), decay


NATIVE = {SGD: _sgd, Adam: _adam, AdamW: _adamw}


def _numbers(rates: Rates) -> tuple[np.float32, np.float32]:
    return np.float32(rates.learning_rate), np.float32(rates.momentum)


def _join(arrays: Arrays, paths: list[Path]) -> Arrays:
    vector = np.concatenate([np.ravel(arrays[path]) for path in paths])
    return {ALL: jax.device_put(vector, arrays[paths[0]].device)}


def _values(variables: dict[Path, nnx.Variable]) -> Arrays:
    # `variable[...]` is an operation of its own in Flax 0.12.0: a tenth of a second per step in a deep network.
    return dict(zip(variables, jax.tree.leaves(list(variables.values())), strict=True))
