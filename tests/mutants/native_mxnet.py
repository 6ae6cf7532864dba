"""Faults in Gluon's own terms; the same names as in the other two files."""

# ruff: noqa: N803 (Gluon calls the module of operators F)

from __future__ import annotations

import math
from types import ModuleType

from mxnet import autograd, gluon
from mxnet.gluon import nn

from triptych.spec import layers as spec
from triptych.spec.kinds.activations import SELU_ALPHA
from triptych.spec.layers import Shape
from triptych_mxnet import layers
from triptych_mxnet.functions import Tensor
from triptych_mxnet.model import Network


class SamePadded(nn.Conv2D):
    def hybrid_forward(self, F: ModuleType, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, 1, 0, 1))  # what SAME does to 3x3 at stride 2
        return super().hybrid_forward(F, x, weight, bias)


class Flipped(nn.Conv2D):
    def hybrid_forward(self, F: ModuleType, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return super().hybrid_forward(F, x, F.flip(weight, axis=(2, 3)), bias)


class Unbiased(nn.Conv2D):
    def hybrid_forward(self, F: ModuleType, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return super().hybrid_forward(F, x, weight, 0 * bias)


class Transposed(nn.Dense):
    def hybrid_forward(self, F: ModuleType, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return super().hybrid_forward(F, x, F.transpose(weight), bias)


class ChannelsLast(nn.Flatten):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return super().hybrid_forward(F, F.transpose(x, (0, 2, 3, 1)))


class Unscaled(layers.Dropout):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return x * self.mask if autograd.is_training() else x


class SplitTies(gluon.HybridBlock):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.max(F.reshape(x, (0, 0, -4, -1, 2, -4, -1, 2)), axis=(3, 5))


class OtherSide(nn.Conv2DTranspose):
    def hybrid_forward(self, F: ModuleType, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y = super().hybrid_forward(F, x, weight, bias)
        return F.slice(y, begin=(None, None, 0, 0), end=(None, None, -1, -1))


class SoftmaxOfRows(gluon.HybridBlock):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.softmax(x, axis=2)


class MeanWithZeros(nn.AvgPool2D):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return super().hybrid_forward(F, F.pad(x, mode="constant", pad_width=(0, 0, 0, 0, 0, 0, 0, 1)))


def same_padding(layer: spec.Conv, shape: Shape) -> gluon.HybridBlock:
    return SamePadded(layer.channels, layer.kernel, layer.stride, in_channels=shape[0])


def flipped_kernel(layer: spec.Conv, shape: Shape) -> gluon.HybridBlock:
    return Flipped(layer.channels, layer.kernel, layer.stride, layer.padding, in_channels=shape[0])


def unused_bias(layer: spec.Conv, shape: Shape) -> gluon.HybridBlock:
    return Unbiased(layer.channels, layer.kernel, layer.stride, layer.padding, in_channels=shape[0])


def transposed_weight(layer: spec.Dense, shape: Shape) -> gluon.HybridBlock:
    return (Transposed if shape[0] == layer.units else nn.Dense)(layer.units, in_units=shape[0])


def flatten_channels_last(layer: spec.Flatten, shape: Shape) -> gluon.HybridBlock:
    return ChannelsLast()


def gamma_fixed(layer: spec.BatchNorm, shape: Shape) -> gluon.HybridBlock:
    block = layers.BatchNorm(shape[0], math.prod(shape[1:]), layer)
    block._kwargs["fix_gamma"] = True  # the default of nd.BatchNorm
    return block


def unscaled_dropout(layer: spec.Dropout, shape: Shape) -> gluon.HybridBlock:
    return Unscaled(layer.rate)


def empty_window(layer: spec.MaxPool, shape: Shape) -> gluon.HybridBlock:
    return nn.MaxPool2D(layer.kernel, layer.stride, layer.padding, ceil_mode=True)  # keeps the window


def split_ties(layer: spec.MaxPool, shape: Shape) -> gluon.HybridBlock:
    return SplitTies()


def softmax_of_rows(layer: spec.Softmax, shape: Shape) -> gluon.HybridBlock:
    return SoftmaxOfRows()


def elu_of_selu(layer: spec.SELU, shape: Shape) -> gluon.HybridBlock:
    return nn.ELU(SELU_ALPHA)


def output_padding_above(layer: spec.ConvTranspose, shape: Shape) -> gluon.HybridBlock:
    return OtherSide(layer.channels, layer.kernel, layer.stride, in_channels=shape[0])


def overhang_counted(layer: spec.AvgPool, shape: Shape) -> gluon.HybridBlock:
    return MeanWithZeros(layer.kernel, layer.stride)


def rows_for_channels(right: type) -> type:
    class Other(right):  # type: ignore[misc]
        def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
            map_, gate = (branch(x) for branch in self._children.values())
            return F.broadcast_mul(map_, F.swapaxes(gate, 1, 2))

    return Other


def mean_for_sum(right: type) -> type:
    class Mean(right):  # type: ignore[misc]
        def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
            return super().hybrid_forward(F, x) / len(self._children)

    return Mean


def stacked(right: type) -> type:
    class Stacked(right):  # type: ignore[misc]
        def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
            return F.concat(*[branch(x) for branch in self._children.values()], dim=2)

    return Stacked


def share_weights(network: Network) -> None:
    first, second = network._children["first"], network._children["second"]
    second._reg_params["weight"] = first.weight
    object.__setattr__(second, "weight", first.weight)


class OneMask(layers.Dropout):
    axis = 0

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        if self.mask is not None:
            return super().hybrid_forward(F, x)
        one = F.ones_like(F.slice_axis(x, axis=self.axis, begin=0, end=1))
        return F.broadcast_mul(x, super().hybrid_forward(F, one))


class OneMaskOfChannels(OneMask):
    axis = 1


class Maximum(gluon.HybridBlock):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.maximum(x, F.zeros_like(x))


class WrongWhenHybrid(gluon.HybridBlock):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.sigmoid(x) if hasattr(x, "list_outputs") else F.relu(x)


def one_mask(layer: spec.Dropout, shape: Shape) -> gluon.HybridBlock:
    return OneMask(layer.rate)


def one_mask_of_channels(layer: spec.Dropout, shape: Shape) -> gluon.HybridBlock:
    return OneMaskOfChannels(layer.rate)


def maximum(layer: spec.ReLU, shape: Shape) -> gluon.HybridBlock:
    """The gradient 1 at 0."""
    return Maximum()


def wrong_when_hybrid(layer: spec.ReLU, shape: Shape) -> gluon.HybridBlock:
    return WrongWhenHybrid()


class DropsMaps(layers.Dropout):
    """A map is kept whole or not at all."""

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return super().hybrid_forward(F, x) if self.mask is not None else F.Dropout(x, p=self._rate, axes=(2, 3))


class TwoMasks(layers.Dropout):
    """The masks of two images, again and again."""

    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        if self.mask is not None:
            return super().hybrid_forward(F, x)
        two = super().hybrid_forward(F, F.ones_like(F.slice_axis(F.concat(x, x, dim=0), axis=0, begin=0, end=2)))
        return x * F.slice_like(F.concat(*[two] * 4, dim=0), x, axes=(0,))


class Overflowing(gluon.HybridBlock):
    def hybrid_forward(self, F: ModuleType, x: Tensor) -> Tensor:
        return F.broadcast_div(F.exp(x), F.exp(x).sum(axis=1, keepdims=True))


def dropped_maps(layer: spec.Dropout, shape: Shape) -> gluon.HybridBlock:
    return DropsMaps(layer.rate) if len(shape) == 3 else layers.Dropout(layer.rate)


def two_masks(layer: spec.Dropout, shape: Shape) -> gluon.HybridBlock:
    return TwoMasks(layer.rate)


def overflowing_softmax(layer: spec.Softmax, shape: Shape) -> gluon.HybridBlock:
    return Overflowing()
