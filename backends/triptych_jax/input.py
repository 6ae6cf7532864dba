"""From stored uint8 images to the network's input, batched on the device (see `triptych.data.preprocess`)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Gather
from triptych.data.preprocess import InputTransform, channel_matrix, resize_matrix
from triptych.utils.arrays import Array
from triptych_jax.layers import PRECISION


@dataclass(frozen=True)
class Input:
    """Applies one transform, as a part of the compiled step: images travel to the device as uint8."""

    transform: InputTransform
    device: jax.Device
    dtype: type[np.floating[Any]]

    def __call__(self, images: NDArray[np.uint8] | jax.Array, gather: Gather | None = None) -> jax.Array:
        x = jax.device_put(images, self.device)
        if gather is not None:
            x = self.crop_and_flip(x, gather)
        x = x.astype(self.dtype) / 255
        x = self.fit_channels(x)
        if gather is not None and gather.shifts is not None:
            x = x + gather.shifts.astype(self.dtype)[:, :, None, None]
        x = self.resize(x)
        if self.transform.mean or self.transform.std:
            mean = self.constant(np.reshape(self.transform.mean or 0.0, (-1, 1, 1)))
            std = self.constant(np.reshape(self.transform.std or 1.0, (-1, 1, 1)))
            x = (x - mean) / std
        return x

    def crop_and_flip(self, x: jax.Array, gather: Gather) -> jax.Array:
        """One gather from the padded images."""
        padding = self.transform.crop_padding
        padded = jnp.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        rows, columns, _ = gather
        numbers = np.arange(len(x), dtype=np.int32)[:, None, None]
        cropped = padded.transpose(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]]
        return cropped.transpose(0, 3, 1, 2)

    def fit_channels(self, x: jax.Array) -> jax.Array:
        """Grey repeated, colour to grey, or the other order of colours."""
        if x.shape[1] == self.transform.channels and not self.transform.reverse:
            return x
        weights = self.constant(channel_matrix(x.shape[1], self.transform.channels, self.transform.reverse))
        return jnp.einsum("oc,nchw->nohw", weights, x, precision=PRECISION)

    def resize(self, x: jax.Array) -> jax.Array:
        """Bilinear, as two matrix products."""
        height, width = x.shape[2:]
        if height != self.transform.height:
            rows = self.constant(resize_matrix(height, self.transform.height))
            x = jnp.matmul(rows, x, precision=PRECISION)
        if width != self.transform.width:
            columns = self.constant(resize_matrix(width, self.transform.width))
            x = jnp.matmul(x, columns.T, precision=PRECISION)
        return x

    def constant(self, value: Array) -> Array:
        """A constant of the compiled step, in the network's type."""
        return np.asarray(value, self.dtype)
