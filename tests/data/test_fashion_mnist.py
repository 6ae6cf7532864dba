"""Fashion-MNIST and its mini set: a missing, truncated or altered file never passes for the real one."""

from __future__ import annotations

import gzip
import hashlib
import io
import shutil
import struct
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import make_mini
from marks import REAL_SETS, needs_set
from sources import flip_a_bit, nearest_mean_accuracy
from triptych import data
from triptych.data import fashion_mnist, fashion_mnist_mini
from triptych.utils import files
from triptych.utils.errors import TriptychError

FASHION = REAL_SETS / "fashion-mnist"
needs_fashion = needs_set("fashion-mnist")
pytestmark = pytest.mark.usefixtures("cache")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A folder of four small files that pass for the originals; one of them not compressed."""
    folder, random = tmp_path / "idx", np.random.default_rng(0)
    folder.mkdir()
    for name in fashion_mnist.HASHES:
        count = 20 if name.startswith("train") else 10
        array = random.integers(0, 256, (count, 28, 28)) if "images" in name else np.arange(count) % 10
        content = idx(array)
        monkeypatch.setitem(fashion_mnist.HASHES, name, hashlib.sha256(content).hexdigest())
        if name.startswith("t10k-labels"):
            (folder / name).write_bytes(content)
        else:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    return folder


def test_idx_files_compressed_and_not(fashion):
    dataset = data.load("fashion-mnist", data_dir=str(fashion))
    assert dataset.train.images.shape == (20, 1, 28, 28)
    assert dataset.train.images.flags.writeable  # as above
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.class_names[9] == "ankle boot"


IMAGES = "train-images-idx3-ubyte"


def truncate_gzip(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def repacked(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Damage below the compression, which gzip's own checksum does not see."""
    return lambda path: path.write_bytes(gzip.compress(change(gzip.decompress(path.read_bytes()))))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_gzip, r"truncated or damaged \(\d+ bytes; gzip"),
        (flip_a_bit, "truncated or damaged"),
        (lambda path: path.write_bytes(b""), "is no IDX file"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "truncated or damaged"),
        (repacked(lambda c: b"\0\0\x0d" + c[3:]), "is no IDX file"),
        (repacked(lambda c: c[:10]), "its header alone has 16"),
        (repacked(lambda c: c[:-1]), r"has 15695 bytes, its header \(20, 28, 28\) expects 15696"),
        (repacked(lambda c: c + c[-1:]), r"has 15697 bytes, its header \(20, 28, 28\) expects 15696"),
        (
            repacked(lambda c: bytes([0, 0, 8, 70, *[0, 0, 0, 1] * 70, 5])),
            "that it has 70 dimensions, expected at most 4",
        ),
        (repacked(lambda c: c[:4] + bytes([255] * 8) + c[12:]), f"expects {16 + 28 * (2**32 - 1) ** 2}"),
        (repacked(lambda c: c[:-1] + bytes([c[-1] ^ 1])), "sha256 of its content is [0-9a-f]{64}.*expected"),
        (lambda path: path.unlink(), "holds neither"),
    ],
)
def test_wrong_idx_files_are_named(fashion, damage, message):
    damage(fashion / f"{IMAGES}.gz")
    with pytest.raises(TriptychError, match=message) as error:
        data.load("fashion-mnist", data_dir=fashion)
    assert IMAGES in str(error.value)


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, 15695), bit=st.integers(0, 7))
def test_no_flipped_bit_passes(position, bit):
    content = bytearray(idx(np.arange(20 * 784).reshape(20, 28, 28) % 251))
    expected = hashlib.sha256(content).hexdigest()
    content[position] ^= 1 << bit
    with pytest.raises(TriptychError, match="x is damaged"):
        files.check_hash(bytes(content), expected, "x", "get another")
    if position < 16:
        with pytest.raises(TriptychError, match="x "):
            fashion_mnist.read_idx(bytes(content), "x")


class Answer(io.BytesIO):
    """What `urlopen` returns, with the given bytes."""

    status = 200

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content))}


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("/opt/share:/usr/share", ["/opt/share/datasets/fashion-mnist", "/usr/share/datasets/fashion-mnist"]),
        ("", ["/usr/local/share/datasets/fashion-mnist", "/usr/share/datasets/fashion-mnist"]),
    ],
)
def test_packages_of_the_distribution_are_looked_for(variable, expected, monkeypatch):
    monkeypatch.setenv("XDG_DATA_DIRS", variable)
    assert list(map(str, fashion_mnist.system_folders())) == expected


def test_a_package_of_the_distribution_is_found_before_the_cache(fashion, cache, tmp_path, monkeypatch):
    for folder in (cache, tmp_path / "share/datasets"):
        shutil.copytree(fashion, folder / "fashion-mnist")
    assert fashion_mnist.locate() == cache / "fashion-mnist"
    monkeypatch.setenv("XDG_DATA_DIRS", f"{tmp_path / 'none'}:{tmp_path / 'share'}")
    assert fashion_mnist.locate() == tmp_path / "share/datasets/fashion-mnist"


