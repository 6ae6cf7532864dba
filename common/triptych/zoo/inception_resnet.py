"""Inception-ResNet v1 and v2: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections"
(2016), with the names and channels of Google's code, from which every port comes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from triptych.spec.layers import Block, Conv, Layer, Layers, ReLU, Residual
from triptych.zoo import Entry, Options, Published
from triptych.zoo.inception_parts import AVERAGE_INSIDE, HALVE, STEM, Parts, Step, Table, Unit, channels_after


@dataclass(frozen=True)
class Repeat:
    """`times` residual modules in a row, whose bodies count `scale` times in the sum."""

    times: int
    scale: float
    body: Table
    relu: bool = True


# The average counts no padding here, unlike PyTorch's v3.
MIXED_5B: Table = {
    "branch0": (Unit(96),),
    "branch1": (Unit(48), Unit(64, 5)),
    "branch2": (Unit(64), Unit(96, 3), Unit(96, 3)),
    "branch3": (AVERAGE_INSIDE, Unit(64)),
}


def reduction_a(k: int, l: int, m: int, n: int) -> Table:  # noqa: E741 - the paper's letters
    """Figure 7, with a row of table 1."""
    return {
        "branch0": (Unit(n, 3, 2, padding=0),),
        "branch1": (Unit(k), Unit(l, 3), Unit(m, 3, 2, padding=0)),
        "branch2": (HALVE,),
    }


def reduction_b(single: int, inner: int, double: int) -> Table:
    """Figures 12 and 18, the first branch the same in both."""
    return {
        "branch0": (Unit(256), Unit(384, 3, 2, padding=0)),
        "branch1": (Unit(256), Unit(single, 3, 2, padding=0)),
        "branch2": (Unit(256), Unit(inner, 3), Unit(double, 3, 2, padding=0)),
        "branch3": (HALVE,),
    }


def block35(middle: int, last: int) -> Table:
    return {
        "branch0": (Unit(32),),
        "branch1": (Unit(32), Unit(32, 3)),
        "branch2": (Unit(32), Unit(middle, 3), Unit(last, 3)),
    }


def block17(single: int, middle: int, last: int) -> Table:
    return {"branch0": (Unit(single),), "branch1": (Unit(128), Unit(middle, (1, 7)), Unit(last, (7, 1)))}


def block8(middle: int, last: int) -> Table:
    return {"branch0": (Unit(192),), "branch1": (Unit(192), Unit(middle, (1, 3)), Unit(last, (3, 1)))}


# The sixth (tenth) block8 is in all code and in neither figure: unscaled and without a ReLU.
V1: dict[str, Step | Table | Repeat] = {
    **STEM,
    "conv4b": Unit(256, 3, 2, padding=0),
    "block35": Repeat(5, 0.17, block35(32, 32)),
    "mixed6a": reduction_a(192, 192, 256, 384),
    "block17": Repeat(10, 0.10, block17(128, 128, 128)),
    "mixed7a": reduction_b(256, 256, 256),
    "block8": Repeat(5, 0.20, block8(192, 192)),
    "block8_last": Repeat(1, 1.0, block8(192, 192), relu=False),
}
# The paper's figures have 384, 1152 and 2144 channels (and 5, 10, 5 modules), every program 320, 1088 and 2080 (and
# 10, 20, 10). Google's also has an auxiliary head behind block17, which the ports leave out.
V2: dict[str, Step | Table | Repeat] = {
    **STEM,
    "pool5a": HALVE,
    "mixed5b": MIXED_5B,
    "block35": Repeat(10, 0.17, block35(48, 64)),
    "mixed6a": reduction_a(256, 256, 384, 384),
    "block17": Repeat(20, 0.10, block17(192, 160, 192)),
    "mixed7a": reduction_b(288, 288, 320),
    "block8": Repeat(9, 0.20, block8(224, 256)),
    "block8_last": Repeat(1, 1.0, block8(224, 256), relu=False),
    "conv7b": Unit(1536),
}


def residual(name: str, repeat: Repeat, parts: Parts, channels: int) -> Layers:
    """One module. Its last convolution has a bias, no batch norm, and as many channels as come in: derived, because
    channels narrowed on two ways may be rounded to two numbers."""
    mixed = parts.branches("mixed", repeat.body, f"{name}.body.")
    body = Block("body", (mixed, Conv("conv", channels, kernel=(1, 1))))
    relu = (ReLU(f"{name}_relu"),) if repeat.relu else ()
    return (Residual(name, body, scale=repeat.scale), *relu)


def inception_resnet(table: dict[str, Step | Table | Repeat], options: Options) -> Layers:
    parts = Parts(options)
    layers: list[Layer] = []
    for name, row in table.items():
        if isinstance(row, Repeat):
            channels = channels_after(tuple(layers), options.input[0])
            for number in range(1, row.times + 1):
                layers += residual(f"{name}_{number}" if row.times > 1 else name, row, parts, channels)
        elif isinstance(row, Mapping):
            layers.append(parts.branches(name, row))
        else:
            layers += parts.stem({name: row})
    return (*layers, *parts.classifier("pool8", dropout=0.2))  # the paper keeps 0.8


def entry(name: str, source: str, table: dict[str, Step | Table | Repeat], parameters: int, macs: int) -> Entry:
    build = partial(inception_resnet, table)
    published = Published(parameters, macs)
    return Entry(name, source, (3, 299, 299), 1000, build, conformance=(16, 107), published=published)


# v1 has 1000 classes on 1792 features, as the paper has it. facenet, the only well-known use, puts a dense layer of 512
# or 128 without bias and its batch norm in between, the embedding.
SOURCE_V1 = "Szegedy et al. 2016, figures 10 to 15, as in facenet without its embedding"
SOURCE_V2 = "Szegedy et al. 2016, as in Google's slim, Keras and timm"
ENTRIES = (
    entry("inception_resnet_v1", SOURCE_V1, V1, 24_357_096, 6_308_597_856),
    entry("inception_resnet_v2", SOURCE_V2, V2, 55_843_464, 13_155_794_016),
)
