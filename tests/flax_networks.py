"""Networks as Flax users write them, in NNX and in Linen: maps channels last."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

SIZE = 32


class Cnn(nnx.Module):
    """Flax's example: two convolutions with average pools."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.batch_norm1 = nnx.BatchNorm(8, rngs=rngs)
        self.dropout1 = nnx.Dropout(0.025, rngs=rngs)
        self.conv2 = nnx.Conv(8, 12, (3, 3), rngs=rngs)
        self.batch_norm2 = nnx.BatchNorm(12, momentum=0.8, epsilon=1e-3, use_bias=False, rngs=rngs)
        self.linear1 = nnx.Linear(8 * 8 * 12, 16, rngs=rngs)
        self.dropout2 = nnx.Dropout(0.25, rngs=rngs)
        self.linear2 = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.avg_pool(nnx.relu(self.batch_norm1(self.dropout1(self.conv1(x)))), (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.relu(self.batch_norm2(self.conv2(x))), (2, 2), strides=(2, 2))
        x = nnx.relu(self.dropout2(self.linear1(x.reshape(x.shape[0], -1))))
        return self.linear2(x)


class Unit(nnx.Module):
    def __init__(self, inputs: int, channels: int, stride: int, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(inputs, channels, (3, 3), stride, use_bias=False, rngs=rngs)
        self.norm1 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), use_bias=False, rngs=rngs)
        self.norm2 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs)
        self.projection = nnx.Conv(inputs, channels, (1, 1), stride, use_bias=False, rngs=rngs) if stride > 1 else None
        self.norm3 = nnx.BatchNorm(channels, momentum=0.9, rngs=rngs) if stride > 1 else None

    def __call__(self, x: Any) -> Any:
        y = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        if self.projection is not None and self.norm3 is not None:
            x = self.norm3(self.projection(x))
        return nnx.relu(x + y)


