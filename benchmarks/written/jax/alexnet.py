"""AlexNet of 2012 in Flax Linen, the response norm by hand."""

import jax.numpy as jnp
from flax import linen as nn


def lrn(x, size=5, alpha=1e-4, beta=0.75, k=2.0):
    half = size // 2
    squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (0, 0), (half, half)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(size))
    return x / (k + alpha * total) ** beta


class AlexNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(nn.Conv(6, (11, 11), strides=4, padding="VALID")(x))
        x = nn.max_pool(lrn(x), (3, 3), strides=(2, 2))
        x = nn.relu(nn.Conv(16, (5, 5), padding=2, feature_group_count=2)(x))
        x = nn.max_pool(lrn(x), (3, 3), strides=(2, 2))
        x = nn.relu(nn.Conv(24, (3, 3))(x))
        x = nn.relu(nn.Conv(24, (3, 3), feature_group_count=2)(x))
        x = nn.relu(nn.Conv(16, (3, 3), feature_group_count=2)(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(256)(x)))
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(nn.Dense(256)(x)))
        return nn.Dense(10)(x)


network = AlexNet
