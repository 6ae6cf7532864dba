"""The training step: the input compiled as one function; forward, backward and update as another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from triptych.backend.contract import Gather
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates
from triptych.spec.layers import keeps_statistics
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych_jax.input import Input
from triptych_jax.inspection import _compile_pass
from triptych_jax.layers import BatchNorm
from triptych_jax.model import Arrays, Network
from triptych_jax.optimizer import Updater, _compile_update, _numbers, _values
from triptych_jax.weights import _canonical_name, _from_numpy


class Trainer:
    """Trains one network; see `triptych.backend.contract.Trainer`."""

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        transform: InputTransform,
        seed: int,
        frozen: frozenset[str] = frozenset(),
    ) -> None:
        self.network = network
        self.optimizer = Updater(network, optimizer, frozen)
        named = self.optimizer.named
        self.fixed = {path: p for path, p in network.variables(nnx.Param).items() if path not in named}
        self.statistics = network.variables(nnx.BatchStat)
        like = next(iter(named.values()))[...]
        self.input = Input(transform, like.device, like.dtype.type)
        self.seed = seed
        self.steps = 0
        self.sizes: set[int] = set()  # of the batches that `run` is compiled for
        network.eval()
        self.compiled_run = _compile_run(nnx.graphdef(network), self.input)
        network.train()
        for path, module in nnx.iter_graph(network):
            if isinstance(module, BatchNorm) and keeps_statistics(".".join(path), frozen):
                module.use_running_average = True
        self.definition = nnx.graphdef(network)
        self.compiled_step = _compile_step(self.definition, optimizer, self.optimizer.decayed)

    def step(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Mapping[str, np.ndarray] | None = None,
    ) -> jax.Array:
        """One update; returns the loss and the number of right answers, still on the device."""
        # Only conformance feeds masks: the function that it has compiled already serves its first steps too. It is
        # slow, so a longer run (a trajectory) gets the one for training.
        watch = masks is not None and self.steps < 2
        self.steps += 1
        given = (
            _values(self.optimizer.named),
            self.constants(),
            self.apply_input(images, gather),
            labels.astype(np.int32),
            dict(masks or {}),
            np.uint32(derive_seed(self.seed, "dropout", number)),
        )
        updater = self.optimizer
        if watch:
            found = _compile_pass(self.definition, watch=True)(*given)
            updater.step(found.gradients, rates)
            figures, statistics = found.figures, found.statistics
        else:
            figures, statistics, moved, kept = self.compiled_step(given, updater.kept, updater.count, _numbers(rates))
            updater.take(moved, kept, rates)
        for path, variable in self.statistics.items():
            variable[...] = statistics[path]
        return figures

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone."""
        named = self.optimizer.named
        native = {path: _from_numpy(gradients[_canonical_name(path)], p[...]) for path, p in named.items()}
        self.optimizer.step(native, rates)

    def read(self, handles: Sequence[jax.Array]) -> np.ndarray:
        """`(steps, 2)`; waits for the device."""
        return np.asarray(jax.device_get(list(handles)), np.float64).reshape(-1, 2)

    def prepare(self, images: np.ndarray, gather: Gather | None = None) -> np.ndarray:
        """The network's input, made of stored images."""
        return np.array(self.apply_input(images, gather))

    def apply_input(self, images: np.ndarray, gather: Gather | None) -> jax.Array:
        """The same, still on the device."""
        if gather is not None:
            gather = Gather(gather.rows.astype(np.int32), gather.columns.astype(np.int32), gather.shifts)
        return _prepare(self.input, jax.device_put(images, self.input.device), gather)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits of stored images."""
        # A smaller last batch is filled up: every new size would be compiled, for seconds.
        size = min((size for size in self.sizes if size >= len(images)), default=len(images))
        self.sizes.add(size)
        filled = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])
        return np.array(self.run(filled)[: len(images)], np.float32)

    def run(self, images: np.ndarray) -> np.ndarray:
        """The compiled network in evaluation mode."""
        return jax.device_get(self.compiled_run(_values(self.optimizer.named), self.constants(), images))

    def constants(self) -> Arrays:
        """What no gradient is taken by: running statistics and frozen parameters."""
        return {**_values(self.statistics), **_values(self.fixed)}

    def state(self) -> Parameters:
        return self.optimizer.state()

    def load_state(self, state: Parameters) -> None:
        self.optimizer.load_state(state)


@lru_cache(maxsize=16)  # a second trainer of the same network compiles nothing
def _compile_step(definition: nnx.GraphDef, optimizer: Optimizer, decayed: frozenset) -> Callable[..., Any]:
    """Pass and update in one function: two cost a tenth of a small network's step."""
    run, update = _compile_pass(definition, watch=False), _compile_update(optimizer, decayed)

    @jax.jit
    def step(given: tuple, kept: dict[str, Arrays], count: jax.Array, rates: tuple) -> tuple:
        found = run(*given)
        moved, kept = update(given[0], found.gradients, kept, count, rates)
        return found.figures, found.statistics, moved, kept

    return step


@partial(jax.jit, static_argnums=0)
def _prepare(input: Input, images: jax.Array, gather: Gather | None) -> jax.Array:
    return input(images, gather)


@lru_cache(maxsize=8)
def _compile_run(definition: nnx.GraphDef, input: Input) -> Callable[..., Any]:
    @jax.jit
    def run(parameters: Arrays, statistics: Arrays, images: jax.Array) -> jax.Array:
        network = nnx.merge(definition, nnx.from_flat_state({**parameters, **statistics}))
        return network(input(images))

    return run
