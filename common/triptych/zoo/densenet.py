"""DenseNets: table 1 of Huang et al., "Densely Connected Convolutional Networks" (2016), as Gluon's model zoo and, but
for the variance that batch norms keep, torchvision have them."""

from functools import partial

from triptych.spec.layers import (
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Layer,
    Layers,
    MaxPool,
    ReLU,
)
from triptych.zoo import Entry, Options, Published

# Channels of the first convolution, growth (k), layers per block.
TABLE = {
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
}
BOTTLENECK = 4  # times k channels between the two convolutions of a layer
NORM = BatchNorm("norm", eps=1e-5, momentum=0.1, unbiased=False)  # MXNet keeps the variance with n


def norm_and_relu(number: str) -> Layers:
    return BatchNorm(f"norm{number}", NORM.eps, NORM.momentum, unbiased=NORM.unbiased), ReLU(f"relu{number}")


def dense_layer(name: str, growth: int) -> Branches:
    """What comes in, and `growth` maps made of all of it."""
    made = (
        *norm_and_relu("1"),
        Conv("conv1", BOTTLENECK * growth, (1, 1), bias=False),
        *norm_and_relu("2"),
        Conv("conv2", growth, (3, 3), padding=(1, 1), bias=False),
    )
    return Branches(name, (Block("identity", ()), Block("new", made)))


def transition(name: str, channels: int) -> Block:
    pool = AvgPool("pool", (2, 2), (2, 2))
    return Block(name, (*norm_and_relu(""), Conv("conv", channels, (1, 1), bias=False), pool))


def densenet(depth: int, options: Options) -> Layers:
    first, k, counts = TABLE[depth]
    channels, growth = options.channels(first, "conv1"), options.channels(k, "growth")
    conv = Conv("conv1", channels, (7, 7), (2, 2), (3, 3), bias=False)
    layers: list[Layer] = [conv, *norm_and_relu("1"), MaxPool("pool1", (3, 3), (2, 2), (1, 1))]
    for number, count in enumerate(counts, 1):
        layers.append(Block(f"block{number}", tuple(dense_layer(f"layer{i + 1}", growth) for i in range(count))))
        channels += count * growth
        if number < len(counts):
            channels //= 2
            layers.append(transition(f"transition{number}", channels))
    # Gluon averages over 7x7, which at 224x224 is the whole map.
    classifier = (GlobalAvgPool("pool5"), Flatten("flatten"), Dense("dense", options.classes))
    return (*layers, *norm_and_relu("5"), *classifier)


# Trained parameters, multiply-accumulates.
COUNTS = {
    "densenet121": (7_978_856, 2_834_161_664),
    "densenet161": (28_681_000, 7_727_907_072),
    "densenet169": (14_149_480, 3_359_843_328),
    "densenet201": (20_013_928, 4_291_365_888),
}
ENTRIES = tuple(
    Entry(
        f"densenet{depth}",
        f"Gluon's densenet{depth} (after Huang et al. 2016, table 1)",
        (3, 224, 224),
        1000,
        partial(densenet, depth),
        conformance=(8, 64),
        published=Published(*COUNTS[f"densenet{depth}"]),
    )
    for depth in TABLE
)
