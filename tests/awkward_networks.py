"""Small architectures, one per trap, non-square and with a flatten larger than 1x1; and what a backend is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from triptych.spec import analysis
from triptych.spec.layers import (
    ELU,
    GELU,
    SELU,
    Affine,
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
    GlobalMaxPool,
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
    Reshape,
    Residual,
    Sigmoid,
    SiLU,
    Slice,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
    Upsample,
)
from triptych.utils.arrays import largest
from triptych.utils.randomness import dropout_mask
from triptych.weights import initializers

BATCH = 4
LABELS = np.array([1, 0, 2, 1])


def small(*layers: Layer, size: tuple[int, int] = (7, 8), channels: int = 3, flat: bool = False) -> Architecture:
    end = (Dense("dense", 3),) if flat else (Flatten("flatten"), Dense("dense", 3))
    return Architecture("small", (channels, *size), 3, (*layers, *end), Initializer("kaiming_normal"))


def pool(kind: type, kernel: int, stride: int, padding: int, ceil: bool, size: tuple[int, int], **more: bool) -> Layer:
    layer = kind("pool", (kernel, kernel), (stride, stride), (padding, padding), ceil, **more)
    return small(Conv("conv", 4, (3, 3), padding=(1, 1)), layer, size=size)


def pools() -> dict[str, Architecture]:
    """Windows that fit, hang over, lie wholly in the padding along one axis or both; counted padding or not."""
    shapes = [
        (3, 2, 0, (7, 8)),
        (3, 2, 1, (8, 8)),
        (3, 4, 1, (6, 6)),
        (3, 4, 1, (6, 8)),
        (2, 2, 1, (3, 6)),
        (2, 2, 0, (5, 6)),
    ]
    found = {}
    for kernel, stride, padding, size in shapes:
        for ceil in (False, True):
            name = f"k{kernel}s{stride}p{padding}_{size[0]}x{size[1]}" + "_ceil" * ceil
            found[f"max_{name}"] = pool(MaxPool, kernel, stride, padding, ceil, size)
            for count in (False, True):
                case = pool(AvgPool, kernel, stride, padding, ceil, size, count_padding=count)
                found[f"avg_{name}" + "_count" * count] = case
    asymmetric = MaxPool("pool", (3, 2), (2, 3), (1, 0), True)
    found["max_asymmetric"] = small(Conv("conv", 4, (1, 1)), asymmetric, size=(8, 9))
    average = AvgPool("pool", (2, 3), (3, 2), (0, 1), True)
    return found | {"avg_asymmetric": small(Conv("conv", 4, (1, 1)), average, size=(9, 8))}


STEM = Conv("stem", 4, (3, 3), padding=(1, 1))


def norm(layer: BatchNorm, size: tuple[int, int] = (7, 8)) -> Architecture:
    return small(Conv("conv", 4, (3, 3), bias=False), layer, ReLU("relu"), size=size)


def composites() -> dict[str, Architecture]:
    def side(name: str, kernel: int) -> Block:
        conv = Conv("conv", 3, (kernel, kernel), padding=(kernel // 2, kernel // 2))
        return Block(name, (conv, ReLU("relu")))

    head = (AvgPool("pool", (2, 2), (2, 2)), Flatten("flatten"), Dropout("dropout", 0.3), Dense("dense", 3))
    body = Block("body", (Conv("conv", 3, (3, 3), padding=(1, 1)), BatchNorm("norm"), ReLU("relu")))
    shortcut = Block("shortcut", (Conv("conv", 3, (1, 1)),))
    return {
        "branches": small(Branches("mixed", (side("one", 1), side("three", 3), Block("same", ())))),
        "residual": small(Residual("unit", body), ReLU("relu")),
        "residual_mean": small(STEM, Residual("unit", Block("body", (GlobalAvgPool("pool"), ReLU("relu"))), scale=0.5)),
        "residual_shortcut": small(Residual("unit", body, shortcut, 0.2), ReLU("relu")),
        "auxiliary": small(
            Block("stem", (Conv("conv", 4, (3, 3)), ReLU("relu"))),
            Auxiliary("head1", head, 0.3),
            Conv("conv", 4, (3, 3)),
            Auxiliary("head2", (GlobalAvgPool("pool"), *head[1:]), 0.5),
            Dropout("dropout", 0.5),
        ),
    }


def merges() -> tuple[Layer, ...]:
    """A sum of three, a product with a map of one pixel, and one with a map of one channel; nested in a sum."""
    two = tuple(Block(name, (Conv("conv", 4, (1, 1)),)) for name in ("one", "two"))
    gate = Block("gate", (GlobalAvgPool("pool"), Conv("conv", 4, (1, 1)), Sigmoid("sigmoid")))
    where = Block("where", (Conv("conv", 1, (3, 3), padding=(1, 1)), Sigmoid("sigmoid")))
    spatial = Branches("spatial", (where, Block("same", ())), "multiply")
    return (
        Branches("sum", (*two, Block("same", ())), "add"),
        Branches("attention", (Block("same", ()), gate), "multiply"),
        Branches("both", (Block("masked", (spatial,)), Block("mean", (GlobalAvgPool("pool"),))), "add"),
    )


def bridge(outputs: tuple[str, ...]) -> Graph:
    """No row and no branches: `a` and `b` from the input, `c` from both, `d` from `b`, `c` and the sum of three."""
    nodes = (
        Node(Conv("a", 4, (3, 3), padding=(1, 1))),
        Node(Block("b", (Conv("conv", 2, (1, 1)), Sigmoid("sigmoid"))), ("input",)),
        Node(Conv("c", 6, (1, 1)), ("a", "b")),
        Node(Block("sum", ()), ("a", "input"), "add"),
        Node(Block("product", (Conv("conv", 3, (1, 1)),)), ("sum", "a", "sum"), "multiply"),
        Node(Conv("d", 3, (1, 1)), ("b", "c", "sum", "product")),
    )
    return Graph("bridge", nodes, outputs)


def graphs() -> dict[str, Architecture]:
    flat = (
        Node(Flatten("flat")),
        Node(Dense("a", 4), ("flat",)),
        Node(Dense("b", 4), ("flat",)),
        Node(Block("sum", ()), ("a", "b", "a"), "add"),
        Node(ReLU("relu"), ("a", "sum")),
        Node(Dense("scores", 3), ("relu",)),
    )
    return {
        "merges": small(STEM, *merges()),
        "graph": small(STEM, bridge(("d",)), ReLU("relu")),
        "graph_flat": Architecture("small", (3, 7, 8), 3, (Graph("net", flat, ("scores",)),)),
        "merge_flat": small(
            Flatten("flat"),
            Branches("mixed", (Block("a", (Dense("dense", 4),)), Block("b", (Dense("dense", 2),)))),
            flat=True,
        ),
    }


def activations() -> dict[str, Architecture]:
    def on_both(name: str, layer: Layer) -> Architecture:
        """On a map, and on flat values."""
        return small(STEM, layer, Flatten("flat"), Dense("hidden", 5), replace(layer, name=f"flat_{name}"))

    kinds = {
        "tanh": Tanh("tanh"),
        "clip": Clip("clip", -0.2, 0.3),
        "relu6": Clip("relu6", 0.0, 6.0),
        "leaky": LeakyReLU("leaky", 0.2),
        "prelu": PReLU("prelu"),
        "prelu_shared": PReLU("prelu", shared=True),
        "silu": SiLU("silu"),
        "elu": ELU("elu", 0.3),
        "selu": SELU("selu"),
        "gelu": GELU("gelu", approximate=False),
        "gelu_tanh": GELU("gelu", approximate=True),
        "softplus": Softplus("softplus"),
        "softplus_threshold": Softplus("softplus", 20.0),
        "softsign": Softsign("softsign"),
        "mish": Mish("mish"),
        "hard_sigmoid": HardSigmoid("hard", 0.9, 0.4),
        "hard_swish": HardSwish("hard"),
        "softmax": Softmax("softmax"),
        "affine_trained": Affine("affine", trained=True),
        "l2_channels": L2Normalize("norm", 0.1),
        "l2_whole": L2Normalize("norm", 1e-3, whole=True),
        "l2_bound": L2Normalize("norm", 0.7, bound=True),
        "l2_bound_whole": L2Normalize("norm", 0.7, whole=True, bound=True),
        "norm_both": BatchNorm("norm", eps=0.1, momentum=0.3),
    }
    return {name: on_both(name, layer) for name, layer in kinds.items()} | {
        "affine": small(
            Affine("a", (2.0, 0.1, 3.0), (0.7,)), STEM, Affine("b", (0.3,), (0.1, 0.2, 0.3, 0.4)), ReLU("r")
        ),
    }


def placements() -> dict[str, Architecture]:
    return {
        "pad": small(STEM, Pad("pad", (1, 2, 0, 3), 0.1)),
        "pad_edge": small(STEM, Pad("pad", (1, 2, 9, 3), mode="edge")),
        "pad_reflect": small(STEM, Pad("pad", (5, 2, 0, 7), mode="reflect")),
        "slice": small(STEM, Slice("a", "channels", 1, 3), Slice("b", "rows", 0, 4), Slice("c", "columns", 3, 7)),
        "slice_flat": small(Flatten("flat"), Slice("part", "channels", 3, 99), flat=True),
        "upsample": small(STEM, Upsample("up", (2, 3))),
        "upsample_bilinear": small(STEM, Upsample("up", (2, 3), "bilinear")),
        "upsample_one_way": small(STEM, Upsample("up", (1, 4), "bilinear"), Upsample("more", (2, 1))),
        "shuffle": small(Conv("conv", 6, (1, 1)), ChannelShuffle("shuffle", 3)),
        "reshape": small(STEM, Reshape("a", (28, 8, 1)), ReLU("relu"), Reshape("b", (224,)), Reshape("c", (7, 4, 8))),
        "global_maximum": small(STEM, GlobalMaxPool("pool")),
    }


def transposed() -> dict[str, Architecture]:
    """Output padding below the stride, and below the dilation alone; padding beyond the kernel's reach."""
    layers = {
        "plain": ConvTranspose("conv", 4, (3, 2), (2, 3), (1, 0), (1, 2)),
        "groups": ConvTranspose("conv", 6, (2, 3), (1, 2), (0, 2), (0, 1), groups=2, bias=False),
        "depthwise": ConvTranspose("conv", 4, (4, 4), (2, 2), (1, 1), groups=4),
        "dilation": ConvTranspose("conv", 3, (2, 3), (2, 1), (1, 2), (2, 1), dilation=(3, 2)),
        "dilation_groups": ConvTranspose("conv", 4, (2, 2), (2, 3), (1, 0), groups=2, dilation=(2, 2), bias=False),
        "overhang": ConvTranspose("conv", 3, (1, 2), (3, 3), (0, 0), (2, 2)),
        "cropped": ConvTranspose("conv", 3, (1, 2), (2, 1), (2, 3), (1, 0)),
    }
    return {f"transposed_{name}": small(STEM, layer, ReLU("relu")) for name, layer in layers.items()}


