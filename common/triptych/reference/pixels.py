"""Stored images as a network's input, written a second time and plainly: the transform, its tables and its gathers
(`triptych.data`) are what is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from triptych.utils.arrays import Array
from triptych.utils.lazy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RED, GREEN, BLUE = 0.299, 0.587, 0.114  # of a grey value (ITU-R BT.601)


class Transform(Protocol):
    """What it asks of an input transform (`triptych.data.preprocess.InputTransform`)."""

    @property
    def channels(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def mean(self) -> Sequence[float]: ...
    @property
    def std(self) -> Sequence[float]: ...
    @property
    def crop_padding(self) -> int: ...
    @property
    def reverse(self) -> bool: ...


class DrawnBatch(Protocol):
    """What it asks of a batch (`triptych.data.batches.Batch`): each image's crop, flip and shift of the colours."""

    @property
    def rows(self) -> NDArray[np.int64]: ...
    @property
    def columns(self) -> NDArray[np.int64]: ...
    @property
    def flips(self) -> NDArray[np.bool_]: ...
    @property
    def shifts(self) -> NDArray[np.float64] | None: ...


def network_input(
    stored: NDArray[np.uint8], transform: Transform, drawn: DrawnBatch | None = None
) -> NDArray[np.float64]:
    """`(n, channels, height, width)` in float64 of images `(n, C, h, w)`: cropped and mirrored out of black borders
    (with `drawn`), of 0 .. 1, in the network's channels, shifted in colour, resized, normalised by channel."""
    x: Array = np.asarray(stored, np.float64)
    if drawn is not None:
        x = np.stack([_cropped(image, transform.crop_padding, drawn, number) for number, image in enumerate(x)])
    x = _coloured(x / 255, transform)
    if drawn is not None and drawn.shifts is not None:
        x = x + drawn.shifts[:, :, None, None]
    x = _resized(x, transform.width)
    x = np.swapaxes(_resized(np.swapaxes(x, 2, 3), transform.height), 2, 3)
    for channel in range(transform.channels):
        mean = transform.mean[channel] if transform.mean else 0.0
        deviation = transform.std[channel] if transform.std else 1.0
        x[:, channel] = (x[:, channel] - mean) / deviation
    return np.asarray(x, np.float64)


def _cropped(image: Array, padding: int, drawn: DrawnBatch, number: int) -> Array:
    """Of an image `(C, h, w)` in a black border, the part of its own size whose corner was drawn, mirrored or not."""
    channels, height, width = image.shape
    bordered = np.zeros((channels, height + 2 * padding, width + 2 * padding))
    bordered[:, padding : padding + height, padding : padding + width] = image
    top, left = int(drawn.rows[number]), int(drawn.columns[number])
    part = bordered[:, top : top + height, left : left + width]
    return np.asarray(part[:, :, ::-1] if drawn.flips[number] else part)


def _coloured(x: Array, transform: Transform) -> Array:
    """Grey repeated, or red, green and blue as one grey, or the other way round."""
    if x.shape[1] == 1:
        return np.repeat(x, transform.channels, axis=1)
    if transform.channels == 1:
        return np.asarray(RED * x[:, :1] + GREEN * x[:, 1:2] + BLUE * x[:, 2:3])
    return np.array(x[:, ::-1] if transform.reverse else x)


def _resized(x: Array, size: int) -> Array:
    """The last axis in another size: around every new pixel's centre a triangle as wide as one old or one new pixel,
    whichever is wider, weighs the old ones."""
    old = x.shape[-1]
    if old == size:
        return x
    wide = max(old / size, 1.0)
    lines = []
    for place in range(size):
        centre = (place + 0.5) * old / size
        weights = {pixel: 1 - abs(pixel + 0.5 - centre) / wide for pixel in range(old)}
        near: dict[int, float] = {pixel: weight for pixel, weight in weights.items() if weight > 0}
        total: Any = sum(near.values())
        lines.append(sum(weight / total * x[..., pixel] for pixel, weight in near.items()))
    return np.stack(lines, axis=-1)
