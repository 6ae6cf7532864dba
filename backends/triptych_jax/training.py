"""The training step: the input compiled as one function; forward, backward and update as another."""

from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from triptych.backend.contract import Gather, Images, Masks, Paths, Targets
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates
from triptych.spec.layers import keeps_statistics
from triptych.utils.arrays import Array
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych.weights.layouts import FLAX
from triptych_jax.compiled import compile_input, compile_prediction, compile_step, compile_update, definition_of
from triptych_jax.functions import arrays_of
from triptych_jax.input import Input
from triptych_jax.layers import BatchNorm
from triptych_jax.loss import on_device
from triptych_jax.model import Network
from triptych_jax.optimizer import Updater
from triptych_jax.weights import from_numpy


class Predictor:
    """Applies one network; see `triptych.backend.contract.Predictor`."""

    def __init__(self, network: Network, transform: InputTransform) -> None:
        self.network = network
        self.variables = network.variables(nnx.Param | nnx.BatchStat)
        like = next(iter(network.variables(nnx.Param).values()))[...]
        self.input = Input(transform, like.device, like.dtype.type)
        self.sizes: set[int] = set()  # of the batches that the prediction is compiled for
        self.compiled_input = compile_input(network.execution, self.input)
        network.eval()
        self.compiled_prediction = compile_prediction(definition_of(network), network.execution, self.input)

    def prepare(self, images: Images, gather: Gather | None = None) -> Array:
        """The network's input, made of stored images."""
        return np.array(self._apply_input(images, gather))

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Logits of stored images."""
        # A smaller last batch is filled up: every new size would be compiled, for seconds.
        size = min((size for size in self.sizes if size >= len(images)), default=len(images))
        self.sizes.add(size)
        filled = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])
        logits = jax.device_get(self.compiled_prediction(arrays_of(self.variables), filled))
        return np.array(logits[: len(images)], np.float32)

    def _apply_input(self, images: Images, gather: Gather | None) -> jax.Array:
        if gather is not None:
            gather = Gather(gather.rows.astype(np.int32), gather.columns.astype(np.int32), gather.shifts)
        return self.compiled_input(jax.device_put(images, self.input.device), gather)


class Trainer(Predictor):
    """Trains one network; see `triptych.backend.contract.Trainer`."""

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        transform: InputTransform,
        seed: int,
        frozen: Paths = frozenset(),
        smoothing: float = 0.0,
    ) -> None:
        super().__init__(network, transform)
        self.optimizer = Updater(network, optimizer, frozen)
        named = self.optimizer.named
        self.fixed = {path: p for path, p in network.variables(nnx.Param).items() if path not in named}
        self.statistics = network.variables(nnx.BatchStat)
        self.seed = seed
        network.train()
        for path, module in nnx.iter_graph(network):
            if isinstance(module, BatchNorm) and keeps_statistics(".".join(path), frozen):
                module.use_running_average = True
        program = network.execution, optimizer, self.optimizer.decayed
        self.compiled_step = compile_step(definition_of(network), *program, smoothing)
        self.compiled_update = compile_update(*program)  # not compiled before it is called

    def step(
        self,
        images: Images,
        targets: Targets,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Masks | None = None,
    ) -> jax.Array:
        """One update; returns the loss and the number of right answers, still on the device."""
        inputs = (
            arrays_of(self.optimizer.named),
            {**arrays_of(self.statistics), **arrays_of(self.fixed)},
            self._apply_input(images, gather),
            on_device(targets, self.network),
            dict(masks or {}),
            np.uint32(derive_seed(self.seed, "dropout", number)),
        )
        figures, statistics = self.optimizer.run(self.compiled_step, inputs, rates)
        for path, variable in self.statistics.items():
            variable[...] = statistics[path]
        return figures

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone."""
        named = self.optimizer.named
        native = {path: from_numpy(gradients[FLAX.canonical_path(path)], p[...]) for path, p in named.items()}
        self.optimizer.run(self.compiled_update, (arrays_of(named), native), rates)

    def read(self, handles: Sequence[jax.Array]) -> NDArray[np.float64]:
        """`(steps, 2)`; waits for the device."""
        return np.asarray(jax.device_get(list(handles)), np.float64).reshape(-1, 2)

    def state(self) -> Parameters:
        """The optimiser's state by canonical path."""
        return self.optimizer.state()

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        self.optimizer.load_state(state)
