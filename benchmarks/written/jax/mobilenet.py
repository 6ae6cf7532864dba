"""MobileNet 0.25, a fourth as wide, in Flax Linen."""

from functools import partial

from flax import linen as nn


class MobileNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = False):
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5)
        conv = partial(nn.Conv, use_bias=False)
        x = conv(2, (3, 3), strides=2, padding=1)(x)
        x = nn.relu(norm()(x))
        widths = (4, 8, 8, 16, 16, 32, 32, 32, 32, 32, 32, 64, 64)
        strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        for width, stride in zip(widths, strides):
            channels = x.shape[-1]
            x = conv(channels, (3, 3), strides=stride, padding=1, feature_group_count=channels)(x)
            x = nn.relu(norm()(x))
            x = conv(width, (1, 1))(x)
            x = nn.relu(norm()(x))
        x = nn.avg_pool(x, x.shape[1:3])
        x = x.reshape((x.shape[0], -1))
        return nn.Dense(10)(x)


network = MobileNet
