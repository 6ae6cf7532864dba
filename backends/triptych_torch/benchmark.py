"""What speed is held against: the training loop of a PyTorch textbook, and the best matrix product."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from triptych.backend.contract import Images, Labels, Native
from triptych.backend.execution import Execution
from triptych.optim.optimizers import Rates
from triptych.spec.layers import Pair
from triptych_torch.device import AUTOCAST, get_device

WORKERS = 4


class _Resized(Dataset[tuple[torch.Tensor, int]]):
    """Stored images, each resized by Pillow when it is asked for, as torchvision's transforms do."""

    def __init__(self, images: Images, labels: Labels, size: Pair) -> None:
        self.images, self.labels, self.size = images, labels, size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        stored = np.ascontiguousarray(self.images[index].transpose(1, 2, 0))
        image = Image.fromarray(stored[..., 0] if stored.shape[2] == 1 else stored)
        pixels = np.asarray(image.resize(self.size[::-1], Image.Resampling.BILINEAR), np.uint8)
        planes = torch.from_numpy(pixels.copy()).view(*self.size, -1).permute(2, 0, 1)
        return planes.to(torch.float32) / 255, int(self.labels[index])


class Textbook:
    """The loop of "Dive into Deep Learning": images resized one by one in `WORKERS` processes, a float32 NCHW network,
    loss and accuracy read at every step. See `triptych.backend.contract.Textbook`."""

    beforehand = False

    def __init__(
        self, network: Native, size: Pair, batch_size: int, rates: Rates, device: str, weights: Sequence[float]
    ) -> None:
        self.device = get_device(device)
        self.network = network.to(self.device)
        self.size, self.batch_size, self.weights = size, batch_size, tuple(weights)
        self.optimizer = torch.optim.SGD(network.parameters(), lr=rates.learning_rate, momentum=rates.momentum)

    def load(self, images: Images, labels: Labels) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """A DataLoader; its work is done while one iterates."""
        return DataLoader(_Resized(images, labels, self.size), self.batch_size, num_workers=WORKERS)

    def train(self, loaded: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
        """Every step's loss."""
        loss_of, losses, right = nn.CrossEntropyLoss(), [], 0.0
        self.network.train()
        for x, y in loaded:
            x, y = x.to(self.device), y.to(self.device)
            self.optimizer.zero_grad()
            output = self.network(x)
            output, *auxiliary = output if self.weights else (output,)
            loss = loss_of(output, y)
            for weight, logits in zip(self.weights, auxiliary, strict=True):
                loss = loss + weight * loss_of(logits, y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
            right += (output.argmax(1) == y).sum().item()
        return losses

    @torch.no_grad()
    def predict(self, loaded: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> NDArray[np.int64]:
        """The likeliest class of every image."""
        self.network.eval()
        return torch.cat([self.network(x.to(self.device)).argmax(1) for x, _ in loaded]).cpu().numpy()


def matrix_product(size: int, execution: Execution, device: str) -> Callable[[], None]:
    """A product of two `size` x `size` matrices in the execution's type, done when the function returns."""
    target = get_device(device)
    dtype = AUTOCAST.get(execution.precision, torch.float64 if execution.precision == "fp64" else torch.float32)
    values: NDArray[np.float32] = np.random.default_rng(0).standard_normal((2, size, size), np.float32)
    left, right = torch.from_numpy(values).to(target, dtype)
    return partial(_product, left, right)


def _product(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.mm(left, right)
    if left.device.type != "cpu":
        getattr(torch, left.device.type).synchronize(left.device)
