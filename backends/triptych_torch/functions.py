"""Layers of the spec that PyTorch has no module for."""

import torch
from torch import nn

from triptych.spec import layers as spec
from triptych.spec.kinds.placement import AXES
from triptych.spec.layers import Shape


class Affine(nn.Module):
    """`weight * x + bias`, one number per channel or for all: parameters where they are trained, else buffers that
    belong to the network's definition, not to its weights."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, layer: spec.Affine, shape: Shape) -> None:
        super().__init__()
        if layer.trained:
            self.weight = nn.Parameter(torch.ones(shape[0]))
            self.bias = nn.Parameter(torch.zeros(shape[0]))
        else:
            # float64 until the network is cast: 0.1 in float32 is another number
            self.register_buffer("weight", torch.tensor(layer.scale, dtype=torch.float64), persistent=False)
            self.register_buffer("bias", torch.tensor(layer.shift, dtype=torch.float64), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1, *(1,) * (x.dim() - 2))
        return x * self.weight.view(shape) + self.bias.view(shape)


class HardSigmoid(nn.Module):
    """nn.Hardsigmoid, which has the slope 1/6 only, with any line."""

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.slope = slope
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.hardtanh(self.slope * x + self.offset, 0.0, 1.0)


class L2Normalize(nn.Module):
    """nn.functional.normalize bounds the norm from below; here eps may be added to the sum of squares instead."""

    def __init__(self, layer: spec.L2Normalize) -> None:
        super().__init__()
        self.eps = layer.eps
        self.whole = layer.whole
        self.bound = layer.bound

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dims = tuple(range(1, x.dim())) if self.whole else (1,)
        if self.bound:
            return nn.functional.normalize(x, dim=dims, eps=self.eps)
        return x * torch.rsqrt((x * x).sum(dims, keepdim=True) + self.eps)


class Slice(nn.Module):
    """The channels, rows or columns from `start` up to `stop`."""

    def __init__(self, layer: spec.Slice) -> None:
        super().__init__()
        self.dim = AXES[layer.axis] + 1
        self.start = layer.start
        self.length = layer.stop - layer.start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.narrow(self.dim, self.start, self.length)


class Reshape(nn.Module):
    """Every image in another shape."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), *self.shape)


def pad(layer: spec.Pad) -> nn.Module:
    """PyTorch names the last axis first: left, right, above, below."""
    above, below, left, right = layer.padding
    sides = (left, right, above, below)
    if layer.mode == "constant":
        return nn.ConstantPad2d(sides, layer.value)
    return nn.ReflectionPad2d(sides) if layer.mode == "reflect" else nn.ReplicationPad2d(sides)


def upsample(layer: spec.Upsample) -> nn.Module:
    """align_corners must not be said with nearest."""
    factor = (float(layer.factor[0]), float(layer.factor[1]))
    if layer.mode == "nearest":
        return nn.Upsample(scale_factor=factor, mode="nearest")
    return nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
