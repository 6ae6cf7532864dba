"""Every data source: what it returns, and that a missing, truncated or altered file never passes for the real one."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from triptych import data, files
from triptych.data import cifar10, decoded, fashion_mnist, fashion_mnist_mini, folders, make_mini
from triptych.errors import TriptychError

CIFAR_JPEG = Path(__file__).parents[1] / "../shared/data/cifar10-jpeg.tar.xz"
needs_fashion = pytest.mark.skipif(
    not fashion_mnist.DEBIAN_DIR.is_dir(), reason=f"the real Fashion-MNIST is not in {fashion_mnist.DEBIAN_DIR}"
)
needs_cifar = pytest.mark.skipif(not CIFAR_JPEG.is_file(), reason="../shared/data/cifar10-jpeg.tar.xz is not here")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder of the test's own, so that none reads what another, or the user, has left."""
    folder = tmp_path_factory.mktemp("data") / "cache"
    monkeypatch.setenv("TRIPTYCH_DATA", str(folder))
    return folder


def nearest_mean_accuracy(dataset: data.Dataset) -> float:
    """Of the simplest classifier there is: well above chance only if labels and images belong together."""
    train, test = (split.images.reshape(len(split), -1).astype(float) for split in (dataset.train, dataset.test))
    means = np.stack([train[dataset.train.labels == label].mean(0) for label in range(len(dataset.class_names))])
    distances = (means**2).sum(1) - 2 * test @ means.T
    return float((distances.argmin(1) == dataset.test.labels).mean())


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
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})


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


# --- Fashion-MNIST ---------------------------------------------------------------------------------------------------


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


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


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


@pytest.fixture
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(fashion_mnist, "DEBIAN_DIR", tmp_path / "nowhere")


@pytest.mark.usefixtures("no_debian")
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


@pytest.mark.usefixtures("no_debian")
@pytest.mark.parametrize(
    ("urlopen", "message"),
    [(refuse, "no route to host"), (cut, "download .* is damaged"), (another, "damaged or not the original")],
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
    dataset = data.load("fashion-mnist", data_dir=fashion_mnist.DEBIAN_DIR)
    assert dataset.train.images.shape == (60000, 1, 28, 28)
    assert dataset.test.images.shape == (10000, 1, 28, 28)
    assert np.bincount(dataset.train.labels).tolist() == [6000] * 10
    assert nearest_mean_accuracy(dataset) == pytest.approx(0.68, abs=0.01)


# --- Fashion-MNIST mini ----------------------------------------------------------------------------------------------


@needs_fashion
def test_the_mini_set_is_made_again_from_the_real_one(tmp_path, monkeypatch):
    outputs = [tmp_path / "a.npz", tmp_path / "b.npz"]
    monkeypatch.setattr(
        "sys.argv", ["make_mini", "--data-dir", str(fashion_mnist.DEBIAN_DIR), "--out", str(outputs[0])]
    )
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


# --- CIFAR-10 --------------------------------------------------------------------------------------------------------


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
    with pytest.raises(TriptychError, match=r"no CIFAR-10 batch \(it asks for posix\.system"):
        cifar10.parse_batch(pickle.dumps({b"data": Hostile(marker)}), "x")
    assert not marker.exists()
    with pytest.raises(TriptychError, match=r"asks for builtins\.eval"):
        cifar10.parse_batch(b"cbuiltins\neval\n(S'1'\ntR.", "x")


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps({}), pickle.dumps({b"data": [1], b"labels": [1]})])
def test_what_is_no_cifar_batch_is_refused(content):
    with pytest.raises(TriptychError, match="x is no CIFAR-10 batch"):
        cifar10.parse_batch(content, "x")


