"""A GhostNet in Flax NNX: half of the channels are made by a convolution, the others from these, cheaply."""

import jax
import jax.numpy as jnp
from flax import nnx


class Ghost(nnx.Module):
    def __init__(self, cin, cout, rngs, relu=True):
        half = cout // 2
        self.primary = nnx.Conv(cin, half, (1, 1), use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(half, momentum=0.9, rngs=rngs)
        self.cheap = nnx.Conv(half, half, (3, 3), feature_group_count=half, use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(half, momentum=0.9, rngs=rngs)
        self.relu = relu

    def act(self, x):
        return jax.nn.relu(x) if self.relu else x

    def __call__(self, x):
        a = self.act(self.norm1(self.primary(x)))
        b = self.act(self.norm2(self.cheap(a)))
        return jnp.concatenate([a, b], axis=-1)


class Gate(nnx.Module):
    def __init__(self, channels, reduced, rngs):
        self.reduce = nnx.Linear(channels, reduced, rngs=rngs)
        self.expand = nnx.Linear(reduced, channels, rngs=rngs)

    def __call__(self, x):
        s = x.mean((1, 2))
        s = jax.nn.relu(self.reduce(s))
        s = jax.nn.hard_sigmoid(self.expand(s))
        return x * s[:, None, None, :]


class GhostNet(nnx.Module):
    def __init__(self, rngs, classes=10):
        self.stem = nnx.Conv(3, 8, (3, 3), padding=1, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.ghost1 = Ghost(8, 12, rngs)
        self.gate = Gate(12, 4, rngs)
        self.ghost2 = Ghost(12, 8, rngs, relu=False)
        self.conv = nnx.Conv(8, 10, (1, 1), rngs=rngs)
        self.fc = nnx.Linear(10, classes, rngs=rngs)

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.stem(x)))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        y = self.gate(self.ghost1(x))
        x = x + self.ghost2(y)
        x = jax.nn.hard_swish(self.conv(x))
        b, h, w, c = x.shape
        features = x.reshape(b, h * w, c).mean(1)
        logits = self.fc(features)
        return {"logits": logits}


def network():
    return GhostNet(nnx.Rngs(0))
