"""Where Keras 3's `.weights.h5` has a network's arrays: layers are numbered class by class, and their arrays within.

`layers/conv2d_1/vars/0` is the kernel of the second Conv2D. Source: keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from triptych.spec import analysis
from triptych.spec.analysis import LayerInfo
from triptych.spec.kinds.kind import ParameterInfo
from triptych.spec.layers import Architecture, BatchNorm, Conv, ConvTranspose, Dense, Layer, PReLU, Shape
from triptych.weights.formats.keras_file import class_name_in_file

# What computes each record; one that Keras has no class for needs a custom one, of the record's name.
_CLASSES: Mapping[type[Layer], str] = {
    Conv: "Conv2D",
    ConvTranspose: "Conv2DTranspose",
    Dense: "Dense",
    BatchNorm: "BatchNormalization",
    PReLU: "PReLU",
}


@dataclass(frozen=True)
class Placed:
    """An array's name in the file, and its shape there, where it is not that of the layout's axes: the same values in
    the same order."""

    name: str
    shape: Shape | None


def class_of(place: LayerInfo) -> str:
    """The Keras class of a layer."""
    depthwise = isinstance(place.layer, Conv) and place.layer.groups == place.input[0] > 1
    return "DepthwiseConv2D" if depthwise else _CLASSES.get(type(place.layer), place.kind)


def places(architecture: Architecture) -> dict[str, Placed]:
    """Every array of a model with the spec's layers in their order, by canonical path."""
    used: dict[str, int] = {}
    placed = {}
    for place, infos in layers(architecture):
        name = class_name_in_file(class_of(place), used)
        for number, info in enumerate(infos):
            placed[info.path] = Placed(f"layers/{name}/vars/{number}", _shape(place, info))
    return placed


def custom(architecture: Architecture) -> tuple[str, ...]:
    """The layers with arrays that no class of Keras's own computes; its transposed convolution has no groups."""
    return tuple(
        place.path
        for place, _ in layers(architecture)
        if type(place.layer) not in _CLASSES or (isinstance(place.layer, ConvTranspose) and place.layer.groups > 1)
    )


def layers(architecture: Architecture) -> Iterator[tuple[LayerInfo, tuple[ParameterInfo, ...]]]:
    """The layers with arrays, in the order of execution."""
    for place in analysis.analyse(architecture):
        if infos := analysis.layer_parameters(place.layer, place.path, place.input):
            yield place, infos


def _shape(place: LayerInfo, info: ParameterInfo) -> Shape | None:
    """(rows, columns, inputs, multiplier) of a depthwise kernel; slopes are one for each channel of a map."""
    if class_of(place) == "DepthwiseConv2D" and info.role == "weight":
        channels, _, *kernel = info.shape
        return (*kernel, place.input[0], channels // place.input[0])
    return (1, 1, *info.shape) if isinstance(place.layer, PReLU) and len(place.input) == 3 else None