@needs_cifar
def test_real_cifar_jpegs(tmp_path):
    with tarfile.open(CIFAR_JPEG) as archive:
        for member in archive:  # airplane, automobile, then classes that would take longer to unpack
            if member.name == "train/bird":
                break
            if Path(member.name).match("train/*/000?.jpg"):
                archive.extract(member, tmp_path, filter="data")
    dataset = data.load(str(tmp_path / "train"))
    assert dataset.class_names == ("airplane", "automobile")
    assert dataset.train.images.shape == (16, 3, 32, 32)
    assert dataset.test.images.shape == (4, 3, 32, 32)
    with Image.open(folders.list_images(tmp_path / "train").test["automobile"][1]) as image:
        assert (dataset.test.images[3] == np.asarray(image).transpose(2, 0, 1)).all()


# --- class folders ---------------------------------------------------------------------------------------------------


def save(path: Path, value: int = 0, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> None:
    """An image of one colour; `size` is (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size[::-1], value if len(mode) == 1 else (value, 0, 255 - value)).save(path)


@pytest.fixture
def pictures(tmp_path):
    """Two classes, three training images and one for the test each; the red value says which is which."""
    for label, name in enumerate(("bee", "ant")):
        for number in range(3):
            save(tmp_path / f"set/train/{name}/{number}.png", 100 * label + number)
        save(tmp_path / f"set/test/{name}/0.png", 100 * label + 50)
    return tmp_path / "set"


def test_class_folders(pictures):
    (pictures / "train/bee/notes.txt").write_text("not an image")
    (pictures / "train/bee/._0.png").write_bytes(b"what macOS leaves beside an image")
    for folder in (".hidden", "__MACOSX", "bee/folder.png"):
        (pictures / "train" / folder).mkdir()
    (pictures / "train/bee/2.png").rename(pictures / "train/bee/2.PNG")
    dataset = data.load(str(pictures))
    assert dataset.name == "set"
    assert dataset.class_names == ("ant", "bee")
    assert dataset.train.images.shape == (6, 3, 8, 6)
    assert dataset.train.images[:, 0, 0, 0].tolist() == [100, 101, 102, 0, 1, 2]
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.test.images[:, 2, 7, 5].tolist() == [105, 205]
    assert dataset.test.labels.tolist() == [0, 1]


def test_val_stands_in_for_test(pictures):
    shutil.copytree(pictures / "test", pictures / "val")
    save(pictures / "val/ant/1.png")
    assert len(data.load(str(pictures)).test) == 2  # where both are there, `val` is not looked at
    shutil.rmtree(pictures / "test")
    assert data.load(str(pictures)).test.labels.tolist() == [0, 0, 1]
    shutil.rmtree(pictures / "val/ant")
    assert data.load(str(pictures)).test.labels.tolist() == [1]


def test_class_folders_in_place_of_cifar10(pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(pictures.parent))
    assert data.load("~/set").name == "set"
    dataset = data.load("cifar10", data_dir="~/set")
    assert (dataset.name, dataset.class_names) == ("cifar10", ("ant", "bee"))


def test_without_a_split_a_fifth_of_each_class_is_the_test(tmp_path):
    for label, name in enumerate(("plane", "train")):  # a class may be called train
        for number in range(10):
            save(tmp_path / name / f"{number}.png", 100 * label + number)
    dataset = data.load(str(tmp_path))
    red = [split.images[:, 0, 0, 0].tolist() for split in (dataset.train, dataset.test)]
    assert sorted(red[0] + red[1]) == [*range(10), *range(100, 110)]
    assert dataset.test.labels.tolist() == [0, 0, 1, 1]
    assert dataset.train.labels.tolist() == [0] * 8 + [1] * 8
    assert [value // 100 for value in red[1]] == [0, 0, 1, 1]
    assert red[1] == [1, 8, 101, 108]  # always the same ones


def test_grey_only_if_all_are(tmp_path):
    for name in ("a", "b"):
        for number in range(2):
            save(tmp_path / name / f"{number}.png", 9, mode="L")
    assert data.load(str(tmp_path)).train.images.shape == (2, 1, 8, 6)
    save(tmp_path / "b/2.png", 9)
    assert data.load(str(tmp_path)).train.images.shape == (3, 3, 8, 6)


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)])
def test_every_kind_of_image_of_8_bits_is_read(tmp_path, mode, channels):
    path = tmp_path / f"x.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.new(mode, (4, 3)).save(path)
    assert decoded.decode([path]).shape == (1, channels, 3, 4)


@given(st.lists(st.tuples(st.integers(1, 600), st.integers(1, 600)), min_size=1, max_size=9))
def test_the_common_size(sizes):
    height, width = decoded.common_size(sizes)
    for axis, found in enumerate((height, width)):
        ordered = sorted(size[axis] for size in sizes)
        assert min(ordered[0], 256) <= found <= min(ordered[-1], 256)
    if len(set(sizes)) == 1:
        assert (height, width) == (min(sizes[0][0], 256), min(sizes[0][1], 256))


def test_different_sizes_become_one(pictures):
    for number, size in enumerate(((20, 10), (30, 40), (40, 30))):
        save(pictures / f"train/ant/{number}.png", 7, size)
    assert data.load(str(pictures)).train.images.shape[2:] == (8, 6)  # five of eight have it
    assert folders.load(pictures, size=(11, 13)).test.images.shape == (2, 3, 11, 13)


def test_a_smaller_size_is_a_mean_of_the_pixels(tmp_path):
    board = np.indices((8, 8)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "x.png")
    assert abs(decoded.decode([tmp_path / "x.png"], (2, 2)) - 127.5).max() < 2


@pytest.mark.parametrize("orientation", [5, 6])  # to be mirrored at the diagonal, or turned clockwise: left becomes top
def test_a_photograph_on_its_side_is_turned(tmp_path, orientation):
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))  # the left half is white
    exif = Image.Exif()
    exif[decoded.ORIENTATION] = orientation
    for name in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        image.save(tmp_path / name, exif=exif)
    images = data.load(str(tmp_path)).train.images
    assert images.shape == (2, 3, 20, 10)
    assert (images[:, :, :10] == 255).all()
    assert (images[:, :, 10:] == 0).all()


def test_large_images_are_decoded_in_threads_to_the_same_result(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(12)]
    for number, path in enumerate(paths):
        save(path, number)
    alone = decoded.decode(paths)
    monkeypatch.setattr(decoded, "THREADED", 0)
    original, workers = decoded._pixels, []
    monkeypatch.setattr(decoded, "_pixels", lambda *a: workers.append(threading.current_thread()) or original(*a))
    assert (decoded.decode(paths) == alone).all()
    assert threading.main_thread() not in workers
    paths[5].write_bytes(b"no image")
    with pytest.raises(TriptychError, match=r"5\.png"):
        decoded.decode(paths)


def cut_image(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(b"no image"), "no image that can be read"),
        (cut_image, "cannot be decoded"),
        (lambda path: Image.fromarray(np.zeros((8, 6), np.uint16)).save(path), "mode I;16, expected 8 bits"),
    ],
)
def test_an_unreadable_image_is_named(pictures, damage, message):
    path = pictures / "train/bee/1.png"
    damage(path)
    with pytest.raises(TriptychError, match=message) as error:
        data.load(str(pictures))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no class folders with images"),
        (["a/0.png", "a/1.png"], "only the class 'a'"),
        (["a/0.png", "a/1.png", "b/0.png"], "class 'b' has 1 image"),
        (["a/0.png", "a/1.png", "b/"], "class folder 'b' has no images"),
        (["train/a/0.png", "train/b/0.png"], "no images in test/CLASS"),
        (["train/a/0.png", "train/b/0.png", "test/a/"], "no images in test/CLASS"),
        (["train/a/0.png", "train/b/0.png", "test/c/0.png"], "class 'c' is in the test folder"),
        (["train/a/0.png", "test/a/0.png"], "only the class 'a'"),
    ],
)
def test_folders_that_are_no_data_set(tmp_path, paths, message):
    for path in paths:
        if path.endswith("/"):
            (tmp_path / path).mkdir(parents=True)
        else:
            save(tmp_path / path)
    with pytest.raises(TriptychError, match=message):
        data.load(str(tmp_path))


# --- the cache of decoded images -------------------------------------------------------------------------------------


@pytest.fixture
def decoding(monkeypatch):
    """How often images are decoded."""
    calls, original = [], decoded.decode
    monkeypatch.setattr(decoded, "decode", lambda *args: calls.append(args) or original(*args))
    return calls


def test_images_are_decoded_once_per_change(pictures, decoding, monkeypatch):
    before = data.load(str(pictures))
    after = data.load(str(pictures))
    assert len(decoding) == 1
    assert (before.train.images == after.train.images).all()
    assert (before.test.images == after.test.images).all()
    save(pictures / "train/ant/1.png", 222)
    os.utime(pictures / "train/ant/1.png", ns=(1, 1))
    assert data.load(str(pictures)).train.images[1, 0, 0, 0] == 222
    (pictures / "train/ant/1.png").rename(pictures / "train/ant/9.png")
    assert data.load(str(pictures)).train.images[2, 0, 0, 0] == 222
    assert len(decoding) == 3
    note = (pictures / "train/ant/9.png").stat().st_mtime_ns
    save(pictures / "train/ant/9.png", 7, mode="L")  # of another size, at the same time
    os.utime(pictures / "train/ant/9.png", ns=(1, note))
    assert data.load(str(pictures)).train.images[2, 0, 0, 0] == 7
    monkeypatch.setattr(decoded, "FORMAT", decoded.FORMAT + 1)
    data.load(str(pictures))
    assert len(decoding) == 5


def test_a_file_that_moves_to_another_class_is_noticed(pictures):
    """Same sizes, same times: only the name tells, and the images after it move up."""
    paths = sorted(pictures.glob("*/*/*.png"))
    assert len({path.stat().st_size for path in paths}) == 1
    for path in paths:
        os.utime(path, ns=(1, 1))
    assert data.load(str(pictures)).train.images[:, 0, 0, 0].tolist() == [100, 101, 102, 0, 1, 2]
    for split in ("train", "test"):  # the files' own names stay in their order, too
        (pictures / split / "ant").rename(pictures / split / "cow")
    assert data.load(str(pictures)).train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    (pictures / "train/cow/0.png").rename(pictures / "train/bee/9.png")
    moved = data.load(str(pictures)).train
    assert moved.images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101, 102]
    assert moved.labels.tolist() == [0, 0, 0, 0, 1, 1]


def test_every_size_has_its_entry(pictures, decoding, cache):
    for _ in range(2):
        assert folders.load(pictures, (5, 5)).train.images.shape[2:] == (5, 5)
        assert folders.load(pictures).train.images.shape[2:] == (8, 6)
    assert len(decoding) == 2
    assert len(list(cache.rglob("*.npy"))) == 2


def test_every_folder_has_its_entry_also_if_they_are_called_alike(pictures, decoding, monkeypatch):
    elsewhere = pictures.parent / "elsewhere"
    shutil.copytree(pictures, elsewhere / "set")
    for _ in range(2):
        for place in (pictures.parent, elsewhere):
            monkeypatch.chdir(place)
            data.load("set")
    assert len(decoding) == 2
    monkeypatch.chdir(pictures)
    assert data.load(".").name == "set"


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
def test_a_damaged_entry_is_made_again(pictures, decoding, cache, damage, suffix):
    before = data.load(str(pictures))
    damage(next(cache.rglob(f"*.{suffix}")))
    for _ in range(2):
        assert (data.load(str(pictures)).train.images == before.train.images).all()
    assert len(decoding) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(pictures, cache):
    cache.write_text("a file in place of the folder")
    assert len(data.load(str(pictures)).train) == 6
