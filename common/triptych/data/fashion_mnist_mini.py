"""The data set inside the package: 5,120 training and 2,560 test images of Fashion-MNIST, as many of each class.

Real images, taken from the real training and test set by `tests/make_mini.py`; no file, no network needed."""

import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triptych.data.dataset import Dataset, Split
from triptych.data.fashion_mnist import CLASS_NAMES
from triptych.spec.records import arrays_digest
from triptych.utils.errors import TriptychError

FILE = Path(__file__).with_name("fashion_mnist_mini.npz")
ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
# Over names, types, shapes and bytes of the arrays, so the content's, whichever zlib wrote the file.
SHA256 = "af0361853798ab30b09014b01605c56975d482220d85bf7ec9ff60ed3558402c"


def read(path: Path = FILE) -> dict[str, npt.NDArray[np.uint8]]:
    """The four uint8 arrays: images (N, 28, 28), labels (N,). Raises TriptychError for a damaged file."""
    way_out = "install triptych again"
    try:
        with zipfile.ZipFile(path) as archive:
            # A member is read whole, with its checksum, before NumPy sees it: a wrong header could claim any size.
            members = {name: io.BytesIO(archive.read(f"{name}.npy")) for name in ARRAYS}
        arrays = {name: np.load(members[name], allow_pickle=False) for name in ARRAYS}
    except Exception as error:  # which one depends on the byte that is wrong
        raise TriptychError(f"{path} is missing or damaged ({error}); {way_out}") from None
    digest = arrays_digest(arrays)
    if digest != SHA256:
        raise TriptychError(f"{path} is damaged: sha256 of its content is {digest}, expected {SHA256}; {way_out}")
    return arrays


def load() -> Dataset:
    """5,120 training and 2,560 test images, 1x28x28, 10 classes."""
    arrays = read()
    train = Split(arrays["train_images"][:, None], arrays["train_labels"].astype(np.int64))
    test = Split(arrays["test_images"][:, None], arrays["test_labels"].astype(np.int64))
    return Dataset("fashion-mnist-mini", train, test, CLASS_NAMES)
