"""MXNet's RecordIO: packed images with their labels in one file, `FILE.rec`, and where each begins in `FILE.idx`.

A record is a magic number, a word of its part (3 bits) and length (29 bits), the bytes, and zeros up to a multiple of
four. Where the magic number stands in the bytes at such a multiple, they are cut there and it is left out: the parts of
one record follow each other. The bytes are a header (how many labels, the label, two numbers), the labels where they
are several, and the image as PNG or JPEG. There is no checksum. Source: dmlc-core recordio.h, mxnet/recordio.py."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt

from triptych.data import decoded
from triptych.data.dataset import Dataset, Images, Split
from triptych.data.decoded import Reading
from triptych.data.folders import TESTS, divide
from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, told
from triptych.utils.reading import open_file
from triptych.weights.formats.fields import map_file

SUFFIX = ".rec"
FORMATS = ("png", "jpeg")
QUALITY = 95  # of JPEG
_MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", _MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_LONGEST = (1 << 29) - 1  # bytes of a part
_HEADER = struct.Struct("<IfQQ")
_MOST_LABELS = 1 << 16
_LONGEST_LINE = 1000  # of an index, in bytes


@dataclass(frozen=True, eq=False)
class Record:
    """One packed image: its name in messages, its labels, and the file's bytes."""

    name: str
    labels: npt.NDArray[np.float32]
    content: bytes | memoryview

    def __str__(self) -> str:
        return self.name


def read(path: Path) -> list[Record]:
    """The records of a file in their order. Raises TriptychError, with the record's number and place, for a file that
    is cut off or altered, and for an index beside it that is of another file."""
    places, records = [], []
    for number, (place, content) in enumerate(_records(path)):
        places.append(place)
        records.append(_unpacked(f"{path}, record {number}", content))
    _check_index(path, places)
    if not records:
        raise TriptychError(f"{path} has no records")
    return records


def _records(path: Path) -> Iterator[tuple[int, bytes | memoryview]]:
    """Where each record begins, and its bytes: those of the mapped file, or of its parts joined."""
    content = map_file(path).data
    parts: list[memoryview] = []
    at = begins = 0
    while at < len(content):
        if at + 8 > len(content):
            raise TriptychError(f"{path} is cut off in the head of a record at byte {at}; copy it again")
        magic, word = struct.unpack_from("<II", content, at)
        part, length = word >> 29, word & _LONGEST
        if magic != _MAGIC:
            raise TriptychError(f"{path} is no RecordIO file, or is altered: there is no record at byte {at}")
        if part > _LAST or (part in (_WHOLE, _FIRST)) != (not parts):
            raise TriptychError(f"{path} is altered: at byte {at} is part {part} of a record where there can be none")
        if at + 8 + length > len(content):
            raise TriptychError(f"{path} is cut off in a record at byte {at}: {length:,} bytes are said; copy it again")
        begins = begins if parts else at
        parts.append(content[at + 8 : at + 8 + length])
        at += 8 + length + -length % 4
        if part in (_WHOLE, _LAST):
            yield begins, parts[0] if len(parts) == 1 else _MAGIC_BYTES.join(parts)
            parts = []
    if parts:
        raise TriptychError(f"{path} is cut off: the record at byte {begins} has no last part; copy it again")


def _unpacked(name: str, content: bytes | memoryview) -> Record:
    if len(content) < _HEADER.size:
        raise TriptychError(f"{name} has {len(content)} bytes, fewer than its header; is it of mxnet.recordio.pack?")
    count, label, _, _ = _HEADER.unpack_from(content)
    if not count:
        return Record(name, np.array([label], np.float32), content[_HEADER.size :])
    end = _HEADER.size + 4 * count
    if count > _MOST_LABELS or end > len(content):
        raise TriptychError(f"{name} says {count} labels, more than it has bytes for")
    return Record(name, np.frombuffer(content[_HEADER.size : end], "<f4"), content[end:])


def _check_index(path: Path, places: Sequence[int]) -> None:
    """Raises TriptychError unless the index, where there is one, names beginnings of records."""
    index = path.with_suffix(".idx")
    if not index.is_file():
        return
    known = set(places)
    with told(f"cannot read {index}"), open_file(index) as lines:
        for number, line in enumerate(iter(lambda: lines.readline(_LONGEST_LINE), b"")):
            place = re.fullmatch(rb"[^\t]*\t\s*([0-9]{1,19})\s*", line)
            if place is None or int(place[1]) not in known:
                raise TriptychError(f"{index} is not of {path}: no record is where its line {number + 1} says")


