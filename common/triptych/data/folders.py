"""Your own images: one folder per class, any sizes, any of PNG and JPEG.

`DIR/train/CLASS/*` with `DIR/test/CLASS/*` (or `DIR/val`, `DIR/valid`), or `DIR/CLASS/*`, of which a fifth of every
class is then the test set. A class has the images in folders below it, too. Folders whose names begin with `.` or `__`
are not looked at."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from triptych.data import cached, decoded
from triptych.data.dataset import Dataset, Split
from triptych.data.decoded import Reading
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import generator, shuffled

SUFFIXES = (".png", ".jpg", ".jpeg")
TEST_SHARE = 0.2
TESTS = ("test", "val", "valid")

T = TypeVar("T")
Files = dict[str, list[Path]]  # class name to its images, both sorted


def _subfolders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _images(folder: Path) -> Iterator[Path]:
    """In the folder and those below it; a link to a folder is not followed, it may lead back."""
    for place, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith((".", "__"))]
        yield from filter(_is_image, (Path(place, file) for file in files))


def _classes(folder: Path) -> Files:
    return {path.name: sorted(_images(path)) for path in _subfolders(folder)}


def divide(files: dict[str, list[T]]) -> tuple[dict[str, list[T]], dict[str, list[T]]]:
    """Images by class, for training and for test: of every class a fifth to the test, at least one image, always the
    same for as many."""
    train: dict[str, list[T]] = {}
    test: dict[str, list[T]] = {}
    for name, paths in files.items():
        if len(paths) < 2:
            raise TriptychError(f"class '{name}' has {len(paths)} image; training and test need one each")
        number = max(1, round(TEST_SHARE * len(paths)))
        order = shuffled(len(paths), generator(0, "class folders", name)).tolist()
        test[name], train[name] = ([paths[i] for i in sorted(part)] for part in (order[:number], order[number:]))
    return train, test


def _check_classes(train: Files, test: Files, folder: Path) -> None:
    if extra := sorted(test.keys() - train.keys()):
        raise TriptychError(f"{folder}: class '{extra[0]}' is in the test folder, but not in the training folder")
    if empty := [name for name, paths in train.items() if not paths]:
        raise TriptychError(f"{folder}: class folder '{empty[0]}' has no images ({', '.join(SUFFIXES)})")
    if len(train) < 2:
        classes = f"only the class '{next(iter(train))}'" if train else "no class folders with images"
        raise TriptychError(f"{folder} has {classes}; expected at least two, as CLASS/*.png or train/CLASS/*.png")


def list_images(folder: Path) -> tuple[Files, Files]:
    """The files of the training and of the test set in `folder`, by class in the order of the names. Raises
    TriptychError for no or only one class, a class without images, or no test images."""
    # A *class* may be called "train" too; it holds images, not folders.
    if not any(_subfolders(folder / "train")):
        files = _classes(folder)
        _check_classes(files, {}, folder)
        return divide(files)
    train = _classes(folder / "train")
    test = next((classes for name in TESTS if (classes := _classes(folder / name))), {})
    _check_classes(train, test, folder)
    if not any(test.values()):
        raise TriptychError(f"{folder} has train/CLASS, but no images in {'/CLASS, '.join(TESTS)}/CLASS")
    return train, test


def load(
    folder: Path, size: tuple[int, int] | None = None, name: str | None = None, reading: Reading = decoded.PLAIN
) -> Dataset:
    """The images of `folder`, all resized to one `size` (height, width), in bilinear quality; see `decoded.common_size`
    for what it is if not given. Grey if every image is grey, else RGB. Decoded once, then read from the cache. Raises
    TriptychError as `list_images` does, and for images that cannot be read, by their names; if they are to be left out,
    a line on standard error names them, and it is raised for a class of which nothing is left."""
    listed = list_images(folder)
    classes = tuple(listed[0])
    paths = [path for files in listed for each in files.values() for path in each]
    images, bad = cached.load(paths, folder, size, reading)
    counts = [sum(map(len, files.values())) for files in listed]
    labels = np.array([classes.index(name) for files in listed for name, each in files.items() for _ in each], np.int64)
    kept = decoded.left_out(paths, bad, folder)
    border = int(kept[: counts[0]].sum())
    train = Split(images[:border], labels[: counts[0]][kept[: counts[0]]])
    test = Split(images[border:], labels[counts[0] :][kept[counts[0] :]])
    if bad:
        decoded.check_left(folder, train, test, dict(enumerate(classes)))
    return Dataset(name or folder.resolve().name, train, test, classes)
