"""CIFAR-10: 50,000 training and 10,000 test images, 3x32x32, ten classes (Krizhevsky 2009).

Read from the official "python version", as the archive or as the folder in it, or from class folders."""

import io
import math
import tarfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from triptych.data import folders
from triptych.data.dataset import Dataset, Split
from triptych.data.download import fetch
from triptych.utils.errors import TriptychError
from triptych.utils.files import cache_dir, check_hash, told
from triptych.utils.reading import read_bounded
from triptych.weights.formats import inert_pickle

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE, ARCHIVE_MD5 = "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
HOW_TO_GET = f"triptych data download cifar10 (170 MB), or fetch {URL} yourself and name its folder with --data-dir"
SHAPE = (3, 32, 32)

# MD5 as the authors publish it for the archive, and torchvision for the files in it.
TRAIN_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
}
TEST_MD5 = {"test_batch": "40351d587109b95175f43aff81a1287e"}

MOST_BYTES = 10_000 * (3072 + 100) + 1_000_000  # of a batch file: its images, the names of their files, labels
MOST_ARCHIVE = 170_498_071  # bytes, which the archive has


def download(data_dir: Path | None = None) -> Path:
    """Fetches the archive into `data_dir` (default: the cache), unless the whole one is there; its path. Raises
    TriptychError if that fails."""
    path = (data_dir or cache_dir() / "cifar10") / ARCHIVE
    way_out = "fetch it yourself and name its folder with --data-dir"

    def check(content: bytes, what: str = f"the download {URL}") -> None:
        check_hash(content, ARCHIVE_MD5, what, way_out, "md5")

    if path.exists():
        with suppress(TriptychError):  # damaged: the whole one takes its place
            check(_read_file(path), str(path))
            return path
    fetch(URL, path, check, way_out, MOST_ARCHIVE)
    return path


def parse_batch(content: bytes, what: str) -> Split:
    """The images and labels of one batch file, which is a pickle and read as data: nothing that it names is called.
    Raises TriptychError for anything but a CIFAR batch."""
    try:
        batch = inert_pickle.loads(content, what)
        entries = {inert_pickle.latin1(name): value for name, value in batch.items()}
        images, labels = _bytes_of(entries[b"data"]), entries[b"labels"]
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 10 for label in labels):
            raise ValueError("the labels are no list of 0 to 9")
        if len(labels) != len(images):
            raise ValueError(f"it has {len(images)} images and {len(labels)} labels")
        return Split(images.reshape(-1, *SHAPE).copy(), np.array(labels, np.int64))
    except (TriptychError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TriptychError(f"{what} is no CIFAR-10 batch ({error}); {HOW_TO_GET}") from None


def _bytes_of(array: Any) -> npt.NDArray[np.uint8]:
    """The values of a pickled array of uint8: `_reconstruct(...)`, filled with (version, shape, dtype, Fortran order,
    bytes). Source: numpy/core/src/multiarray/methods.c, array_reduce."""
    state = array.state if isinstance(array, inert_pickle.Call) and array.name == "_reconstruct" else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError("its data is no array")
    _, shape, dtype, fortran, content = map(inert_pickle.latin1, state)
    kind = dtype.arguments[0] if isinstance(dtype, inert_pickle.Call) and dtype.name == "dtype" else None
    if not isinstance(content, bytes) or inert_pickle.latin1(kind) != b"u1":
        raise ValueError("its data is no array of uint8")
    if shape != (len(content) // math.prod(SHAPE), math.prod(SHAPE)):
        raise ValueError(f"its data has {len(content)} bytes and the shape {str(shape)[:60]}")
    return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _dataset(read: Callable[[str], bytes], where: Path) -> Dataset:
    """The set from six batch files, each checked; `where` is named in errors."""

    def split(hashes: dict[str, str]) -> Split:
        parts = []
        for name, md5 in hashes.items():
            content = read(name)
            check_hash(content, md5, f"{where / name}", HOW_TO_GET, "md5")
            parts.append(parse_batch(content, f"{where / name}"))
        return Split(np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts]))

    return Dataset("cifar10", split(TRAIN_MD5), split(TEST_MD5), CLASS_NAMES)


def _read_file(path: Path) -> bytes:
    with told(f"{path} cannot be read", HOW_TO_GET):
        return read_bounded(path, MOST_ARCHIVE)


def _load_archive(path: Path) -> Dataset:
    """The set from the archive, checked before it is unpacked (in memory)."""
    content = _read_file(path)
    check_hash(content, ARCHIVE_MD5, str(path), HOW_TO_GET, "md5")
    members = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                if member.isreg() and 0 <= member.size <= MOST_BYTES and (file := archive.extractfile(member)):
                    members[member.name] = file.read()
        return _dataset(lambda name: members[f"{FOLDER}/{name}"], path)
    except (tarfile.TarError, EOFError, zlib.error, OSError, KeyError) as error:
        raise TriptychError(f"{path} is not the archive of CIFAR-10 ({error}); {HOW_TO_GET}") from None


def locate(data_dir: Path | None = None) -> Path | None:
    """The archive, the extracted folder or the folder of class folders, in `data_dir` (default: the cache), if any."""
    folder = data_dir or cache_dir() / "cifar10"
    if (folder / "train").is_dir() or (folder / "data_batch_1").is_file():
        return folder
    return next((path for path in (folder / FOLDER, folder / ARCHIVE) if path.exists()), None)


def load(data_dir: Path | None = None) -> Dataset:
    """The whole set. Raises TriptychError where it is not there, or a file is not the original."""
    place = locate(data_dir)
    if place is None:
        folder = data_dir or cache_dir() / "cifar10"
        raise TriptychError(f"cifar10: no {ARCHIVE}, {FOLDER} or train/ in {folder}; {HOW_TO_GET}")
    if place.is_file():
        return _load_archive(place)
    if (place / "train").is_dir():
        return folders.load(place, name="cifar10")
    return _dataset(lambda name: _read_file(place / name), place)
