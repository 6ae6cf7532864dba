"""Flax modules that a comparison has to be careful with."""

from flax import nnx


class After(nnx.Module):
    """`call(module, x)` of a convolution's output."""

    def __init__(self, call):
        self.conv = nnx.Conv(4, 4, (3, 3), rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
        self.call = call

    def __call__(self, x):
        return self.call(self, self.conv(x))


def dictionary():
    """Its outputs in an order that is not that of their names."""
    return After(lambda net, x: {"b": x.mean((1, 2)), "a": nnx.relu(x)})


def channels_first():
    """All axes of its map are of one size, and it puts that out channels first."""
    return After(lambda net, x: x.transpose(0, 3, 1, 2))


def batch_statistics():
    return After(lambda net, x: net.norm(x, use_running_average=False))
