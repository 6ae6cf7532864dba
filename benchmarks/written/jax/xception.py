"""A small Xception in Linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class SepConv(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(x.shape[-1], (3, 3), feature_group_count=x.shape[-1], use_bias=False, name="depthwise")(x)
        x = nn.Conv(self.features, (1, 1), use_bias=False, name="pointwise")(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)


class Entry(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, train):
        skip = nn.Conv(self.features, (1, 1), use_bias=False, name="skip")(x[:, ::2, ::2, :])
        skip = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="skip_norm")(skip)
        x = nn.relu(x)
        x = SepConv(self.features, name="sep1")(x, train)
        x = nn.relu(x)
        x = SepConv(self.features, name="sep2")(x, train)
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        return x + skip


class Middle(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        y = SepConv(x.shape[-1], name="sep")(nn.relu(x), train)
        return x + y


class Xception(nn.Module):
    classes: int = 10

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.Conv(6, (3, 3), padding=((1, 1), (1, 1)), name="conv")(x)
        x = Entry(8, name="entry")(x, train)
        middle = [Middle(name=f"middle{i}") for i in range(2)]
        for block in middle:
            x = block(x, train)
        x = nn.relu(x)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(self.classes, name="head")(x)


def network():
    net = Xception()
    return net, net.init(jax.random.key(0), jnp.zeros((1, 14, 18, 3)))
