"""What every data source returns: images as they are stored, uint8, and their labels."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (N, C, H, W) and labels int64 (N,). Raises ValueError for anything else: a loader's bug."""

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 (N, C, H, W), not {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            expected, labels = self.images.shape[:1], self.labels
            raise ValueError(f"labels must be int64 {expected}, not {labels.dtype} {labels.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of shape, images and labels."""
        digest = hashlib.sha256(f"{self.images.shape}".encode())
        for values in (self.images, self.labels):
            digest.update(np.ascontiguousarray(values).reshape(-1).data)
        return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set; label i of both splits means `class_names[i]`."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]

    @property
    def digests(self) -> dict[str, str]:
        """What the data are, by split."""
        return {"training": self.train.digest, "test": self.test.digest}

    def __post_init__(self) -> None:
        for split in (self.train, self.test):
            if len(split) and not 0 <= split.labels.min() <= split.labels.max() < len(self.class_names):
                raise ValueError(f"a label of '{self.name}' is not in 0 .. {len(self.class_names) - 1}")
