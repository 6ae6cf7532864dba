"""From stored uint8 images to the network's input, batched on the device (see `triptych.data.preprocess`)."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.backend.contract import Gather
from triptych.data.preprocess import InputTransform, channel_matrix, resize_matrix
from triptych.utils.arrays import Array
from triptych_torch.device import LAYOUTS


class Input:
    """Applies one transform. Images travel to the device as uint8, whole batches at a time."""

    def __init__(self, transform: InputTransform, device: torch.device, dtype: torch.dtype) -> None:
        self.transform = transform
        self.device = device
        self.dtype = dtype
        # on the device, once for all batches: called with the function that makes it and its sizes
        self.matrix = cache(lambda make, *sizes: self.constant(make(*sizes)))
        self.mean = self.constant(np.reshape(transform.mean or 0.0, (-1, 1, 1)))
        self.std = self.constant(np.reshape(transform.std or 1.0, (-1, 1, 1)))

    def __call__(self, images: NDArray[np.uint8], gather: Gather | None = None) -> torch.Tensor:
        x = torch.from_numpy(images).to(self.device)
        if gather is not None:
            x = self.crop_and_flip(x, gather)
        x = x.to(self.dtype) / 255
        x = self.fit_channels(x)
        if gather is not None and gather.shifts is not None:
            x = x + self.constant(gather.shifts)[:, :, None, None]
        x = self.resize(x)
        if self.transform.mean or self.transform.std:
            x = (x - self.mean) / self.std
        return x.contiguous(memory_format=LAYOUTS[self.device.type])

    def crop_and_flip(self, x: torch.Tensor, gather: Gather) -> torch.Tensor:
        """One gather from the padded images."""
        padding = self.transform.crop_padding
        padded = torch.nn.functional.pad(x, (padding,) * 4)
        rows, columns = (torch.from_numpy(indices).to(self.device) for indices in gather[:2])
        numbers = torch.arange(len(x), device=self.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[numbers, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def fit_channels(self, x: torch.Tensor) -> torch.Tensor:
        """Grey repeated, colour to grey, or the other order of colours."""
        if x.shape[1] == self.transform.channels and not self.transform.reverse:
            return x
        weights = self.matrix(channel_matrix, x.shape[1], self.transform.channels, self.transform.reverse)
        return torch.einsum("oc,nchw->nohw", weights, x)

    def resize(self, x: torch.Tensor) -> torch.Tensor:
        """Bilinear, as two matrix products."""
        height, width = x.shape[2:]
        if height != self.transform.height:
            x = self.matrix(resize_matrix, height, self.transform.height) @ x
        if width != self.transform.width:
            x = x @ self.matrix(resize_matrix, width, self.transform.width).T
        return x

    def constant(self, value: Array) -> torch.Tensor:
        """A NumPy constant on the device, in the network's type."""
        return torch.from_numpy(np.ascontiguousarray(value)).to(self.dtype).to(self.device)  # no float64 on an NPU
