"""Faults in the network: layers, their arguments, how they are joined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from mutants import networks as nets
from mutants.plants import built, change, composite, fields, layer, loading, other_spec, wrapped
from mutants.record import Mutant
from triptych.spec.layers import (
    SELU,
    Architecture,
    AvgPool,
    BatchNorm,
    Branches,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    Graph,
    Layer,
    MaxPool,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)


def swap(architecture: Architecture, name: str, other: Layer) -> Architecture:
    return replace(architecture, layers=tuple(other if layer.name == name else layer for layer in architecture.layers))


def average_for_maximum(architecture: Architecture) -> Architecture:
    return swap(architecture, "pool", AvgPool("pool", (3, 3), (2, 2), ceil=True))


def reverse_branches(architecture: Architecture) -> Architecture:
    return change(architecture, "mixed", branches=cast(Branches, architecture.layers[0]).branches[::-1])


def multiplier_first(weight: np.ndarray) -> np.ndarray:
    """Channel i * multiplier + m of a depthwise convolution taken for m * inputs + i."""
    return weight.reshape(2, 3, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def crossed_otherwise(architecture: Architecture) -> Architecture:
    """The last node joins the other of its sources twice."""
    graph = cast(Graph, architecture.layers[0])
    nodes = (*graph.nodes[:-1], replace(graph.nodes[-1], inputs=("relu", "conv")))
    return swap(architecture, "graph", replace(graph, nodes=nodes))


def in_training_mode(right: Any, network: Any, images: Any, *, train: bool = False, masks: Any = None) -> Any:
    """Training mode when evaluation was asked for: batch statistics, dropout."""
    own = masks if train else nets.reference_run(nets.DROPOUT).case.masks(9)
    return right(network, images, train=True, masks=own)


def unmasked(masks: Any) -> dict[str, np.ndarray]:
    return {path: np.ones_like(mask) for path, mask in (masks or {}).items()}


def forward_unmasked(right: Any, *given: Any, masks: Any = None, **mode: Any) -> Any:
    return right(*given, masks=unmasked(masks), **mode)


def gradients_unmasked(right: Any, *given: Any, masks: Any) -> Any:
    return right(*given, masks=unmasked(masks))


def own_masks(right: Any, *given: Any, masks: Any = None, **mode: Any) -> Any:
    """The framework draws by itself, from the same seed."""
    return right(*given, masks=masks and nets.reference_run(nets.DROPOUT).case.masks(9), **mode)


OWN_MASKS = wrapped(forward=own_masks, gradients=own_masks)
WINDOW = fields("lrn", size=5, alpha=0.5 * 5 / 3)
TRAINING_MODE = wrapped(forward=in_training_mode)
COLOURS = loading("conv.weight", lambda w: w[:, ::-1])
NO_MASKS = wrapped(gradients=gradients_unmasked)
UNDILATED = fields("conv", padding=(1, 1), dilation=(1, 1))
ABOVE = layer(ConvTranspose, "output_padding_above")
MULTIPLIER = loading("conv.weight", multiplier_first)
STRUCTURE, FORWARD, TRAIN = "structure", "forward eval", "forward train"

MUTANTS = (
    Mutant("same padding at stride 2", nets.EVEN, layer(Conv, "same_padding"), FORWARD, "conv", "forward"),
    Mutant("padding off by one", nets.STRIDED, fields("conv", padding=(0, 0)), FORWARD, "conv", "forward"),
    Mutant("flatten order", nets.FLAT, layer(Flatten, "flatten_channels_last"), FORWARD, "flatten", "forward"),
    Mutant("kernel flipped", nets.PLAIN, layer(Conv, "flipped_kernel"), FORWARD, "conv", "forward"),
    Mutant("square weight transposed", nets.SQUARE, layer(Dense, "transposed_weight"), FORWARD, "hidden", "forward"),
    Mutant("bias missing", nets.PLAIN, fields("conv", bias=False), STRUCTURE, "conv", "structure"),
    Mutant("empty window", nets.OVERHANG, layer(MaxPool, "empty_window"), STRUCTURE, "pool", "structure"),
    Mutant("ties split", nets.TIES, layer(MaxPool, "split_ties"), "gradient", "pool", "gradient"),
    Mutant("floor for ceil", nets.CEIL, fields("pool", ceil=False), STRUCTURE, "pool", "structure"),
    Mutant("padding counted", nets.INSIDE, fields("pool", count_padding=True), FORWARD, "pool", "forward"),
    Mutant("lrn alpha", nets.LRN, fields("lrn", divide_alpha=False), FORWARD, "lrn", "forward"),
    Mutant("lrn k", nets.LRN, fields("lrn", k=1.0), FORWARD, "lrn", "forward"),
    Mutant("lrn window", nets.LRN, WINDOW, FORWARD, "lrn", "forward"),
    Mutant("batch norm eps", nets.NORM, fields("norm", eps=1e-3), FORWARD, "norm", "forward"),
    Mutant("batch norm momentum", nets.NORM, fields("norm", momentum=0.9), "update", "norm", "update"),
    Mutant("biased variance", nets.NORM, fields("norm", unbiased=False), "update", "norm", "update"),
    Mutant("train for eval", nets.NORM, TRAINING_MODE, FORWARD, "norm", "forward"),
    Mutant("gamma fixed", nets.NORM, layer(BatchNorm, "gamma_fixed"), FORWARD, "norm", "forward"),
    Mutant("sigmoid for relu", nets.PLAIN, layer(ReLU, Sigmoid), FORWARD, "relu", "forward"),
    Mutant("dropout scale", nets.DROPOUT, layer(Dropout, "unscaled_dropout"), TRAIN, "dropout", "forward"),
    Mutant("dropout in eval", nets.DROPOUT, TRAINING_MODE, FORWARD, "dropout", "forward"),
    Mutant("branch order", nets.BRANCHES, other_spec(reverse_branches), FORWARD, "mixed", "forward"),
    Mutant("other axis", nets.BRANCHES, composite(Branches, "stacked"), STRUCTURE, "mixed", "structure"),
    Mutant("residual scale", nets.RESIDUAL, fields("unit", scale=1.0), FORWARD, "unit", "forward"),
    Mutant("shared weights", nets.TWINS, built("share_weights"), STRUCTURE, "first", "structure"),
    Mutant("bias not used", nets.PLAIN, layer(Conv, "unused_bias"), FORWARD, "conv", "forward"),
    Mutant("bias not loaded", nets.PLAIN, loading("conv.bias", np.zeros_like), STRUCTURE, "conv", "structure"),
    Mutant("colours reversed", nets.PLAIN, COLOURS, STRUCTURE, "conv", "structure"),
    Mutant("another name", nets.PLAIN, fields("conv", name="conv1"), STRUCTURE, "conv", "structure"),
    Mutant("another name, no array", nets.PLAIN, fields("relu", name="relu1"), STRUCTURE, "relu", "structure"),
    Mutant("more channels", nets.STRIDED, fields("conv", channels=5), STRUCTURE, "conv", "structure"),
    Mutant("padding, other shape", nets.AVERAGE, fields("conv", padding=(0, 0)), STRUCTURE, "conv", "structure"),
    Mutant("padding, other dense", nets.PLAIN, fields("conv", padding=(0, 1)), STRUCTURE, "conv", "structure"),
    Mutant("average for maximum", nets.CEIL, other_spec(average_for_maximum), FORWARD, "pool", "forward"),
    Mutant("ceil for floor", nets.FLOOR, fields("pool", ceil=True), STRUCTURE, "pool", "structure"),
    Mutant("padding not counted", nets.AVERAGE, fields("pool", count_padding=False), FORWARD, "pool", "forward"),
    Mutant("gamma missing", nets.NORM, fields("norm", gamma=False), STRUCTURE, "norm", "structure"),
    Mutant("another dropout rate", nets.DROPOUT, fields("dropout", rate=0.4), TRAIN, "dropout", "forward"),
    Mutant("no dropout", nets.DROPOUT, wrapped(forward=forward_unmasked), TRAIN, "dropout", "forward"),
    Mutant("own masks", nets.DROPOUT, OWN_MASKS, TRAIN, "dropout", "forward"),
    Mutant("slope shared", nets.PRELU, fields("prelu", shared=True), STRUCTURE, "prelu", "structure"),
    Mutant("slope of leaky relu", nets.LEAKY, fields("leaky", slope=0.01), FORWARD, "leaky", "forward"),
    Mutant("no upper bound", nets.CLIP, fields("clip", high=1e9), FORWARD, "clip", "forward"),
    Mutant("slope of hard sigmoid", nets.HARD, fields("hard", slope=0.2), FORWARD, "hard", "forward"),
    Mutant("sigmoid for silu", nets.SILU, layer(SiLU, Sigmoid), FORWARD, "silu", "forward"),
    Mutant("alpha of elu", nets.ELUS, fields("elu", alpha=1.0), FORWARD, "elu", "forward"),
    Mutant("selu without its scale", nets.SELUS, layer(SELU, "elu_of_selu"), FORWARD, "selu", "forward"),
    Mutant("tanh form of gelu", nets.GELUS, fields("gelu", approximate=True), FORWARD, "gelu", "forward"),
    Mutant("threshold of softplus", nets.SOFTPLUS, fields("softplus", threshold=3.0), FORWARD, "softplus", "forward"),
    Mutant(
        *("threshold of softplus by default", nets.SOFTPLUS, fields("softplus", threshold=20.0)),
        *("training", "", "training"),
        hides="2e-9 of 20",
    ),
    Mutant("relu for softplus", nets.SOFTPLUS, layer(Softplus, ReLU), FORWARD, "softplus", "forward"),
    Mutant("tanh for softsign", nets.SOFTSIGN, layer(Softsign, Tanh), FORWARD, "softsign", "forward"),
    Mutant("silu for mish", nets.MISH, layer(Mish, SiLU), FORWARD, "mish", "forward"),
    Mutant("softmax of rows", nets.SOFTMAX, layer(Softmax, "softmax_of_rows"), FORWARD, "softmax", "forward"),
    Mutant("dilation ignored", nets.DILATED, UNDILATED, FORWARD, "conv", "forward"),
    Mutant("multiplier first", nets.DEPTHWISE, MULTIPLIER, STRUCTURE, "conv", "structure"),
    Mutant("gate of rows", nets.GATED, composite(Branches, "rows_for_channels"), FORWARD, "gated", "forward"),
    Mutant("mean for sum", nets.SUM, composite(Branches, "mean_for_sum"), FORWARD, "sum", "forward"),
    Mutant("product for sum", nets.SUM, fields("sum", merge="multiply"), FORWARD, "sum", "forward"),
    Mutant("nodes confused", nets.CROSSED, other_spec(crossed_otherwise), FORWARD, "graph.joined", "forward"),
    Mutant("same on the other side", nets.SAME, fields("pad", padding=(1, 0, 1, 0)), FORWARD, "pad", "forward"),
    Mutant("edge for reflection", nets.EDGE, fields("pad", mode="edge"), FORWARD, "pad", "forward"),
    Mutant("output padding above", nets.TRANSPOSED, ABOVE, FORWARD, "conv", "forward"),
    Mutant("gamma used", nets.NO_GAMMA, fields("norm", gamma=True), STRUCTURE, "norm", "structure"),
    Mutant("statistics not frozen", nets.FROZEN, fields("norm", frozen=False), TRAIN, "norm", "forward"),
    Mutant("overhang counted", nets.ODD, layer(AvgPool, "overhang_counted"), FORWARD, "pool", "forward"),
    Mutant("norm bounded", nets.UNIT, fields("norm", bound=True), FORWARD, "norm", "forward"),
    Mutant("nearest for bilinear", nets.UP, fields("up", mode="nearest"), FORWARD, "up", "forward"),
    Mutant("shuffled back", nets.SHUFFLED, fields("shuffle", groups=2), FORWARD, "shuffle", "forward"),
    Mutant("slice off by one", nets.PART, fields("part", start=0, stop=2), FORWARD, "part", "forward"),
    Mutant(
        "no dropout in the gradient",
        nets.DROPOUT,
        wrapped(gradients=gradients_unmasked),
        "gradient",
        "dropout",
        "gradient",
    ),
)
