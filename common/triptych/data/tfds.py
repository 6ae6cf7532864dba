"""Sets in the format of tensorflow-datasets, as its array_record data sources read it, without TensorFlow.

`prepare` writes one of our own sets in that format. It stores images as a Tensor feature and takes them from our own
reader, because TFDS itself needs TensorFlow to encode its Image feature and to unpack gzip."""

import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from triptych.data import storage
from triptych.data.dataset import Dataset, Split
from triptych.spec import records
from triptych.utils import lock
from triptych.utils.errors import TriptychError, require_package
from triptych.utils.files import cache_dir, expanded, probe, told

PREFIX = "tfds:"
VERSION = "1.0.0"  # of the sets that `prepare` writes
NOTE = "dataset_info.json"  # TFDS writes it last
FEATURES = "features.json"
MOST_NOTE = 16 << 20  # bytes of a description
NAMING = ("pythonClassName", "python_class_name", "type")  # its keys whose values TFDS imports, if they have a dot
EMBEDDED = ("json",)  # those whose text is JSON
OWN_NAME = re.compile(r"tensorflow_datasets\.core\.features(\.[A-Za-z]\w*)+|[^.]*")
NUMBER = "[0-9]*"  # a version's folder; one that TFDS is still writing is called incomplete...
TEST_SPLITS = ("test", "validation")
BLOCK = 1024  # examples read at a time
EXPECTED = "expected uint8 of one size; write them as class folders, which may have any size, and use --data DIR"


def how_to_get(name: str) -> str:
    """What to do when a set is not here."""
    return f"prepare it with: triptych data prepare tfds {name}; or with TFDS, file_format='array_record'"


def roots(data_dir: Path | None = None) -> list[Path]:
    """Where sets are looked for: `data_dir` alone if given, else our cache, then TFDS's own folder."""
    if data_dir:
        return [data_dir]
    theirs = expanded(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    return [cache_dir() / "tfds", theirs]


def tfds_name(name: str) -> str:
    """The name as TFDS spells it. Raises TriptychError if it is none."""
    base, slash, config = name.partition("/")
    spelled = base.replace("-", "_").lower() + slash + config
    if not re.fullmatch(r"[a-z0-9_]+(/[A-Za-z0-9_][\w.-]*)?", spelled):
        raise TriptychError(f"'{PREFIX}{name}' names no set; expected for example {PREFIX}fashion-mnist")
    return spelled


def locate(name: str, data_dir: Path | None = None) -> Path | None:
    """The folder of the newest prepared version of `name` (or of `NAME/CONFIG`), if there is one."""
    for root in roots(data_dir):
        versions = [note.parent for note in root.glob(f"{tfds_name(name)}/{NUMBER}/{NOTE}")]
        if versions:
            return max(versions, key=lambda folder: [int(part) for part in re.findall(r"\d+", folder.name)])
    return None


def prepared(data_dir: Path | None = None) -> Iterator[tuple[str, Path, str]]:
    """Every set that is here: its name, its folder, its number of images. TFDS is not needed for it."""
    for root in roots(data_dir):
        for note in sorted((*root.glob(f"[!.]*/{NUMBER}/{NOTE}"), *root.glob(f"[!.]*/[!.]*/{NUMBER}/{NOTE}"))):
            base, slash, config = note.parent.parent.relative_to(root).as_posix().partition("/")
            yield base.replace("_", "-") + slash + config, note.parent, _size(note)


def _size(note: Path) -> str:
    try:
        splits = records.read(note, MOST_NOTE)["splits"]
        return ", ".join(f"{sum(map(int, split['shardLengths'])):,} {split['name']}" for split in splits)
    except (OSError, ValueError, KeyError, TypeError, TriptychError) as error:
        return f"{NOTE} is damaged: {error}"


def _require_packages(what: str) -> None:
    for package in ("tensorflow_datasets", "array_record"):
        require_package(package, "tfds", what)


@contextmanager
def _library(what: str) -> Iterator[Any]:
    """The package, told to be quiet where nobody looks; what it raises becomes a TriptychError about `what`."""
    _require_packages(what)
    try:
        import tensorflow_datasets

        logging.getLogger("absl").setLevel(logging.ERROR)  # it would recommend OpenCV
        if not sys.stderr.isatty():
            tensorflow_datasets.disable_progress_bar()
        with redirect_stdout(io.StringIO()):  # it tells what it does there, where our own output belongs
            yield tensorflow_datasets
    except TriptychError:
        raise
    except Exception as error:  # a package of many parts: files, protocol buffers, C++
        raise TriptychError(f"{what}: {type(error).__name__}: {error}") from None


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """The prepared set `name`: its splits train and test (else validation), its features image and label. Raises
    TriptychError if it is not here, was prepared in another file format, is damaged, or is no set of images of one size
    with a class each."""
    what = f"{PREFIX}{name}"
    folder = locate(name, data_dir)
    if folder is None:
        places = " or ".join(str(root) for root in roots(data_dir))
        raise TriptychError(f"{what}: no prepared {tfds_name(name)} in {places}; {how_to_get(name)}")
    check_features(folder, what)
    with _library(what) as library:
        builder = library.builder_from_directory(folder)
        image, label = builder.info.supervised_keys or ("image", "label")
        features, splits = dict(builder.info.features.items()), builder.info.splits
        classes = getattr(features.get(label), "names", None)
        test = next((split for split in TEST_SPLITS if split in splits), None)
        if not classes or image not in features or "train" not in splits or test is None:
            raise TriptychError(f"{what} has no splits train and test of images with classes: {folder}")
        train, tested = (_read(builder.as_data_source(split), image, label, what) for split in ("train", test))
        return Dataset(what, train, tested, tuple(classes))


def check_features(folder: Path, what: str) -> None:
    """Raises TriptychError if the set's description names classes that are not TFDS's own: it would import the modules
    that they are said to be in."""
    note = folder / FEATURES
    try:
        named = list(_classes(records.read(note, MOST_NOTE)))
    except (OSError, ValueError) as error:
        raise TriptychError(f"{what}: {note} cannot be read: {error}") from None
    for name in named:
        if not (isinstance(name, str) and OWN_NAME.fullmatch(name)):
            raise TriptychError(f"{what}: {note} names {str(name)[:80]!r}, which is none of TFDS's own features")


def _classes(described: Any) -> Iterator[Any]:
    """The names of classes in a description, also in the JSON that older versions keep as text in it."""
    waiting = [described]
    while waiting:
        value = waiting.pop()
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, dict):
            yield from (value[key] for key in NAMING if key in value)
            waiting += [records.parse(value[key]) for key in EMBEDDED if isinstance(value.get(key), str)]