class ResNet(nnx.Module):
    """SAME at stride 2, a max pool with SAME, means of height and width."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (7, 7), 2, padding=[(3, 3), (3, 3)], use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.units = nnx.List([Unit(8, 8, 1, rngs), Unit(8, 16, 2, rngs), Unit(16, 16, 1, rngs)])
        self.head = nnx.Linear(16, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.max_pool(nnx.relu(self.norm(self.stem(x))), (3, 3), strides=(2, 2), padding="SAME")
        for unit in self.units:
            x = unit(x)
        return self.head(jnp.mean(x, axis=(1, 2)))


class LeNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv1 = nnx.Conv(3, 6, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", rngs=rngs)
        self.fc1 = nnx.Linear(400, 120, rngs=rngs)
        self.fc2 = nnx.Linear(120, 84, rngs=rngs)
        self.fc3 = nnx.Linear(84, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.avg_pool(nnx.tanh(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.avg_pool(nnx.sigmoid(self.conv2(x)), (2, 2), (2, 2))
        return self.fc3(nnx.tanh(self.fc2(nnx.tanh(self.fc1(x.reshape((x.shape[0], -1)))))))


class Vgg(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        widths = (3, 4, 8, 8, 12)
        pairs = pairwise(widths)
        self.features = nnx.List([nnx.Conv(i, o, (3, 3), padding=1, rngs=rngs) for i, o in pairs])
        self.fc1, self.drop = nnx.Linear(12 * 2 * 2, 20, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.fc2 = nnx.Linear(20, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        for conv in self.features:
            x = nnx.max_pool(jax.nn.relu(conv(x)), (2, 2), strides=(2, 2))
        return nnx.softmax(self.fc2(self.drop(nnx.relu(self.fc1(x.reshape(-1, 48))))))


class Inception(nnx.Module):
    def __init__(self, inputs: int, rngs: nnx.Rngs) -> None:
        self.one = nnx.Conv(inputs, 4, (1, 1), rngs=rngs)
        self.reduce, self.three = nnx.Conv(inputs, 3, (1, 1), rngs=rngs), nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.pooled = nnx.Conv(inputs, 2, (1, 1), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        pool = nnx.max_pool(x, (3, 3), strides=(1, 1), padding="SAME")
        parts = [self.one(x), self.three(nnx.relu(self.reduce(x))), self.pooled(pool)]
        return jnp.concatenate([nnx.relu(part) for part in parts], axis=-1)


class GoogLeNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (7, 7), 2, rngs=rngs)
        self.mixed1, self.mixed2 = Inception(8, rngs), Inception(12, rngs)
        self.drop, self.head = nnx.Dropout(0.4, rngs=rngs), nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.max_pool(nnx.relu(self.stem(x)), (3, 3), strides=(2, 2), padding="SAME")
        x = self.mixed2(self.mixed1(x))
        x = nnx.avg_pool(x, (8, 8), strides=(8, 8)).squeeze((1, 2))
        return self.head(self.drop(x))


class LinenCnn(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        x = linen.relu(linen.Conv(8, (3, 3))(x))
        x = linen.avg_pool(x, (2, 2), strides=(2, 2))
        x = linen.relu(linen.Conv(12, (3, 3))(x))
        x = linen.avg_pool(x, (2, 2), strides=(2, 2)).reshape((x.shape[0], -1))
        return linen.Dense(10)(linen.relu(linen.Dense(16)(x)))


class LinenResNet(linen.Module):
    widths: Sequence[int] = (8, 16)

    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        def norm(x: Any) -> Any:
            return linen.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)

        x = linen.relu(norm(linen.Conv(8, (7, 7), (2, 2), padding=[(3, 3), (3, 3)], use_bias=False)(x)))
        x = linen.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
        for number, width in enumerate(self.widths):
            stride = (2, 2) if number else (1, 1)
            y = linen.relu(norm(linen.Conv(width, (3, 3), stride, use_bias=False)(x)))
            y = norm(linen.Conv(width, (3, 3), use_bias=False)(y))
            x = norm(linen.Conv(width, (1, 1), stride, use_bias=False)(x)) if x.shape != y.shape else x
            x = linen.relu(x + y)
        return linen.Dense(10)(x.mean((1, 2)))


class LinenLeNet(linen.Module):
    @linen.compact
    def __call__(self, x: Any) -> Any:
        for width in (6, 16):
            x = linen.tanh(linen.Conv(width, (5, 5), padding="VALID")(x))
            x = linen.max_pool(x, (2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        return linen.Dense(10)(linen.tanh(linen.Dense(84)(linen.tanh(linen.Dense(120)(x)))))


class LinenVgg(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        for width in (4, 8, 8, 12):
            x = linen.max_pool(linen.relu(linen.Conv(width, (3, 3))(x)), (2, 2), strides=(2, 2))
        x = linen.relu(linen.Dense(20)(x.reshape((x.shape[0], -1))))
        return linen.softmax(linen.Dense(10)(linen.Dropout(0.5, deterministic=not train)(x)))


class LinenGoogLeNet(linen.Module):
    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.max_pool(linen.relu(linen.Conv(8, (7, 7), (2, 2))(x)), (3, 3), strides=(2, 2), padding="SAME")
        for _ in range(2):
            one, three = linen.Conv(4, (1, 1))(x), linen.Conv(6, (3, 3))(linen.relu(linen.Conv(3, (1, 1))(x)))
            pool = linen.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME", count_include_pad=False)
            x = linen.relu(jnp.concatenate([one, three, linen.Conv(2, (1, 1))(pool)], axis=3))
        return linen.Dense(10)(linen.Dropout(0.4)(x.mean(axis=(1, 2)), deterministic=not train))


class Mixture(nnx.Module):
    """Gates, slopes, slices, shuffled and padded maps, transposed convolutions, Linear at every place."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (4, 4), 2, feature_group_count=1, rngs=rngs)
        self.depthwise = nnx.Conv(8, 16, (3, 3), feature_group_count=8, kernel_dilation=2, rngs=rngs)
        self.everywhere, self.slope = nnx.Linear(16, 8, rngs=rngs), nnx.Param(jnp.linspace(0.1, 0.9, 8))
        self.squeeze, self.excite = nnx.Linear(8, 4, rngs=rngs), nnx.Linear(4, 8, rngs=rngs)
        self.scale, self.shift = nnx.Param(jnp.linspace(0.5, 2, 8)), nnx.Param(jnp.linspace(-1, 1, 8))
        self.up = nnx.ConvTranspose(8, 6, (4, 4), 2, rngs=rngs)
        self.flat_norm, self.out = nnx.BatchNorm(6 * 31 * 32, rngs=rngs), nnx.Linear(6 * 31 * 32, 5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = jax.nn.hard_swish(self.stem((x - 0.5) / jnp.array([0.2, 0.3, 0.4])))
        x = self.everywhere(jax.nn.silu(self.depthwise(x)))
        x = jnp.where(x > 0, x, self.slope[...] * x)
        gate = jax.nn.hard_sigmoid(self.excite(jnp.minimum(nnx.relu(self.squeeze(x.mean((1, 2)))), 6)))
        x = jnp.clip(x * gate[:, None, None, :], -1, 2) * self.scale[...] + self.shift[...]
        x = x.reshape(*x.shape[:3], 2, 4).swapaxes(3, 4).reshape(x.shape)
        left, right = jnp.split(x, 2, -1)
        x = jnp.concatenate([nnx.leaky_relu(left), right - 2 * left], -1)
        x = jnp.pad(self.up(x), ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=0.5)[:, 2:]
        return self.out(self.flat_norm(jnp.tanh(x).reshape(len(x), -1)))


class WrittenNorm(nnx.Module):
    """Batch norm as formulas: what a port from another framework has."""

    def __init__(self, channels: int) -> None:
        self.gamma, self.beta = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))
        self.mean, self.var = nnx.BatchStat(jnp.zeros(channels)), nnx.BatchStat(jnp.ones(channels))

    def __call__(self, x: Any, train: bool) -> Any:
        mean, var = self.mean[...], self.var[...]
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, var, n = x.mean(axes), x.var(axes), x.size // x.shape[-1]
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * mean
            self.var[...] = 0.9 * self.var[...] + 0.1 * jax.lax.stop_gradient(var) * n / (n - 1)
        return self.gamma[...] * (x - mean) / jnp.sqrt(var + 1e-5) + self.beta[...]


