"""GoogLeNet: table 1 of Szegedy et al., "Going Deeper with Convolutions" (2014), and what two ports made of it."""

from dataclasses import dataclass, replace
from functools import partial

from triptych.spec import layers as spec
from triptych.zoo import Entry, ImageShape, Options, Published
from triptych.zoo.inception_parts import NORM, Parts, Step, Table, Unit, window

# name, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection. The paper's own column of parameters does not fit
# these channels; every implementation has the channels.
INCEPTIONS = (
    ("3a", 64, 96, 128, 16, 32, 32),
    ("3b", 128, 128, 192, 32, 96, 64),
    ("4a", 192, 96, 208, 16, 48, 64),
    ("4b", 160, 112, 224, 24, 64, 64),
    ("4c", 128, 128, 256, 24, 64, 64),
    ("4d", 112, 144, 288, 32, 64, 64),
    ("4e", 256, 160, 320, 32, 128, 128),
    ("5a", 256, 160, 320, 32, 128, 128),
    ("5b", 384, 192, 384, 48, 128, 128),
)
HEADS = ("4a", "4d")
HEAD_WEIGHT = 0.3

# Caffe's constants, where k is 1 and alpha is divided by the window; the paper says only where the two layers are.
LRN = spec.LocalResponseNorm("lrn", size=5, alpha=1e-4, beta=0.75, k=1.0, divide_alpha=True)
# Caffe rounds every pooling up, torchvision and gluoncv follow it; the textbook pads by 1 and rounds down. Both have
# 112, 56, 28, 14, 7 rows at 224, but other windows.
CEIL = spec.MaxPool("pool", kernel=(3, 3), stride=(2, 2), ceil=True)
PADDED = spec.MaxPool("pool", kernel=(3, 3), stride=(2, 2), padding=(1, 1))


@dataclass(frozen=True)
class Variant:
    """In what the three differ: the kernel of the "5x5" branch, the poolings, normalisation, heads, dropout."""

    large: int
    pool: spec.MaxPool
    pool4: spec.MaxPool
    norm: spec.BatchNorm | None
    lrn: bool
    heads: bool
    dropout: float


TEXTBOOK = Variant(large=5, pool=PADDED, pool4=PADDED, norm=None, lrn=False, heads=False, dropout=0.0)
PAPER = Variant(large=5, pool=CEIL, pool4=CEIL, norm=None, lrn=True, heads=True, dropout=0.4)
# torchvision ported Google's TensorFlow weights: batch norm without a bias before it, 2x2 in pool4, and 3x3 in the
# "5x5" branch, which it calls a known bug of that port (pytorch/vision issue 906).
TORCHVISION = Variant(
    large=3, pool=CEIL, pool4=replace(CEIL, kernel=(2, 2)), norm=NORM, lrn=False, heads=True, dropout=0.2
)


def stem(variant: Variant) -> dict[str, Step]:
    """The rows of the table up to pool2, the response normalisations placed as in Caffe."""
    rows: dict[str, Step] = {
        "conv1": Unit(64, 7, 2, padding=3),
        "pool1": variant.pool,
        "lrn1": LRN,
        "conv2_reduce": Unit(64),
        "conv2": Unit(192, 3),
        "lrn2": LRN,
        "pool2": variant.pool,
    }
    return {name: step for name, step in rows.items() if variant.lrn or step is not LRN}


def inception(columns: tuple[int, ...], large: int) -> Table:
    single, reduce3, conv3, reduce5, conv5, projection = columns
    return {
        "branch1x1": (Unit(single),),
        "branch3x3": (Unit(reduce3), Unit(conv3, 3)),
        "branch5x5": (Unit(reduce5), Unit(conv5, large)),
        "branch_pool": (spec.MaxPool("pool", kernel=(3, 3), stride=(1, 1), padding=(1, 1)), Unit(projection)),
    }


def head(name: str, parts: Parts, before: list[spec.Layer]) -> spec.Auxiliary:
    """An auxiliary classifier on the map behind `before`: on 14x14 the 4x4 average of 5x5 windows, two dense layers.
    torchvision averages adaptively to 4x4, which on 14x14 are windows of 4 at 0, 3, 7 and 10: the same shapes and
    counts as here, not the same numbers. On a map smaller than 5x5 the window shrinks (see `window`)."""
    options = parts.options
    side = window(before, options, 5)
    return spec.Auxiliary(
        f"auxiliary{name}",
        (
            # Nothing is padded; what hangs over the edge when rounding up (Caffe's rule) never counts.
            spec.AvgPool("pool", kernel=(side, side), stride=(3, 3), ceil=True, count_padding=False),
            *parts.unit("", Unit(128), f"auxiliary{name}."),
            spec.Flatten("flatten"),
            spec.Dense("dense1", options.dense(1024, f"auxiliary{name}.dense1")),
            spec.ReLU("relu1"),
            spec.Dropout("dropout", 0.7),
            spec.Dense("dense2", options.classes),
        ),
        HEAD_WEIGHT,
    )


def googlenet(variant: Variant, options: Options) -> spec.Layers:
    parts = Parts(options, variant.norm, bias=variant.norm is None)
    pools = {"3b": replace(variant.pool, name="pool3"), "4e": replace(variant.pool4, name="pool4")}
    layers = list(parts.stem(stem(variant)))
    for name, *columns in INCEPTIONS:
        layers.append(parts.branches(f"inception{name}", inception(tuple(columns), variant.large)))
        if variant.heads and name in HEADS:
            layers.append(head(name, parts, layers))
        if name in pools:
            layers.append(pools[name])
    return (*layers, *parts.classifier("pool5", variant.dropout))


def entry(name: str, source: str, input: ImageShape, classes: int, variant: Variant, published: Published) -> Entry:
    return Entry(name, source, input, classes, partial(googlenet, variant), conformance=(8, 96), published=published)


D2L = "Dive into Deep Learning, section 8.4 (after Szegedy et al. 2014)"
CAFFE = "Szegedy et al. 2014, table 1, as in Caffe's bvlc_googlenet"
PORT = "torchvision's GoogLeNet (after Szegedy et al. 2014)"
PAPER_COUNTS = Published(6_998_552, 1_582_671_872, with_heads=(13_378_280, 1_591_044_096))
# torchvision states no operations with the heads: they add what the paper's do.
PORT_COUNTS = Published(6_624_904, 1_498_376_192, with_heads=(13_004_888, 1_506_748_416))
ENTRIES = (
    entry("googlenet_d2l", D2L, (1, 96, 96), 10, TEXTBOOK, Published(5_977_530, 276_066_304)),
    entry("googlenet", CAFFE, (3, 224, 224), 1000, PAPER, PAPER_COUNTS),
    entry("googlenet_bn", PORT, (3, 224, 224), 1000, TORCHVISION, PORT_COUNTS),
)
