"""The batch plan: which images, in which order, with which crop and flip, drawn once in NumPy for every backend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from triptych.data.dataset import Images
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator, shuffled

Integers = npt.NDArray[np.int64]
Float = npt.NDArray[np.float64]

# The principal components of the colours of ImageNet's pixels (red, green, blue of 0 .. 1), one per column, and their
# deviations: what Krizhevsky et al. 2012 (section 4.1) describe, with the figures of Facebook's ResNet training, which
# torchvision's and TensorFlow's users took over.
COLOUR_AXES = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
COLOUR_SCALES = np.array([0.2175, 0.0188, 0.0045])


@dataclass(frozen=True)
class Augmentation:
    """What is done to the images of a training batch.

    `crop_padding`: pixels of black added on every side, before a crop of the original size at a random place.
    `flip`: mirror left and right with probability 1/2.
    `colour`: AlexNet's colour jitter. Every image is shifted along the principal components of ImageNet's colours by
    normal numbers of this deviation (0.1 in the paper) times the components' own; for a network with 3 channels."""

    crop_padding: int = 0
    flip: bool = False
    colour: float = 0.0

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise TriptychError(f"the crop padding is {self.crop_padding} pixels; it must be at least 0")
        if not 0 <= self.colour < float("inf"):
            raise TriptychError(f"the colour jitter is {self.colour}; it must be a number of at least 0")


class Gather(NamedTuple):
    """How a step augments n stored images: `rows` (n, h) and `columns` (n, w) of the padded images that it takes
    (int64), and what it adds to each channel of the divided image, `shifts` (n, 3); None: nothing."""

    rows: Integers
    columns: Integers
    shifts: Float | None = None

    def part(self, images: slice) -> "Gather":
        """What is done to `images`, some of the n, alone."""
        return Gather(self.rows[images], self.columns[images], None if self.shifts is None else self.shifts[images])


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of n images: which (`index`), and for each how it is cropped, whether it is mirrored, how its colours
    are shifted. `index`, `rows` and `columns` are int64 (n,), `flips` is bool (n,), `shifts` float64 (n, 3) or None.
    `rows` and `columns` are the upper left corner of the crop in the padded image, 0 .. 2 * padding; the padding itself
    means no shift."""

    index: Integers
    rows: Integers
    columns: Integers
    flips: npt.NDArray[np.bool_]
    shifts: Float | None = None

    def __len__(self) -> int:
        return len(self.index)

    def part(self, images: Integers) -> "Batch":
        """The batch of these of its images alone, by their places in it."""
        shifts = None if self.shifts is None else self.shifts[images]
        return Batch(self.index[images], self.rows[images], self.columns[images], self.flips[images], shifts)


def _shifts(draws: np.random.Generator, count: int, deviation: float) -> Float:
    """`count` shifts of red, green and blue; normal by Box and Muller, from `random`, for the reason in `shuffled`."""
    radius, angle = draws.random((2, count, 3))
    alphas = deviation * np.sqrt(-2 * np.log(1 - radius)) * np.cos(2 * np.pi * angle)
    return np.asarray((alphas * COLOUR_SCALES) @ COLOUR_AXES.T)


def plan(
    seed: int, epoch: int, num_images: int, batch_size: int, augmentation: Augmentation, *, drop_last: bool = False
) -> list[Batch]:
    """The batches of one epoch, in order: every image once, shuffled; the last batch may be smaller. A pure function.
    The images' order does not depend on the batch size, on the augmentation or on `drop_last` (leave out a last batch
    that is not full), and the crops not on the flips. Raises TriptychError for sizes below 1 and when no batch is
    left."""
    if num_images < 1 or batch_size < 1:
        raise TriptychError(f"{num_images} images in batches of {batch_size}: both must be at least 1")
    end = num_images - num_images % batch_size if drop_last else num_images
    if not end:
        raise TriptychError(f"a batch of {batch_size} is never full with {num_images} images; use a smaller batch size")
    order = shuffled(num_images, generator(seed, "order", epoch))
    # Numbers in 0 .. 2 * padding; from `random`, for the reason given in `shuffled`.
    offsets = (generator(seed, purpose, epoch).random(num_images) for purpose in ("crop rows", "crop columns"))
    rows, columns = ((drawn * (2 * augmentation.crop_padding + 1)).astype(np.int64) for drawn in offsets)
    flips = (generator(seed, "flip", epoch).random(num_images) < 0.5) & augmentation.flip
    colour = augmentation.colour
    shifts = _shifts(generator(seed, "colour", epoch), num_images, colour) if colour else None
    parts = [slice(start, min(start + batch_size, end)) for start in range(0, end, batch_size)]
    return [Batch(order[p], rows[p], columns[p], flips[p], None if shifts is None else shifts[p]) for p in parts]


def gather_indices(batch: Batch, height: int, width: int, padding: int) -> Gather:
    """Crop and flip as one gather: rows (n, height) and columns (n, width) into the padded images; and the colours'
    shifts as they were drawn. For images padded to (height + 2 * padding, width + 2 * padding), image i becomes
    `padded[i][:, rows[i][:, None], columns[i]]`. Raises TriptychError if an offset was drawn for a larger padding."""
    largest = max(batch.rows.max(initial=0), batch.columns.max(initial=0))
    if largest > 2 * padding:
        raise TriptychError(f"the batch has a crop offset of {largest}, a padding of {padding} allows {2 * padding}")
    rows = batch.rows[:, None] + np.arange(height)
    across = np.arange(width)
    columns = batch.columns[:, None] + np.where(batch.flips[:, None], across[::-1], across)
    return Gather(rows, columns, batch.shifts)


def feed(
    images: Images, labels: Integers, batches: Sequence[Batch], augmentation: Augmentation
) -> Iterator[tuple[Images, Integers, Gather | None]]:
    """What a trainer's steps are given, batch by batch: stored images (n, C, h, w), labels (n,), and the crop and flip
    as gather indices with the shifts of the colours, or None without augmentation, which saves the gather."""
    height, width = images.shape[2:]
    for batch in batches:
        augmented = augmentation != Augmentation()
        gather = gather_indices(batch, height, width, augmentation.crop_padding) if augmented else None
        yield images[batch.index], labels[batch.index], gather
