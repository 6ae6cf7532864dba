"""The smallest networks that show each fault, and what the reference says of them."""

from __future__ import annotations

from functools import cache

from triptych.conformance.case import make_case
from triptych.conformance.reference_run import ReferenceRun
from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    ChannelShuffle,
    Clip,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Graph,
    HardSigmoid,
    HardSwish,
    Initializer,
    L2Normalize,
    Layer,
    LeakyReLU,
    LocalResponseNorm,
    MaxPool,
    Mish,
    Node,
    Pad,
    PReLU,
    ReLU,
    Residual,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Upsample,
)


def net(name: str, *layers: Layer, size: tuple[int, int, int] = (2, 6, 9)) -> Architecture:
    return Architecture(name, size, 3, (*layers, Flatten("flatten"), Dense("dense", 3)), Initializer("kaiming_normal"))


CONV = Conv("conv", 4, (3, 3), padding=(1, 1))
HALF = MaxPool("pool", (3, 3), (2, 2), ceil=True)
MEAN = GlobalAvgPool("mean")  # where the map's size must not change the dense layer's parameters
PLAIN = net("plain", CONV, ReLU("relu"))
COLOUR = net("colour", CONV, ReLU("relu"), size=(3, 6, 9))
SQUARE = net("square", CONV, MEAN, Flatten("flat"), Dense("hidden", 4), Sigmoid("sigmoid"))
TWINS = net("twins", CONV, MEAN, Flatten("flat"), Dense("first", 4), Sigmoid("sigmoid"), Dense("second", 4))
FLAT = net("flat", CONV)
STRIDED = net("strided", Conv("conv", 4, (3, 3), (3, 3), (1, 1)), MEAN)
EVEN = net("even", Conv("conv", 4, (3, 3), (2, 2), (1, 1)), MEAN, size=(2, 8, 10))
NORM = net("norm", Conv("conv", 4, (3, 3), bias=False), BatchNorm("norm"), ReLU("relu"))
LRN = net("lrn", CONV, LocalResponseNorm("lrn", 3, 0.5, 0.75, 2.0), MEAN)
AVERAGE = net("average", CONV, AvgPool("pool", (3, 3), (2, 2), (1, 1)), MEAN)
INSIDE = net("inside", CONV, AvgPool("pool", (3, 3), (2, 2), (1, 1), count_padding=False), MEAN)
CEIL = net("ceil", CONV, HALF, MEAN)
OVERHANG = net("overhang", CONV, MaxPool("pool", (3, 3), (4, 4), (1, 1), ceil=True), MEAN)
TIES = net("ties", MaxPool("pool", (2, 2), (2, 2)), size=(2, 16, 24))  # of bytes: some windows have two largest
FLOOR = net("floor", CONV, MaxPool("pool", (3, 3), (2, 2)), MEAN)
RECTIFIED = net("rectified", CONV, ReLU("relu"), Dropout("dropout", 0.5))
DROPOUT = net("dropout", CONV, Dropout("dropout", 0.5))
SIDE = net("side", CONV, Auxiliary("head", (MEAN, Flatten("flat"), Dense("out", 3)), 0.3), ReLU("relu"))
BRANCHES = net("branches", Branches("mixed", (Block("a", (CONV,)), Block("b", (CONV, ReLU("relu"))))))
RESIDUAL = net("residual", CONV, Residual("unit", Block("body", (CONV,)), scale=0.3))
PRELU = net("prelu", CONV, PReLU("prelu"))
CLIP = net("clip", CONV, Clip("clip", -0.2, 0.3))
LEAKY = net("leaky", CONV, LeakyReLU("leaky", 0.2))
HARD = net("hard", CONV, HardSigmoid("hard"), HardSwish("swish"))
DILATED = net("dilated", Conv("conv", 4, (3, 3), padding=(2, 2), dilation=(2, 2)))
DEPTHWISE = net("depthwise", Conv("conv", 6, (3, 3), padding=(1, 1), groups=2))
GATE = Block("gate", (MEAN, Conv("weights", 4, (1, 1)), Sigmoid("sigmoid")))
GATED = net("gated", CONV, Branches("gated", (Block("map", ()), GATE), "multiply"), size=(2, 4, 9))
SUM = net("sum", Branches("sum", (Block("a", (CONV,)), Block("b", (CONV, ReLU("relu")))), "add"))
SAME = net("same", Pad("pad", (0, 1, 0, 1)), Conv("conv", 4, (3, 3), (2, 2)), size=(2, 8, 10))
EDGE = net("edge", Pad("pad", (1, 2, 2, 1), mode="reflect"), CONV)
TRANSPOSED = net("transposed", ConvTranspose("conv", 4, (3, 3), (2, 2), (1, 1), (1, 1)))
NO_GAMMA = net("no_gamma", Conv("conv", 4, (3, 3), bias=False), BatchNorm("norm", gamma=False), ReLU("relu"))
FROZEN = net("frozen", Conv("conv", 4, (3, 3), bias=False), BatchNorm("norm", frozen=True), ReLU("relu"))
SOFTMAX = net("softmax", CONV, Softmax("softmax"))
ODD = net("odd", CONV, AvgPool("pool", (2, 2), (2, 2), ceil=True))
UNIT = net("unit", CONV, L2Normalize("norm", 0.5))
UP = net("up", CONV, Upsample("up", (2, 2), "bilinear"))
SHUFFLED = net("shuffled", Conv("conv", 6, (3, 3), padding=(1, 1)), ChannelShuffle("shuffle", 3))
PART = net("part", CONV, Slice("part", "channels", 1, 3))
MLP = Architecture(
    *("mlp", (1, 6, 7), 3),
    (Flatten("flatten"), Dense("hidden", 8), ReLU("relu"), Dense("dense", 3)),
    Initializer("kaiming_normal"),
)
SILU = net("silu", CONV, SiLU("silu"))
ELUS = net("elu", CONV, ELU("elu", 0.5))
SELUS = net("selu", CONV, SELU("selu"))
GELUS = net("gelu", CONV, GELU("gelu", approximate=False))
SOFTPLUS = net("softplus", CONV, Softplus("softplus"))
SOFTSIGN = net("softsign", CONV, Softsign("softsign"))
MISH = net("mish", CONV, Mish("mish"))
CROSSED = net(
    "crossed",
    Graph(
        "graph",
        (
            Node(CONV),
            Node(Conv("other", 4, (3, 3), padding=(1, 1))),
            Node(ReLU("relu"), ("conv", "other"), "add"),
            Node(Block("joined", ()), ("relu", "other")),
        ),
        ("joined",),
    ),
)

# One of nearly everything, for runs without a fault.
EVERYTHING = net(
    "everything",
    Conv("conv", 4, (3, 3), (2, 2), (1, 1), bias=False),
    BatchNorm("norm"),
    ReLU("relu"),
    LocalResponseNorm("lrn", 3, 0.5, 0.75, 2.0),
    Residual("unit", Block("body", (CONV,)), scale=0.3),
    Auxiliary("head", (MEAN, Flatten("flat"), Dense("out", 3)), 0.3),
    Branches("mixed", (Block("a", (HALF,)), Block("b", (AvgPool("pool", (2, 2), (2, 2)),)))),
    Dropout("dropout", 0.5),
    size=(3, 16, 24),
)


@cache
def reference_run(architecture: Architecture, seed: int = 0) -> ReferenceRun:
    """What the reference says, computed once."""
    return ReferenceRun(make_case(architecture, seed))