class Written(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv, self.norm = nnx.Conv(3, 6, (3, 3), 2, rngs=rngs), WrittenNorm(6)
        self.fc, self.flat_norm = nnx.Linear(6 * 8 * 8, 12, rngs=rngs), WrittenNorm(12)
        self.out = nnx.Linear(12, 5, rngs=rngs)

    def __call__(self, x: Any, train: bool = False) -> Any:
        x = nnx.avg_pool(nnx.relu(self.norm(self.conv(x), train)), (2, 2), (2, 2))
        return self.out(nnx.relu(self.flat_norm(self.fc(x.reshape(len(x), -1)), train)))


class LinenWrittenNorm(linen.Module):
    """The mean of the squares, folded scale and shift, no trained scale; statistics that move by a difference."""

    @linen.compact
    def __call__(self, x: Any, train: bool) -> Any:
        shape, zeros, ones = (1, 1, 1, x.shape[-1]), linen.initializers.zeros, jnp.ones
        beta = self.param("bias", zeros, shape)
        running = (
            self.variable("batch_stats", "mean", jnp.zeros, shape),
            self.variable("batch_stats", "var", ones, shape),
        )
        mean, var = (each.value for each in running)
        if train:
            mean = x.mean((0, 1, 2), keepdims=True)
            var = jnp.maximum(jnp.square(x).mean((0, 1, 2), keepdims=True) - mean**2, 0)
            for each, batch in zip(running, (mean, var), strict=True):
                each.value = each.value + 0.01 * (batch - each.value)
        inverse = jax.lax.rsqrt(var + 1e-3)
        return x * inverse + (beta - mean * inverse)


class LinenWritten(linen.Module):
    """A shortcut without weights (He et al. 2015, option A), response norms and an embedding written out."""

    @linen.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        x = linen.relu(LinenWrittenNorm()(linen.Conv(8, (3, 3), padding="REFLECT")(x), train))
        y = LinenWrittenNorm()(linen.Conv(12, (3, 3), 2, use_bias=False)(x), train)
        x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (2, 2))) + y
        window = ((1, 1, 1, 5), (1, 1, 1, 1), ((0, 0), (0, 0), (0, 0), (2, 2)))
        x = x * (2.0 + 1e-2 * jax.lax.reduce_window(x * x, 0.0, jax.lax.add, *window)) ** -0.75
        x = jnp.pad(jax.nn.hard_tanh(x), ((0, 0), (1, 1), (2, 0), (0, 0)), mode="edge")
        x = jnp.where(x > 0, x, 0)
        x = linen.DenseGeneral(6, axis=(-3, -2, -1))(x / (1 + jnp.exp(-x)))
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


NNX = {kind.__name__: kind for kind in (Cnn, ResNet, LeNet, Vgg, GoogLeNet, Mixture, Written)}
LINEN = {kind.__name__: kind for kind in (LinenCnn, LinenResNet, LinenLeNet, LinenVgg, LinenGoogLeNet, LinenWritten)}


def drawn(path: Any, value: Any) -> Any:
    """Values that are all different, in double precision, statistics and scales above 0; of dropouts, what they begin
    with."""
    name = jax.tree_util.keystr(path)
    generator = np.random.default_rng(crc32(name.encode()))
    if not jnp.issubdtype(value.dtype, jnp.floating):
        keyed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        return jax.random.key(0) if keyed else jnp.zeros(value.shape, value.dtype)
    if "var" in name or "scale" in name:
        return generator.uniform(0.5, 1.5, value.shape)
    return generator.normal(0, 0.3, value.shape)


def network(name: str) -> Any:
    """An NNX module, or a pair of a Linen module and its variables, in double precision."""
    if name in NNX:
        graph, state = nnx.split(nnx.eval_shape(lambda: NNX[name](nnx.Rngs(0))))  # nothing is drawn, nor compiled
        module = nnx.merge(graph, jax.tree.map(jnp.asarray, jax.tree.map_with_path(drawn, state)))
        module.eval()
        return module
    linen_module = LINEN[name]()
    variables = jax.eval_shape(linen_module.init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    return linen_module, jax.tree.map_with_path(drawn, variables)
