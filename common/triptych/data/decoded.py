"""Image files decoded into one uint8 array, once: the array is kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from triptych.data.dataset import Images
from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, cache_dir
from triptych.utils.reading import open_file
from triptych.weights.formats import numpy_files
from triptych.weights.formats.fields import map_file

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
MOST_NOTE = 1 << 20  # bytes of what is written beside the array
FORMAT = 3  # of the cache; a change of how images are decoded needs another number

Size = tuple[int, int]
Result = TypeVar("Result")


class Packed(Protocol):
    """An image that is no file of its own; as text, what it is called in messages."""

    @property
    def content(self) -> bytes:
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
        raise TriptychError(
            f"{path} is no image that can be read ({known}), or is damaged; remove or replace it"
        ) from None
    except Exception as error:  # of a damaged file Pillow raises struct.error and TypeError, too
        raise TriptychError(f"{path} cannot be decoded ({error}); remove or replace it") from None


def _check_netpbm(begin: bytes) -> None:
    """Raises ValueError where a PPM's sizes are behind a longer comment than anybody writes: Pillow looks for their end
    a byte at a time, through gigabytes."""
    kind = rb"P[0-6fy]\w{0,5}"
    if re.match(kind + rb"\s", begin) and not re.match(kind + rb"(?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}", begin):
        raise ValueError(f"its sizes are not within its first {MOST_NETPBM:,} bytes")


@dataclass(frozen=True)
class Reading:
    """How image files are read. `skip_bad`: those of a folder that cannot be read are left out, and named. `scale_16`:
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
        raise TriptychError(listed(list(bad.values())))
    return images


def listed(problems: Sequence[str]) -> str:
    """What is wrong with files, in one line."""
    if len(problems) == 1:
        return problems[0]
    more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
    return f"{len(problems)} images cannot be read: {'; '.join(problems[:MOST_NAMED])}{more}"


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
    images = np.zeros((len(paths), len(mode), *shape), np.uint8)

    def fill(index: int) -> None:
        pixels = attempt(index, lambda image: _pixels(image, shape, mode))
        if pixels is not None:
            images[index] = np.moveaxis(pixels, 2, 0)

    # Pillow decodes without Python's lock; but small images spend their time in Python, where threads only wait.
    small = np.mean([height * width for height, width in sizes]) < THREADED
    with ThreadPoolExecutor(1 if small else min(8, os.cpu_count() or 1)) as pool:
        try:
            list(pool.map(fill, [index for index, header in enumerate(headers) if header is not None]))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else the error would wait for every other image
            raise
    return images, dict(sorted(bad.items()))


def _key(paths: Sequence[Path], folder: Path) -> str:
    """Changes when a file is added, removed, renamed, replaced or changed: by its size, its number and its times, of
    which that of the last change to the file (ctime) is the system's own and cannot be set."""
    digest = hashlib.sha256(f"{FORMAT}".encode())
    for path in paths:
        stat = path.stat()
        known = (stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
        digest.update(f"{path.relative_to(folder)}\0{known}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()


def _hash(images: Images) -> str:
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(np.ascontiguousarray(images).reshape(-1).data)
    return digest.hexdigest()


def _read_cache(file: Path, key: str) -> tuple[Images, list[int]] | None:
    """What is cached for `key`, and the numbers of the files that are not in it; None if nothing is, or it is damaged
    in any way."""
    try:
        note = records.decode(records.read(file.with_suffix(".json"), MOST_NOTE), dict[str, str])
        if note["key"] != key:
            return None
        bad = [int(number) for number in note["bad"].split()]
        [images] = numpy_files.read(file, map_file(file)).values()
        images = np.array(images)  # of its own: the file may be replaced
        return (images, bad) if images.dtype == np.uint8 and _hash(images) == note["sha256"] else None
    except (OSError, EOFError, ValueError, KeyError, TriptychError):
        return None


def _write_cache(file: Path, key: str, images: Images, bad: Sequence[int]) -> None:
    """Array first, note last: a process killed in between leaves an entry whose hashes do not fit."""
    try:
        with atomic_write(file) as array:
            np.save(array, images, allow_pickle=False)
        with atomic_write(file.with_suffix(".json")) as note:
            written = {"key": key, "sha256": _hash(images), "bad": " ".join(map(str, bad))}
            note.write(json.dumps(written).encode())
    except OSError:
        return  # a cache that cannot be written costs time, nothing else


def _place() -> Path:
    """Where entries lie; where there is no home folder, a place that holds none and takes none."""
    try:
        return cache_dir() / "folders"
    except TriptychError:
        return Path(os.devnull) / "folders"


def load(
    paths: Sequence[Path], folder: Path, size: Size | None = None, reading: Reading = PLAIN
) -> tuple[Images, list[int]]:
    """The images of the files that can be read, as `decode` gives them, from the cache if no file in `folder` has
    changed since; and the numbers of the others. Raises TriptychError, with all of those in one line, unless they are
    to be left out."""
    # One entry per folder, size and reading, so that a new version replaces the old.
    named = f"{folder.resolve()}\0{size}" + (f"\0{reading}" if reading != PLAIN else "")
    name = hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()[:16]
    file, key = _place() / f"{name}.npy", _key(paths, folder)
    cached = _read_cache(file, key)
    if cached is not None:
        return cached
    images, bad = decode_all(paths, size, reading)
    if bad and not reading.skip_bad:
        raise TriptychError(f"{listed(list(bad.values()))}; or leave them out with --skip-bad-images")
    images = np.delete(images, list(bad), axis=0) if bad else images
    if _key(paths, folder) == key:  # else a file was replaced while it was read
        _write_cache(file, key, images, list(bad))
    return images, list(bad)
