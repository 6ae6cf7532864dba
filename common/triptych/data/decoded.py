"""Image files decoded into one uint8 array."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from triptych.data import storage
from triptych.data.dataset import Images, Split
from triptych.utils.errors import TriptychError
from triptych.utils.reading import open_file

if TYPE_CHECKING:
    from PIL.Image import Image

LARGEST = 320  # pixels; a folder of photographs must not fill the memory, and no network here takes more than 299
GREY_MODES = ("1", "L", "LA")
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B")  # grey of 16 bits; Pillow itself halves those of colours
COLOUR_MODES = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)  # the EXIF tag, and its values for an image stored on its side
THREADED = 192 * 192  # pixels; measured: at 128x128 two threads are slower than one, at 256x256 a third faster
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM")  # Pillow has readers for fifty more, one of which starts Ghostscript
MOST_PIXELS = 1 << 26  # as a file declares them: 200 MB of colours; more is said before anything is decoded
MOST_SIDE = (1 << 16) - 1  # JPEG's; Pillow resizes a longer one with a gigabyte of factors
MOST_NETPBM = 4096  # bytes of a PPM before its sizes
MOST_NAMED = 20  # files that cannot be read
WAY_OUT = "; remove or replace it"
AT_ONCE = 10_000  # images that wait for a thread

Size = tuple[int, int]
Result = TypeVar("Result")


class Packed(Protocol):
    """An image that is no file of its own; as text, what it is called in messages."""

    @property
    def content(self) -> bytes | memoryview:
        """The bytes of its file."""


def _open(path: Path | Packed, use: Callable[[Image], Result]) -> Result:
    """`use` of the image at `path`. Raises TriptychError, with the file's name, if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        source = open_file(path) if isinstance(path, Path) else BytesIO(path.content)
        _check_netpbm(source.read(MOST_NETPBM))
        source.seek(0)
        with source, Image.open(source, formats=FORMATS) as image:
            if max(image.size) > MOST_SIDE:
                raise ValueError(f"it says that it is {image.width}x{image.height}, read are sides of {MOST_SIDE:,}")
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"it says that it has {image.width}x{image.height} pixels, read are {MOST_PIXELS:,}")
            return use(image)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise TriptychError(f"{path} is no image that can be read ({known}), or is damaged{WAY_OUT}") from None
    except Exception as error:  # of a damaged file Pillow raises struct.error and TypeError, too
        raise TriptychError(f"{path} cannot be decoded ({error}){WAY_OUT}") from None


def _check_netpbm(begin: bytes) -> None:
    """Raises ValueError where a PPM's sizes are behind a longer comment than anybody writes: Pillow looks for their end
    a byte at a time, through gigabytes."""
    kind = rb"P[0-6fy]\w{0,5}"
    if re.match(kind + rb"\s", begin) and not re.match(kind + rb"(?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}", begin):
        raise ValueError(f"its sizes are not within its first {MOST_NETPBM:,} bytes")


@dataclass(frozen=True)
class Reading:
    """How image files are read. `skip_bad`: those of a data set that cannot be read are left out and named. `scale_16`:
    grey images of 16 bits are divided by 257; without it they are refused, because their range need not be that."""

    skip_bad: bool = False
    scale_16: bool = False


PLAIN = Reading()


def _header(image: Image, reading: Reading) -> tuple[Size, bool]:
    """(height, width) as it is looked at, and whether it is grey, without decoding a pixel."""
    deep = image.mode in DEEP_MODES
    if image.mode not in GREY_MODES + COLOUR_MODES and not (deep and reading.scale_16):
        hint = "; --scale-16-bit brings 16 bits to 8" if deep else ""
        raise ValueError(f"mode {image.mode}, expected 8 bits per channel{hint}")  # I;16 would be clipped silently
    turned = image.getexif().get(ORIENTATION) in TURNED
    size = image.size if turned else (image.height, image.width)
    return size, deep or image.mode in GREY_MODES


def stored_size(path: Path, reading: Reading = PLAIN) -> Size:
    """(height, width) of an image file as it is looked at. Raises TriptychError if it is none."""
    with warnings.catch_warnings(action="ignore"):  # Pillow's own, of what is refused here
        return _open(path, lambda image: _header(image, reading))[0]


def common_size(sizes: Sequence[Size]) -> Size:
    """(height, width) for all: theirs if they are all equal, else the median height and width; `LARGEST` at most."""
    height, width = np.rint(np.median(np.array(sizes), axis=0)).astype(int).tolist()
    return min(height, LARGEST), min(width, LARGEST)


def _pixels(image: Image, size: Size, mode: str) -> Images:
    """The image upright, in `mode` and `size`, as uint8 (height, width, C)."""
    from PIL import Image, ImageOps

    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in DEEP_MODES:
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((deep + 128) // 257).astype(np.uint8))
    image = image if image.mode == mode else image.convert(mode)
    height, width = size
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).reshape(height, width, len(mode))


