"""Small architectures, one per trap, non-square and with a flatten larger than 1x1; and what a backend is given."""

from __future__ import annotations

import numpy as np

from triptych.spec import analysis
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    AvgPool,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    LocalResponseNorm,
    MaxPool,
    ReLU,
    Residual,
    Sigmoid,
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
        "residual_shortcut": small(Residual("unit", body, shortcut, 0.2), ReLU("relu")),
        "auxiliary": small(
            Block("stem", (Conv("conv", 4, (3, 3)), ReLU("relu"))),
            Auxiliary("head1", head, 0.3),
            Conv("conv", 4, (3, 3)),
            Auxiliary("head2", (GlobalAvgPool("pool"), *head[1:]), 0.5),
            Dropout("dropout", 0.5),
        ),
    }


CASES = {
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
