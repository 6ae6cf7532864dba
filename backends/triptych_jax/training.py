"""The training step: the input compiled as one function; forward, backward and update as another."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from numpy.typing import NDArray

from triptych.backend.contract import Gather, Images, Masks, Paths, Targets
from triptych.backend.group import ALONE, Group, Share, entire
from triptych.backend.targets import map_targets, part_of
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates
from triptych.spec.layers import keeps_statistics
from triptych.utils.arrays import Array
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych.weights.layouts import FLAX
from triptych_jax.compiled import (
    compile_input,
    compile_micro_batch,
    compile_prediction,
    compile_step,
    compile_update,
    definition_of,
)
from triptych_jax.distributed import Group as Mesh
from triptych_jax.functions import arrays_of, nodes
from triptych_jax.input import Input
from triptych_jax.layers import BatchNorm
from triptych_jax.loss import on_device
from triptych_jax.model import Arrays, Network
from triptych_jax.optimizer import Updater
from triptych_jax.shared import Spread
from triptych_jax.weights import from_numpy


class Predictor:
    """Applies one network; see `triptych.backend.contract.Predictor`."""

    def __init__(self, network: Network, transform: InputTransform) -> None:
        self.network = network
        self.variables = network.variables(nnx.Param | nnx.BatchStat)
        like = next(iter(network.variables(nnx.Param).values()))[...]
        self.sizes: set[int] = set()  # of the batches that the prediction is compiled for
        self.inputs = [Input(transform, shard.device, like.dtype.type) for shard in like.addressable_shards]
        self.input = self.inputs[0]
        self.compiled_inputs = [compile_input(network.execution, input) for input in self.inputs]
        network.eval()
        definition = definition_of(network)
        self.compiled_predictions = [compile_prediction(definition, network.execution, each) for each in self.inputs]

    def prepare(self, images: Images, gather: Gather | None = None) -> Array:
        """The network's input, made of stored images."""
        return np.array(self._apply_input(0, images, gather))

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Logits of stored images, shared by this process's devices."""
        devices = len(self.inputs)
        # A smaller last batch is filled up: every new size would be compiled, for seconds.
        each = -(-len(images) // devices)
        size = min((size for size in self.sizes if size >= each), default=each)
        self.sizes.add(size)
        filled = np.concatenate([images, np.zeros((size * devices - len(images), *images.shape[1:]), images.dtype)])
        values = arrays_of(self.variables)
        logits = [
            run(_on_device(values, device), filled[device * size : (device + 1) * size])
            for device, run in enumerate(self.compiled_predictions)
        ]
        return np.concatenate(jax.device_get(logits)).astype(np.float32)[: len(images)]

    def _apply_input(self, device: int, images: Images, gather: Gather | None) -> jax.Array:
        if gather is not None:
            gather = Gather(gather.rows.astype(np.int32), gather.columns.astype(np.int32), gather.shifts)
        return self.compiled_inputs[device](jax.device_put(images, self.inputs[device].device), gather)


def _on_device(values: Arrays, number: int) -> Arrays:
    """Arrays that are on every device, as one of this process's has them."""
    return {path: value.addressable_data(number) for path, value in values.items()}


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
        group: Group = ALONE,
        synchronised: bool = True,
    ) -> None:
        self.group = group
        self.mesh = group if isinstance(group, Mesh) else None
        if self.mesh is not None:
            state = nnx.state(network, nnx.Any(nnx.Param, nnx.BatchStat))
            nnx.update(network, jax.tree.map(self.mesh.everywhere, state))
        super().__init__(network, transform)
        self.optimizer = Updater(network, optimizer, frozen)
        named = self.optimizer.named
        self.fixed = {path: p for path, p in network.variables(nnx.Param).items() if path not in named}
        self.statistics = network.variables(nnx.BatchStat)
        self.seed = seed
        network.train()
        for path, module in nodes(network):
            if isinstance(module, BatchNorm) and keeps_statistics(".".join(path), frozen):
                module.use_running_average = True
        self.placed = None if self.mesh is None else self.mesh.replicated
        self.spread = None if self.mesh is None else Spread(self.mesh.mesh, synchronised)
        program = network.execution, optimizer, self.optimizer.leaves
        self.definition, self.smoothing = definition_of(network), smoothing
        self.compiled_step = compile_step(self.definition, *program, smoothing, self.placed, None)
        self.spread_step = compile_step(self.definition, *program, smoothing, self.placed, self.spread)
        self.compiled_update = compile_update(*program, self.placed)  # not compiled before it is called

    def step(
        self,
        images: Images,
        targets: Targets,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Masks | None = None,
        shares: Sequence[Share] = (),
    ) -> jax.Array:
        """One update; returns the loss and the number of right answers, still on the device."""
        shares = shares or (entire(len(images)),)
        seed = np.uint32(derive_seed(self.seed, "dropout", number))
        inputs, place = [], 0
        for share in shares:
            mine = slice(place, place + len(share))
            place = mine.stop
            x, target, masked = self._placed(
                share,
                images[mine],
                part_of(targets, mine),
                gather and gather.part(mine),
                {path: mask[mine] for path, mask in (masks or {}).items()},
            )
            inputs.append((x, target, masked, seed))
        values, fixed = arrays_of(self.optimizer.named), arrays_of(self.fixed)
        statistics = arrays_of(self.statistics)
        if len(shares) == 1:
            taken = (values, {**statistics, **fixed}, *inputs[0])
            step = self.spread_step if self._is_spread(shares[0]) else self.compiled_step
            figures, statistics = self.optimizer.run(step, taken, rates)
        else:
            sums: Any = None
            for share, micro_batch in zip(shares, inputs, strict=True):
                spread = self.spread if self._is_spread(share) else None
                add = compile_micro_batch(
                    self.definition, self.network.execution, self.smoothing, share.whole, self.placed, spread
                )
                weight = np.float64((share.last - share.first) / share.whole)
                taken = (values, {**statistics, **fixed}, *micro_batch)
                sums, statistics = add(taken, np.int32(share.first), weight, sums)
            figures, gradients = sums
            self.optimizer.run(self.compiled_update, (values, gradients), rates)
        for path, variable in self.statistics.items():
            variable[...] = statistics[path]
        return figures

    def _is_spread(self, share: Share) -> bool:
        """Whether the devices have a part each of what this is a share of, and not all of them the whole."""
        return self.mesh is not None and self.mesh.device_shares(share)[0].copies == 1

    def _placed(
        self, share: Share, images: Images, targets: Targets, gather: Gather | None, masks: Masks
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        """The input, targets and masks of a share, each on the devices that they belong to."""
        targets = on_device(targets, self.network)
        mesh = self.mesh
        if mesh is None:
            return self._apply_input(0, images, gather), targets, dict(masks)
        parts = [slice(part.begin - share.begin, part.end - share.begin) for part in self.group.device_shares(share)]
        x = [self._apply_input(i, images[part], gather and gather.part(part)) for i, part in enumerate(parts)]

        def spread(value: NDArray[Any]) -> jax.Array:
            put = [jax.device_put(value[part], each.device) for part, each in zip(parts, self.inputs, strict=True)]
            return mesh.spread(share, put)

        return mesh.spread(share, x), map_targets(spread, targets), {k: spread(v) for k, v in masks.items()}

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone."""
        named = self.optimizer.named
        native = {path: from_numpy(gradients[FLAX.canonical_path(path)], p[...]) for path, p in named.items()}
        self.optimizer.run(self.compiled_update, (arrays_of(named), native), rates)

    def read(self, handles: Sequence[jax.Array]) -> NDArray[np.float64]:
        """`(steps, 2)`; waits for the device."""
        return np.asarray(jax.device_get(list(handles)), np.float64).reshape(-1, 2)

    def settle(self) -> None:
        """Nothing: running statistics are global here, of local batch norm too."""

    def state(self) -> Parameters:
        """The optimiser's state by canonical path."""
        return self.optimizer.state()

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        self.optimizer.load_state(state)
