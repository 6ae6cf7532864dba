"""LeNet in Flax NNX."""

import jax.numpy as jnp
from flax import nnx


class LeNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 6, kernel_size=(5, 5), padding="SAME", rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, kernel_size=(5, 5), padding="VALID", rngs=rngs)
        self.dense1 = nnx.Linear(400, 120, rngs=rngs)
        self.dense2 = nnx.Linear(120, 84, rngs=rngs)
        self.dense3 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.sigmoid(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.sigmoid(self.conv2(x)), (2, 2), strides=(2, 2))
        x = jnp.reshape(x, (x.shape[0], -1))
        x = nnx.sigmoid(self.dense1(x))
        x = nnx.sigmoid(self.dense2(x))
        return self.dense3(x)


def network():
    return LeNet(nnx.Rngs(0))
