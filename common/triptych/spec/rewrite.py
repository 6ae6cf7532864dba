"""Fully connected layers turned into convolutions: the same weights on images of any size, at every place.

As Simonyan and Zisserman (2014, section 3.2) evaluate VGG: the first dense layer becomes a convolution with a kernel
of the map that it was trained on, the others convolutions of 1x1. The network then slides over a larger image in
steps of its total stride and gives a map of class scores, whose mean are the logits."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from numpy.typing import NDArray

from triptych.spec import analysis
from triptych.spec import layers as spec
from triptych.spec.kinds import kind_of
from triptych.spec.layers import Architecture, Block, Layer, Pair, Primitive, Shape, children, join, walk, with_children
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError

WEIGHTED = (spec.Conv, spec.ConvTranspose, spec.Dense)
AVERAGE, FLATTEN = "score_average", "score_flatten"  # what turns the score map into logits


def convolve(architecture: Architecture, size: Pair) -> Architecture:
    """The fully convolutional form of `architecture` on images of `size` (height, width), for evaluation.

    Layers keep their paths, auxiliary classifiers go. A global average becomes one over the map that it was trained
    on. At the training size the logits are those of `architecture`; on larger images a score is what `architecture`
    gives for the crop there, except that its paddings were black beyond the crop's edges. Raises TriptychError for
    images smaller than those it was trained on, and for dense layers and the like within branches."""
    channels, *trained = architecture.input
    if size[0] < trained[0] or size[1] < trained[1]:
        raise TriptychError(
            f"--dense needs images of at least the training size {trained[0]}x{trained[1]}, got {size[0]}x{size[1]}"
        )
    layers = (*_rewrite(architecture), spec.GlobalAvgPool(AVERAGE), spec.Flatten(FLATTEN))
    return replace(architecture, input=(channels, *size), layers=layers)


def with_dropout(architecture: Architecture, rate: float) -> Architecture:
    """The network with this rate in all its dropout layers. Raises TriptychError if it has none, and for a rate that is
    not at least 0 and below 1."""
    if not 0 <= rate < 1:
        raise TriptychError(f"--dropout {rate} must be at least 0 and below 1")
    if not any(isinstance(layer, spec.Dropout) for _, layer in walk(architecture.layers)):
        raise TriptychError(f"--dropout: '{architecture.name}' has no dropout")

    def change(layer: Any) -> Any:
        return replace(layer, rate=rate) if isinstance(layer, spec.Dropout) else with_children(layer, change)

    return replace(architecture, layers=tuple(map(change, architecture.layers)))


def reshape(architecture: Architecture, parameters: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The `parameters` of the plain network for its convolutional form `architecture`: the same numbers."""
    return {info.path: parameters[info.path].reshape(info.shape) for info in analysis.parameters(architecture)}


def score_map(architecture: Architecture) -> Shape:
    """`(classes, height, width)` of the scores that a convolutional form averages."""
    return output_shapes(architecture)[score_layer(architecture)]


def score_layer(architecture: Architecture) -> str:
    """The layer of a convolutional form whose output is the map of scores."""
    return architecture.layers[-3].name


def fold_batch_norms(architecture: Architecture) -> tuple[Architecture, dict[str, str]]:
    """The network with every batch norm folded into the layer with weights directly before it, which has a bias then,
    and the paths of the batch norms by those of these layers. In evaluation the two can be equal."""
    folded: dict[str, str] = {}

    def row(layers: tuple[Layer, ...], prefix: str) -> Iterator[Layer]:
        for layer, behind in zip_longest(layers, layers[1:]):
            path = join(prefix, layer.name)
            if isinstance(layer, WEIGHTED) and isinstance(behind, spec.BatchNorm):
                folded[path] = join(prefix, behind.name)
                yield replace(layer, bias=True)
            elif path not in folded.values():
                yield below(layer, path)

    def below(layer: Layer, path: str) -> Layer:
        if isinstance(layer, Block | spec.Auxiliary):
            return replace(layer, layers=tuple(row(layer.layers, path)))
        return with_children(layer, lambda child: below(child, join(path, child.name)))

    layers = tuple(row(architecture.layers, ""))
    return replace(architecture, layers=layers), folded


def total_stride(architecture: Architecture) -> Pair:
    """Pixels (down, right) between the places of two neighbouring scores of a convolutional form."""
    return next(info.stride for info in analysis.analyse(architecture) if info.path == score_layer(architecture))


def fit_size(stored: Pair, trained: Pair) -> Pair:
    """The size at which an image is used: its own, or, with its aspect ratio, the smallest that covers `trained`."""
    factor = max(1.0, trained[0] / stored[0], trained[1] / stored[1])
    height, width = (max(math.floor(side * factor + 0.5), least) for side, least in zip(stored, trained, strict=True))
    return height, width


def _rewrite(architecture: Architecture) -> tuple[Layer, ...]:
    inputs = {info.path: info.input for info in analysis.analyse(architecture)}
    flattened: Pair = (1, 1)  # the map that was flattened for the next dense layer

    def rewrite(layers: tuple[Layer, ...], prefix: str) -> Iterator[Layer]:
        nonlocal flattened
        for layer in layers:
            path = join(prefix, layer.name)
            if isinstance(layer, Block):
                yield Block(layer.name, tuple(rewrite(layer.layers, path)))
            elif isinstance(layer, Primitive):
                rewritten, flattened = kind_of(layer).any_size(layer, inputs[path], flattened)
                if rewritten is not None:
                    yield rewritten
            elif not isinstance(layer, spec.Auxiliary):
                _refuse_changes_within(layer, path, inputs, architecture.name)
                yield layer

    return tuple(rewrite(architecture.layers, ""))


def _refuse_changes_within(layer: Layer, path: str, inputs: Mapping[str, Shape], name: str) -> None:
    for below, child in walk(children(layer), path):
        if isinstance(child, Primitive) and kind_of(child).any_size(child, inputs[below], (1, 1))[0] != child:
            raise TriptychError(f"'{name}' has no dense form: layer '{below}' is within branches")
