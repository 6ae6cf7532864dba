"""Networks as users of Flax and JAX write them, right and wrong."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx


class Lenet(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding=2, rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.out = nnx.Linear(84, 10, rngs=rngs)
        self.hidden = nnx.Linear(400, 120, rngs=rngs)
        self.dense = nnx.Linear(120, 84, rngs=rngs)

    def __call__(self, x):
        x = nnx.avg_pool(nnx.sigmoid(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.sigmoid(self.conv2(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        return self.out(nnx.sigmoid(self.dense(nnx.sigmoid(self.hidden(x)))))


def lenet():
    return Lenet()


class Normed(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv, self.out = nnx.Conv(3, 8, (3, 3), padding=1, rngs=rngs), nnx.Linear(8, 5, rngs=rngs)
        self.norm, self.drop = nnx.BatchNorm(8, epsilon=1e-5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.relu(self.norm(self.conv(x))).mean((1, 2))))


class LinenLenet(linen.Module):
    pool: object = linen.avg_pool

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.avg_pool(linen.sigmoid(linen.Conv(6, (5, 5), padding=2)(x)), (2, 2), (2, 2))
        x = self.pool(linen.sigmoid(linen.Conv(16, (5, 5), padding="VALID")(x)), (2, 2), (2, 2))
        x = linen.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return linen.Dense(10)(linen.sigmoid(linen.Dense(84)(linen.sigmoid(linen.Dense(120)(x)))))


def linen_lenet():
    return LinenLenet()


def linen_max():
    return LinenLenet(linen.max_pool)


def function():
    random = np.random.default_rng(0)
    shapes = ((5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (400, 120), (120,), (120, 84), (84,), (84, 10), (10,))

    def network(p, x):
        def conv(x, w, b, padding):
            return jax.lax.conv_general_dilated(x, w, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")) + b

        x = linen.avg_pool(jax.nn.sigmoid(conv(x, p[0], p[1], "SAME")), (2, 2), (2, 2))
        x = linen.avg_pool(jax.nn.sigmoid(conv(x, p[2], p[3], "VALID")), (2, 2), (2, 2)).reshape(len(x), -1)
        x = jax.nn.sigmoid(x @ p[4] + p[5])
        return jax.nn.sigmoid(x @ p[6] + p[7]) @ p[8] + p[9]

    return network, [random.normal(size=shape) for shape in shapes]


@jax.tree_util.register_pytree_node_class
class Callable:
    def __init__(self, weight):
        self.weight = weight

    def __call__(self, x):
        return x @ self.weight

    def tree_flatten(self):
        return (self.weight,), None

    @classmethod
    def tree_unflatten(cls, rest, leaves):
        return cls(*leaves)


def callable_tree():
    return lambda tree, x: tree(x), Callable(jnp.ones((3, 2)))
