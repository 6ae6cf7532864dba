"""The same small network as in PyTorch: a channel shuffle, and SSD's L2 norm; Flax NNX."""

import jax.numpy as jnp
from flax import nnx
from jax import lax


def channel_shuffle(x, groups):
    n, h, w, c = x.shape
    return x.reshape(n, h, w, groups, c // groups).swapaxes(3, 4).reshape(n, h, w, c)


class Net(nnx.Module):
    def __init__(self, rngs):
        def conv(inp, out, kernel, groups):
            return nnx.Conv(inp, out, kernel, padding="SAME", feature_group_count=groups, use_bias=False, rngs=rngs)

        self.stem = nnx.Conv(3, 12, (3, 3), strides=2, padding=1, rngs=rngs)
        self.gconv1 = conv(12, 12, (1, 1), 3)
        self.bn1 = nnx.BatchNorm(12, momentum=0.9, rngs=rngs)
        self.dwconv = conv(12, 12, (3, 3), 12)
        self.bn2 = nnx.BatchNorm(12, momentum=0.9, rngs=rngs)
        self.gconv2 = conv(12, 12, (1, 1), 3)
        self.bn3 = nnx.BatchNorm(12, momentum=0.9, rngs=rngs)
        self.dilated = nnx.Conv(12, 8, (3, 3), padding=2, kernel_dilation=2, rngs=rngs)
        self.fc = nnx.Linear(8, 10, rngs=rngs)

    def __call__(self, x):
        x = jnp.tanh(self.stem(x))
        y = nnx.relu(self.bn1(self.gconv1(x)))
        y = channel_shuffle(y, 3)
        y = self.bn3(self.gconv2(self.bn2(self.dwconv(y))))
        x = nnx.relu(x + y)
        x = 20.0 * x * lax.rsqrt(jnp.sum(x**2, axis=-1, keepdims=True) + 1e-10)
        x = nnx.relu(self.dilated(x))
        return self.fc(x.mean(axis=(1, 2)))


def network():
    return Net(nnx.Rngs(0))
