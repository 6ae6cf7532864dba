"""SqueezeNet: table 1 of Iandola et al. (2016) and the authors' version 1.1, as Gluon's model zoo and
torchvision have them."""

from dataclasses import replace
from functools import partial

from triptych.spec.layers import Block, Branches, Conv, Dropout, Flatten, GlobalAvgPool, Layer, Layers, MaxPool, ReLU
from triptych.zoo import Entry, Options, Published

POOL = MaxPool("pool", (3, 3), (2, 2), ceil=True)
# Channels and kernel of the first convolution; then squeezed and expanded channels of the fire modules (the expanded
# ones half 1x1, half 3x3), None for a pooling.
Fires = tuple[tuple[int, int] | None, ...]
TABLE: dict[str, tuple[int, int, Fires]] = {
    "1.0": (
        96,
        7,
        (None, (16, 64), (16, 64), (32, 128), None, (32, 128), (48, 192), (48, 192), (64, 256), None, (64, 256)),
    ),
    "1.1": (
        64,
        3,
        (None, (16, 64), (16, 64), None, (32, 128), (32, 128), None, (48, 192), (48, 192), (64, 256), (64, 256)),
    ),
}


def fire(name: str, squeezed: int, expanded: int, options: Options) -> Block:
    narrow, wide = options.channels(squeezed, f"{name}.squeeze"), options.channels(expanded, f"{name}.expand")
    one = Block("one", (Conv("conv", wide, (1, 1)), ReLU("relu")))
    three = Block("three", (Conv("conv", wide, (3, 3), padding=(1, 1)), ReLU("relu")))
    return Block(name, (Conv("squeeze", narrow, (1, 1)), ReLU("relu"), Branches("expand", (one, three))))


def squeezenet(version: str, options: Options) -> Layers:
    """Nothing is padded in front: 111 and 109 rows of 224."""
    channels, kernel, fires = TABLE[version]
    conv = Conv("conv1", options.channels(channels, "conv1"), (kernel, kernel), (2, 2))
    layers: list[Layer] = [conv, ReLU("relu1")]
    for row in fires:
        number = len(layers)
        layers.append(replace(POOL, name=f"pool{number}") if row is None else fire(f"fire{number}", *row, options))
    layers += [Dropout("dropout", 0.5), Conv("conv10", options.classes, (1, 1)), ReLU("relu10")]
    return (*layers, GlobalAvgPool("pool10"), Flatten("flatten"))  # Gluon's is 13x13, the whole map at 224x224


# Trained parameters, multiply-accumulates.
COUNTS = {
    "squeezenet1.0": (1_248_424, 818_924_576),
    "squeezenet1.1": (1_235_496, 349_151_936),
}
ENTRIES = tuple(
    Entry(
        f"squeezenet{version}",
        f"Gluon's squeezenet{version} (after Iandola et al. 2016)",
        (3, 224, 224),
        1000,
        partial(squeezenet, version),
        conformance=(4, 96),
        published=Published(*COUNTS[f"squeezenet{version}"]),
    )
    for version in TABLE
)
