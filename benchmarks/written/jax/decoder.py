"""A small network of my own: a coarse branch that is brought back to full size, a gate, and a scaled residual."""

import jax.numpy as jnp
from flax import nnx


class PReLU(nnx.Module):
    def __init__(self, size):
        self.alpha = nnx.Param(jnp.full((size,), 0.25))

    def __call__(self, x):
        return jnp.where(x > 0, x, self.alpha[...] * x)


class Gate(nnx.Module):
    def __init__(self, channels, squeezed, rngs):
        self.reduce = nnx.Conv(channels, squeezed, (1, 1), rngs=rngs)
        self.expand = nnx.Conv(squeezed, channels, (1, 1), rngs=rngs)

    def __call__(self, x):
        s = x.mean(axis=(1, 2), keepdims=True)
        s = nnx.relu(self.reduce(s))
        return x * nnx.sigmoid(self.expand(s))


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(3, 8, (3, 3), padding=1, rngs=rngs)
        self.act1 = PReLU(8)
        self.dwconv = nnx.Conv(8, 8, (5, 5), padding=2, feature_group_count=8, use_bias=False, rngs=rngs)
        self.bn = nnx.BatchNorm(8, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.act2 = PReLU(1)
        self.up = nnx.ConvTranspose(8, 6, (4, 4), strides=2, padding="SAME", transpose_kernel=True, rngs=rngs)
        self.gate = Gate(14, 4, rngs)
        self.mix = nnx.Conv(14, 8, (3, 3), strides=2, padding=1, rngs=rngs)
        self.unit1 = nnx.Conv(8, 8, (3, 3), padding=1, rngs=rngs)
        self.unit2 = nnx.Conv(8, 8, (3, 3), padding=1, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.fc = nnx.Linear(8, 10, rngs=rngs)

    def __call__(self, x):
        x = self.act1(self.conv1(x))
        rest = [(0, (size - 3) % 2) for size in x.shape[1:3]]
        y = nnx.avg_pool(x, (3, 3), strides=(2, 2), padding=rest, count_include_pad=False)
        y = self.act2(self.bn(self.dwconv(y)))
        x = jnp.concatenate([x, self.up(y)], axis=-1)
        x = nnx.leaky_relu(self.mix(self.gate(x)), 0.1)
        x = x + 0.2 * self.unit2(nnx.elu(self.unit1(x)))
        return self.fc(self.drop(x.mean(axis=(1, 2))))


def network():
    return Net(nnx.Rngs(params=0, dropout=1))
