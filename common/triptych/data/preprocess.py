"""From stored uint8 images to a network's input, written as a few array operations that every backend can do
batched on its device: a gather (crop and flip), a shift (colours), two matrix products (resize), a scale and a
shift (normalise)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from triptych.data.batches import Batch, gather_indices
from triptych.data.dataset import Images
from triptych.utils.errors import TriptychError

Float = npt.NDArray[np.floating[Any]]

LUMA = (0.299, 0.587, 0.114)  # red, green, blue in ITU-R BT.601, as Pillow's convert("L") has it


@dataclass(frozen=True)
class InputTransform:
    """How a stored uint8 (n, C, h, w) image becomes a network's `(channels, height, width)` input. In this order:

    1. crop and flip, if a batch plan asks for it, in an image padded with `crop_padding` black pixels (stored size);
    2. divide by 255;
    3. fit the channels: a grey image is repeated, a colour image becomes grey by the BT.601 luma; `reverse` turns red,
       green, blue into blue, green, red, which a network from OpenCV or Caffe expects;
    4. add the batch plan's shift of each channel, if it has one (3 network channels);
    5. resize to `(height, width)` by `resize_matrix`; the aspect ratio is not kept;
    6. subtract `mean` and divide by `std`, one number per network channel, in units of the divided image (0 .. 1).

    An empty `mean` means 0 and an empty `std` means 1. Raises TriptychError for sizes below 1, a number of means or
    deviations that is not the number of channels, and a deviation that is not above 0.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    crop_padding: int = 0
    reverse: bool = False

    @property
    def text(self) -> str:
        """What happens to the values of an upright image, for a reader."""
        parts = ["0 to 1", *(["blue first"] if self.reverse else [])]
        parts += [f"minus {', '.join(f'{value:g}' for value in self.mean)}"] if self.mean else []
        parts += [f"divided by {', '.join(f'{value:g}' for value in self.std)}"] if self.std else []
        return ", ".join(parts) + (", by channel" if self.mean or self.std else "")

    def __post_init__(self) -> None:
        if self.reverse and self.channels != 3:
            raise TriptychError(f"--channel-order bgr needs a network with 3 channels; this one has {self.channels}")
        if min(self.channels, self.height, self.width) < 1 or self.crop_padding < 0:
            raise TriptychError(f"channels, height and width must be at least 1 and the padding at least 0: {self}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, self.channels):
                raise TriptychError(f"{name} has {len(values)} numbers, the input has {self.channels} channels")
        if not all(value > 0 for value in self.std):
            raise TriptychError(f"std {self.std} must be above 0")


def resize_matrix(size_in: int, size_out: int) -> npt.NDArray[np.float64]:
    """Bilinear weights along one axis, (size_out, size_in); a resize is `R_h @ image @ R_w.T`. Rows sum to 1.
    Half-pixel centres. When it shrinks, the triangle is widened by the scale (antialias), as in Pillow's
    `Image.BILINEAR`; frameworks' own resizes differ here by default. Raises TriptychError for sizes below 1."""
    if min(size_in, size_out) < 1:
        raise TriptychError(f"cannot resize {size_in} pixels to {size_out}; both must be at least 1")
    scale = size_in / size_out
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(0.0, 1.0 - distance)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def channel_matrix(channels_in: int, channels_out: int, reverse: bool = False) -> npt.NDArray[np.float64]:
    """Weights (channels_out, channels_in) that fit stored images to a network's channels. Equal: the identity, from
    right to left with `reverse`. 1 to any number: repeated. 3 to 1: BT.601 luma. Raises TriptychError for anything
    else."""
    if channels_in == channels_out:
        return np.eye(channels_in)[:: -1 if reverse else 1]
    if channels_in == 1:
        return np.ones((channels_out, 1))
    if (channels_in, channels_out) == (3, 1):
        return np.array([LUMA])
    raise TriptychError(f"images of {channels_in} channels do not fit a network with {channels_out}; use 1 or 3")


def crop_and_flip(images: Images, batch: Batch, padding: int) -> Images:
    """The reference of the gather: images (n, C, h, w) in the order of `batch`, same shape out; black outside."""
    if len(images) != len(batch):
        raise TriptychError(f"{len(images)} images for a batch of {len(batch)}; pass images[batch.index]")
    height, width = images.shape[2:]
    rows, columns, _ = gather_indices(batch, height, width, padding)
    padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    number, channel = np.arange(len(images))[:, None, None, None], np.arange(images.shape[1])[:, None, None]
    return np.asarray(padded[number, channel, rows[:, None, :, None], columns[:, None, None, :]])


def apply_reference(
    images_uint8: Images, transform: InputTransform, batch: Batch | None = None, dtype: npt.DTypeLike = np.float64
) -> Float:
    """The whole transform in NumPy: uint8 (n, C, h, w) to `dtype` (n, channels, height, width). What the backends are
    compared to. With `batch`, image i is cropped, flipped and tinted as its entry i says; without, as in evaluation, no
    image is. Raises TriptychError if the images are not uint8 (n, C, h, w) or do not fit."""
    if images_uint8.dtype != np.uint8 or images_uint8.ndim != 4:
        raise TriptychError(f"expected uint8 images (n, C, h, w), got {images_uint8.dtype} {images_uint8.shape}")
    if batch is not None:
        images_uint8 = crop_and_flip(images_uint8, batch, transform.crop_padding)
    _, stored_channels, height, width = images_uint8.shape
    x = images_uint8.astype(dtype) / np.asarray(255, dtype)
    weights = channel_matrix(stored_channels, transform.channels, transform.reverse)
    x = np.einsum("oc,nchw->nohw", weights.astype(dtype), x)
    if batch is not None and batch.shifts is not None:
        x = x + batch.shifts[:, :, None, None].astype(dtype)
    x = resize_matrix(height, transform.height).astype(dtype) @ x
    x = x @ resize_matrix(width, transform.width).astype(dtype).T
    mean = np.asarray(transform.mean or 0.0, dtype).reshape(-1, 1, 1)
    std = np.asarray(transform.std or 1.0, dtype).reshape(-1, 1, 1)
    return np.asarray((x - mean) / std)
