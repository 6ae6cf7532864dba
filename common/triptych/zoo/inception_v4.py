"""Inception v4: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections" (2016).

Names and channels are those of Google's code and of its port in timm. Google's has an auxiliary head behind mixed6h,
which the paper does not draw, the ports leave out, and the published count is without: so it is left out here."""

from triptych.spec.layers import Layers
from triptych.zoo import Entry, Options, Published
from triptych.zoo.inception_parts import AVERAGE_INSIDE, HALVE, Fork, Parts, Step, Table, Unit

STEM: dict[str, Step] = {"conv1a": Unit(32, 3, 2, padding=0), "conv2a": Unit(32, 3, padding=0), "conv2b": Unit(64, 3)}

# Figure 3 of the paper, the rest of the stem.
STEM_A: Table = {"branch0": (HALVE,), "branch1": (Unit(96, 3, 2, padding=0),)}
STEM_B: Table = {
    "branch0": (Unit(64), Unit(96, 3, padding=0)),
    "branch1": (Unit(64), Unit(64, (1, 7)), Unit(64, (7, 1)), Unit(96, 3, padding=0)),
}
STEM_C: Table = {"branch0": (Unit(192, 3, 2, padding=0),), "branch1": (HALVE,)}

# Figure 4.
INCEPTION_A: Table = {
    "branch0": (Unit(96),),
    "branch1": (Unit(64), Unit(96, 3)),
    "branch2": (Unit(64), Unit(96, 3), Unit(96, 3)),
    "branch3": (AVERAGE_INSIDE, Unit(96)),
}
# Figure 7, with the row "Inception-v4" of table 1.
REDUCTION_A: Table = {
    "branch0": (Unit(384, 3, 2, padding=0),),
    "branch1": (Unit(192), Unit(224, 3), Unit(256, 3, 2, padding=0)),
    "branch2": (HALVE,),
}
# Figure 5.
INCEPTION_B: Table = {
    "branch0": (Unit(384),),
    "branch1": (Unit(192), Unit(224, (1, 7)), Unit(256, (7, 1))),
    "branch2": (Unit(192), Unit(192, (7, 1)), Unit(224, (1, 7)), Unit(224, (7, 1)), Unit(256, (1, 7))),
    "branch3": (AVERAGE_INSIDE, Unit(128)),
}
# Figure 8.
REDUCTION_B: Table = {
    "branch0": (Unit(192), Unit(192, 3, 2, padding=0)),
    "branch1": (Unit(256), Unit(256, (1, 7)), Unit(320, (7, 1)), Unit(320, 3, 2, padding=0)),
    "branch2": (HALVE,),
}
# Figure 6.
APART = Fork({"branch1x3": (Unit(256, (1, 3)),), "branch3x1": (Unit(256, (3, 1)),)})
INCEPTION_C: Table = {
    "branch0": (Unit(256),),
    "branch1": (Unit(384), APART),
    "branch2": (Unit(384), Unit(448, (3, 1)), Unit(512, (1, 3)), APART),
    "branch3": (AVERAGE_INSIDE, Unit(256)),
}

MIXED = {
    "mixed3a": STEM_A,
    "mixed4a": STEM_B,
    "mixed5a": STEM_C,
    **{f"mixed5{letter}": INCEPTION_A for letter in "bcde"},
    "mixed6a": REDUCTION_A,
    **{f"mixed6{letter}": INCEPTION_B for letter in "bcdefgh"},
    "mixed7a": REDUCTION_B,
    **{f"mixed7{letter}": INCEPTION_C for letter in "bcd"},
}


def inception_v4(options: Options) -> Layers:
    parts = Parts(options)
    modules = (parts.branches(name, table) for name, table in MIXED.items())
    return (*parts.stem(STEM), *modules, *parts.classifier("pool8", dropout=0.2))  # the paper keeps 0.8


SOURCE = "Szegedy et al. 2016, figures 3 to 9, as in Google's slim and timm"
COUNTS = Published(42_679_816, 12_253_974_624)
ENTRIES = (Entry("inception_v4", SOURCE, (3, 299, 299), 1000, inception_v4, conformance=(16, 107), published=COUNTS),)