def test_a_download_is_checked_and_kept(fashion, cache, monkeypatch):
    name = "t10k-labels-idx1-ubyte"
    (fashion / f"{name}.gz").write_bytes(gzip.compress((fashion / name).read_bytes()))
    asked = []

    def fetch(request: urllib.request.Request, timeout: float) -> Answer:
        asked.append(request.full_url.removeprefix(fashion_mnist.URL))
        return Answer((fashion / asked[-1]).read_bytes())

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    assert len(data.load("fashion-mnist").train) == 20
    assert sorted(asked) == sorted(f"{name}.gz" for name in fashion_mnist.HASHES)
    assert sorted(path.name for path in (cache / "fashion-mnist").iterdir()) == sorted(asked)
    data.load("fashion-mnist")
    assert len(asked) == 4
    (cache / "fashion-mnist" / f"{name}.gz").unlink()
    data.load("fashion-mnist")
    assert asked[4:] == [f"{name}.gz"]


def refuse(*_: object, **__: object) -> None:
    raise urllib.error.URLError("no route to host")


def cut(*_: object, **__: object) -> Answer:
    return Answer(gzip.compress(b"abc")[:-5])


def another(*_: object, **__: object) -> Answer:
    return Answer(gzip.compress(b"abc"))


@pytest.mark.parametrize(
    ("urlopen", "message"),
    [
        (refuse, "no route to host"),
        (cut, "download .* damaged"),
        (another, "damaged or not the original"),
    ],
)
def test_a_failed_download_says_how_to_get_the_files_and_leaves_nothing(cache, monkeypatch, urlopen, message):
    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    with pytest.raises(TriptychError, match=message) as error:
        data.load("fashion-mnist")
    assert "dataset-fashion-mnist" in str(error.value)
    assert "--data-dir" in str(error.value)
    assert not [path for path in cache.rglob("*") if path.is_file()]


@needs_fashion
def test_the_real_set():
    dataset = data.load("fashion-mnist", data_dir=FASHION)
    assert dataset.train.images.shape == (60000, 1, 28, 28)
    assert dataset.test.images.shape == (10000, 1, 28, 28)
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    assert nearest_mean_accuracy(dataset) == pytest.approx(0.68, abs=0.01)


# --- Fashion-MNIST mini ----------------------------------------------------------------------------------------------


@needs_fashion
def test_the_mini_set_is_made_again_from_the_real_one(tmp_path, monkeypatch):
    outputs = [tmp_path / "a.npz", tmp_path / "b.npz"]
    monkeypatch.setattr("sys.argv", ["make_mini", "--data-dir", str(FASHION), "--out", str(outputs[0])])
    make_mini.main()
    arrays = fashion_mnist_mini.read(outputs[0])  # which checks the hash of the content
    shipped = fashion_mnist_mini.read()
    assert all((arrays[name] == shipped[name]).all() for name in fashion_mnist_mini.ARRAYS)
    make_mini.write(outputs[1], arrays)
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_the_mini_set_has_as_many_of_each_class_in_no_order():
    dataset = data.load("fashion-mnist-mini")
    assert np.bincount(dataset.train.labels).tolist() == [512] * 10
    assert np.bincount(dataset.test.labels).tolist() == [256] * 10
    assert len(set(dataset.train.labels[:100].tolist())) == 10
    assert len(np.unique(dataset.train.images.reshape(5120, -1), axis=0)) > 5100
    assert fashion_mnist_mini.FILE.stat().st_size < 3_500_000


def test_a_mini_set_of_other_content_is_refused(tmp_path):
    arrays = fashion_mnist_mini.read()
    arrays["test_labels"] = arrays["test_labels"][::-1]
    make_mini.write(tmp_path / "x.npz", arrays)
    with pytest.raises(TriptychError, match="sha256 of its content"):
        fashion_mnist_mini.read(tmp_path / "x.npz")


def test_a_truncated_or_missing_mini_set_is_refused(tmp_path):
    content = fashion_mnist_mini.FILE.read_bytes()
    for length in (0, 10, 1000, len(content) // 2, len(content) - 30):
        (tmp_path / "x.npz").write_bytes(content[:length])
        with pytest.raises(TriptychError, match="missing or damaged"):
            fashion_mnist_mini.read(tmp_path / "x.npz")
    with pytest.raises(TriptychError, match="missing or damaged"):
        fashion_mnist_mini.read(tmp_path / "none.npz")


def test_a_damaged_byte_of_the_mini_set_is_an_error_or_harmless(tmp_path):
    """Among the last 400 bytes, the zip's directory, and the first 200 some mean nothing; the rest are image data."""
    content, shipped = fashion_mnist_mini.FILE.read_bytes(), fashion_mnist_mini.read()
    size, random = len(content), np.random.default_rng(0)
    positions = [*random.integers(0, 200, 5), *random.integers(size - 400, size, 20), *random.integers(200, size, 10)]
    refused = 0
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(random.integers(8))
        (tmp_path / "x.npz").write_bytes(damaged)
        try:
            arrays = fashion_mnist_mini.read(tmp_path / "x.npz")
        except TriptychError:
            refused += 1
        else:
            assert all((arrays[name] == shipped[name]).all() for name in shipped)
    assert refused >= 10