CASES = {
    "dilation": small(STEM, Conv("conv", 4, (3, 2), (1, 2), (2, 1), groups=2, dilation=(2, 3))),
    "dilation_small": small(Conv("conv", 4, (3, 3), (2, 1), (2, 2), dilation=(2, 1)), size=(2, 4)),
    "norm_flat": small(Flatten("flat"), Dense("hidden", 5), BatchNorm("norm", eps=0.1), Sigmoid("sigmoid"), flat=True),
    "norm_no_beta": norm(BatchNorm("norm", beta=False)),
    "norm_bare": norm(BatchNorm("norm", gamma=False, beta=False)),
    "norm_frozen": norm(BatchNorm("norm", frozen=True)),
    **graphs(),
    **activations(),
    **placements(),
    **transposed(),
    "conv_groups": small(
        Conv("a", 6, (3, 1), (2, 1), (1, 0), 3), Conv("b", 4, (1, 5), (1, 2), (0, 2), 2), ReLU("relu")
    ),
    "conv_stride_even": small(Conv("a", 4, (3, 3), (2, 2), (1, 1), bias=False), size=(8, 6)),
    "depthwise": small(Conv("a", 6, (3, 3), (1, 1), (1, 1), 3), Sigmoid("sigmoid")),
    "global_average": small(Conv("a", 4, (3, 3)), GlobalAvgPool("pool")),
    "dense": small(Flatten("flat"), Dense("a", 5, bias=False), ReLU("relu"), Dropout("none", 0.0), flat=True),
    "dropout_map": small(Conv("a", 4, (3, 3)), Dropout("dropout", 0.2), ReLU("relu")),
    "lrn": small(Conv("a", 6, (1, 1)), LocalResponseNorm("lrn", 3, 0.5, 0.75, 2.0)),
    "lrn_wide": small(Conv("a", 4, (1, 1)), LocalResponseNorm("lrn", 7, 0.1, 0.5, 1.0, divide_alpha=False)),
    "norm": norm(BatchNorm("norm")),
    "norm_no_gamma": norm(BatchNorm("norm", eps=1e-3, momentum=0.3, gamma=False)),
    "norm_biased": norm(BatchNorm("norm", unbiased=False)),
    "norm_1x1": norm(BatchNorm("norm"), size=(3, 3)),
    **composites(),
    **pools(),
}