def _read(source: Any, image: str, label: str, what: str) -> Split:
    if not len(source):
        raise TriptychError(f"{what} has a split without an image")
    first = np.asarray(source.__getitems__([0])[0][image])
    if first.ndim != 3 or first.dtype != np.uint8:
        raise TriptychError(f"{what} has images {first.shape} {first.dtype}; {EXPECTED}")
    height, width, channels = first.shape
    images = storage.room((len(source), channels, height, width))
    labels = np.zeros(len(source), np.int64)
    for begin in range(0, len(source), BLOCK):
        places = range(begin, min(begin + BLOCK, len(source)))
        for place, example in zip(places, source.__getitems__(list(places)), strict=True):
            pixels = np.asarray(example[image])
            if (pixels.shape, pixels.dtype) != (first.shape, first.dtype):
                shapes = f"{first.shape} {first.dtype} and {pixels.shape} {pixels.dtype}"
                raise TriptychError(f"{what} has images of several shapes, {shapes}; {EXPECTED}")
            images[place], labels[place] = np.moveaxis(pixels, 2, 0), int(example[label])
    return Split(images, labels)


def check_place(name: str, root: Path | None = None) -> None:
    """Raises TriptychError if `prepare` could not write the set `name` below `root`: it is there already, the folder
    cannot be written, or TFDS is not installed."""
    final = (root or cache_dir() / "tfds") / tfds_name(name) / VERSION
    if final.exists():
        raise TriptychError(f"{final} is there already; remove it to prepare it again")
    with told(f"--out {final.parents[1]} cannot be written"):
        probe(final.parent)
    _require_packages(f"preparing {PREFIX}{name}")


def prepare(name: str, dataset: Dataset, root: Path | None = None) -> Path:
    """Writes `dataset` below `root` (default: the cache) as TFDS does, in the same order; the folder it is in. It gets
    its name when it is whole; what a killed one left is removed by the next. Raises TriptychError if the set is there
    already, cannot be written, or is being prepared by another process."""
    check_place(name, root)
    root, spelled = root or cache_dir() / "tfds", tfds_name(name)
    final, working = root / spelled / VERSION, root / f".{spelled}.preparing"
    what = f"preparing {PREFIX}{name}"
    with told(f"{working} cannot be written"):
        working.parent.mkdir(parents=True, exist_ok=True)
    with lock.acquire(working.with_suffix(".lock"), str(working)), _library(what) as library:
        shutil.rmtree(working, ignore_errors=True)
        try:
            working.mkdir(parents=True)
            builder = _builder(library, spelled, dataset)(data_dir=working, file_format="array_record")
            builder.download_and_prepare()
            final.parent.mkdir(parents=True, exist_ok=True)
            Path(builder.data_dir).replace(final)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    return final


def _builder(library: Any, spelled: str, dataset: Dataset) -> Any:
    """A builder class of TFDS that yields the images of `dataset`."""
    channels, height, width = dataset.train.images.shape[1:]

    class Builder(library.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
        name = spelled
        VERSION = library.core.Version(VERSION)

        def _info(self) -> Any:
            kinds = library.features
            image = kinds.Tensor(shape=(height, width, channels), dtype=np.uint8)
            features = {"image": image, "label": kinds.ClassLabel(names=list(dataset.class_names))}
            return library.core.DatasetInfo(
                builder=self,
                description=f"{dataset.name}, as triptych stores it.",
                features=kinds.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,  # batches equal to those of the original need its order
            )

        def _split_generators(self, manager: Any) -> Mapping[str, Any]:
            return {"train": _examples(dataset.train), "test": _examples(dataset.test)}

        def _generate_examples(self) -> Any:
            raise NotImplementedError  # abstract in TFDS, and not called

    return Builder


def _examples(split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        yield index, {"image": np.ascontiguousarray(np.moveaxis(image, 0, 2)), "label": int(label)}
