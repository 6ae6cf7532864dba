"""Image files decoded into one uint8 array, once: the array is kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from triptych.data.dataset import Images
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, cache_dir, read_bounded

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 320  # pixels; a folder of photographs must not fill the memory, and no network here takes more than 299
GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values for an image stored on its side
THREADED = 192 * 192  # pixels; measured: at 128x128 two threads are slower than one, at 256x256 a third faster
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM")  # Pillow has readers for fifty more, one of which starts Ghostscript
MOST_PIXELS = 1 << 26  # as a file declares them: 200 MB of colours; more is said before anything is decoded
MOST_NOTE = 1 << 16  # bytes of what is written beside the array
FORMAT = 1  # of the cache; a change of how images are decoded needs another number

Size = tuple[int, int]
Result = TypeVar("Result")


def _open(path: Path, use: Callable[[Image], Result]) -> Result:
    """`use` of the image at `path`. Raises TriptychError, with the file's name, if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it says that it has {image.width}x{image.height} pixels, read are {MOST_PIXELS:,}")
            return use(image)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise TriptychError(
            f"{path} is no image that can be read ({known}), or is damaged; remove or replace it"
        ) from None
    except Exception as error:  # of a damaged file Pillow raises struct.error and TypeError, too
        raise TriptychError(f"{path} cannot be decoded ({error}); remove or replace it") from None


def _header(image: Image) -> tuple[Size, bool]:
    """(height, width) as it is looked at, and whether it is grey, without decoding a pixel."""
    if image.mode not in GREY_MODES + COLOUR_MODES:
        raise ValueError(f"mode {image.mode}, expected 8 bits per channel")  # I;16 would be clipped silently
    turned = image.getexif().get(ORIENTATION) in TURNED
    size = image.size if turned else (image.height, image.width)
    return size, image.mode in GREY_MODES


def stored_size(path: Path) -> Size:
    """(height, width) of an image file as it is looked at. Raises TriptychError if it is none."""
    return _open(path, _header)[0]


def common_size(sizes: Sequence[Size]) -> Size:
    """(height, width) for all: theirs if they are all equal, else the median height and width; `LARGEST` at most."""
    height, width = np.rint(np.median(np.array(sizes), axis=0)).astype(int).tolist()
    return min(height, LARGEST), min(width, LARGEST)


def _pixels(image: Image, size: Size, mode: str) -> Images:
    """The image upright, in `mode` and `size`, as uint8 (height, width, C)."""
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    image = image if image.mode == mode else image.convert(mode)
    height, width = size
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, len(mode))


def decode(paths: Sequence[Path], size: Size | None = None) -> Images:
    """The images as uint8 (N, C, height, width); C is 1 if all are grey, else 3. Raises TriptychError for a file that
    is no image of 8 bits per channel."""
    headers = [_open(path, _header) for path in paths]
    sizes = [stored for stored, _ in headers]
    shape = size or common_size(sizes)
    mode = "L" if all(grey for _, grey in headers) else "RGB"
    images = np.empty((len(paths), len(mode), *shape), np.uint8)

    def fill(index: int) -> None:
        pixels = _open(paths[index], lambda image: _pixels(image, shape, mode))
        images[index] = np.moveaxis(pixels, 2, 0)

    # Pillow decodes without Python's lock; but small images spend their time in Python, where threads only wait.
    small = np.mean([height * width for height, width in sizes]) < THREADED
    with ThreadPoolExecutor(1 if small else min(8, os.cpu_count() or 1)) as pool:
        try:
            list(pool.map(fill, range(len(paths))))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else the error would wait for every other image
            raise
    return images


def _key(paths: Sequence[Path], folder: Path) -> str:
    """Changes when a file is added, removed, renamed or changed (by its size or its time)."""
    digest = hashlib.sha256(f"{FORMAT}".encode())
    for path in paths:
        stat = path.stat()
        digest.update(
            f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode(errors="surrogatepass")
        )
    return digest.hexdigest()


def _hash(images: Images) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).reshape(-1).data).hexdigest()


def _read_cache(file: Path, key: str) -> Images | None:
    """What is cached for `key`; None if nothing is, or it is damaged in any way."""
    try:
        note = records.decode(records.parse(read_bounded(file.with_suffix(".json"), MOST_NOTE)), dict[str, str])
        if note["key"] != key:
            return None
        images: Images = np.load(file, allow_pickle=False)
        return images if images.dtype == np.uint8 and _hash(images) == note["sha256"] else None
    except (OSError, EOFError, ValueError, KeyError, TriptychError):
        return None


def _write_cache(file: Path, key: str, images: Images) -> None:
    """Array first, note last: a process killed in between leaves an entry whose hashes do not fit."""
    try:
        with atomic_write(file) as array:
            np.save(array, images, allow_pickle=False)
        with atomic_write(file.with_suffix(".json")) as note:
            note.write(json.dumps({"key": key, "sha256": _hash(images)}).encode())
    except OSError:
        return  # a cache that cannot be written costs time, nothing else


def load(paths: Sequence[Path], folder: Path, size: Size | None = None) -> Images:
    """`decode(paths, size)`, from the cache if no file in `folder` has changed since."""
    # One entry per folder and size, so that a new version replaces the old.
    name = hashlib.sha256(f"{folder.resolve()}\0{size}".encode(errors="surrogatepass")).hexdigest()[:16]
    file, key = cache_dir() / "folders" / f"{name}.npy", _key(paths, folder)
    images = _read_cache(file, key)
    if images is None:
        images = decode(paths, size)
        _write_cache(file, key, images)
    return images
