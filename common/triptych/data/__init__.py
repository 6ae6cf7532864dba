"""Data sets as uint8 arrays. A new source is a new module with a function `load` and one row in `SOURCES`."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triptych.data import (
    cifar10,
    decoded,
    fashion_mnist,
    fashion_mnist_mini,
    folders,
    recordio,
    subset,
    synthetic,
    tfds,
)
from triptych.data.dataset import Dataset, Split
from triptych.data.decoded import Reading
from triptych.utils.errors import TriptychError, check_known, unknown
from triptych.utils.files import expanded

__all__ = ["SOURCES", "Dataset", "Source", "Split", "describe", "download", "load"]


@dataclass(frozen=True)
class Source:
    """A named data set: its size (training + test images); `load(data_dir)` reads it; `locate(data_dir)` is where it
    lies, None if it is not here; `download(data_dir)` fetches it there, if it can be fetched."""

    size: str
    how_to_get: str
    load: Callable[[Path | None], Dataset]
    locate: Callable[[Path | None], Path | None]
    download: Callable[[Path | None], Path] | None = None


SOURCES = {
    "fashion-mnist": Source(
        "60,000 + 10,000, 1x28x28, 10 classes",
        f"downloaded when used; or {fashion_mnist.HOW_TO_GET}",
        fashion_mnist.load,
        fashion_mnist.locate,
        fashion_mnist.download,
    ),
    "fashion-mnist-mini": Source(
        "5,120 + 2,560, 1x28x28, 10 classes",
        "part of the package",
        lambda _: fashion_mnist_mini.load(),
        lambda _: fashion_mnist_mini.FILE,
    ),
    "cifar10": Source(
        "50,000 + 10,000, 3x32x32, 10 classes", cifar10.HOW_TO_GET, cifar10.load, cifar10.locate, cifar10.download
    ),
    "synthetic": Source(
        "512 + 256, 1x28x28, 10 classes",
        "drawn when used",
        lambda _: synthetic.load(),
        lambda _: Path(synthetic.__file__),
    ),
}


def load(name_or_dir: str, *, data_dir: str | Path | None = None, reading: Reading = decoded.PLAIN) -> Dataset:
    """The data set of this name, the one of tensorflow-datasets (`tfds:NAME`), the packed images of MXNet's `FILE.rec`
    (`TRAIN.rec,TEST.rec`: of two), or the class folders in this directory (`./NAME` for one that is called like a set).

    `@classes=LO-HI,train=COUNT,test=COUNT` behind any of them takes a part: these classes, counted from 0 from then
    on, and the first so many images, as many of each class; each of the three can be left out. Where all classes are
    called by numbers, LO and HI are names, else places. `reading` says how image files are read.

    `data_dir` is where the files of `fashion-mnist`, `cifar10` and TFDS lie, if not in the usual places; the others do
    not need it. Raises TriptychError for an unknown name, for files that are missing, damaged or not the originals, and
    for a part that is not there."""
    if not name_or_dir.partition(subset.MARK)[0].strip():  # Path("") is the folder one stands in
        raise TriptychError(f"data '{name_or_dir}' names no data set; write for example fashion-mnist-mini or ./images")
    whole = _is_folder(expanded(name_or_dir))  # a folder's own name may have the mark in it
    name, part = (name_or_dir, None) if whole else subset.divide(name_or_dir)
    dataset = _load_whole(name, expanded(data_dir) if data_dir else None, reading)
    return dataset if part is None else subset.take(dataset, part, name_or_dir)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for one
        return False


def _load_whole(name: str, place: Path | None, reading: Reading) -> Dataset:
    if source := SOURCES.get(name):
        return source.load(place)
    if name.startswith(tfds.PREFIX):
        return tfds.load(name.removeprefix(tfds.PREFIX), place)
    folder = expanded(name)
    if _is_folder(folder):
        return folders.load(folder, reading=reading)
    if name.endswith(recordio.SUFFIX):
        train, mark, test = name.rpartition(f"{recordio.SUFFIX},")
        if mark and not folder.is_file():
            return recordio.load(expanded(train + recordio.SUFFIX), reading, expanded(test))
        return recordio.load(folder, reading)
    if os.sep in name:
        raise TriptychError(f"there is no folder '{name}'; expected class folders of images, or a data set's name")
    raise TriptychError(f"{unknown('data set', name, SOURCES)}; a folder of class folders of images works too")


@dataclass(frozen=True)
class SetInfo:
    """A line of `triptych data list`; `where` is None if the set is not here."""

    name: str
    where: Path | None
    size: str
    how_to_get: str


def describe(data_dir: Path | None = None) -> list[SetInfo]:
    """Every named data set: whether and where it is here, its size (training + test images), and how to get it. Those
    of tensorflow-datasets only if they are here."""
    ours = [SetInfo(name, s.locate(data_dir), s.size, s.how_to_get) for name, s in SOURCES.items()]
    prepared = tfds.prepared(data_dir)
    return ours + [SetInfo(tfds.PREFIX + name, where, size, tfds.how_to_get(name)) for name, where, size in prepared]


def download(name: str, data_dir: Path | None = None) -> Path:
    """Fetches the set into `data_dir` (default: the cache); where it lies. Raises TriptychError if it cannot."""
    check_known("data set", [name], SOURCES)
    source = SOURCES[name]
    if source.download is None:
        raise TriptychError(f"'{name}' needs no download: it is {source.how_to_get}")
    return source.download(data_dir)
