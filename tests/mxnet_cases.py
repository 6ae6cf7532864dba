"""Small networks of MXNet's operators: a case for each way in which an operator is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Build = Callable[[Any, Any], Any]  # of mx.sym and the data


@dataclass(frozen=True)
class Case:
    """A small network. `train`: whether gradients are compared, too. `single`: why MXNet computes in 32 bits although
    its arrays have 64; "only" where it takes no others. `images`: a batch norm of rows wants more than the three, whose
    small variances make rounding larger, on some processors by more than the bound."""

    build: Build
    shape: tuple[int, int, int] = (6, 9, 8)
    train: bool = True
    single: str = ""
    images: int = 3

    @property
    def dtype(self) -> str:
        return "float32" if self.single == "only" else "float64"

    @property
    def bound(self) -> float:
        """Relative to the largest value."""
        return 1e-5 if self.single == "only" else 1e-6 if self.single else 1e-12


def conv(sym: Any, data: Any, name: str = "conv", **options: Any) -> Any:
    return sym.Convolution(data, **{"kernel": (3, 3), "num_filter": 6, "pad": (1, 1), "name": name} | options)


def dense(sym: Any, data: Any, name: str = "fc", **options: Any) -> Any:
    return sym.FullyConnected(data, num_hidden=5, name=name, **options)


def shuffled(sym: Any, data: Any) -> Any:
    groups = sym.reshape(data, shape=(0, -4, 3, -1, -2))
    return sym.reshape(sym.swapaxes(groups, dim1=1, dim2=2), shape=(0, -3, -2))


def squeeze_and_excite(sym: Any, data: Any) -> Any:
    pooled = sym.Pooling(data, global_pool=True, pool_type="avg", kernel=(1, 1))
    gate = sym.Activation(sym.FullyConnected(pooled, num_hidden=6, name="gate"), act_type="sigmoid")
    return sym.broadcast_mul(data, sym.reshape(gate, shape=(-1, 6, 1, 1)))


def boxes(sym: Any, data: Any) -> Any:
    """A detector's head: the classes of each of two boxes at every place, (images, classes, boxes)."""
    turned = sym.Flatten(sym.transpose(conv(sym, data, "head"), axes=(0, 2, 3, 1)))
    return sym.transpose(sym.Reshape(turned, shape=(0, -1, 3)), axes=(0, 2, 1))


def hard_swish(sym: Any, data: Any) -> Any:
    return data * sym.clip(data + 3, 0, 6) / 6


def sliced(sym: Any, data: Any) -> Any:
    parts = sym.SliceChannel(data, num_outputs=3, name="parts")
    return sym.Concat(parts[2], conv(sym, parts[0]), parts[2], dim=1)


def two_heads(sym: Any, data: Any) -> Any:
    trunk = conv(sym, data)
    return sym.Group([dense(sym, trunk), conv(sym, trunk, "head", num_filter=2)])


def shared_view(sym: Any, data: Any) -> Any:
    flat = sym.Flatten(data)
    return sym.Group([dense(sym, flat, "one"), dense(sym, sym.relu(flat), "two")])


