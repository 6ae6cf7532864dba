"""What users of JAX train a network with, right and wrong."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class net(nnx.Module):  # noqa: N801  # as the other frameworks' functions are called
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), padding="VALID", use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.fc = nnx.Linear(4, 5, rngs=rngs)

    def __call__(self, x):
        return self.fc(self.activation(self.norm(self.conv(x))).mean((1, 2)))

    def activation(self, x):
        return nnx.relu(x)


class bounded(net):  # noqa: N801
    def activation(self, x):
        return jnp.minimum(nnx.relu(x), 50.0)


right = optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9))


def of_network(net):
    return nnx.Optimizer(net, right, wrt=nnx.Param)


behind = optax.chain(optax.sgd(0.1, 0.9), optax.add_decayed_weights(5e-4))
masked = optax.chain(
    optax.add_decayed_weights(5e-4, mask=lambda tree: jax.tree.map(lambda w: w.ndim > 1, tree)), optax.sgd(0.1, 0.9)
)
adam = optax.adam(1e-3)
inside = optax.adam(1e-3, eps=0, eps_root=1e-8)
criterion = optax.softmax_cross_entropy_with_integer_labels


def overflowing(y, labels):
    return -jnp.log(jnp.exp(y) / jnp.exp(y).sum(1, keepdims=True))[jnp.arange(len(labels)), labels]