def decode(paths: Sequence[Path | Packed], size: Size | None = None, reading: Reading = PLAIN) -> Images:
    """The images as uint8 (N, C, height, width); C is 1 if all are grey, else 3. Raises TriptychError for files that
    are no images of 8 bits per channel, all of them in one line; `reading.skip_bad` changes nothing here."""
    images, bad = decode_all(paths, size, reading)
    if bad:
        raise TriptychError(listed(paths, bad))
    return images


def listed(paths: Sequence[Path | Packed], bad: Mapping[int, str]) -> str:
    """What is wrong with files, in one line: with one, or by what is wrong the files that have it, in their order."""
    if len(bad) == 1:
        return next(iter(bad.values()))
    by_fault: dict[str, list[str]] = {}
    named = _by_name(paths, bad)[:MOST_NAMED]
    for index in named:
        fault = bad[index].removeprefix(f"{paths[index]} ").removesuffix(WAY_OUT)
        by_fault.setdefault(fault, []).append(str(paths[index]))
    faults = "; ".join(f"{fault}: {', '.join(files)}" for fault, files in by_fault.items())
    more = f"; and {len(bad) - len(named)} more" if len(bad) > len(named) else ""
    return f"{len(bad)} images cannot be read: {faults}{more}; remove or replace them"


def decode_kept(paths: Sequence[Path | Packed], size: Size | None, reading: Reading) -> tuple[Images, list[int]]:
    """The images that can be read, and the numbers of the others. Raises TriptychError, with all of those in one line,
    unless `reading` leaves them out."""
    images, bad = decode_all(paths, size, reading)
    if bad and not reading.skip_bad:
        raise TriptychError(f"{listed(paths, bad)}; or leave them out with --skip-bad-images")
    return storage.without(images, list(bad)), list(bad)


def _by_name(paths: Sequence[Path | Packed], bad: Iterable[int]) -> list[int]:
    """Their numbers by name as a person orders them: record 2 before record 10."""
    return sorted(bad, key=lambda index: [(part.zfill(20), part) for part in re.split(r"(\d+)", str(paths[index]))])


def left_out(paths: Sequence[Path | Packed], bad: Iterable[int], source: Path) -> npt.NDArray[np.bool_]:
    """Which are kept, (N,), of images that cannot be read and are left out; a line on standard error names those."""
    named = [str(paths[index]) for index in _by_name(paths, bad)]
    kept = np.ones(len(paths), bool)
    if named:
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        shown = ", ".join(named[:MOST_NAMED])
        print(f"{source}: {len(named)} images cannot be read and are left out: {shown}{more}", file=sys.stderr)
        kept[list(bad)] = False
    return kept


def check_left(source: Path, train: Split, test: Split, classes: Mapping[int, str]) -> None:
    """Raises TriptychError where nothing is left of a class, of those by label, or of the test images."""
    empty = [name for label, name in classes.items() if not (train.labels == label).any()]
    if empty or not len(test):
        what = f"class '{empty[0]}'" if empty else "the test images"
        raise TriptychError(f"{source}: nothing is left of {what}")


def decode_all(paths: Sequence[Path | Packed], size: Size | None, reading: Reading) -> tuple[Images, dict[int, str]]:
    """As `decode`; those that cannot be read are black, and stand by their number with what is wrong with them."""
    bad: dict[int, str] = {}

    def attempt(index: int, use: Callable[[Image], Result]) -> Result | None:
        try:
            return _open(paths[index], use)
        except TriptychError as error:
            bad[index] = str(error)
            return None

    with warnings.catch_warnings(action="ignore"):  # Pillow's own, of what is refused here; not in threads
        headers = [attempt(index, lambda image: _header(image, reading)) for index in range(len(paths))]
    found = [header for header in headers if header is not None]
    if not found:
        return np.zeros((len(paths), 1, 1, 1), np.uint8), dict(sorted(bad.items()))
    sizes = [stored for stored, _ in found]
    shape = size or common_size(sizes)
    mode = "L" if all(grey for _, grey in found) else "RGB"
    images = storage.room((len(paths), len(mode), *shape))

    def fill(index: int) -> None:
        pixels = attempt(index, lambda image: _pixels(image, shape, mode))
        if pixels is not None:
            images[index] = np.moveaxis(pixels, 2, 0)

    # Pillow decodes without Python's lock; but small images spend their time in Python, where threads only wait.
    small = np.mean([height * width for height, width in sizes]) < THREADED
    with ThreadPoolExecutor(1 if small else min(8, os.cpu_count() or 1)) as pool:
        try:
            places = [index for index, header in enumerate(headers) if header is not None]
            for begin in range(0, len(places), AT_ONCE):
                list(pool.map(fill, places[begin : begin + AT_ONCE]))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else the error would wait for every other image
            raise
    return images, dict(sorted(bad.items()))
