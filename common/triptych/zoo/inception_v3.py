"""Inception v3: Szegedy et al., "Rethinking the Inception Architecture" (2015), as in Google's code and torchvision.

The paper's table 1 has another stem than all code, torchvision's, Keras's and Google's own."""

from triptych.spec.layers import Auxiliary, AvgPool, Dense, Flatten, GlobalAvgPool, Layer, Layers
from triptych.zoo import Entry, Options, Published
from triptych.zoo.inception_parts import AVERAGE, HALVE, STEM, Fork, Parts, Table, Unit, window


def inception_a(projection: int) -> Table:
    """Figure 5 of the paper, on 35x35."""
    return {
        "branch1x1": (Unit(64),),
        "branch5x5": (Unit(48), Unit(64, 5)),
        "branch3x3double": (Unit(64), Unit(96, 3), Unit(96, 3)),
        "branch_pool": (AVERAGE, Unit(projection)),
    }


REDUCTION_A: Table = {
    "branch3x3": (Unit(384, 3, 2, padding=0),),
    "branch3x3double": (Unit(64), Unit(96, 3), Unit(96, 3, 2, padding=0)),
    "branch_pool": (HALVE,),
}


def inception_b(inner: int) -> Table:
    """Figure 6 of the paper, on 17x17."""
    return {
        "branch1x1": (Unit(192),),
        "branch7x7": (Unit(inner), Unit(inner, (1, 7)), Unit(192, (7, 1))),
        "branch7x7double": (
            Unit(inner),
            Unit(inner, (7, 1)),
            Unit(inner, (1, 7)),
            Unit(inner, (7, 1)),
            Unit(192, (1, 7)),
        ),
        "branch_pool": (AVERAGE, Unit(192)),
    }


REDUCTION_B: Table = {
    "branch3x3": (Unit(192), Unit(320, 3, 2, padding=0)),
    "branch7x7": (Unit(192), Unit(192, (1, 7)), Unit(192, (7, 1)), Unit(192, 3, 2, padding=0)),
    "branch_pool": (HALVE,),
}

# Figure 7 of the paper, on 8x8.
APART = Fork({"branch1x3": (Unit(384, (1, 3)),), "branch3x1": (Unit(384, (3, 1)),)})
INCEPTION_C: Table = {
    "branch1x1": (Unit(320),),
    "branch3x3": (Unit(384), APART),
    "branch3x3double": (Unit(448), Unit(384, 3), APART),
    "branch_pool": (AVERAGE, Unit(192)),
}

MIXED = {
    "mixed5b": inception_a(32),
    "mixed5c": inception_a(64),
    "mixed5d": inception_a(64),
    "mixed6a": REDUCTION_A,
    "mixed6b": inception_b(128),
    "mixed6c": inception_b(160),
    "mixed6d": inception_b(160),
    "mixed6e": inception_b(192),
    "mixed7a": REDUCTION_B,
    "mixed7b": INCEPTION_C,
    "mixed7c": INCEPTION_C,
}
HEAD = "mixed6e"
HEAD_WEIGHT = 0.4  # as in PyTorch's tutorial and slim's training script; the paper gives none


def head(parts: Parts, before: list[Layer]) -> Auxiliary:
    """The auxiliary classifier. On 17x17 the average leaves 5x5 and the 5x5 convolution 1x1; on a smaller map both
    windows shrink to fit, as slim's convolution does (see `window`)."""
    side = window(before, parts.options, 5)
    pool = AvgPool("pool", kernel=(side, side), stride=(3, 3))
    wide = Unit(768, window([*before, pool], parts.options, 5), padding=0)
    return Auxiliary(
        "auxiliary6e",
        (
            pool,
            *parts.unit("1", Unit(128), "auxiliary6e."),
            *parts.unit("2", wide, "auxiliary6e."),
            GlobalAvgPool("global_pool"),
            Flatten("flatten"),
            Dense("dense", parts.options.classes),
        ),
        HEAD_WEIGHT,
    )


def inception_v3(options: Options) -> Layers:
    parts = Parts(options)
    layers = list(parts.stem({**STEM, "pool5a": HALVE}))
    for name, table in MIXED.items():
        layers.append(parts.branches(name, table))
        if name == HEAD:
            layers.append(head(parts, layers))
    return (*layers, *parts.classifier("pool8", dropout=0.5))  # torchvision's rate; slim 0.2, Keras none


SOURCE = "Szegedy et al. 2015, as in torchvision and Keras"
COUNTS = Published(23_834_568, 5_713_216_096, with_heads=(27_161_264, 5_718_899_296))
ENTRIES = (Entry("inception_v3", SOURCE, (3, 299, 299), 1000, inception_v3, conformance=(16, 155), published=COUNTS),)
