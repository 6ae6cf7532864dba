"""Faults in PyTorch's own terms; the same names as in the other two files."""

from __future__ import annotations

import torch
from torch import nn

from triptych.spec import layers as spec
from triptych.spec.kinds.activations import SELU_ALPHA
from triptych.spec.layers import Shape
from triptych_torch import layers
from triptych_torch.model import Network


class SamePadded(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.pad(x, (0, 1, 0, 1))  # what TensorFlow's and Flax's SAME does to 3x3 at stride 2, even size
        return nn.functional.conv2d(x, self.weight, self.bias, self.stride)


class Flipped(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight.flip(2, 3), self.bias)


class Unbiased(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.weight, 0 * self.bias)


class Transposed(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.T, self.bias)


class ChannelsLast(nn.Flatten):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1))


class GammaFixed(layers.BatchNorm):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gamma = self.weight.reshape(-1, 1, 1)
        beta = self.bias.reshape(-1, 1, 1)
        return (super().forward(x) - beta) / gamma + beta


class Unscaled(layers.Dropout):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask.to(x.dtype) if self.training else x


class SplitTies(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))


class OtherSide(nn.ConvTranspose2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[:, :, :-1, :-1]


class MeanWithZeros(nn.AvgPool2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(x, (0, 1, 0, 0)))


def same_padding(layer: spec.Conv, shape: Shape) -> nn.Module:
    return SamePadded(shape[0], layer.channels, layer.kernel, layer.stride)


def flipped_kernel(layer: spec.Conv, shape: Shape) -> nn.Module:
    return Flipped(shape[0], layer.channels, layer.kernel, layer.stride, layer.padding)


def unused_bias(layer: spec.Conv, shape: Shape) -> nn.Module:
    return Unbiased(shape[0], layer.channels, layer.kernel, layer.stride, layer.padding)


def transposed_weight(layer: spec.Dense, shape: Shape) -> nn.Module:
    return (Transposed if shape[0] == layer.units else nn.Linear)(shape[0], layer.units)


def flatten_channels_last(layer: spec.Flatten, shape: Shape) -> nn.Module:
    return ChannelsLast()


def gamma_fixed(layer: spec.BatchNorm, shape: Shape) -> nn.Module:
    return GammaFixed(shape[0], layer)


def unscaled_dropout(layer: spec.Dropout, shape: Shape) -> nn.Module:
    return Unscaled(layer.rate)


def empty_window(layer: spec.MaxPool, shape: Shape) -> nn.Module:
    lowest = torch.finfo(torch.float32).min
    right = nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil)
    return nn.Sequential(right, nn.ConstantPad2d((0, 0, 0, 1), lowest))


def split_ties(layer: spec.MaxPool, shape: Shape) -> nn.Module:
    return SplitTies()


def softmax_of_rows(layer: spec.Softmax, shape: Shape) -> nn.Module:
    return nn.Softmax(dim=2)


def elu_of_selu(layer: spec.SELU, shape: Shape) -> nn.Module:
    return nn.ELU(SELU_ALPHA)


def output_padding_above(layer: spec.ConvTranspose, shape: Shape) -> nn.Module:
    return OtherSide(shape[0], layer.channels, layer.kernel, layer.stride)


def overhang_counted(layer: spec.AvgPool, shape: Shape) -> nn.Module:
    return MeanWithZeros(layer.kernel, layer.stride)


def rows_for_channels(right: type) -> type:
    class Other(right):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            map_, gate = (branch(x) for branch in self.children())
            return map_ * gate.transpose(1, 2)

    return Other


def mean_for_sum(right: type) -> type:
    class Mean(right):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / len(list(self.children()))

    return Mean


def stacked(right: type) -> type:
    class Stacked(right):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([branch(x) for branch in self.children()], dim=2)

    return Stacked


def share_weights(network: Network) -> None:
    network.second.weight = network.first.weight


class OneMask(layers.Dropout):
    axis = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask is not None or not self.training:
            return super().forward(x)
        return x * super().forward(torch.ones_like(x.narrow(self.axis, 0, 1)))


class OneMaskOfChannels(OneMask):
    axis = 1


class Maximum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(x, torch.zeros_like(x))


def one_mask(layer: spec.Dropout, shape: Shape) -> nn.Module:
    return OneMask(layer.rate)


def one_mask_of_channels(layer: spec.Dropout, shape: Shape) -> nn.Module:
    return OneMaskOfChannels(layer.rate)


def maximum(layer: spec.ReLU, shape: Shape) -> nn.Module:
    """Half the gradient at 0."""
    return Maximum()


class DropsMaps(layers.Dropout):
    """nn.Dropout2d: a map is kept whole or not at all."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask is not None or x.dim() == 2:
            return super().forward(x)
        return nn.functional.dropout2d(x, self.p, self.training)


class TwoMasks(layers.Dropout):
    """The masks of two images, again and again."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask is not None or not self.training:
            return super().forward(x)
        two = super().forward(torch.ones_like(x[:2]))
        return x * torch.cat([two] * len(x))[: len(x)]


class Overflowing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.exp() / x.exp().sum(1, keepdim=True)


class FastVariance(layers.BatchNorm):
    """E[x^2] - E[x]^2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or x.dim() == 2:
            return super().forward(x)
        mean = x.mean((0, 2, 3), keepdim=True)
        variance = (x * x).mean((0, 2, 3), keepdim=True) - mean * mean
        super().forward(x)
        return (x - mean) / (variance + self.eps).sqrt() * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def dropped_maps(layer: spec.Dropout, shape: Shape) -> nn.Module:
    return DropsMaps(layer.rate)


def two_masks(layer: spec.Dropout, shape: Shape) -> nn.Module:
    return TwoMasks(layer.rate)


def overflowing_softmax(layer: spec.Softmax, shape: Shape) -> nn.Module:
    return Overflowing()


def fast_variance(layer: spec.BatchNorm, shape: Shape) -> nn.Module:
    return FastVariance(shape[0], layer)
