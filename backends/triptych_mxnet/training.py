"""The training step: input, forward, loss, backward, update."""

from collections.abc import Sequence
from itertools import pairwise

import mxnet as mx
import numpy as np
from mxnet import autograd
from numpy.typing import NDArray

from triptych.backend.contract import Gather, Images, Masks, Paths, Targets
from triptych.backend.group import ALONE, Group, Share, entire
from triptych.backend.targets import part_of
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych_mxnet.distributed import Group as Workers
from triptych_mxnet.input import Input
from triptych_mxnet.layers import Dropout
from triptych_mxnet.loss import on_device, total_loss
from triptych_mxnet.model import Network, first
from triptych_mxnet.optimizer import Updater
from triptych_mxnet.weights import from_numpy, to_numpy


class Predictor:
    """Applies one network; see `triptych.backend.contract.Predictor`."""

    def __init__(self, network: Network, transform: InputTransform) -> None:
        self.network = network
        contexts = next(iter(network.named_parameters().values())).list_ctx()
        self.inputs = [Input(transform, context, network.dtype) for context in contexts]
        self.input = self.inputs[0]

    def prepare(self, images: Images, gather: Gather | None = None) -> Array:
        """The network's input, made of stored images."""
        return to_numpy(self.input(images, gather))

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Logits of stored images, shared by this process's contexts."""
        bounds = [len(images) * number // len(self.inputs) for number in range(len(self.inputs) + 1)]
        parts = [slice(*pair) for pair in pairwise(bounds) if pair[0] < pair[1]]
        with autograd.predict_mode():
            outputs = [
                first(self.network(input(images[part]))) for part, input in zip(parts, self.inputs, strict=False)
            ]
        return np.concatenate([to_numpy(output.astype("float32")) for output in outputs])


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
        self.workers = group if isinstance(group, Workers) else None
        if self.workers is not None:
            _check(network, group, synchronised)
            network.collect_params().reset_ctx(self.workers.contexts)
        super().__init__(network, transform)
        network.freeze(frozen)
        self.optimizer = Updater(network, optimizer, frozen)
        self.synchronised = synchronised and group.size > 1
        if self.workers is not None:
            for layer in network.batch_norms():
                layer.total = self.workers.total
        self.adds = False  # whether a gradient is added to the one before
        self.batch_norms = [layer for layer in network.batch_norms() if not layer.still]
        # The operator keeps its statistics in the backward pass, which ends where nothing is trained: a batch norm of
        # the images without gamma and beta, as in Gluon's resnet_v2, never keeps any in a Gluon loop.
        self.to_the_input = any(
            all(p.grad_req == "null" for p in layer.collect_params().values()) for layer in self.batch_norms
        )
        self.seed, self.smoothing = seed, smoothing
        # Else there is nothing to seed, which fills all of MXNet's generators: 1.5 ms, a thirtieth of LeNet's step.
        self.draws = any(isinstance(block, Dropout) for _, block in network.named_blocks())

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
    ) -> mx.nd.NDArray:
        """One update; returns the loss and the number of right answers, still on the device."""
        shares = shares or (entire(len(images)),)
        self._begin_gradients(len(shares) > 1)
        figures, place = [], 0
        for share in shares:
            for device, part in enumerate(self.group.device_shares(share)):
                begin = place + part.begin - share.begin
                mine = slice(begin, begin + len(part))
                masked = {path: mask[mine] for path, mask in (masks or {}).items()}
                taken = images[mine], part_of(targets, mine), gather and gather.part(mine), masked
                figures.append(self._backward(device, part, number, *taken))
            place += len(share)
        self.network.device = self.inputs[0].device
        if self.workers is not None:
            for path, parameter in self.optimizer.named.items():
                self.workers.total(path, parameter.list_grad())
        self.optimizer.step(rates)
        return mx.nd.add_n(*figures) if len(figures) > 1 else figures[0]

    def _backward(
        self,
        device: int,
        share: Share,
        number: int,
        images: Images,
        targets: Targets,
        gather: Gather | None,
        masks: Masks,
    ) -> mx.nd.NDArray:
        """Forward and backward on one device; its part of the loss and the right answers."""
        input = self.inputs[device]
        self.network.device = input.device
        if self.draws:
            mx.random.seed(derive_seed(self.seed, "dropout", number), input.device)
        target = on_device(targets, self.network)
        x = input(images, gather)
        if self.to_the_input:
            x.attach_grad()
        for layer in self.batch_norms:
            layer.keep(device)
        with (
            self.network.dropout_masks(masks),
            self.network.taking(share, self.synchronised),
            autograd.record(),
        ):
            output = self.network(x)
            loss = total_loss(self.network, output, target, self.smoothing)
            weighted = loss if share.entire else loss * share.weight
        weighted.backward()
        if self.synchronised:
            mx.nd.waitall()  # what the backward pass sends has to be on its way before anything else is
        for layer in self.batch_norms:
            layer.update(share.last - share.first if self.synchronised else len(images), device)
        labelled = not isinstance(target, tuple)
        right = (first(output).argmax(axis=1).astype("int32") == target).sum() if labelled else mx.nd.zeros_like(loss)
        right = right.astype("float64") / share.copies
        return mx.nd.concat(weighted.astype("float64"), right, dim=0).as_in_context(self.input.device)

    def _begin_gradients(self, adds: bool) -> None:
        if adds != self.adds:
            self.adds = adds
            for parameter in self.optimizer.named.values():
                parameter.grad_req = "add" if adds else "write"
        if adds:
            for parameter in self.optimizer.named.values():
                parameter.zero_grad()

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone."""
        for path, parameter in self.optimizer.named.items():
            parameter.grad()[:] = from_numpy(gradients[path], parameter.data())
            parameter.data()._fresh_grad = True  # what backward would say: gluon.Trainer refuses stale gradients
        self.optimizer.step(rates)

    def read(self, handles: Sequence[mx.nd.NDArray]) -> NDArray[np.float64]:
        """`(steps, 2)`; waits for the device and the other processes."""
        return self.group.gather(mx.nd.stack(*handles).asnumpy()).sum(0)

    def settle(self) -> None:
        """Local running statistics become the mean of all contexts' and processes'."""
        if self.workers is None or self.synchronised:
            return
        for layer in self.network.batch_norms():
            for parameter in (layer.running_mean, layer.running_var):
                mine = np.mean([to_numpy(value) for value in parameter.list_data()], 0, np.float64)
                parameter.set_data(from_numpy(self.group.gather(np.asarray(mine)).mean(0), parameter.list_data()[0]))

    def state(self) -> Parameters:
        """The optimiser's state by canonical path."""
        return self.optimizer.state()

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        self.optimizer.load_state(state)


def _check(network: Network, group: Group, synchronised: bool) -> None:
    """Raises TriptychError for what MXNet's store and layers cannot do."""
    if group.size > 1 and network.dtype == "float64":
        raise TriptychError("MXNet's parameter server carries float32 alone: several processes cannot train in fp64")
    if group.devices > 1 and synchronised and network.batch_norms():
        raise TriptychError(
            "MXNet's batch norm takes the statistics of each context: with --devices give --batch-norm local, or give "
            "--processes"
        )
