"""Small PyTorch modules, one for each thing that an importer has to know, as people write them."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Function(nn.Module):
    """`call(self, x)`, with some modules at hand."""

    def __init__(self, call: Callable[[Any, Tensor], Any], **parts: Any) -> None:
        super().__init__()
        self.call = call
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def after_conv(call: Callable[[Any, Tensor], Any], **parts: Any) -> nn.Module:
    """A convolution of 6 channels on 3x12x12, then the call."""
    conv = nn.Conv2d(3, 6, 3, padding=1)
    return Function(lambda self, x: call(self, self.conv(x)), conv=conv, **parts)


def written_out(self: Any, x: Any) -> Any:
    """Activations in elementary functions, one after the other."""
    x = self.c(x / (1 + x.abs()))
    x = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    x = torch.where(x > 0, x, 0.7 * torch.expm1(x))
    x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))
    return torch.log(1 + torch.exp(x)) * x.sigmoid()


def after_row(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), *layers)


def shuffled(x: Tensor, groups: int) -> Tensor:
    """As torchvision's shufflenetv2 has it."""
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class Basic(nn.Module):
    """A residual block that uses one ReLU twice, in place."""

    def __init__(self, inputs: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels, eps=1e-3, momentum=0.05)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential(nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 2)
        self.fc2 = nn.Linear(2, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = x.mean((2, 3))
        scale = torch.sigmoid(self.fc2(F.relu(self.fc1(scale))))
        return x * scale.view(x.size(0), -1, 1, 1).expand_as(x)


class Functional(nn.Module):
    """Everything without parameters by a function, `view` with the number worked out by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 5)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.fc1 = nn.Linear(6 * 2 * 2, 10)
        self.fc2 = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(F.max_pool2d(self.conv2(x), (1, 1)), inplace=True)
        x = x.view(-1, 6 * 2 * 2)
        x = F.dropout(F.relu(self.fc1(x)), 0.3, training=self.training)
        return self.fc2(x)


class OnlyInTraining(nn.Module):
    """Dropout behind an `if`."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 12 * 12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(x, 1)
        if self.training:
            x = F.dropout(x, 0.25)
        return self.fc(x)


class Remembering(nn.Module):
    """Keeps what it saw, which a look at it must not change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen: Tensor | None = None
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.conv(x)
        self.calls += 1
        return F.relu(self.seen)


class ChangedBehind(nn.Module):
    """The shortcut has the ReLU that was applied to it in place, as in many people's pre-activation blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        shortcut = x
        F.relu_(x)
        return self.conv2(x) + shortcut


class Frozen(nn.Module):
    """A batch norm that stays in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.bn.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


MEAN, DEVIATION = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: nn.Sequential(nn.Conv2d(3, 6, (3, 5), (2, 1), (1, 2), (2, 1), groups=3, bias=False)),
    "conv same": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Conv2d(4, 4, (4, 3), padding="same")),
    "conv valid": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="valid")),
    "conv reflect": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode="reflect")),
    "conv replicate": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate")),
    "depthwise": lambda: after_row(nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 4, 1)),
    "conv_transpose": lambda: after_row(
        nn.ConvTranspose2d(6, 4, 3, 2, 1, 1, groups=2), nn.ConvTranspose2d(4, 3, (2, 3), bias=False, dilation=2)
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(432, 7), nn.Tanh(), nn.Linear(7, 3, bias=False)),
    "matrix product": lambda: Function(
        lambda self, x: x.flatten(1) @ self.fc.weight.t() + self.fc.bias, fc=nn.Linear(432, 4)
    ),
    "product alone": lambda: Function(
        lambda self, x: torch.matmul(x.flatten(1), self.w), w=nn.Parameter(torch.ones(432, 4))
    ),
    "addmm": lambda: Function(
        lambda self, x: torch.addmm(self.b, x.reshape(len(x), -1), self.w),
        w=nn.Parameter(torch.ones(432, 4)),
        b=nn.Parameter(torch.ones(4)),
    ),
    "batch_norm": lambda: after_row(nn.BatchNorm2d(6, 1e-3, 0.3), nn.BatchNorm2d(6, affine=False)),
    "batch_norm 1d": lambda: after_row(nn.Flatten(), nn.Linear(864, 5), nn.BatchNorm1d(5)),
    "frozen": Frozen,
    "relu": lambda: after_row(nn.ReLU(True), nn.Conv2d(6, 2, 1), nn.ReLU()),
    "clips": lambda: after_row(nn.ReLU6(), nn.Conv2d(6, 2, 1), nn.Hardtanh(-0.5, 0.25, inplace=True)),
    "clamp": lambda: after_conv(lambda self, x: x.clamp(-0.1, 0.3)),
    "clamp below": lambda: after_conv(lambda self, x: x.clamp(min=0)),
    "clamp on one side": lambda: after_conv(
        lambda self, x: torch.clamp_max(x.clamp(min=-0.1), 0.5) + x.clamp_min(0.05) * x.clamp(max=0.2)
    ),
    "leaky_relu": lambda: after_row(nn.LeakyReLU(0.2), nn.Conv2d(6, 2, 1), nn.LeakyReLU(inplace=True)),
    "prelu": lambda: after_row(
        nn.PReLU(), nn.Conv2d(6, 2, 1), nn.PReLU(2), nn.Flatten(), nn.Linear(288, 4), nn.PReLU(4)
    ),
    "smooth": lambda: after_row(nn.Sigmoid(), nn.Conv2d(6, 2, 1), nn.Tanh(), nn.Conv2d(2, 2, 1), nn.SiLU()),
    "exponential": lambda: after_row(
        nn.ELU(0.3), nn.Conv2d(6, 2, 1), nn.SELU(inplace=True), nn.Conv2d(2, 2, 1), nn.Mish()
    ),
    # An alpha that float32 has: PyTorch's gradient takes 1 / alpha.toFloat() (derivatives.yaml).
    "made of others": lambda: after_row(
        nn.CELU(0.375),
        nn.Conv2d(6, 2, 1),
        nn.LogSigmoid(),
        nn.Conv2d(2, 2, 1),
        nn.Threshold(0, 0),
        nn.CELU(inplace=True),
    ),
    "means one by one": lambda: after_conv(lambda self, x: self.fc(x.mean(3).mean(2)), fc=nn.Linear(6, 4)),
    "means of rows": lambda: after_conv(
        lambda self, x: torch.cat(
            [self.c(x.mean(2, keepdim=True)).flatten(1), x.transpose(2, 3).amax(3).flatten(1)], 1
        ),
        c=nn.Conv2d(6, 2, 1),
    ),
    "sums": lambda: after_conv(lambda self, x: self.fc(x.sum((2, 3)) + x.sum(2).max(2)[0]), fc=nn.Linear(6, 4)),
    "gelu": lambda: after_row(nn.GELU(), nn.Conv2d(6, 2, 1), nn.GELU("tanh")),
    "softplus": lambda: after_row(nn.Softplus(), nn.Conv2d(6, 2, 1), nn.Softplus(2.0, 0.5), nn.Softsign()),
    "written out": lambda: after_conv(written_out, c=nn.Conv2d(6, 2, 1)),
    "swish by hand": lambda: after_conv(lambda self, x: x * torch.sigmoid(x)),
    "hard": lambda: after_row(nn.Hardsigmoid(), nn.Conv2d(6, 2, 1), nn.Hardswish(inplace=True)),
    "hard swish by hand": lambda: after_conv(lambda self, x: x * F.relu6(x + 3) / 6),
    "softmax inside": lambda: after_row(nn.Softmax(1), nn.Conv2d(6, 2, 1)),
    "max_pool": lambda: after_row(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.MaxPool2d((3, 2))),
    "avg_pool": lambda: after_row(
        nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d((3, 2), 1, (1, 0), count_include_pad=False)
    ),
    "adaptive": lambda: after_row(
        nn.AdaptiveAvgPool2d((12, 12)), nn.AdaptiveAvgPool2d((6, None)), nn.AdaptiveAvgPool2d((3, 4))
    ),
    "global average": lambda: after_row(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
    "global maximum": lambda: after_row(nn.AdaptiveMaxPool2d(1), nn.Conv2d(6, 2, 1)),
    "mean": lambda: after_conv(lambda self, x: self.fc(x.mean([2, 3])), fc=nn.Linear(6, 3)),
    "mean kept": lambda: after_conv(lambda self, x: x.mean((-1, -2), keepdim=True)),
    "mean of flat": lambda: after_conv(lambda self, x: x.flatten(2).mean(-1)),
    "amax": lambda: after_conv(lambda self, x: x.amax((2, 3))),
    "max of flat": lambda: after_conv(lambda self, x: x.view(x.size(0), x.size(1), -1).max(2)[0]),
    "view": lambda: after_conv(lambda self, x: self.fc(x.view(-1, 6 * 12 * 12)), fc=nn.Linear(864, 3)),
    "reshape": lambda: after_conv(
        lambda self, x: self.conv2(x.reshape(x.shape[0], 24, 6, 6)), conv2=nn.Conv2d(24, 2, 3)
    ),
    "squeeze": lambda: after_conv(
        lambda self, x: self.fc(F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)), fc=nn.Linear(6, 3)
    ),
    "permuted dense": lambda: after_conv(
        lambda self, x: self.fc(torch.relu(x.permute(0, 3, 2, 1).contiguous().view(x.shape[0], -1))),
        fc=nn.Linear(864, 3),
    ),
    "channels last": lambda: after_conv(
        lambda self, x: self.fc(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).amax((2, 3)), fc=nn.Linear(6, 3)
    ),
    "channel shuffle": lambda: after_conv(lambda self, x: self.conv2(shuffled(x, 3)), conv2=nn.Conv2d(6, 2, 3)),
    "channel shuffle module": lambda: after_row(nn.ChannelShuffle(2), nn.Conv2d(6, 2, 3)),
    "cat": lambda: after_conv(lambda self, x: torch.cat([x, torch.tanh(x), x], 1)),
    "cat flat": lambda: after_conv(lambda self, x: torch.cat((x.flatten(1), x.mean((2, 3))), dim=-1)),
    "sum": lambda: after_conv(lambda self, x: x + 0.3 * torch.tanh(x) - torch.sigmoid(x)),
    "alpha": lambda: after_conv(lambda self, x: torch.add(x, torch.tanh(x), alpha=0.5)),
    "product": lambda: after_conv(lambda self, x: x * x.mean((2, 3), keepdim=True) * x[:, 1:2]),
    "twice": lambda: after_conv(lambda self, x: x + x),
    "squeeze and excite": lambda: after_row(Squeeze(6)),
    "constants": lambda: Function(
        lambda self, x: 1 - self.conv((x / 255 - self.mean) / self.deviation) * 2,
        conv=nn.Conv2d(3, 4, 3),
        mean=MEAN,
        deviation=DEVIATION,
    ),
    "trained scale": lambda: after_conv(
        lambda self, x: x * self.w + self.b,
        w=nn.Parameter(torch.ones(1, 6, 1, 1)),
        b=nn.Parameter(torch.ones(6, 1, 1)),
    ),
    "inception's input": lambda: Function(
        lambda self, x: self.conv(
            torch.cat([torch.unsqueeze(x[:, c], 1) * (0.2 + c) / 0.5 + (0.4 - c) / 0.5 for c in range(3)], 1)
        ),
        conv=nn.Conv2d(3, 4, 3),
    ),
    "pad": lambda: after_conv(lambda self, x: F.pad(F.pad(x, (1, 2, 0, 3), value=0.5), (3, 1, 2, 0), mode="reflect")),
    "pad modules": lambda: after_row(nn.ZeroPad2d((0, 1, 0, 1)), nn.ReplicationPad2d(2), nn.Conv2d(6, 2, 3, 2)),
    "slice": lambda: after_conv(lambda self, x: x[:, 1:4, 2:, :-3]),
    "narrow": lambda: after_conv(lambda self, x: torch.narrow(x, 2, 3, 5)),
    "chunk": lambda: after_conv(lambda self, x: torch.cat(x.chunk(2, dim=1)[::-1], 1)),
    "split": lambda: after_conv(lambda self, x: torch.split(x, [1, 2, 3], dim=1)[1]),
    "upsample": lambda: after_row(
        nn.Upsample(scale_factor=2), nn.UpsamplingNearest2d(scale_factor=(1, 3)), nn.Conv2d(6, 1, 3, 2)
    ),
    "bilinear": lambda: after_conv(
        lambda self, x: F.interpolate(x, size=(24, 36), mode="bilinear", align_corners=False)
    ),
    "local_response_norm": lambda: after_row(
        nn.LocalResponseNorm(5), nn.Conv2d(6, 2, 1), nn.LocalResponseNorm(1, 2e-2, 0.5, 2.0)
    ),
    "dropout": lambda: after_row(nn.Dropout(0.4), nn.Conv2d(6, 2, 1), nn.Dropout(0.0), nn.Dropout(0.2, inplace=True)),
    "dropout behind an if": OnlyInTraining,
    "normalize": lambda: after_conv(
        lambda self, x: F.normalize(self.fc(F.normalize(x).flatten(1))), fc=nn.Linear(864, 4)
    ),
    "divided by norm": lambda: after_conv(lambda self, x: x / x.norm(p=2, dim=1, keepdim=True)),
    "passing": lambda: after_conv(lambda self, x: nn.Identity()(x.clone().contiguous().to(x.dtype)).tanh()),
    "residual": lambda: nn.Sequential(
        OrderedDict(
            block1=Basic(3, 4, 1), block2=Basic(4, 6, 2), pool=nn.AvgPool2d(6), flat=nn.Flatten(), fc=nn.Linear(6, 3)
        )
    ),
    "changed in place": ChangedBehind,
    "functional": Functional,
    "remembering": Remembering,
    "dict": lambda: after_conv(lambda self, x: {"low": x, "high": self.fc(x.mean((2, 3)))}, fc=nn.Linear(6, 2)),
    "tuple": lambda: after_conv(lambda self, x: (x.tanh(), (x.mean((2, 3)), [x.sigmoid()]))),
    "every other place": lambda: after_conv(
        lambda self, x: F.pad(x[:, :, ::2, 1::3], (1, 0, 0, 2, 2, 1), value=0.5)  # a shortcut without weights
    ),
    "adaptive, to more": lambda: after_row(nn.Conv2d(6, 4, 12), nn.AdaptiveAvgPool2d(3), nn.Conv2d(4, 2, 2)),
    "mean of shuffled": lambda: after_conv(lambda self, x: shuffled(x, 2).mean((2, 3)) * 2),
    "mean of a part": lambda: after_conv(lambda self, x: x[:, 1:4].mean((2, 3))),
    "scale of frozen statistics": lambda: after_conv(
        lambda self, x: x * (self.var + 1e-5).rsqrt().view(1, -1, 1, 1), var=torch.linspace(0.5, 2, 6)
    ),
    "channels by index": lambda: Function(lambda self, x: self.conv(x[:, [2, 1, 0]]), conv=nn.Conv2d(3, 4, 3)),
    "channels flipped": lambda: after_conv(lambda self, x: x.flip(1).roll(2, 1)),
    "channels repeated": lambda: after_conv(lambda self, x: x[:, 1:3].repeat(1, 2, 1, 1)),
    "pixel shuffle": lambda: after_conv(lambda self, x: F.pixel_unshuffle(F.pixel_shuffle(x[:, :4], 2), 2)),
    "pixels by views": lambda: after_conv(
        lambda self, x: x.view(-1, 6, 4, 3, 3, 4).permute(0, 3, 5, 1, 2, 4).reshape(-1, 72, 4, 3)
    ),
    "rows for columns": lambda: after_conv(lambda self, x: self.c(x.transpose(2, 3)), c=nn.Conv2d(6, 2, (3, 1))),
    "boxes": lambda: after_conv(
        lambda self, x: torch.cat(
            [each.permute(0, 2, 3, 1).reshape(len(x), -1, 3) for each in (x, F.max_pool2d(self.c(x), 3))], 1
        ).flatten(1),
        c=nn.Conv2d(6, 6, 1),
    ),
    "spatial attention": lambda: after_conv(
        lambda self, x: (
            x * self.c(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0], x.sum([1], True)], 1)).sigmoid()
        ),
        c=nn.Conv2d(3, 1, 3, padding=1),
    ),
    "larger and smaller": lambda: after_conv(
        lambda self, x: torch.minimum(torch.max(*x.chunk(2, 1)), torch.maximum(x[:, 1:4], -x[:, 2:5]))
    ),
    "blocks with channels last": lambda: after_conv(
        lambda self, x: self.block(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        block=Function(
            lambda self, x: torch.cat([self.two(F.gelu(self.one(x)) * 2) + x * self.scale, x], -1),
            one=nn.Linear(6, 9),
            two=nn.Linear(9, 6),
            scale=torch.linspace(0.5, 2, 6),
        ),
    ),
    "trained scale alone": lambda: after_conv(lambda self, x: x * self.w, w=nn.Parameter(torch.ones(6, 1, 1))),
    "one pixel, made larger": lambda: after_conv(
        lambda self, x: (
            x + F.interpolate(F.adaptive_avg_pool2d(x, 1), size=(12, 12), mode="bilinear", align_corners=True)
        )
    ),
    "in half": lambda: after_row(nn.BatchNorm2d(6), nn.ReLU()).half(),
}
