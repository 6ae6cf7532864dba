"""ResNets: table 1 of He et al., "Deep Residual Learning for Image Recognition" (2015), and of "Identity Mappings in
Deep Residual Networks" (2016), as Gluon's model zoo (v1, v2) and torchvision (v1b) have them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from triptych.spec.layers import (
    BatchNorm,
    Block,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    Layers,
    MaxPool,
    ReLU,
    Residual,
)
from triptych.zoo import Entry, Options, Published

# Units per stage; from 50 layers on a unit is a bottleneck, which ends in four times the channels.
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
CHANNELS = (64, 128, 256, 512)
EXPANSION = 4
GLUON = BatchNorm("norm", eps=1e-5, momentum=0.1, unbiased=False)  # MXNet keeps the variance with n
TORCHVISION = BatchNorm("norm", eps=1e-5, momentum=0.1, unbiased=True)


@dataclass(frozen=True)
class Unit:
    """One residual unit. `into` and `channels` are those it is given and gives; `stride` halves the map; `inner`:
    channels between the 1x1 convolutions of a bottleneck, 0 for a plain unit."""

    into: int
    channels: int
    stride: int
    inner: int = 0

    @property
    def projected(self) -> bool:
        """Whether the shortcut is a 1x1 convolution. As in both programs the channels decide: the first unit of a
        stage without other channels than before has none."""
        return self.into != self.channels


@dataclass(frozen=True)
class Version:
    """How the units of one version are made. `norm` is its batch norm; `stride_first`: a bottleneck's stride is in its
    first 1x1 convolution (the paper, Gluon), not in the 3x3 (torchvision); `bias`: its 1x1 convolutions have one, as
    Gluon's v1 has by oversight; `before`: batch norm and ReLU stand before each convolution (v2)."""

    norm: BatchNorm
    stride_first: bool = True
    bias: bool = False
    before: bool = False

    def convolutions(self, unit: Unit) -> tuple[Conv, ...]:
        """Those of the body, in order."""
        first, second = (unit.stride, 1) if self.stride_first or not unit.inner else (1, unit.stride)
        if not unit.inner:
            return _conv3("conv1", unit.channels, unit.stride), _conv3("conv2", unit.channels, 1)
        return (
            Conv("conv1", unit.inner, (1, 1), (first, first), bias=self.bias),
            _conv3("conv2", unit.inner, second),
            Conv("conv3", unit.channels, (1, 1), bias=self.bias),
        )

    def layers(self, name: str, unit: Unit) -> Layers:
        """The unit, and what stands before or behind it, under one name."""
        return self._before(name, unit) if self.before else self._behind(name, unit)

    def _norm(self, number: int | str) -> BatchNorm:
        return replace(self.norm, name=f"norm{number}")

    def _shortcut(self, unit: Unit) -> Conv:
        return Conv("conv", unit.channels, (1, 1), (unit.stride, unit.stride), bias=False)

    def _behind(self, name: str, unit: Unit) -> Layers:
        body: list[Layer] = []
        for number, conv in enumerate(self.convolutions(unit), 1):
            body += [conv, self._norm(number), ReLU(f"relu{number}")]
        shortcut = Block("shortcut", (self._shortcut(unit), self._norm(""))) if unit.projected else None
        residual = Residual("residual", Block("body", tuple(body[:-1])), shortcut)
        return (Block(name, (residual, ReLU("relu"))),)

    def _before(self, name: str, unit: Unit) -> Layers:
        body: list[Layer] = []
        for number, conv in enumerate(self.convolutions(unit), 1):
            body += [self._norm(number), ReLU(f"relu{number}"), conv]
        if not unit.projected:
            return (Block(name, (Residual("residual", Block("body", tuple(body))),)),)
        norm, relu, *rest = body  # the shortcut is taken behind them
        residual = Residual("residual", Block("body", tuple(rest)), Block("shortcut", (self._shortcut(unit),)))
        return (Block(name, (norm, relu, residual)),)


