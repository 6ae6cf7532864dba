"""GoogLeNet, as in the book, in Flax Linen."""

import jax.numpy as jnp
from flax import linen as nn


class Inception(nn.Module):
    c1: int
    c2: tuple
    c3: tuple
    c4: int

    def setup(self):
        self.b1_1 = nn.Conv(self.c1, kernel_size=(1, 1))
        self.b2_1 = nn.Conv(self.c2[0], kernel_size=(1, 1))
        self.b2_2 = nn.Conv(self.c2[1], kernel_size=(3, 3), padding="same")
        self.b3_1 = nn.Conv(self.c3[0], kernel_size=(1, 1))
        self.b3_2 = nn.Conv(self.c3[1], kernel_size=(5, 5), padding="same")
        self.b4_2 = nn.Conv(self.c4, kernel_size=(1, 1))

    def __call__(self, x):
        b1 = nn.relu(self.b1_1(x))
        b2 = nn.relu(self.b2_2(nn.relu(self.b2_1(x))))
        b3 = nn.relu(self.b3_2(nn.relu(self.b3_1(x))))
        b4 = nn.relu(self.b4_2(nn.max_pool(x, (3, 3), strides=(1, 1), padding="same")))
        return jnp.concatenate((b1, b2, b3, b4), axis=-1)


class GoogleNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        pad = ((1, 1), (1, 1))
        x = nn.relu(nn.Conv(8, (7, 7), strides=(2, 2), padding=3)(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)
        x = nn.relu(nn.Conv(8, (1, 1))(x))
        x = nn.relu(nn.Conv(24, (3, 3), padding="same")(x))
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)
        x = Inception(8, (12, 16), (2, 4), 4)(x)
        x = Inception(16, (16, 24), (4, 12), 8)(x)
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)
        x = Inception(24, (12, 26), (2, 6), 8)(x)
        x = Inception(20, (14, 28), (3, 8), 8)(x)
        x = Inception(16, (16, 32), (3, 8), 8)(x)
        x = Inception(14, (18, 36), (4, 8), 8)(x)
        x = Inception(32, (20, 40), (4, 16), 16)(x)
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=pad)
        x = Inception(32, (20, 40), (4, 16), 16)(x)
        x = Inception(48, (24, 48), (6, 16), 16)(x)
        x = x.mean(axis=(1, 2))
        return nn.Dense(10)(x)


network = GoogleNet