def load(path: Path, reading: Reading = decoded.PLAIN, test: Path | None = None) -> Dataset:
    """The images of a file as a data set; the label, or the first of several, is the class. The test set is the file
    `test`, else the one beside it with `test`, `val` or `valid` in place of `train` in its name, or behind it
    (`NAME-test.rec`); without one, a fifth of every class. Images of several sizes are resized as those of class
    folders are. Raises TriptychError as `read` does, for labels that are no classes, and for an image that cannot be
    read, by its record."""
    train, beside = read(path), test or test_file(path)
    classes = _classes(path, train)
    if beside is None:
        by_class = {str(label): np.flatnonzero(classes == label).tolist() for label in range(classes.max() + 1)}
        kept, tested = divide({name: places for name, places in by_class.items() if places})
        order = [sorted(place for places in part.values() for place in places) for part in (kept, tested)]
        parts = [([train[place] for place in places], classes[places]) for places in order]
    else:
        records = read(beside)
        parts = [(train, classes), (records, _classes(beside, records))]
    every = [record for records, _ in parts for record in records]
    images, bad = decoded.decode_kept(every, None, reading)
    whole, labels = decoded.left_out(every, bad, path), np.concatenate([part for _, part in parts])
    first = len(parts[0][0])
    border = int(whole[:first].sum())
    splits = (
        Split(images[:border], labels[:first][whole[:first]]),
        Split(images[border:], labels[first:][whole[first:]]),
    )
    if bad:
        decoded.check_left(path, *splits, {int(label): str(label) for label in np.unique(parts[0][1])})
    highest = int(labels.max(initial=0))
    return Dataset(path.stem, *splits, tuple(map(str, range(highest + 1))))


def test_file(path: Path) -> Path | None:
    """The file of the test set beside one of a training set, if there is one."""
    names = [path.stem.replace("train", word) for word in TESTS if "train" in path.stem]
    names += [f"{path.stem}{mark}{word}" for word in TESTS for mark in "-_"]
    return next((file for name in names if (file := path.with_name(name + SUFFIX)).is_file()), None)


test_file.__test__ = False  # type: ignore[attr-defined]  # pytest takes it for one of its own


def _classes(path: Path, records: Sequence[Record]) -> npt.NDArray[np.int64]:
    labels = np.array([record.labels[0] for record in records], np.float64)
    wrong = np.flatnonzero(~(np.isfinite(labels) & (labels >= 0) & (labels == np.rint(labels)) & (labels < 1 << 20)))
    if len(wrong):
        raise TriptychError(f"{records[wrong[0]]} has the label {labels[wrong[0]]:g}, which is no class (0, 1, 2 ...)")
    if (most := max(len(record.labels) for record in records)) > 1:
        print(f"{path}: records have up to {most} labels; the first is the class", file=sys.stderr)
    return labels.astype(np.int64)


def pack(dataset: Dataset, path: Path, form: str = FORMATS[0]) -> list[Path]:
    """Write a data set's training images as `path`, its test images as `NAME-test.rec` beside it, each with an index;
    returns the files. PNG keeps every bit, JPEG does not. Raises TriptychError for a file that is there already."""
    places = (path, path.with_name(f"{path.stem}-test{SUFFIX}"))
    files = [file for place in places for file in (place, place.with_suffix(".idx"))]
    for file in files:
        if file.exists():
            raise TriptychError(f"{file} is there already; give another name, or move it away")
    for place, split in zip(places, (dataset.train, dataset.test), strict=True):
        write(place, [(np.array([label], np.float32), encoded(image, form)) for image, label in _pairs(split)])
    return files


def _pairs(split: Split) -> Iterator[tuple[Images, int]]:
    return zip(split.images, map(int, split.labels), strict=True)


def encoded(image: Images, form: str) -> bytes:
    """An image `(C, height, width)` of one or three channels as a file's bytes."""
    from PIL import Image

    pixels = image[0] if len(image) == 1 else np.moveaxis(image, 0, 2)
    into = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(into, form, **({"quality": QUALITY} if form == "jpeg" else {}))
    return into.getvalue()


def write(path: Path, images: Sequence[tuple[npt.NDArray[np.float32], bytes]]) -> None:
    """Write labels and files' bytes as records, and the index beside them."""
    lines = []
    with ExitStack() as stack:
        stack.enter_context(told(f"cannot write {path}"))
        index, file = (stack.enter_context(atomic_write(one)) for one in (path.with_suffix(".idx"), path))
        for number, (labels, content) in enumerate(images):
            lines.append(f"{number}\t{file.tell()}\n")
            several = len(labels) != 1
            head = _HEADER.pack(len(labels) if several else 0, 0.0 if several else float(labels[0]), number, 0)
            for part in _parts(head + (labels.astype("<f4").tobytes() if several else b"") + content):
                file.write(part)
        index.write("".join(lines).encode())


def _parts(content: bytes) -> Iterator[bytes]:
    """A record as it lies in the file: cut where the magic number stands in it."""
    cuts, at = [], content.find(_MAGIC_BYTES)
    while at >= 0:
        if at % 4 == 0:
            cuts.append(at)
        at = content.find(_MAGIC_BYTES, at + 4 if at % 4 == 0 else at + 1)
    begins, ends = [0, *(cut + 4 for cut in cuts)], [*cuts, len(content)]
    for number, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        kind = _WHOLE if not cuts else _FIRST if not number else _LAST if number == len(cuts) else _MIDDLE
        if end - begin > _LONGEST:
            raise TriptychError(f"an image of {end - begin:,} bytes is too large for a record")
        yield struct.pack("<II", _MAGIC, kind << 29 | (end - begin)) + content[begin:end] + b"\0" * (-(end - begin) % 4)
