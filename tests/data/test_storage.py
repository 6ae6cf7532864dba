"""Sets that are larger than memory lie in mapped files: the same images, batches and training as in memory."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marks import every_backend
from triptych import data
from triptych.backend import registry
from triptych.data import recordio, storage
from triptych.data.dataset import Dataset, Split
from triptych.data.decoded import Reading
from triptych.training import loop, sessions
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError

RANDOM = np.random.default_rng(5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("ant", "bee", "cat"):
        for number in range(12):
            place = tmp_path / "set" / name / f"{number:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RANDOM.integers(0, 256, (28, 28), np.uint8)).save(place)
    return tmp_path / "set"


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "SHARE", 1 << 62)


def pair(dataset: Dataset) -> tuple[Split, Split]:
    return dataset.train, dataset.test


def test_class_folders_in_a_file_are_the_same_images(folder, cache, everything_is_large, monkeypatch) -> None:
    mapped = [data.load(str(folder)), data.load(str(folder))]  # decoded, and from the cache
    monkeypatch.undo()
    for split, *others in zip(pair(data.load(str(folder))), *map(pair, mapped), strict=True):
        assert not storage.is_mapped(split.images)
        for other in others:
            assert storage.is_mapped(other.images)
            assert np.array_equal(split.images, other.images)
            assert split.digest == other.digest
    assert len(list(cache.rglob("*.npy"))) == 1


@pytest.mark.usefixtures("everything_is_large")
def test_bad_images_leave_no_gap(folder: Path, cache: Path) -> None:
    whole = data.load(str(folder))
    for name in ("ant/03", "bee/00", "cat/11"):
        (folder / f"{name}.png").write_bytes(b"no image")
    reading = Reading(skip_bad=True)
    first, again = (data.load(str(folder), reading=reading) for _ in range(2))
    known = {image.tobytes() for split in pair(whole) for image in split.images}
    for one, other, total in zip(pair(first), pair(again), pair(whole), strict=True):
        assert np.array_equal(one.images, other.images)
        assert storage.is_mapped(other.images)
        assert {image.tobytes() for image in one.images} <= known
        assert len(one) == len(one.images) <= len(total)
    assert sum(map(len, pair(first))) == 33


@pytest.mark.usefixtures("cache")
def test_packed_records_in_a_file_are_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordio.pack(data.load("synthetic@train=20,test=10"), tmp_path / "x.rec")
    resident = data.load(str(tmp_path / "x.rec"))
    monkeypatch.setattr(storage, "SHARE", 1 << 62)
    mapped = data.load(str(tmp_path / "x.rec"))
    assert storage.is_mapped(mapped.train.images)
    assert [split.digest for split in pair(mapped)] == [split.digest for split in pair(resident)]


@every_backend
def test_a_training_from_a_file_is_that_from_memory(name, folder, cache, monkeypatch) -> None:
    """The same bits, in batches that are read ahead."""
    weights, threads, original = [], [], storage.ahead
    monkeypatch.setattr(storage, "ahead", lambda items: threads.append(1) or original(items))
    recipe = Recipe(name="x", architecture="lenet", data=str(folder), batch_size=7, epochs=2, seed=3)
    for share in (1, 1 << 62):
        monkeypatch.setattr(storage, "SHARE", share)
        session = sessions.start(registry.load(name), recipe, data.load(str(folder)))
        loop.fit(session, loop.Listener())
        weights.append(registry.load(name).to_canonical(session.network))
    assert len(threads) == 2  # an epoch each, of the second run alone
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(value, weights[1][path]) for path, value in weights[0].items())


def test_items_are_read_ahead_in_order_and_no_further() -> None:
    made = []

    def items() -> Iterator[int]:
        for number in range(9):
            made.append(threading.get_ident())
            yield number

    reading = storage.ahead(items())
    assert next(reading) == 0
    reading.close()
    assert len(made) <= 2 + storage.AHEAD
    assert set(made) != {threading.get_ident()}
    assert list(storage.ahead(items())) == list(range(9))


def test_what_fails_ahead_is_told_where_it_is_asked_for() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no image")

    reading = storage.ahead(items())
    assert next(reading) == 1
    with pytest.raises(ValueError, match="no image"):
        next(reading)


@pytest.mark.usefixtures("everything_is_large")
def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing into a mapped file would end the process with SIGBUS."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(TriptychError, match=r"too many for the memory.*No space left.*1,000 bytes were needed"):
        storage.room((10, 1, 10, 10), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_images_move_up_in_place() -> None:
    images = np.arange(3 * storage.BLOCK + 5, dtype=np.int64)[:, None, None, None]
    places = [0, 7, storage.BLOCK, 3 * storage.BLOCK + 4]
    assert np.array_equal(storage.without(images.copy(), places), np.delete(images, places, axis=0))
    assert np.array_equal(storage.without(images.copy(), []), images)
