"""The optimisers as the spec has them, and their state to and from canonical."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from triptych.backend import optimizer_state
from triptych.optim.optimizers import SGD, Adagrad, Adam, AdamW, Optimizer, Rates, RMSprop, decay_of, rates_of
from triptych.weights.initializers import Parameters
from triptych.weights.layouts import FLAX
from triptych_jax.functions import put_like
from triptych_jax.model import Arrays, Network, Path
from triptych_jax.weights import to_numpy

Piece: TypeAlias = optax.GradientTransformation
Kept: TypeAlias = dict[str, Arrays]  # by optax's slot
Leaves: TypeAlias = frozenset[tuple[Path, float, float]]  # each with how many times the learning rate, and its decay
Sizes: TypeAlias = dict[float, jax.Array]  # of a step, by how many times the learning rate it is
BUFFERS = {  # canonical: optax's
    "velocity": "trace",
    "mean": "mu",
    "variance": "nu",
    "square": "nu",
    "sum": "sum_of_squares",
}


class Updater:
    """optax's pieces, chained as the spec has them, in a compiled function of a trainer's; here is what they keep."""

    def __init__(self, network: Network, optimizer: Optimizer, frozen: frozenset[str]) -> None:
        self.optimizer = optimizer
        decay = decay_of(optimizer, network.architecture, frozen)
        trained = network.variables(nnx.Param).items()
        self.named = {path: p for path, p in trained if FLAX.canonical_path(path) in decay}
        factors = rates_of(optimizer, network.architecture, frozen)
        canonical = {path: FLAX.canonical_path(path) for path in self.named}
        self.leaves: Leaves = frozenset((path, factors[own], decay[own]) for path, own in canonical.items())
        self.kept: Kept = {}  # empty before the first step
        self.used, self.count = False, np.int32(0)

    def run(self, function: Callable[..., Any], inputs: tuple[Any, ...], rates: Rates) -> list[Any]:
        """Call a compiled function that ends in an update, and take over what it moved. Returns the rest."""
        if not self.kept:
            self.load_state({})
        count = int(self.count) + 1
        sizes = {f: np.float32(self.optimizer.size(rates.times(f), count)) for _, f, _ in self.leaves}
        numbers = sizes, np.float32(rates.momentum)
        *others, moved, self.kept = function(inputs, self.kept, self.count, numbers)
        for path, variable in self.named.items():
            variable[...] = moved[path]
        self.count = np.int32(self.count + 1)
        self.used = self.optimizer.remembers(rates)
        return others

    def state(self) -> Parameters:
        """The velocities, or means and variances, by slot and path; empty before the first step."""
        paths = {FLAX.canonical_path(path): path for path in self.named}

        def read(slot: str, path: str) -> NDArray[Any] | None:
            return to_numpy(self.kept[BUFFERS[slot]][paths[path]]) if self.used else None

        return optimizer_state.collect(self.optimizer, paths, read, int(self.count))

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state; what it does not name starts at zero."""
        self.used, self.count = bool(state), np.int32(optimizer_state.count_of(state))
        paths = {FLAX.canonical_path(path): path for path in self.named}
        kept: dict[str, dict[Path, jax.Array]] = {BUFFERS[slot]: {} for slot in self.optimizer.slots}
        for slot, path, value in optimizer_state.take_apart(self.optimizer, paths, state):
            like = self.named[paths[path]][...]
            start = np.zeros(like.shape, like.dtype) if value is None else FLAX.from_canonical(value, like.dtype)
            kept[BUFFERS[slot]][paths[path]] = put_like(start, like)
        self.kept = dict(kept)

    @staticmethod
    def update_function(optimizer: Optimizer, leaves: Leaves) -> Callable[..., Any]:
        """`((parameters, gradients), kept, count, rates) -> (parameters, kept)`; not compiled yet."""

        def update(
            inputs: tuple[Arrays, Arrays], kept: Kept, count: jax.Array, rates: tuple[Sizes, jax.Array]
        ) -> tuple[Arrays, Kept]:
            (parameters, gradients), (sizes, momentum) = inputs, rates
            native = _native(optimizer, leaves, sizes, momentum)
            state = optax.tree_utils.tree_set(native.init(parameters), **kept)
            if optimizer.counts:
                state = optax.tree_utils.tree_set(state, count=count)
            updates, state = native.update(gradients, state, parameters)
            kept = {name: optax.tree_utils.tree_get(state, name) for name in kept}
            return optax.apply_updates(parameters, updates), kept

        return update


def _native(optimizer: Optimizer, leaves: Leaves, sizes: Sizes, momentum: jax.Array) -> Piece:
    strengths = sorted({strength for _, _, strength in leaves} - {0.0})
    decays = (optax.add_decayed_weights(strength, _mask(leaves, 2, strength)) for strength in strengths)
    decay = optax.chain(optax.identity(), *decays)
    chain = NATIVE[type(optimizer)](optimizer, decay, momentum)
    scales = (optax.masked(optax.scale_by_learning_rate(size), _mask(leaves, 1, f)) for f, size in sizes.items())
    return optax.chain(*chain, *scales)


def _mask(leaves: Leaves, place: int, value: float) -> Callable[[Arrays], dict[Path, bool]]:
    """Those of the leaves that have this value."""
    chosen = {leaf[0] for leaf in leaves if leaf[place] == value}
    return lambda parameters: {path: path in chosen for path in parameters}


def _momentum(momentum: jax.Array, nesterov: bool = False) -> Piece:
    native = optax.trace(momentum, nesterov=nesterov)

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        moves, state = native.update(gradients, state, parameters)
        # optax keeps the gradient as a velocity when the momentum is 0; the spec, like PyTorch, keeps none.
        return moves, jax.tree.map(lambda v: jnp.where(momentum == 0, 0, v), state)

    return optax.GradientTransformation(native.init, update)


def _adagrad(eps: float) -> Piece:
    """optax's own puts eps inside the root."""
    native = optax.scale_by_rss(initial_accumulator_value=0.0)

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        _, state = native.update(gradients, state, parameters)
        return jax.tree.map(lambda g, s: g / (jnp.sqrt(s) + eps), gradients, state.sum_of_squares), state

    return optax.GradientTransformation(native.init, update)


def _adam(record: Adam) -> Piece:
    beta1, beta2, eps = record.moments
    native = optax.scale_by_adam(beta1, beta2, eps)
    if record.eps_added == "after":
        return native

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        _, state = native.update(gradients, state, parameters)
        return jax.tree.map(lambda m, s: m / (jnp.sqrt(s) + eps), state.mu, state.nu), state

    return optax.GradientTransformation(native.init, update)


# Before Adam the decay enters its moments, behind it does not: coupled and decoupled decay.
NATIVE: dict[type[Optimizer], Callable[[Any, Piece, jax.Array], tuple[Piece, ...]]] = {
    SGD: lambda record, decay, momentum: (decay, _momentum(momentum, record.nesterov)),
    Adam: lambda record, decay, momentum: (decay, _adam(record)),
    AdamW: lambda record, decay, momentum: (_adam(record), decay),
    RMSprop: lambda record, decay, momentum: (
        decay,
        optax.scale_by_rms(record.alpha, record.eps, eps_in_sqrt=False),
        _momentum(momentum),
    ),
    Adagrad: lambda record, decay, momentum: (decay, _adagrad(record.eps)),
}
