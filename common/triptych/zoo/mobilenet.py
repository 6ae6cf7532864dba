"""MobileNets: table 1 of Howard et al. (2017) and table 2 of Sandler et al. (2018), as Gluon's model zoo has them in
four widths, and torchvision's version 2."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from triptych.spec.layers import (
    BatchNorm,
    Block,
    Clip,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    Layers,
    ReLU,
    Residual,
)
from triptych.zoo import Entry, Options, Published

GLUON = BatchNorm("norm", eps=1e-5, momentum=0.1, unbiased=False)
TORCHVISION = BatchNorm("norm", eps=1e-5, momentum=0.1, unbiased=True)
RELU6 = Clip("relu6", 0.0, 6.0)

# Version 1: channels and stride of each depthwise separable convolution, behind 32 channels at stride 2.
SEPARABLE = (
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1),) * 5,
    *((1024, 2), (1024, 1)),
)
# Version 2: expansion, channels, repetitions, stride of the first.
BOTTLENECKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST = 1280


@dataclass(frozen=True)
class Style:
    """How convolutions are followed: batch norm, activation; `expand_first`: the first bottleneck, whose expansion is
    1, has a 1x1 convolution all the same (Gluon's)."""

    norm: BatchNorm
    activation: Layer
    expand_first: bool = True

    def unit(self, name: str, conv: Conv, *, active: bool = True) -> Layers:
        """Convolution and batch norm, and the activation where it is `active`."""
        layers = (replace(conv, name=f"conv{name}", bias=False), replace(self.norm, name=f"norm{name}"))
        return (*layers, replace(self.activation, name=f"relu{name}")) if active else layers


def depthwise(channels: int, stride: int) -> Conv:
    return Conv("conv", channels, (3, 3), (stride, stride), (1, 1), groups=channels)


def pointwise(channels: int) -> Conv:
    return Conv("conv", channels, (1, 1))


def stem(channels: int) -> Conv:
    return Conv("conv", channels, (3, 3), (2, 2), (1, 1))


def mobilenet(multiplier: float, options: Options) -> Layers:
    style = Style(GLUON, ReLU("relu"))
    channels = options.channels(int(32 * multiplier), "conv1")
    layers = list(style.unit("1", stem(channels)))
    for number, (width, stride) in enumerate(SEPARABLE, 1):
        separable = style.unit("1", depthwise(channels, stride))
        channels = options.channels(int(width * multiplier), f"separable{number}")
        layers.append(Block(f"separable{number}", (*separable, *style.unit("2", pointwise(channels)))))
    return (*layers, GlobalAvgPool("pool"), Flatten("flatten"), Dense("dense", options.classes))


def bottleneck(name: str, style: Style, into: int, channels: int, expansion: int, stride: int) -> Layer:
    """An inverted residual: wide within, narrow at both ends, linear at the second."""
    wide = into * expansion
    expand = style.unit("1", pointwise(wide)) if expansion > 1 or style.expand_first else ()
    body = (*expand, *style.unit("2", depthwise(wide, stride)), *style.unit("3", pointwise(channels), active=False))
    return Residual(name, Block("body", body)) if stride == 1 and into == channels else Block(name, body)


def bottlenecks(style: Style, multiplier: float, channels: int, options: Options) -> Layers:
    """All rows of the table."""
    layers: list[Layer] = []
    for expansion, width, times, first in BOTTLENECKS:
        for stride in (first, *(1,) * (times - 1)):
            name = f"bottleneck{len(layers) + 1}"
            wide = options.channels(int(width * multiplier), name)
            layers.append(bottleneck(name, style, channels, wide, expansion, stride))
            channels = wide
    return tuple(layers)


def mobilenet_v2(multiplier: float, style: Style, options: Options) -> Layers:
    channels = options.channels(int(32 * multiplier), "conv1")
    last = options.channels(LAST, "conv2")
    before = (*style.unit("1", stem(channels)), *bottlenecks(style, multiplier, channels, options))
    return (*before, *style.unit("2", pointwise(last)), GlobalAvgPool("pool"))


def gluon_v2(multiplier: float, options: Options) -> Layers:
    """The classifier is a convolution without a bias."""
    features = mobilenet_v2(multiplier, Style(GLUON, RELU6), options)
    return (*features, Conv("conv3", options.classes, (1, 1), bias=False), Flatten("flatten"))


def torchvision_v2(options: Options) -> Layers:
    features = mobilenet_v2(1.0, Style(TORCHVISION, RELU6, expand_first=False), options)
    return (*features, Flatten("flatten"), Dropout("dropout", 0.2), Dense("dense", options.classes))


# Trained parameters, multiply-accumulates.
COUNTS = {
    "mobilenet1.0": (4_231_976, 568_740_352),
    "mobilenet0.75": (2_585_560, 325_400_448),
    "mobilenet0.5": (1_331_592, 149_497_088),
    "mobilenet0.25": (470_072, 41_030_272),
    "mobilenetv2_1.0": (3_504_960, 313_619_328),
    "mobilenetv2_0.75": (2_627_592, 186_650_528),
    "mobilenetv2_0.5": (1_964_736, 92_271_040),
    "mobilenetv2_0.25": (1_516_392, 30_480_864),
    "mobilenet_v2": (3_504_872, 300_774_272),
}
MULTIPLIERS = {"1.0": 1.0, "0.75": 0.75, "0.5": 0.5, "0.25": 0.25}
BUILDS: dict[str, tuple[Callable[[Options], Layers], str]] = {
    **{
        f"mobilenet{text}": (partial(mobilenet, multiplier), f"Gluon's mobilenet{text} (after Howard et al. 2017)")
        for text, multiplier in MULTIPLIERS.items()
    },
    **{
        f"mobilenetv2_{text}": (
            partial(gluon_v2, multiplier),
            f"Gluon's mobilenetv2_{text} (after Sandler et al. 2018)",
        )
        for text, multiplier in MULTIPLIERS.items()
    },
    "mobilenet_v2": (torchvision_v2, "torchvision's mobilenet_v2 (after Sandler et al. 2018)"),
}
ENTRIES = tuple(
    Entry(
        name,
        source,
        (3, 224, 224),
        1000,
        build,
        conformance=(2 if name.endswith(("0.5", "0.25")) else 4, 64),
        published=Published(*COUNTS[name]),
        initializer=Initializer("kaiming_normal" if name == "mobilenet_v2" else "xavier_uniform"),
    )
    for name, (build, source) in BUILDS.items()
)
