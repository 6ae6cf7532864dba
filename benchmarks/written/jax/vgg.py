"""VGG-11 in Flax Linen."""

from flax import linen as nn


class VGG(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        for count, features in ((1, 4), (1, 8), (2, 16), (2, 32), (2, 32)):
            for _ in range(count):
                x = nn.Conv(features, (3, 3), padding="SAME")(x)
                x = nn.relu(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        for _ in range(2):
            x = nn.relu(nn.Dense(256)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(10)(x)


def network():
    return VGG()
