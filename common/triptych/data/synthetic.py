"""A small set that is drawn, not stored: ten random patterns under noise, for tests and first tries."""

import numpy as np

from triptych.data.dataset import Dataset, Split
from triptych.utils.randomness import generator

CLASSES, SIZE, CELL = 10, 28, 4
NUM_TRAIN, NUM_TEST = 512, 256
NOISE = 40.0  # grey levels; strong enough that a network has to learn, weak enough that it does within an epoch or two


def _split(name: str, count: int) -> Split:
    """`count` images, the classes in turn, so that each is there equally often: under noise, each class has a picture
    of random 4x4-pixel squares in grey levels 64 .. 192."""
    cells = SIZE // CELL
    squares = generator(0, "synthetic", "patterns").random((CLASSES, cells, cells))
    patterns = 64.0 + 128.0 * np.kron(squares, np.ones((CELL, CELL)))
    labels = np.arange(count, dtype=np.int64) % CLASSES
    noise = generator(0, "synthetic", name).random((count, SIZE, SIZE)) * 2 - 1
    images = patterns[labels] + NOISE * noise
    return Split(np.rint(images).astype(np.uint8)[:, None], labels)


def load() -> Dataset:
    """512 training and 256 test images, 1x28x28, 10 classes; always the same."""
    names = tuple(f"pattern {number}" for number in range(CLASSES))
    return Dataset("synthetic", _split("train", NUM_TRAIN), _split("test", NUM_TEST), names)
