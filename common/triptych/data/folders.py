"""Your own images: one folder per class, any sizes, any of PNG and JPEG.

`DIR/train/CLASS/*` with `DIR/test/CLASS/*` (or `DIR/val`), or `DIR/CLASS/*`, of which a fifth of every class is then
the test set. Folders whose names begin with `.` or `__` are not looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from triptych.data import decoded
from triptych.data.dataset import Dataset, Labels, Split
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator, shuffled

SUFFIXES = (".png", ".jpg", ".jpeg")
TEST_SHARE = 0.2

Files = dict[str, list[Path]]  # class name to its images, both sorted


@dataclass(frozen=True)
class Listing:
    """The files of both splits by class; `classes` are those of `train`, sorted by name."""

    train: Files
    test: Files

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.train)

    def labelled(self, files: Files) -> tuple[list[Path], Labels]:
        """The images of `files`, class by class, and the label of each."""
        labels = [self.classes.index(name) for name, paths in files.items() for _ in paths]
        return [path for paths in files.values() for path in paths], np.array(labels, np.int64)


def _subfolders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _classes(folder: Path) -> Files:
    return {path.name: sorted(filter(_is_image, path.iterdir())) for path in _subfolders(folder)}


def _divide(files: Files) -> Listing:
    """A fifth of every class for the test, at least one image, always the same for the same number of files."""
    train, test = {}, {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise TriptychError(f"class '{name}' has {len(paths)} image; training and test need one each")
        number = max(1, round(TEST_SHARE * len(paths)))
        order = shuffled(len(paths), generator(0, "class folders", name)).tolist()
        test[name], train[name] = (sorted(paths[i] for i in part) for part in (order[:number], order[number:]))
    return Listing(train, test)


def _check_classes(train: Files, test: Files, folder: Path) -> None:
    if extra := sorted(test.keys() - train.keys()):
        raise TriptychError(f"{folder}: class '{extra[0]}' is in the test folder, but not in the training folder")
    if empty := [name for name, paths in train.items() if not paths]:
        raise TriptychError(f"{folder}: class folder '{empty[0]}' has no images ({', '.join(SUFFIXES)})")
    if len(train) < 2:
        classes = f"only the class '{next(iter(train))}'" if train else "no class folders with images"
        raise TriptychError(f"{folder} has {classes}; expected at least two, as CLASS/*.png or train/CLASS/*.png")


def list_images(folder: Path) -> Listing:
    """What is in `folder`. Raises TriptychError for no or only one class, a class without images, or no test images."""
    # A *class* may be called "train" too; it holds images, not folders.
    if not any(_subfolders(folder / "train")):
        files = _classes(folder)
        _check_classes(files, {}, folder)
        return _divide(files)
    train = _classes(folder / "train")
    test = next((classes for name in ("test", "val") if (classes := _classes(folder / name))), {})
    _check_classes(train, test, folder)
    if not any(test.values()):
        raise TriptychError(f"{folder} has train/CLASS, but no images in test/CLASS or val/CLASS")
    return Listing(train, test)


def load(folder: Path, size: tuple[int, int] | None = None, name: str | None = None) -> Dataset:
    """The images of `folder`, all resized to one `size` (height, width), in bilinear quality; see `decoded.common_size`
    for what it is if not given. Grey if every image is grey, else RGB. Decoded once, then read from the cache. Raises
    TriptychError as `list_images` does, and for an image that cannot be read, by its name."""
    listing = list_images(folder)
    (train, train_labels), (test, test_labels) = listing.labelled(listing.train), listing.labelled(listing.test)
    images = decoded.load(train + test, folder, size)
    splits = Split(images[: len(train)], train_labels), Split(images[len(train) :], test_labels)
    return Dataset(name or folder.resolve().name, *splits, listing.classes)
