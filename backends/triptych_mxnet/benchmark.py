"""What speed is held against: the training loop of Gluon's own tutorials, and the best matrix product."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon
from numpy.typing import NDArray

from triptych.backend.contract import Images, Labels, Native
from triptych.backend.execution import Execution
from triptych.data.preprocess import InputTransform, apply_reference
from triptych.optim.optimizers import Rates
from triptych.spec.layers import Pair
from triptych_mxnet.device import DTYPES, get_device


class Textbook:
    """A hybridized network, `gluon.Trainer`, the loss read at every step, on images that were resized beforehand.
    See `triptych.backend.contract.Textbook`."""

    beforehand = True

    def __init__(
        self, network: Native, size: Pair, batch_size: int, rates: Rates, device: str, weights: Sequence[float]
    ) -> None:
        self.device = get_device(device)
        self.network = network
        network.collect_params().reset_ctx(self.device)
        network.hybridize()
        self.size, self.batch_size, self.weights = size, batch_size, tuple(weights)
        options = {"learning_rate": rates.learning_rate, "momentum": rates.momentum}
        self.trainer = gluon.Trainer(network.collect_params(), "sgd", options)

    def load(self, images: Images, labels: Labels) -> Iterable[tuple[NDArray[np.float32], Labels]]:
        """Batches; all work is done here."""
        x = apply_reference(images, InputTransform(images.shape[1], *self.size), dtype=np.float32)
        begins = range(0, len(labels), self.batch_size)
        return [(x[i : i + self.batch_size], labels[i : i + self.batch_size]) for i in begins]

    def train(self, loaded: Iterable[tuple[NDArray[np.float32], Labels]]) -> list[float]:
        """Every step's loss."""
        loss_of, losses = gluon.loss.SoftmaxCrossEntropyLoss(), []
        for images, labels in loaded:
            x, y = mx.nd.array(images, self.device), mx.nd.array(labels, self.device)
            with autograd.record():
                output = self.network(x)
                output, *auxiliary = output if self.weights else (output,)
                loss = loss_of(output, y)
                for weight, logits in zip(self.weights, auxiliary, strict=True):
                    loss = loss + weight * loss_of(logits, y)
            loss.backward()
            self.trainer.step(len(images))
            losses.append(float(loss.mean().asscalar()))
        mx.nd.waitall()
        return losses

    def predict(self, loaded: Iterable[tuple[NDArray[np.float32], Labels]]) -> NDArray[np.int64]:
        """The likeliest class of every image."""
        outputs = [self.network(mx.nd.array(images, self.device)).argmax(axis=1) for images, _ in loaded]
        return mx.nd.concat(*outputs, dim=0).asnumpy().astype(np.int64)


def matrix_product(size: int, execution: Execution, device: str) -> Callable[[], None]:
    """A product of two `size` x `size` matrices in the execution's type, done when the function returns."""
    dtype, target = DTYPES[execution.precision], get_device(device)
    values: NDArray[np.float32] = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    left, right = (mx.nd.array(value, target, dtype) for value in values)
    return partial(_product, left, right)


def _product(left: mx.nd.NDArray, right: mx.nd.NDArray) -> None:
    # FullyConnected is oneDNN's product; nd.dot is several times slower on the CPU
    mx.nd.FullyConnected(left, right, num_hidden=right.shape[0], no_bias=True).wait_to_read()
