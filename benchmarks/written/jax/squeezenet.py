"""SqueezeNet 1.1 in Flax NNX."""

import jax.numpy as jnp
from flax import nnx


class Fire(nnx.Module):
    def __init__(self, inp, squeeze, expand, rngs):
        self.squeeze = nnx.Conv(inp, squeeze, (1, 1), rngs=rngs)
        self.left = nnx.Conv(squeeze, expand, (1, 1), rngs=rngs)
        self.right = nnx.Conv(squeeze, expand, (3, 3), padding=1, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.squeeze(x))
        return jnp.concatenate([nnx.relu(self.left(x)), nnx.relu(self.right(x))], axis=-1)


def pool(x):
    """With the last window, even if it lies half outside."""
    rest = [(0, (size - 3) % 2) for size in x.shape[1:3]]
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=rest)


class SqueezeNet(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 8, (3, 3), strides=2, padding="VALID", rngs=rngs)
        self.fires = nnx.List([])
        inp = 8
        for squeeze, expand in ((2, 8), (2, 8), (4, 16), (4, 16), (6, 24), (6, 24), (8, 32), (8, 32)):
            self.fires.append(Fire(inp, squeeze, expand, rngs))
            inp = 2 * expand
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.conv10 = nnx.Conv(64, 10, (1, 1), rngs=rngs)

    def __call__(self, x):
        x = pool(nnx.relu(self.conv1(x)))
        for i, fire in enumerate(self.fires):
            x = fire(x)
            if i in (1, 3):
                x = pool(x)
        x = nnx.relu(self.conv10(self.dropout(x)))
        return x.mean(axis=(1, 2))


def network():
    return SqueezeNet(nnx.Rngs(0))