V1 = Version(GLUON, bias=True)
V1B = Version(TORCHVISION, stride_first=False)
V2 = Version(GLUON, stride_first=False, before=True)


def _conv3(name: str, channels: int, stride: int) -> Conv:
    return Conv(name, channels, (3, 3), (stride, stride), (1, 1), bias=False)


def stages(depth: int, version: Version, options: Options) -> Layers:
    """The four rows of the table, conv2_x to conv5_x."""
    rows: list[Layer] = []
    channels = options.channels(CHANNELS[0], "conv1")
    for stage, (count, width) in enumerate(zip(DEPTHS[depth], CHANNELS, strict=True), 1):
        wide = options.channels(width * (EXPANSION if depth >= 50 else 1), f"stage{stage}")
        inner = options.channels(width, f"stage{stage}") if depth >= 50 else 0
        units: list[Layer] = []
        for number in range(1, count + 1):
            stride = 2 if number == 1 and stage > 1 else 1
            units += version.layers(f"unit{number}", Unit(channels, wide, stride, inner))
            channels = wide
        rows.append(Block(f"stage{stage}", tuple(units)))
    return tuple(rows)


def resnet(depth: int, version: Version, options: Options) -> Layers:
    """7x7 convolution, max pooling, four stages, average, dense layer. Version 2 normalises the images, without scale
    and shift, and what the last stage gives."""
    conv = Conv("conv1", options.channels(CHANNELS[0], "conv1"), (7, 7), (2, 2), (3, 3), bias=False)
    norm = replace(version.norm, name="norm1")
    images = (replace(version.norm, name="norm0", gamma=False, beta=False),) if version.before else ()
    last = (replace(version.norm, name="norm5"), ReLU("relu5")) if version.before else ()
    pool = MaxPool("pool1", (3, 3), (2, 2), (1, 1))
    classifier = (GlobalAvgPool("pool5"), Flatten("flatten"), Dense("dense", options.classes))
    return (*images, conv, norm, ReLU("relu1"), pool, *stages(depth, version, options), *last, *classifier)


Build = Callable[[Options], Layers]
VERSIONS = {
    "v1": (V1, "Gluon's resnet{}_v1 (after He et al. 2015, table 1)"),
    "v1b": (V1B, "torchvision's resnet{} (after He et al. 2015, table 1)"),
    "v2": (V2, "Gluon's resnet{}_v2 (after He et al. 2016)"),
}
# Trained parameters, multiply-accumulates.
COUNTS = {
    "resnet18_v1": (11_689_512, 1_814_073_344),
    "resnet34_v1": (21_797_672, 3_663_761_408),
    "resnet50_v1": (25_575_912, 3_857_973_248),
    "resnet101_v1": (44_589_800, 7_570_194_432),
    "resnet152_v1": (60_252_648, 11_282_415_616),
    "resnet18_v1b": (11_689_512, 1_814_073_344),
    "resnet34_v1b": (21_797_672, 3_663_761_408),
    "resnet50_v1b": (25_557_032, 4_089_184_256),
    "resnet101_v1b": (44_549_160, 7_801_405_440),
    "resnet152_v1b": (60_192_808, 11_513_626_624),
    "resnet18_v2": (11_687_848, 1_814_073_344),
    "resnet34_v2": (21_796_008, 3_663_761_408),
    "resnet50_v2": (25_549_480, 4_089_184_256),
    "resnet101_v2": (44_541_608, 7_801_405_440),
    "resnet152_v2": (60_185_256, 11_513_626_624),
}


def entry(depth: int, version: str) -> Entry:
    name = f"resnet{depth}_{version}"
    made, source = VERSIONS[version]
    build: Build = partial(resnet, depth, made)
    start = Initializer("kaiming_normal" if version == "v1b" else "xavier_uniform")
    published = Published(*COUNTS[name])
    return Entry(name, source.format(depth), (3, 224, 224), 1000, build, (16, 64), published, initializer=start)


ENTRIES = tuple(entry(depth, version) for version in VERSIONS for depth in DEPTHS)
