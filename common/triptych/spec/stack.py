"""A row of layers as one types it: `conv3 valid, conv3 valid s2, pool2`."""

import re

from triptych.spec.layers import Architecture, AvgPool, Conv, Layer, MaxPool
from triptych.spec.shapes import output_shapes
from triptych.utils.errors import TriptychError

GRAMMAR = (
    "conv3, pool2 or avg2, each with: valid or same (the padding), s2 (the stride), c64 (a convolution's channels)"
)
_HEAD = re.compile(r"(conv|pool|avg)([1-9][0-9]{0,2})")
_MOST = 1000  # layers


def parse(text: str, shape: tuple[int, int, int]) -> Architecture:
    """The layers on an input `(channels, height, width)`, without classes. A convolution keeps channels and size
    unless it is told otherwise (`same`: padding of half the kernel); a pooling's stride is its kernel, and it pads
    nothing. Raises TriptychError for what is no such row, and where the image is used up."""
    words = [item.split() for item in text.lower().split(",") if item.strip()]
    if not words or len(words) > _MOST:
        raise TriptychError(f"--stack '{text[:60]}' names no layers, or too many; write for example {GRAMMAR}")
    layers: list[Layer] = []
    channels = shape[0]
    for number, item in enumerate(words, 1):
        layer = _layer(number, item, channels)
        channels = layer.channels if isinstance(layer, Conv) else channels
        layers.append(layer)
    architecture = Architecture("stack", shape, 0, tuple(layers))
    output_shapes(architecture)
    return architecture


def _layer(number: int, words: list[str], channels: int) -> Conv | MaxPool | AvgPool:
    head = _HEAD.fullmatch(words[0])
    if head is None:
        raise TriptychError(f"--stack: '{' '.join(words)}' is no layer; write {GRAMMAR}")
    kind, kernel = head[1], int(head[2])
    stride, padding = (1, kernel // 2) if kind == "conv" else (kernel, 0)
    for word in words[1:]:
        told = re.fullmatch(r"([sc])([1-9][0-9]{0,4})", word)
        if word in ("valid", "same"):
            padding = kernel // 2 if word == "same" else 0
        elif told is not None and told[1] == "s":
            stride = int(told[2])
        elif told is not None and kind == "conv":
            channels = int(told[2])
        else:
            raise TriptychError(f"--stack: '{word}' of '{' '.join(words)}' is not known; write {GRAMMAR}")
    sizes = (kernel, kernel), (stride, stride), (padding, padding)
    if kind == "conv":
        return Conv(f"conv{number}", channels, *sizes)
    return (MaxPool if kind == "pool" else AvgPool)(f"{kind}{number}", *sizes)
