"""Class folders, and the cache of their decoded images."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sources import flip_a_bit
from triptych import data
from triptych.data import cached, decoded, folders
from triptych.utils.errors import TriptychError

pytestmark = pytest.mark.usefixtures("cache")


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
        assert min(ordered[0], decoded.LARGEST) <= found <= min(ordered[-1], decoded.LARGEST)
    if len(set(sizes)) == 1:
        assert (height, width) == (min(sizes[0][0], decoded.LARGEST), min(sizes[0][1], decoded.LARGEST))


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
        (
            lambda path: Image.fromarray(np.zeros((8, 6), np.uint16)).save(path),
            "mode I;16, expected 8 bits per channel; --scale-16-bit",
        ),
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
    calls, original = [], decoded.decode_all
    monkeypatch.setattr(decoded, "decode_all", lambda *args: calls.append(args) or original(*args))
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
    monkeypatch.setattr(cached, "FORMAT", cached.FORMAT + 1)
    data.load(str(pictures))
    assert len(decoding) == 5


def test_a_file_of_the_same_size_and_time_is_noticed(pictures, decoding):
    """`cp -p`, `rsync -t`, `touch -r`: only the file's number, or the time of its last change, tells."""
    data.load(str(pictures))
    path = pictures / "train/ant/1.png"
    before = path.stat()
    save(path, 222)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert data.load(str(pictures)).train.images[1, 0, 0, 0] == 222


def test_an_array_of_another_shape_is_no_entry(pictures, decoding, cache):
    """The same bytes, rows and columns exchanged."""
    before = data.load(str(pictures)).train.images
    entry = next(cache.rglob("*.npy"))
    np.save(entry, np.load(entry).reshape(-1, 3, 6, 8))
    assert (data.load(str(pictures)).train.images == before).all()
    assert len(decoding) == 2


def test_what_is_replaced_while_it_is_decoded_is_not_kept(pictures, monkeypatch):
    original = decoded.decode_all

    def decode(*given):
        images = original(*given)
        save(pictures / "train/ant/1.png", 222)
        return images

    monkeypatch.setattr(decoded, "decode_all", decode)
    data.load(str(pictures))
    monkeypatch.undo()
    assert data.load(str(pictures)).train.images[1, 0, 0, 0] == 222


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


def open_a_bracket(path):
    """In an array's header, where Python's tokenizer finds no end."""
    path.write_bytes(path.read_bytes().replace(b"}", b"(", 1))


@pytest.mark.parametrize("suffix", ["npy", "json"])
@pytest.mark.parametrize(
    "damage", [flip_a_bit, open_a_bracket, lambda path: path.write_bytes(b""), lambda path: path.unlink()]
)
def test_a_damaged_entry_is_made_again(pictures, decoding, cache, damage, suffix):
    before = data.load(str(pictures))
    damage(next(cache.rglob(f"*.{suffix}")))
    for _ in range(2):
        assert (data.load(str(pictures)).train.images == before.train.images).all()
    assert len(decoding) == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(pictures, cache):
    cache.write_text("a file in place of the folder")
    assert len(data.load(str(pictures)).train) == 6


def test_valid_stands_in_for_test_and_a_class_has_the_images_below_it(pictures):
    (pictures / "test").rename(pictures / "valid")
    before = data.load(str(pictures))
    deep = pictures / "train/bee/more/still"
    deep.mkdir(parents=True)
    (pictures / "train/bee/1.png").rename(deep / "9.png")
    (pictures / "train/bee/loop").symlink_to(pictures / "train")  # not followed: it would never end
    hidden = pictures / "train/bee/.thumbs"
    hidden.mkdir()
    save(hidden / "x.png", 3)
    after = data.load(str(pictures))
    assert len(after.test) == len(before.test) > 0
    assert after.train.labels.tolist() == before.train.labels.tolist()


@pytest.fixture
def some_damaged(pictures):
    """Two of the training images are none."""
    bad = [pictures / "train/ant/0.png", pictures / "train/bee/1.png"]
    bad[0].write_bytes(b"no image")
    cut_image(bad[1])
    return pictures, bad


def test_all_damaged_files_are_in_one_list(some_damaged):
    folder, bad = some_damaged
    with pytest.raises(TriptychError, match="2 images cannot be read") as error:
        data.load(str(folder))
    assert all(str(path) in str(error.value) for path in bad)
    assert "--skip-bad-images" in str(error.value)


def test_what_many_files_have_wrong_is_said_once_with_the_files_in_their_order(pictures):
    for number in (2, 0, 1):
        (pictures / f"train/ant/{number}.png").write_bytes(b"no image")
    cut_image(pictures / "train/bee/1.png")
    with pytest.raises(TriptychError) as error:
        data.load(str(pictures))
    told = str(error.value)
    assert told.count("is no image that can be read") == told.count("cannot be decoded") == 1
    ants = ", ".join(str(pictures / f"train/ant/{number}.png") for number in range(3))
    assert f"or is damaged: {ants}; " in told
    assert told.startswith("4 images cannot be read: ")
    assert told.endswith("; remove or replace them; or leave them out with --skip-bad-images")


def test_damaged_files_can_be_left_out_and_are_named_each_time(some_damaged, capsys):
    folder, bad = some_damaged
    whole = sum(1 for _ in (folder / "train").rglob("*.png"))
    for _ in range(2):  # the second from the cache
        dataset = data.load(str(folder), reading=decoded.Reading(skip_bad=True))
        assert len(dataset.train) == whole - 2
        told = capsys.readouterr().err
        assert "2 images cannot be read and are left out" in told
        assert all(str(path) in told for path in bad)
    names = sorted((folder / "train").rglob("*.png"))
    kept = [path for path in names if path not in bad]
    for image, label, path in zip(dataset.train.images, dataset.train.labels, kept, strict=True):
        assert (image == decoded.decode([path], image.shape[1:])[0]).all()
        assert dataset.class_names[label] == path.parent.name
    with pytest.raises(TriptychError, match="2 images cannot be read"):
        data.load(str(folder))


def test_a_class_of_which_nothing_is_left_is_no_class(pictures):
    for path in (pictures / "train/bee").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(TriptychError, match="nothing is left of class 'bee'"):
        data.load(str(pictures), reading=decoded.Reading(skip_bad=True))


def test_16_bits_are_scaled_on_request(tmp_path):
    values = np.array([[0, 257, 128, 65535], [129, 32768, 65406, 65407]], np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(values).save(path)
    with pytest.raises(TriptychError, match="--scale-16-bit"):
        decoded.decode([path])
    scaled = decoded.decode([path], reading=decoded.Reading(scale_16=True))
    assert scaled[0, 0].tolist() == [[0, 1, 0, 255], [1, 128, 254, 255]]
    assert decoded.stored_size(path, decoded.Reading(scale_16=True)) == (2, 4)
