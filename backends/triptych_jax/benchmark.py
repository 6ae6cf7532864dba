"""What speed is held against: the training loop of Flax's own examples, and the best matrix product."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from numpy.typing import NDArray

from triptych.backend.contract import Images, Labels, Native
from triptych.backend.execution import Execution
from triptych.data.preprocess import InputTransform, apply_reference
from triptych.optim.optimizers import Rates
from triptych.spec.layers import Pair
from triptych_jax.device import DTYPES, get_device


class Textbook:
    """A plain `nnx.jit` step on images that were resized beforehand. See `triptych.backend.contract.Textbook`."""

    beforehand = True

    def __init__(
        self, network: Native, size: Pair, batch_size: int, rates: Rates, device: str, weights: Sequence[float]
    ) -> None:
        self.device = get_device(device)
        self.network = network
        nnx.update(network, jax.device_put(nnx.state(network), self.device))
        self.size, self.batch_size, self.weights = size, batch_size, tuple(weights)
        momentum = rates.momentum or None
        self.optimizer = nnx.Optimizer(network, optax.sgd(rates.learning_rate, momentum), wrt=nnx.Param)

    def load(self, images: Images, labels: Labels) -> Iterable[tuple[NDArray[np.float32], Labels]]:
        """Batches, channels last; all work is done here."""
        transform = InputTransform(images.shape[1], *self.size)
        x = np.ascontiguousarray(apply_reference(images, transform, dtype=np.float32).transpose(0, 2, 3, 1))
        begins = range(0, len(labels), self.batch_size)
        return [(x[i : i + self.batch_size], labels[i : i + self.batch_size].astype(np.int32)) for i in begins]

    def train(self, loaded: Iterable[tuple[NDArray[np.float32], Labels]]) -> list[float]:
        """Every step's loss, read at the end."""
        self.network.train()
        step = partial(_step, self.network, self.optimizer, self.weights)
        losses = [step(*jax.device_put(batch, self.device)) for batch in loaded]
        return [float(loss) for loss in jax.device_get(losses)]

    def predict(self, loaded: Iterable[tuple[NDArray[np.float32], Labels]]) -> NDArray[np.int64]:
        """The likeliest class of every image."""
        self.network.eval()
        outputs = [_classes(self.network, jax.device_put(images, self.device)) for images, _ in loaded]
        return np.concatenate(jax.device_get(outputs)).astype(np.int64)


@partial(nnx.jit, static_argnums=2)
def _step(
    network: nnx.Module, optimizer: nnx.Optimizer, weights: tuple[float, ...], x: jax.Array, y: jax.Array
) -> jax.Array:
    def loss_of(network: nnx.Module) -> jax.Array:
        output = network(x)
        logits, *auxiliary = output if weights else (output,)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        for weight, each in zip(weights, auxiliary, strict=True):
            loss = loss + weight * optax.softmax_cross_entropy_with_integer_labels(each, y).mean()
        return loss

    loss, gradients = nnx.value_and_grad(loss_of)(network)
    optimizer.update(network, gradients)
    return loss


@nnx.jit
def _classes(network: nnx.Module, x: jax.Array) -> jax.Array:
    return network(x).argmax(1)


def matrix_product(size: int, execution: Execution, device: str) -> Callable[[], None]:
    """A product of two `size` x `size` matrices in the execution's type, done when the function returns."""
    dtype = jnp.bfloat16 if execution.precision == "bf16" else DTYPES[execution.precision]
    values: NDArray[np.float32] = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    left, right = (jax.device_put(jnp.asarray(value, dtype), get_device(device)) for value in values)
    return partial(_product, jax.jit(jnp.matmul), left, right)


def _product(run: Callable[..., jax.Array], left: jax.Array, right: jax.Array) -> None:
    run(left, right).block_until_ready()
