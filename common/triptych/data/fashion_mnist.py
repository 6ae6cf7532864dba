"""Fashion-MNIST: 60,000 training and 10,000 test images, 1x28x28, ten kinds of clothing (Zalando SE, MIT licence).

Four files in the IDX format: big-endian header (magic, then one 32-bit size per axis), then the bytes. They are looked
for in the folder given, else where Debian's package puts them, else in the user's cache, else downloaded into it."""

import gzip
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triptych.data.dataset import Dataset, Split
from triptych.data.download import fetch
from triptych.utils.errors import TriptychError
from triptych.utils.files import cache_dir, check_hash, told
from triptych.utils.reading import read_bounded

CLASS_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")

# SHA-256 of the uncompressed files: the same whoever compressed them.
HASHES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

DATA_DIRS = "/usr/local/share:/usr/share"  # XDG base directory specification: XDG_DATA_DIRS where it is not set
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
HOW_TO_GET = f"install Debian's package dataset-fashion-mnist, or put the four files from {URL} into --data-dir"
MOST_DIMENSIONS = 4  # images with channels
MOST_BYTES = 60_000 * 28 * 28 + 16  # of the largest of the four files, unpacked
UBYTE = 0x08  # the only type code of IDX that these files use


def find_file(folder: Path, name: str) -> Path | None:
    """`name` or `name`.gz in `folder`, if there."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(content: bytes, what: str) -> npt.NDArray[np.uint8]:
    """The array in an IDX file's (uncompressed) bytes. `what` names it in the TriptychError for a malformed one."""
    if len(content) < 4 or content[:3] != bytes([0, 0, UBYTE]):
        raise TriptychError(f"{what} is no IDX file: it begins with {content[:4]!r}, expected {bytes([0, 0, UBYTE])!r}")
    if content[3] > MOST_DIMENSIONS:
        raise TriptychError(f"{what} says that it has {content[3]} dimensions, expected at most {MOST_DIMENSIONS}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise TriptychError(f"{what} is truncated: {len(content)} bytes, its header alone has {start}")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    expected = start + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise TriptychError(f"{what} has {len(content)} bytes, its header {shape} expects {expected}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()  # a copy, because that is writable


def _unpacked(data: bytes, what: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as packed:
            content = packed.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise TriptychError(f"{what} unpacks to more than the {MOST_BYTES:,} bytes of the set; {HOW_TO_GET}")
        return content
    except (OSError, EOFError, zlib.error) as error:
        size = f"{len(data)} bytes"
        raise TriptychError(f"{what} is truncated or damaged ({size}; gzip: {error}); {HOW_TO_GET}") from None


def _download(name: str, folder: Path) -> None:
    """Fetches `name`.gz into `folder`; it gets its name only when its content was found right."""
    what = f"the download {URL}{name}.gz"

    def check(data: bytes) -> None:
        check_hash(_unpacked(data, what), HASHES[name], what, HOW_TO_GET)

    fetch(f"{URL}{name}.gz", folder / f"{name}.gz", check, HOW_TO_GET, MOST_BYTES)


def system_folders() -> list[Path]:
    """Where a package of the distribution puts the files; Debian's: /usr/share/datasets/fashion-mnist."""
    roots = (os.environ.get("XDG_DATA_DIRS") or DATA_DIRS).split(os.pathsep)
    return [Path(root) / "datasets" / "fashion-mnist" for root in roots if root]


def locate(data_dir: Path | None = None) -> Path | None:
    """The folder that holds all four files: `data_dir` alone if given, else a package's or the cache's, if any does."""
    folders = [data_dir] if data_dir else [*system_folders(), cache_dir() / "fashion-mnist"]
    return next((folder for folder in folders if all(find_file(folder, name) for name in HASHES)), None)


def download(data_dir: Path | None = None) -> Path:
    """Fetches what is missing into `data_dir` (default: the cache); the folder. Raises TriptychError if it cannot."""
    folder = data_dir or cache_dir() / "fashion-mnist"
    for name in HASHES:
        if not find_file(folder, name):
            _download(name, folder)
    return folder


def _array(folder: Path, name: str) -> npt.NDArray[np.uint8]:
    path = find_file(folder, name) or folder / name
    with told(f"{path} cannot be read"):
        data = read_bounded(path, MOST_BYTES)
    content = _unpacked(data, str(path)) if path.suffix == ".gz" else data
    array = read_idx(content, str(path))  # first, because it tells a truncated file from an altered one
    check_hash(content, HASHES[name], str(path), HOW_TO_GET)
    return array


def _split(folder: Path, prefix: str) -> Split:
    images = _array(folder, f"{prefix}-images-idx3-ubyte")
    labels = _array(folder, f"{prefix}-labels-idx1-ubyte")
    return Split(images[:, None], labels.astype(np.int64))


def load(data_dir: Path | None = None) -> Dataset:
    """The whole set. Raises TriptychError for a missing, truncated or altered file, and for a failed download."""
    folder = locate(data_dir)
    if folder is None and data_dir:
        missing = next(name for name in HASHES if not find_file(data_dir, name))
        raise TriptychError(f"{data_dir} holds neither {missing} nor {missing}.gz; {HOW_TO_GET}")
    folder = folder or download()
    return Dataset("fashion-mnist", _split(folder, "train"), _split(folder, "t10k"), CLASS_NAMES)
