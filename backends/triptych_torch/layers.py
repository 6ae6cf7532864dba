"""One native layer for every record of the spec. Each default that differs between frameworks is passed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.layers import Shape
from triptych_torch import functions


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d keeps the unbiased variance; where the spec wants the biased one, it is scaled back."""

    running_var: torch.Tensor

    def __init__(self, features: int, layer: spec.BatchNorm) -> None:
        super().__init__(features, eps=layer.eps, momentum=layer.momentum)
        self.unbiased = layer.unbiased
        self.frozen = layer.frozen
        if not layer.gamma:
            self.weight = None
        if not layer.beta:
            self.bias = None
        self.num_batches_tracked = None  # counts batches for momentum=None only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        of_batch = self.training and not self.frozen
        before = self.running_var.clone() if of_batch and not self.unbiased else None
        y = nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, of_batch, self.momentum, self.eps
        )
        if before is not None:
            n = x.numel() / x.shape[1]
            kept = (1 - self.momentum) * before
            # a new tensor: autograd forbids changing the one that the operator has seen
            self.running_var = kept + (self.running_var - kept) * ((n - 1) / n)
        return y


class _PointwiseConv(nn.Conv2d):
    """A 1x1 convolution at a stride, on the places that the stride leaves: with fewer than 16 input channels in
    channels_last, PyTorch 2.13's own backward pass on the CPU writes beyond its memory, and the process dies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows, columns = self.stride
        return nn.functional.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias, groups=self.groups)


def _conv(layer: spec.Conv, shape: Shape) -> nn.Conv2d:
    strided = layer.kernel == (1, 1) and layer.padding == (0, 0) and max(layer.stride) > 1
    made = _PointwiseConv if strided and shape[0] < 16 else nn.Conv2d
    return made(
        shape[0],
        layer.channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias,
    )


class Dropout(nn.Dropout):
    """nn.Dropout, or with a given mask (conformance): True where a value is kept."""

    mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.mask is not None:
            return x * (self.mask.to(x.dtype) / (1 - self.p))
        return super().forward(x)


LAYERS: dict[type, Callable[[Any, Shape], nn.Module]] = {
    spec.Conv: _conv,
    spec.MaxPool: lambda layer, shape: nn.MaxPool2d(layer.kernel, layer.stride, layer.padding, ceil_mode=layer.ceil),
    spec.AvgPool: lambda layer, shape: nn.AvgPool2d(
        layer.kernel, layer.stride, layer.padding, layer.ceil, layer.count_padding
    ),
    spec.ConvTranspose: lambda layer, shape: nn.ConvTranspose2d(
        shape[0],
        layer.channels,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.output_padding,
        layer.groups,
        layer.bias,
        layer.dilation,
    ),
    spec.Dense: lambda layer, shape: nn.Linear(shape[0], layer.units, bias=layer.bias),
    spec.BatchNorm: lambda layer, shape: BatchNorm(shape[0], layer),
    spec.LocalResponseNorm: lambda layer, shape: nn.LocalResponseNorm(
        layer.size,
        layer.coefficient * layer.size,  # PyTorch divides alpha by the size itself
        layer.beta,
        layer.k,
    ),
    spec.L2Normalize: lambda layer, shape: functions.L2Normalize(layer),
    spec.Affine: functions.Affine,
    spec.ReLU: lambda layer, shape: nn.ReLU(),
    spec.Sigmoid: lambda layer, shape: nn.Sigmoid(),
    spec.Tanh: lambda layer, shape: nn.Tanh(),
    spec.Clip: lambda layer, shape: nn.Hardtanh(layer.low, layer.high),  # torch.clamp's derivative at the bounds is 1
    spec.LeakyReLU: lambda layer, shape: nn.LeakyReLU(layer.slope),
    spec.PReLU: lambda layer, shape: nn.PReLU(1 if layer.shared else shape[0]),
    spec.SiLU: lambda layer, shape: nn.SiLU(),
    spec.HardSigmoid: lambda layer, shape: functions.HardSigmoid(layer.slope, layer.offset),
    spec.HardSwish: lambda layer, shape: nn.Hardswish(),
    spec.Softmax: lambda layer, shape: nn.Softmax(dim=1),
    spec.GlobalAvgPool: lambda layer, shape: nn.AdaptiveAvgPool2d(1),
    spec.GlobalMaxPool: lambda layer, shape: nn.AdaptiveMaxPool2d(1),
    spec.Pad: lambda layer, shape: functions.pad(layer),
    spec.Slice: lambda layer, shape: functions.Slice(layer),
    spec.Upsample: lambda layer, shape: functions.upsample(layer),
    spec.ChannelShuffle: lambda layer, shape: nn.ChannelShuffle(layer.groups),
    spec.Reshape: lambda layer, shape: functions.Reshape(layer.shape),
    spec.Flatten: lambda layer, shape: nn.Flatten(),
    spec.Dropout: lambda layer, shape: Dropout(layer.rate),
}
check_complete(LAYERS, __name__)
