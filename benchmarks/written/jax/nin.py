"""Network in network in Flax NNX, a Sequential."""

from functools import partial

from flax import nnx


def block(inp, out, kernel, stride, padding, rngs):
    return (
        nnx.Conv(inp, out, (kernel, kernel), strides=stride, padding=padding, rngs=rngs),
        nnx.relu,
        nnx.Conv(out, out, (1, 1), rngs=rngs),
        nnx.relu,
        nnx.Conv(out, out, (1, 1), rngs=rngs),
        nnx.relu,
    )


def global_mean(x):
    return x.mean(axis=(1, 2))


def network():
    rngs = nnx.Rngs(params=0, dropout=1)
    pool = partial(nnx.max_pool, window_shape=(3, 3), strides=(2, 2))
    return nnx.Sequential(
        *block(1, 12, 11, 4, "VALID", rngs),
        pool,
        *block(12, 32, 5, 1, "SAME", rngs),
        pool,
        *block(32, 48, 3, 1, "SAME", rngs),
        pool,
        nnx.Dropout(0.5, rngs=rngs),
        *block(48, 10, 3, 1, "SAME", rngs),
        global_mean,
    )
