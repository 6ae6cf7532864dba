"""CIFAR-10: a missing or altered file never passes for the real one, and none runs anything."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marks import REAL_SETS, needs_set
from sources import flip_a_bit
from triptych import data
from triptych.data import cifar10, folders
from triptych.utils.errors import TriptychError

CIFAR_JPEG = "cifar10-jpeg.tar.xz"  # class folders of JPEG files
pytestmark = pytest.mark.usefixtures("cache")


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def cifar_batch(number: int, count: int = 4) -> bytes:
    images = np.full((count, 3072), number, np.uint8)
    images[:, 1024:2048] += 100  # the green plane
    return pickle.dumps({b"data": images, b"labels": [(number + i) % 10 for i in range(count)]}, protocol=3)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """The extracted folder and the archive of a small set that passes for the original."""
    folder = tmp_path / "cifar" / cifar10.FOLDER
    folder.mkdir(parents=True)
    for number, name in enumerate([*cifar10.TRAIN_MD5, *cifar10.TEST_MD5]):
        content = cifar_batch(number)
        (folder / name).write_bytes(content)
        hashes = cifar10.TRAIN_MD5 if name in cifar10.TRAIN_MD5 else cifar10.TEST_MD5
        monkeypatch.setitem(hashes, name, md5(content))
    (tmp_path / "archive").mkdir()
    archive = tmp_path / "archive" / cifar10.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, cifar10.FOLDER)
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", md5(archive.read_bytes()))
    return folder


@pytest.mark.parametrize("place", ["cifar", "archive", f"cifar/{cifar10.FOLDER}"])
def test_cifar10_from_folder_and_archive(cifar, tmp_path, place):
    dataset = data.load("cifar10", data_dir=tmp_path / place)
    assert dataset.train.images.shape == (20, 3, 32, 32)
    assert dataset.test.images.shape == (4, 3, 32, 32)
    assert dataset.train.images[4:8, :, 0, 0].tolist() == [[1, 101, 1]] * 4
    assert dataset.test.labels.tolist() == [5, 6, 7, 8]
    assert dataset.class_names[3] == "cat"


def test_cifar10_in_the_cache_needs_no_folder_named(cifar, cache):
    cache.mkdir()
    cifar.parent.rename(cache / "cifar10")
    assert len(data.load("cifar10").train) == 20


@pytest.mark.parametrize("name", [cifar10.ARCHIVE, "data_batch_3", "test_batch"])
def test_an_altered_cifar_file_is_named_with_both_hashes(cifar, tmp_path, name):
    folder = tmp_path / "archive" if name == cifar10.ARCHIVE else cifar
    expected = md5((folder / name).read_bytes())
    flip_a_bit(folder / name)
    with pytest.raises(TriptychError, match=f"{name} is damaged.*md5.*expected {expected}.*{cifar10.URL}") as error:
        data.load("cifar10", data_dir=folder)
    assert md5((folder / name).read_bytes()) in str(error.value)


def test_missing_cifar_files_are_named(cifar, tmp_path):
    (cifar / "data_batch_5").unlink()
    with pytest.raises(TriptychError, match="data_batch_5 cannot be read: No such file"):
        data.load("cifar10", data_dir=cifar)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TriptychError, match=f"no {cifar10.ARCHIVE}.*{cifar10.URL}"):
        data.load("cifar10", data_dir=tmp_path / "empty")


class Hostile:
    """A pickle of this runs a command when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_cannot_run_anything(tmp_path):
    marker = tmp_path / "marker"
    for hostile in ({b"data": Hostile(marker)}, {Hostile(marker): 1}, Hostile(marker)):
        with pytest.raises(TriptychError, match=r"no CIFAR-10 batch"):
            cifar10.parse_batch(pickle.dumps(hostile), "x")
    assert not marker.exists()


def batch_with(state: bytes, labels: bytes = b"]K\x07a") -> bytes:
    """A batch of one image as the authors' Python 2 pickled it, its array filled with what `state` makes."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return b"\x80\x02}(U\x04data" + array + state + b"bU\x06labels" + labels + b"u."


def dtype_with(state: bytes = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t", code: bytes = b"u1") -> bytes:
    return b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R" + state + b"b"


def array_state(dtype: bytes, length: int = 3072, rows: bytes = b"K\x01", order: bytes = b"\x89") -> bytes:
    content = bytes(index % 251 for index in range(length))
    return b"(K\x01" + rows + b"M\x00\x0c\x86" + dtype + order + b"T" + length.to_bytes(4, "little") + content + b"t"


def test_the_authors_own_pickles_are_read():
    read = cifar10.parse_batch(batch_with(array_state(dtype_with())), "x")
    assert (read.images.ravel() == np.arange(3072) % 251).all()
    assert read.labels.tolist() == [7]


@pytest.mark.parametrize(
    "content",
    [
        # A dtype with the flags of an object and no names, which NumPy's own unpickling takes: reading such an array
        # takes its bytes for addresses, and the process dies.
        batch_with(array_state(dtype_with(b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ft", b"O8"))),
        batch_with(array_state(dtype_with(), length=3071)),
        batch_with(array_state(dtype_with(), rows=b"J\xff\xff\xff\xff")),
        batch_with(array_state(dtype_with()), labels=b"]K\x0aa"),
        batch_with(array_state(dtype_with()), labels=b"]J\xff\xff\xff\xffa"),
        batch_with(array_state(dtype_with()), labels=b"U\x01x"),
        batch_with(array_state(dtype_with()), labels=b"]"),
    ],
)
def test_a_crafted_array_is_refused(content):
    with pytest.raises(TriptychError, match="x is no CIFAR-10 batch"):
        cifar10.parse_batch(content, "x")


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps({}), pickle.dumps({b"data": [1], b"labels": [1]})])
def test_what_is_no_cifar_batch_is_refused(content):
    with pytest.raises(TriptychError, match="x is no CIFAR-10 batch"):
        cifar10.parse_batch(content, "x")


@needs_set(CIFAR_JPEG)
def test_real_cifar_jpegs(tmp_path):
    with tarfile.open(REAL_SETS / CIFAR_JPEG) as archive:
        for member in archive:  # airplane, automobile, then classes that would take longer to unpack
            if member.name == "train/bird":
                break
            if Path(member.name).match("train/*/000?.jpg"):
                archive.extract(member, tmp_path, filter="data")
    dataset = data.load(str(tmp_path / "train"))
    assert dataset.class_names == ("airplane", "automobile")
    assert dataset.train.images.shape == (16, 3, 32, 32)
    assert dataset.test.images.shape == (4, 3, 32, 32)
    with Image.open(folders.list_images(tmp_path / "train")[1]["automobile"][1]) as image:
        assert (dataset.test.images[3] == np.asarray(image).transpose(2, 0, 1)).all()
