"""LeNet with ReLU, and how it is trained: preparation of images, loss, optimiser, schedule."""

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


class LeNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.avg_pool(nn.relu(nn.Conv(6, (5, 5), padding=2)(x)), (2, 2), (2, 2))
        x = nn.avg_pool(nn.relu(nn.Conv(16, (5, 5), padding=0)(x)), (2, 2), (2, 2))
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(120)(x))
        x = nn.relu(nn.Dense(84)(x))
        return nn.Dense(10)(x)


network = LeNet


def optimizer():
    schedule = optax.exponential_decay(0.05, transition_steps=3, decay_rate=0.1, staircase=True)
    return optax.chain(
        optax.add_decayed_weights(5e-4),
        optax.trace(decay=0.9, nesterov=True),
        optax.scale_by_learning_rate(schedule),
    )


def criterion(logits, labels):
    picked = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    return (jax.nn.logsumexp(logits, axis=1) - picked).mean()


def preprocess(images):
    x = jnp.asarray(images, jnp.float32) / 255
    return (x - 0.2860) / 0.3530
