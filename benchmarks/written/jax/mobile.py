"""A small MobileNetV3 of my own: depthwise, gate, hard swish, a grouped convolution and two dense layers."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn


class SqueezeExcite(nn.Module):
    reduced: int

    @nn.compact
    def __call__(self, x):
        s = jnp.mean(x, axis=(1, 2), keepdims=True)
        s = nn.relu(nn.Conv(self.reduced, (1, 1))(s))
        s = nn.Conv(x.shape[-1], (1, 1))(s)
        return x * nn.hard_sigmoid(s)


class MobileNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        conv = partial(nn.Conv, use_bias=False, padding=1)
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        x = nn.hard_swish(norm()(conv(12, (3, 3), strides=2)(x)))
        y = nn.hard_swish(norm()(conv(24, (1, 1), padding=0)(x)))
        y = nn.hard_swish(norm()(conv(24, (3, 3), feature_group_count=24)(y)))
        y = SqueezeExcite(6)(y)
        y = norm()(conv(12, (1, 1), padding=0)(y))
        x = x + y
        x = nn.Conv(16, (3, 3), strides=2, padding=1, feature_group_count=4)(x)
        x = nn.silu(norm()(x))
        x = x.mean(axis=(1, 2))
        x = jax.nn.tanh(nn.Dense(20)(x))
        x = nn.Dropout(0.2, deterministic=not train)(x)
        return nn.Dense(10)(x)


network = MobileNet