def trained() -> Architecture:
    """Every kind of parameter, auxiliary classifier included, behind an input that is cropped, resized, normalised."""
    body = Block("body", (Conv("conv", 4, (3, 3), padding=(1, 1)), BatchNorm("norm", gamma=False, unbiased=False)))
    head = (GlobalAvgPool("pool"), Flatten("flatten"), Dense("dense", 3))
    return small(
        Conv("conv", 4, (3, 3)),
        BatchNorm("norm", momentum=0.3),
        ReLU("relu"),
        Auxiliary("head", head, 0.3),
        Residual("unit", body, scale=0.5),
        MaxPool("pool", (2, 2), (2, 2)),
        Dropout("dropout", 0.5),
        size=(9, 8),
        channels=1,
    )


def parameters(architecture: Architecture) -> dict[str, np.ndarray]:
    """Drawn parameters, with biases, gammas and running statistics that are not 0 or 1."""
    random = np.random.default_rng(1)
    return {
        path: value if value.ndim > 1 else (value + random.uniform(0.1, 0.5, value.shape)).astype(np.float32)
        for path, value in initializers.draw(architecture, 0).items()
    }


def masks_of(architecture: Architecture, step: int = 0) -> dict[str, np.ndarray]:
    return {
        info.path: dropout_mask(0, step, info.path, (BATCH, *info.output), info.layer.rate)
        for info in analysis.analyse(architecture)
        if isinstance(info.layer, Dropout)
    }


def assert_close(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-13) -> None:
    assert set(found) == set(expected)
    for path, value in expected.items():
        atol = tolerance * max(1.0, largest(value))
        np.testing.assert_allclose(found[path], value, rtol=0, atol=atol, err_msg=path)
