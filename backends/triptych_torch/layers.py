"""One native layer for every record of the spec. Each default that differs between frameworks is passed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn

from triptych.backend.group import Share
from triptych.spec import layers as spec
from triptych.spec.kinds import check_complete
from triptych.spec.kinds.activations import linear_from
from triptych.spec.layers import Shape
from triptych_torch import functions


class _SumOfAll(torch.autograd.Function):
    """The sum over all processes, and so of the gradients that arrive at it."""

    @staticmethod
    def forward(context: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


class BatchNorm(nn.BatchNorm2d):
    """nn.BatchNorm2d keeps the unbiased variance; where the spec wants the biased one, it is scaled back."""

    running_var: torch.Tensor
    share: Share | None = None  # of a batch whose statistics are those of all processes

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
        if of_batch and self.share is not None:
            return self.synchronised(x, self.share)
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

    def synchronised(self, x: torch.Tensor, share: Share) -> torch.Tensor:
        """The same of all processes' images. nn.SyncBatchNorm refuses the CPU."""
        # What several processes hold of the same images counts once.
        n = (share.last - share.first) * (x.numel() / len(x) / x.shape[1])
        shape = (1, -1) + (1,) * (x.dim() - 2)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean = _SumOfAll.apply(exact.sum(axes) / (n * share.copies))
        centred = exact - mean.view(shape)
        variance = _SumOfAll.apply((centred * centred).sum(axes) / (n * share.copies))
        y = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            y = y * self.weight.view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        with torch.no_grad():
            kept = variance * (n / (n - 1)) if self.unbiased and n > 1 else variance
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(kept.to(self.running_var), self.momentum)
        return y.to(x.dtype)


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
    share: Share | None = None  # of a batch that is drawn for whole, so that the numbers do not depend on who has what

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and self.mask is not None:
            return x * (self.mask.to(x.dtype) / (1 - self.p))
        if self.training and self.share is not None:
            whole = torch.empty_like(x[:1]).expand(self.share.whole, *x.shape[1:])
            return x * super().forward(torch.ones_like(whole))[self.share.images]
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
    spec.ELU: lambda layer, shape: nn.ELU(layer.alpha),
    spec.SELU: lambda layer, shape: nn.SELU(),
    spec.GELU: lambda layer, shape: nn.GELU("tanh" if layer.approximate else "none"),
    spec.Softplus: lambda layer, shape: nn.Softplus(threshold=linear_from(layer)),  # 20 if not told: 2e-9 off
    spec.Softsign: lambda layer, shape: nn.Softsign(),
    spec.Mish: lambda layer, shape: nn.Mish(),
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
