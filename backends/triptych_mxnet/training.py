"""The training step: input, forward, loss, backward, update."""

from collections.abc import Sequence

import mxnet as mx
import numpy as np
from mxnet import autograd
from numpy.typing import NDArray

from triptych.backend.contract import Gather, Images, Masks, Paths, Targets
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import Optimizer, Rates
from triptych.utils.arrays import Array
from triptych.utils.randomness import derive_seed
from triptych.weights.initializers import Parameters
from triptych_mxnet.input import Input
from triptych_mxnet.loss import on_device, total_loss
from triptych_mxnet.model import Network, first
from triptych_mxnet.optimizer import Updater
from triptych_mxnet.weights import from_numpy, to_numpy


class Predictor:
    """Applies one network; see `triptych.backend.contract.Predictor`."""

    def __init__(self, network: Network, transform: InputTransform) -> None:
        self.network = network
        self.input = Input(transform, network.device, network.dtype)

    def prepare(self, images: Images, gather: Gather | None = None) -> Array:
        """The network's input, made of stored images."""
        return to_numpy(self.input(images, gather))

    def predict(self, images: Images) -> NDArray[np.float32]:
        """Logits of stored images."""
        with autograd.predict_mode():
            output = self.network(self.input(images))
        return to_numpy(first(output).astype("float32"))


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
        network.freeze(frozen)
        self.optimizer = Updater(network, optimizer, frozen)
        self.batch_norms = [layer for layer in network.batch_norms() if not layer.still]
        # The operator keeps its statistics in the backward pass, which ends where nothing is trained: a batch norm of
        # the images without gamma and beta, as in Gluon's resnet_v2, never keeps any in a Gluon loop.
        self.to_the_input = any(
            all(p.grad_req == "null" for p in layer.collect_params().values()) for layer in self.batch_norms
        )
        self.seed, self.smoothing = seed, smoothing

    def step(
        self,
        images: Images,
        targets: Targets,
        rates: Rates,
        number: int,
        *,
        gather: Gather | None = None,
        masks: Masks | None = None,
    ) -> mx.nd.NDArray:
        """One update; returns the loss and the number of right answers, still on the device."""
        mx.random.seed(derive_seed(self.seed, "dropout", number))
        target = on_device(targets, self.network)
        x = self.input(images, gather)
        if self.to_the_input:
            x.attach_grad()
        for layer in self.batch_norms:
            layer.keep()
        with self.network.dropout_masks(masks or {}), autograd.record():
            output = self.network(x)
            loss = total_loss(self.network, output, target, self.smoothing)
        loss.backward()
        for layer in self.batch_norms:
            layer.update(len(images))
        self.optimizer.step(rates)
        labelled = not isinstance(target, tuple)
        right = (first(output).argmax(axis=1).astype("int32") == target).sum() if labelled else mx.nd.zeros_like(loss)
        return mx.nd.concat(loss.astype("float64"), right.astype("float64"), dim=0)

    def update(self, gradients: Parameters, rates: Rates) -> None:
        """One step of the optimiser alone."""
        for path, parameter in self.optimizer.named.items():
            parameter.grad()[:] = from_numpy(gradients[path], parameter.data())
            parameter.data()._fresh_grad = True  # what backward would say: gluon.Trainer refuses stale gradients
        self.optimizer.step(rates)

    def read(self, handles: Sequence[mx.nd.NDArray]) -> NDArray[np.float64]:
        """`(steps, 2)`; waits for the device."""
        return mx.nd.stack(*handles).asnumpy()

    def state(self) -> Parameters:
        """The optimiser's state by canonical path."""
        return self.optimizer.state()

    def load_state(self, state: Parameters) -> None:
        """Continue from such a state."""
        self.optimizer.load_state(state)