SLOPE = "it multiplies by the slope in 32 bits (mshadow_op::xelu)"
CASES = {
    "convolution": Case(lambda sym, data: conv(sym, data, stride=(2, 1), pad=(0, 2))),
    "convolution without bias": Case(lambda sym, data: conv(sym, data, no_bias=True, kernel=(1, 3), pad=(0, 1))),
    "convolution in groups": Case(lambda sym, data: conv(sym, data, num_group=3, num_filter=12)),
    "convolution of each channel": Case(lambda sym, data: conv(sym, data, num_group=6, no_bias=True)),
    "dilated convolution": Case(lambda sym, data: conv(sym, data, dilate=(2, 3), pad=(2, 3))),
    "convolution_v1": Case(lambda sym, data: sym.Convolution_v1(data, kernel=(3, 2), num_filter=4, name="conv")),
    "deconvolution": Case(
        lambda sym, data: sym.Deconvolution(data, kernel=(3, 4), stride=(2, 3), pad=(1, 1), num_filter=4, name="up")
    ),
    "deconvolution with bias, groups and adj": Case(
        lambda sym, data: sym.Deconvolution(
            data, kernel=(3, 3), stride=(2, 2), adj=(1, 0), num_filter=9, num_group=3, no_bias=False, name="up"
        )
    ),
    "deconvolution to a shape": Case(
        lambda sym, data: sym.Deconvolution(
            data, kernel=(4, 4), stride=(2, 2), target_shape=(17, 16), num_filter=3, name="up"
        )
    ),
    "dilated deconvolution": Case(
        lambda sym, data: sym.Deconvolution(data, kernel=(3, 2), dilate=(2, 1), num_filter=3, name="up")
    ),
    # In 64 bits MXNet's forward pass of it, its own col2im, is wrong; its gradients, and oneDNN's of 32 bits, are not.
    "dilated deconvolution with a stride": Case(
        lambda sym, data: sym.Deconvolution(data, kernel=(3, 2), dilate=(2, 2), stride=(2, 3), num_filter=3, name="up"),
        single="only",
    ),
    "dense of a map": Case(lambda sym, data: dense(sym, data)),
    "dense behind flatten": Case(lambda sym, data: dense(sym, sym.Flatten(data), no_bias=True)),
    "dense of rows": Case(lambda sym, data: dense(sym, dense(sym, data, "first"), flatten=False)),
    "dense behind a transpose": Case(
        lambda sym, data: dense(sym, sym.Flatten(sym.relu(sym.transpose(data, axes=(0, 2, 3, 1)))))
    ),
    "dense behind a transpose of columns": Case(lambda sym, data: dense(sym, sym.swapaxes(data, dim1=2, dim2=-1))),
    "dense behind reshapes": Case(
        lambda sym, data: dense(sym, sym.Reshape(sym.Reshape(data, shape=(0, 3, -1)), shape=(-1, 432)))
    ),
    "two dense of one view": Case(shared_view),
    "batch norm": Case(lambda sym, data: sym.BatchNorm(data, fix_gamma=False, eps=2e-5, momentum=0.7, name="bn")),
    "batch norm with all defaults": Case(lambda sym, data: sym.BatchNorm(data, name="bn")),
    "batch norm of rows": Case(
        lambda sym, data: sym.BatchNorm(dense(sym, data), fix_gamma=False, name="bn"), images=16
    ),
    "batch norm with global statistics": Case(
        lambda sym, data: sym.BatchNorm(data, fix_gamma=False, use_global_stats=True, name="bn")
    ),
    "batch_norm_v1": Case(lambda sym, data: sym.BatchNorm_v1(data, fix_gamma=False, name="bn"), single="only"),
    "synchronised batch norm": Case(
        lambda sym, data: sym.contrib.SyncBatchNorm(data, fix_gamma=False, momentum=0.7, key="bn", name="bn"),
        single="only",
    ),
    "max pool": Case(lambda sym, data: sym.Pooling(data, kernel=(3, 2), stride=(2, 3), pad=(1, 0), pool_type="max")),
    "full max pool": Case(
        lambda sym, data: sym.Pooling(
            data, kernel=(3, 3), stride=(3, 2), pad=(0, 1), pool_type="max", pooling_convention="full"
        ),
        (6, 11, 9),
    ),
    "average pool": Case(
        lambda sym, data: sym.Pooling(data, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg")
    ),
    "average pool that counts no padding": Case(
        lambda sym, data: sym.Pooling(
            data, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg", count_include_pad=False
        )
    ),
    "full average pool": Case(
        lambda sym, data: sym.Pooling(
            data, kernel=(3, 3), stride=(2, 2), pad=(1, 1), pool_type="avg", pooling_convention="full"
        ),
        (6, 10, 10),
    ),
    "sum pool": Case(lambda sym, data: sym.Pooling(data, kernel=(2, 3), pad=(1, 1), pool_type="sum")),
    "global average pool": Case(lambda sym, data: sym.Pooling(data, global_pool=True, pool_type="avg", kernel=(7, 7))),
    "global max pool": Case(lambda sym, data: sym.Pooling(data, global_pool=True, pool_type="max", kernel=(1, 1))),
    "global sum pool": Case(lambda sym, data: sym.Pooling(data, global_pool=True, pool_type="sum", kernel=(1, 1))),
    "pooling_v1": Case(lambda sym, data: sym.Pooling_v1(data, kernel=(2, 2), stride=(2, 2), pool_type="max")),
    "average pooling_v1": Case(
        lambda sym, data: sym.Pooling_v1(data, kernel=(3, 3), stride=(3, 3), pool_type="avg"),
        (6, 9, 9),
        single="it multiplies by a reciprocal of 32 bits",
    ),
    "adaptive average pool": Case(lambda sym, data: sym.contrib.AdaptiveAvgPooling2D(data, output_size=(3, 4))),
    "adaptive average pool to one": Case(lambda sym, data: sym.contrib.AdaptiveAvgPooling2D(data, output_size=1)),
    "mean": Case(lambda sym, data: dense(sym, sym.mean(data, axis=(2, 3)))),
    "mean with keepdims": Case(lambda sym, data: conv(sym, sym.mean(data, axis=(-1, -2), keepdims=True))),
    "mean of all but": Case(lambda sym, data: sym.mean(data, axis=(0, 1), exclude=True)),
    "sum": Case(lambda sym, data: sym.sum(data, axis=(2, 3))),
    "means one by one": Case(lambda sym, data: dense(sym, sym.mean(sym.mean(data, axis=3), axis=2))),
    "mean of rows": Case(lambda sym, data: conv(sym, sym.mean(data, axis=2, keepdims=True))),
    "sum of columns": Case(lambda sym, data: dense(sym, sym.sum(sym.relu(data), axis=-1))),
    "largest": Case(lambda sym, data: dense(sym, sym.max(data, axis=(2, 3)))),
    "largest of transposed rows": Case(
        lambda sym, data: dense(sym, sym.max(sym.transpose(data, axes=(0, 2, 3, 1)), axis=1))
    ),
    **{
        f"activation {kind}": Case(lambda sym, data, kind=kind: sym.Activation(data, act_type=kind))
        for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign")
    },
    "softsign": Case(lambda sym, data: sym.softsign(data)),
    "elu": Case(lambda sym, data: sym.LeakyReLU(data, act_type="elu", slope=0.3), single=SLOPE),
    "selu": Case(
        lambda sym, data: sym.LeakyReLU(data, act_type="selu"),
        train=False,  # its gradient is wrong
        single="its constants",
    ),
    "gelu": Case(lambda sym, data: sym.LeakyReLU(data, act_type="gelu"), single="its constants"),
    "relu, sigmoid, tanh": Case(lambda sym, data: sym.tanh(sym.sigmoid(sym.relu(data)))),
    "hard sigmoid": Case(lambda sym, data: sym.hard_sigmoid(data, alpha=0.3, beta=0.4)),
    "hard swish": Case(hard_swish),
    "leaky relu": Case(lambda sym, data: sym.LeakyReLU(data, act_type="leaky", slope=0.1), single=SLOPE),
    "prelu": Case(lambda sym, data: sym.LeakyReLU(data, sym.var("slope", shape=(6,)), act_type="prelu"), single=SLOPE),
    "prelu with one slope": Case(
        lambda sym, data: sym.LeakyReLU(data, sym.var("slope", shape=(1,)), act_type="prelu"), single=SLOPE
    ),
    "clip": Case(lambda sym, data: sym.clip(data, -0.3, 0.7)),
    "clip without an upper bound": Case(lambda sym, data: sym.clip(data, 0, float("inf"))),
    "softmax": Case(lambda sym, data: sym.softmax(dense(sym, data), temperature=2.0)),
    "softmax of a map": Case(lambda sym, data: sym.softmax(data, axis=1)),
    "softmax activation": Case(lambda sym, data: sym.SoftmaxActivation(data, mode="channel"), single="only"),
    "softmax activation of rows": Case(lambda sym, data: sym.SoftmaxActivation(dense(sym, data)), single="only"),
    "softmax output": Case(lambda sym, data: sym.SoftmaxOutput(dense(sym, data), name="softmax"), train=False),
    "softmax output of a map": Case(
        lambda sym, data: sym.SoftmaxOutput(data, multi_output=True, name="softmax"), train=False
    ),
    "local response norm": Case(
        lambda sym, data: sym.LRN(data, nsize=3, alpha=0.1, beta=0.6, knorm=1.5), single="only"
    ),
    "l2 normalisation": Case(lambda sym, data: sym.L2Normalization(dense(sym, data))),
    "l2 normalisation of a map": Case(lambda sym, data: sym.L2Normalization(data, eps=0.01)),
    "l2 normalisation of channels": Case(lambda sym, data: sym.L2Normalization(data, mode="channel")),
    "dropout": Case(lambda sym, data: sym.Dropout(sym.relu(data), p=0.3), train=False),
    "no dropout": Case(lambda sym, data: sym.Dropout(sym.relu(data), p=0)),
    "reshape to another map": Case(lambda sym, data: conv(sym, sym.Reshape(data, shape=(0, 12, -1, 4)))),
    "reversed reshape": Case(lambda sym, data: conv(sym, sym.Reshape(data, shape=(-1, 3, 18, 0), reverse=True))),
    "reshape and back": Case(
        lambda sym, data: (
            conv(sym, sym.reshape_like(data, data))
            if 0
            else conv(sym, sym.Reshape(sym.Reshape(data, shape=(0, 0, -3)), shape=(0, 0, 9, 8)))
        )
    ),
    "channel shuffle": Case(lambda sym, data: conv(sym, shuffled(sym, data), num_group=2)),
    "expand and squeeze": Case(lambda sym, data: conv(sym, sym.squeeze(sym.expand_dims(data, axis=2), axis=2))),
    "transpose and back": Case(
        lambda sym, data: conv(sym, sym.transpose(sym.transpose(data, axes=(0, 2, 3, 1)), axes=(0, 3, 1, 2)))
    ),
    "transposed": Case(lambda sym, data: conv(sym, sym.transpose(data, axes=(0, 3, 1, 2)))),
    "channels backwards": Case(lambda sym, data: conv(sym, sym.flip(data, axis=1))),
    "channels backwards by a slice": Case(
        lambda sym, data: conv(sym, sym.slice(data, begin=(None, None), end=(None, None), step=(None, -1)))
    ),
    "every other row": Case(
        lambda sym, data: conv(sym, sym.slice(data, begin=(None, 0, 1), end=(None, 6, 9), step=(None, 1, 2)))
    ),
    "tiled": Case(lambda sym, data: conv(sym, sym.tile(data, reps=(1, 2, 1, 1)))),
    "tiled features": Case(lambda sym, data: dense(sym, sym.tile(dense(sym, data, "first"), reps=(3,)))),
    "each channel twice": Case(lambda sym, data: conv(sym, sym.repeat(data, repeats=2, axis=1))),
    "each column three times": Case(lambda sym, data: conv(sym, sym.repeat(data, repeats=3, axis=-1))),
    "a broadcast value": Case(
        lambda sym, data: data * sym.broadcast_to(sym.mean(data, axis=(2, 3), keepdims=True), shape=(0, 0, 9, 8))
    ),
    "broadcast like another": Case(
        lambda sym, data: data * sym.broadcast_like(sym.max(data, axis=(2, 3), keepdims=True), data)
    ),
    "broadcast like an axis of another": Case(
        lambda sym, data: (
            data + sym.broadcast_like(sym.mean(data, axis=2, keepdims=True), data, lhs_axes=(2,), rhs_axes=(2,))
        )
    ),
    "broadcast along the channels": Case(
        lambda sym, data: data + sym.broadcast_axis(sym.mean(data, axis=1, keepdims=True), axis=1, size=6)
    ),
    "softmax of boxes": Case(
        lambda sym, data: conv(sym, sym.reshape(sym.softmax(boxes(sym, data), axis=1), shape=(0, 3, 18, 8)))
    ),
    "softmax along the last axis": Case(
        lambda sym, data: dense(sym, sym.softmax(sym.transpose(boxes(sym, data), axes=(0, 2, 1))))
    ),
    "dense behind every other row": Case(
        lambda sym, data: dense(
            sym, sym.slice(data, begin=(None, None, 0), end=(None, None, None), step=(None, None, 2))
        )
    ),
    "parts from place to place": Case(
        lambda sym, data: sym.Concat(*reversed(list(sym.split_v2(data, (1, 3), axis=1)))),
    ),
    "equal parts of rows": Case(lambda sym, data: sym.add_n(*sym.split_v2(data, 3, axis=2))),
    "pixels to channels": Case(lambda sym, data: conv(sym, sym.space_to_depth(data, 2)), (6, 4, 8)),
    "channels to pixels": Case(lambda sym, data: conv(sym, sym.depth_to_space(data, 2)), (8, 3, 4)),
    "boxes": Case(
        lambda sym, data: sym.Concat(
            *[sym.Flatten(sym.transpose(each, axes=(0, 2, 3, 1))) for each in (data, conv(sym, data, num_filter=4))]
        )
    ),
    "mean of shuffled": Case(lambda sym, data: sym.mean(shuffled(sym, data), axis=(2, 3))),
    "over channels": Case(
        lambda sym, data: sym.Concat(
            sym.mean(data, axis=1, keepdims=True),
            sym.max(conv(sym, data), axis=1, keepdims=True),
            sym.sum(data, axis=1, keepdims=True),
        )
    ),
    "larger of two": Case(lambda sym, data: sym.maximum(conv(sym, data), sym.minimum(data, sym.negative(data)))),
    "larger of two, broadcast": Case(
        lambda sym, data: sym.broadcast_maximum(conv(sym, data), sym.broadcast_minimum(data, sym.negative(data)))
    ),
    "dense at every place": Case(
        lambda sym, data: sym.transpose(
            dense(sym, sym.transpose(data, axes=(0, 2, 3, 1)), flatten=False), axes=(0, 3, 1, 2)
        )
    ),
    "an array less": Case(
        lambda sym, data: sym.broadcast_sub(data, sym.var("one_gamma", shape=(1, 6, 1, 1))), train=False
    ),
    "an array less it": Case(
        lambda sym, data: sym.broadcast_sub(sym.var("one_gamma", shape=(1, 6, 1, 1)), data), train=False
    ),
    "slices of channels": Case(sliced),
    "slices without their axis": Case(
        lambda sym, data: dense(sym, sym.SliceChannel(data, num_outputs=6, squeeze_axis=True, name="parts")[1])
    ),
    "slices of rows": Case(lambda sym, data: sym.SliceChannel(data, num_outputs=3, axis=2, name="parts")[1]),
    "slice_axis": Case(lambda sym, data: sym.slice_axis(data, axis=-1, begin=-5, end=-1)),
    "slice_axis to the end": Case(lambda sym, data: sym.slice_axis(data, axis=1, begin=2, end=None)),
    "slice": Case(lambda sym, data: sym.slice(data, begin=(None, 1, None, -6), end=(None, 4, None, None))),
    "slice like another": Case(
        lambda sym, data: sym.slice_like(data, sym.Pooling(data, kernel=(3, 4), pool_type="max"), axes=(2, -1))
    ),
    "slice like all of another": Case(
        lambda sym, data: sym.slice_like(conv(sym, data), sym.slice_axis(data, axis=1, begin=0, end=2))
    ),
    "negative": Case(lambda sym, data: sym.negative(conv(sym, data))),
    "crop": Case(lambda sym, data: sym.Crop(data, h_w=(4, 5), offset=(2, 1), num_args=1), single="only"),
    "crop of the centre": Case(
        lambda sym, data: sym.Crop(data, h_w=(4, 5), center_crop=True, num_args=1), single="only"
    ),
    "crop like another": Case(
        lambda sym, data: sym.Crop(data, sym.Pooling(data, kernel=(3, 4), pool_type="max"), offset=(1, 2), num_args=2),
        single="only",
    ),
    "pad": Case(
        lambda sym, data: sym.pad(data, mode="constant", constant_value=0.5, pad_width=(0, 0, 0, 0, 1, 2, 3, 0))
    ),
    "pad with the edge": Case(lambda sym, data: sym.pad(data, mode="edge", pad_width=(0, 0, 0, 0, 1, 2, 3, 0))),
    "pad by reflection": Case(lambda sym, data: sym.pad(data, mode="reflect", pad_width=(0, 0, 0, 0, 1, 2, 3, 1))),
    "upsampling": Case(lambda sym, data: sym.UpSampling(data, scale=3, sample_type="nearest")),
    "upsampling of two": Case(
        lambda sym, data: sym.UpSampling(
            data, sym.Pooling(data, kernel=(2, 2), stride=(2, 2), pool_type="avg"), scale=2, sample_type="nearest"
        ),
        (6, 8, 8),
    ),
    "upsampling with weights": Case(
        lambda sym, data: sym.UpSampling(data, scale=2, sample_type="bilinear", num_filter=6, num_args=2, name="up")
    ),
    "upsampling by an odd scale with weights": Case(
        lambda sym, data: sym.UpSampling(data, scale=3, sample_type="bilinear", num_filter=6, num_args=2, name="up")
    ),
    "concat": Case(lambda sym, data: sym.Concat(data, conv(sym, data, num_filter=2), sym.relu(data))),
    "concat of rows": Case(lambda sym, data: sym.Concat(sym.Flatten(data), dense(sym, data), dim=-1)),
    "sum of two": Case(lambda sym, data: conv(sym, data) + data),
    "sum of three": Case(lambda sym, data: sym.add_n(data, conv(sym, data), sym.relu(data))),
    "twice itself": Case(lambda sym, data: conv(sym, data + data)),
    "broadcast_add": Case(lambda sym, data: sym.broadcast_add(data, sym.mean(data, axis=(2, 3), keepdims=True))),
    "difference": Case(lambda sym, data: sym.broadcast_sub(data, sym.mean(data, axis=(2, 3), keepdims=True))),
    "difference of equals": Case(lambda sym, data: conv(sym, data) - data),
    "product": Case(lambda sym, data: conv(sym, data) * sym.sigmoid(data)),
    "squeeze and excite": Case(squeeze_and_excite),
    "scalars": Case(lambda sym, data: 2.5 - (data - 127.5) * 0.0078125 / 3 + 0.1),
    "bounds": Case(lambda sym, data: sym.minimum(sym.maximum(data, -0.5), 0.75)),
    "relu as a bound": Case(lambda sym, data: sym.maximum(data, 0)),
    "divided by an array": Case(  # a constant, which has no gradient
        lambda sym, data: sym.broadcast_div(data, sym.var("one_gamma", shape=(1, 6, 1, 1))), train=False
    ),
    "passes": Case(lambda sym, data: conv(sym, sym.Cast(sym.identity(sym.relu(data)), dtype="float64"))),
    "two outputs": Case(two_heads),
}
