"""Data sets by name, and the folder that keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers import python
from sources import nearest_mean_accuracy
from triptych import data
from triptych.data import cifar10
from triptych.utils import files
from triptych.utils.errors import TriptychError

pytestmark = pytest.mark.usefixtures("cache")


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "train", "test", "accuracy"), [("synthetic", 512, 256, 0.9), ("fashion-mnist-mini", 5120, 2560, 0.6)]
)
def test_embedded_sets(name, train, test, accuracy):
    dataset = data.load(name)
    assert dataset.name == name
    assert dataset.train.images.shape == (train, 1, 28, 28)
    assert dataset.test.images.shape == (test, 1, 28, 28)
    assert len(dataset.class_names) == 10
    assert np.ptp(np.bincount(dataset.train.labels, minlength=10)) <= 1
    assert nearest_mean_accuracy(dataset) > accuracy
    assert dataset.train.images.flags.writeable  # torch.from_numpy warns otherwise
    again = data.load(name)
    assert (again.train.images == dataset.train.images).all()
    assert (again.test.labels == dataset.test.labels).all()


def test_an_unknown_name_gets_the_nearest_and_the_way_to_a_folder():
    with pytest.raises(TriptychError, match=r"unknown data set 'fashon-mnist'; did you mean 'fashion-mnist'.*folder"):
        data.load("fashon-mnist")
    with pytest.raises(TriptychError, match="there is no folder"):
        data.load("no/such/folder")


def test_describe_has_a_row_per_source(tmp_path):
    rows = {row.name: row for row in data.describe(tmp_path)}
    assert rows.keys() == data.SOURCES.keys()
    assert rows["synthetic"].where is not None
    assert rows["cifar10"].where is None
    assert rows["fashion-mnist"].where is None
    assert cifar10.URL in rows["cifar10"].how_to_get
    (tmp_path / cifar10.ARCHIVE).touch()
    assert {row.name: row.where for row in data.describe(tmp_path)}["cifar10"] == tmp_path / cifar10.ARCHIVE


def test_pillow_is_imported_only_for_class_folders():
    code = "import sys, triptych.data as d; d.load('fashion-mnist-mini'); assert 'PIL' not in sys.modules"
    python(code)


def test_a_split_that_is_not_one_is_refused():
    with pytest.raises(ValueError, match="images must be"):
        data.Split(np.zeros((2, 1, 4, 4)), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="labels must be"):
        data.Split(np.zeros((2, 1, 4, 4), np.uint8), np.zeros(3, np.int64))
    split = data.Split(np.zeros((2, 1, 4, 4), np.uint8), np.array([0, 2]))
    with pytest.raises(ValueError, match=r"not in 0 \.\. 1"):
        data.Dataset("x", split, split, ("a", "b"))
    data.Dataset("x", split, data.Split(split.images[:0], split.labels[:0]), ("a", "b", "c"))


# --- files -----------------------------------------------------------------------------------------------------------


def interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), files.atomic_write(path) as file:
        interrupt(file.write(b"half"))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    with files.atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("TRIPTYCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_dir() == tmp_path / "triptych"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_dir() == Path.home() / ".cache/triptych"
    monkeypatch.setenv("TRIPTYCH_DATA", "~/sets")
    assert files.cache_dir() == Path.home() / "sets"
