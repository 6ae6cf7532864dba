"""Somebody's own preparation of images, from stored pixels to the network's input, beside what a recipe says, or
another one's: images of the input's size, and of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.conformance.compare import STRANGERS, message
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.tolerance import Budgets
from triptych.data.preprocess import InputTransform
from triptych.reference.pixels import network_input
from triptych.reference.rounding import FLOAT32_UNIT
from triptych.spec.layers import Architecture
from triptych.training.recipe import Recipe, build_transform
from triptych.training.recipes import RECIPES
from triptych.utils.arrays import Array, Arrays, largest
from triptych.utils.errors import TriptychError, unknown
from triptych.utils.randomness import generator

DATA = "data"
IMAGES = 3
SAME, OTHER = "images of the input's size", "images of another size"
FIELDS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("mean", "std"), lambda text: tuple(map(float, text.split(",")))),
    "pixel_range": float,
    "channel_order": str,
}
FORM = "write for example 'mean=0.485,0.456,0.406 std=0.229,0.224,0.225', or a recipe's name, or module:name"


def parse(text: str, architecture: Architecture) -> InputTransform:
    """A recipe's name, or fields of one: `mean=0.5 std=0.25 pixel_range=255 channel_order=bgr`. Raises TriptychError
    otherwise."""
    if text in RECIPES:
        return build_transform(RECIPES[text], architecture)
    settings: dict[str, Any] = {}
    for word in text.split():
        key, mark, value = word.partition("=")
        if not mark:
            raise TriptychError(f"'{text}' is no preparation of images: {FORM}")
        if key not in FIELDS:
            raise unknown("setting of a preparation", key, FIELDS)
        try:
            settings[key] = FIELDS[key](value)
        except ValueError:
            raise TriptychError(f"{key}={value} is not numbers, one per channel, with commas") from None
    return build_transform(Recipe("own", **settings), architecture)


def stored(run: ReferenceRun) -> dict[str, NDArray[np.uint8]]:
    """Pixels `(N, h, w, C)`, every channel of another brightness; lower and wider than the input the second time."""
    channels, height, width = run.case.architecture.input
    sizes = {SAME: (height, width), OTHER: (height + max(height // 3, 3), 2 * width + 5)}
    tops = 256 - 60 * np.arange(channels) % 180
    return {
        name: (generator(run.case.seed, "porting", name).random((IMAGES, *size, channels)) * tops).astype(np.uint8)
        for name, size in sizes.items()
    }


def expected(run: ReferenceRun, right: InputTransform | Callable[..., Any]) -> dict[str, Array]:
    """What reaches the network, `(N, C, H, W)`, of either."""
    if not isinstance(right, InputTransform):
        return {name: array for name, (array, _) in made(run, right).items()}
    return {name: network_input(channels_first(pixels), right) for name, pixels in stored(run).items()}


def channels_first(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels `(N, h, w, C)` as the reference takes them."""
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def made(run: ReferenceRun, function: Callable[..., Any]) -> dict[str, tuple[Array, str]]:
    """What somebody's function makes of the pixels, channels first, and the layout that it comes in. It takes all
    images or one, with the channels last or first, or one of Pillow's. Raises TriptychError where it takes none."""
    shape, pixels = run.case.architecture.input, stored(run)
    problems: list[str] = []
    tried: list[tuple[Callable[..., Array], Array]] = []
    for form in FORMS:
        try:
            tried.append((form, form(function, pixels[SAME])))
        except STRANGERS as error:
            problems.append(message(error))
    if not tried:
        raise TriptychError(f"the preparation takes no images, all or one, as uint8 (N, h, w, C): {problems[0]}")
    fitting = (form for form, array in tried if _layout(array, shape))
    form = next(fitting, tried[0][0])
    try:
        arrays = {name: form(function, images) for name, images in pixels.items()}
    except STRANGERS as error:
        raise TriptychError(f"the preparation fails on {OTHER}: {message(error)}") from error
    layout = _layout(arrays[SAME], shape)
    return {n: (a.transpose(0, 3, 1, 2) if layout == "NHWC" else a, layout) for n, a in arrays.items()}


def _layout(array: Array, shape: Sequence[int]) -> str:
    channels, height, width = shape
    sizes = {(channels, height, width): "NCHW", (height, width, channels): "NHWC"}
    return sizes.get(array.shape[1:], "")


def _all_at_once(function: Callable[..., Any], pixels: NDArray[np.uint8]) -> Array:
    return _array(function(pixels.copy()), 4)


def _one_by_one(function: Callable[..., Any], pixels: NDArray[np.uint8]) -> Array:
    return np.stack([_array(function(image.copy()), 3) for image in pixels])


def _as_pillow(function: Callable[..., Any], pixels: NDArray[np.uint8]) -> Array:
    return np.stack([_array(function(as_pillow(image)), 3) for image in pixels])


def _channels_first(function: Callable[..., Any], pixels: NDArray[np.uint8]) -> Array:
    return _array(function(channels_first(pixels)), 4)


FORMS = (_all_at_once, _one_by_one, _as_pillow, _channels_first)


def as_pillow(pixels: NDArray[np.uint8]) -> Image.Image:
    """One image."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _array(value: Any, rank: int) -> Array:
    array = np.asarray(value.asnumpy() if hasattr(value, "asnumpy") else value)
    if array.ndim != rank or array.dtype == object:
        raise ValueError(f"it gives {array.dtype} {array.shape}, not an array of {rank} axes")
    return np.asarray(array, np.float64)


def budgets(right: Any, arrays: Arrays) -> Budgets:
    """What float32's rounding explains in sums as long as an image's sides."""
    term = 1 / min(right.std or (1.0,)) if isinstance(right, InputTransform) else 1.0
    length = 2 * max(sum(value.shape[2:]) for value in arrays.values())
    return {n: 4 * FLOAT32_UNIT * length**0.5 * max(term, largest(v)) for n, v in arrays.items()}
