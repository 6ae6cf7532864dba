"""Parts of data sets by name: which images they are, and one line for what cannot be taken."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from triptych import data
from triptych.data import Dataset, Split, subset
from triptych.utils.errors import TriptychError


def test_classes_count_from_0_and_the_first_images_of_each_are_taken():
    whole, part = data.load("synthetic"), data.load("synthetic@classes=4-6,train=7,test=3")
    assert part.name == "synthetic@classes=4-6,train=7,test=3"
    assert part.class_names == ("pattern 4", "pattern 5", "pattern 6")
    for split, original, count in ((part.train, whole.train, (3, 2, 2)), (part.test, whole.test, (1, 1, 1))):
        assert tuple(np.bincount(split.labels)) == count
        taken = sorted(
            np.flatnonzero(original.labels == 4 + label)[n] for label in range(3) for n in range(count[label])
        )
        assert np.array_equal(split.images, original.images[taken])
        assert np.array_equal(split.labels, original.labels[taken] - 4)


@pytest.mark.parametrize(
    ("text", "sizes"), [("train=30", (30, 256)), ("test=10", (512, 10)), ("classes=8-9", (102, 50))]
)
def test_what_is_left_out_is_all_of_it(text, sizes):
    part = data.load(f"synthetic@{text}")
    assert (len(part.train), len(part.test)) == sizes


def test_an_unsorted_split_keeps_its_order():
    labels = np.array([2, 0, 1, 1, 2, 0, 2])
    split = Split(np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1), labels)
    taken = subset.first(split, 4, ("a", "b", "c"), "these")
    assert taken.images.ravel().tolist() == [0, 1, 2, 5]
    assert taken.labels.tolist() == [2, 0, 1, 0]
    unbalanced = Dataset("x", split, split, ("a", "b", "c"))
    with pytest.raises(TriptychError, match=r"^data 'x@train=9': train=9 needs 3 images of class 'a', there are 2$"):
        subset.take(unbalanced, subset.Part(train=9), "x@train=9")


def test_folders_have_parts_and_may_have_the_mark_in_their_name(tmp_path):
    for name in ("plain", "my@pictures", "x@train=2"):
        for number in range(12):
            place = tmp_path / name / f"class{number % 3}"
            place.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 20 * number).save(place / f"{number}.png")
        assert len(data.load(str(tmp_path / name)).train) == 9
        part = data.load(f"{tmp_path / name}@classes=1-2,train=4")
        assert (len(part.train), len(part.test), part.class_names) == (4, 2, ("class1", "class2"))
    with pytest.raises(TriptychError, match=r"there is no folder"):
        data.load("no@such/folder")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("synthetic@", "unknown part ''; known: classes, test, train"),
        ("synthetic@trian=5", "unknown part 'trian'; did you mean 'train'"),
        ("synthetic@train", "'train' cannot be read; write for example fashion-mnist@classes=5-9"),
        ("synthetic@train=many", "'train=many' cannot be read"),
        ("synthetic@train=-5", "'train=-5' cannot be read"),
        ("synthetic@train=1.5", "'train=1.5' cannot be read"),
        ("synthetic@train=20,train=30", "'train' is there twice"),
        ("synthetic@train=20,", "unknown part ''"),
        ("synthetic@classes=5", "'classes=5' cannot be read"),
        ("synthetic@classes=5-5", "classes=5-5 must be two or more of the classes 0-9"),
        ("synthetic@classes=7-5", "classes=7-5 must be two or more"),
        ("synthetic@classes=5-10", "classes=5-10 must be two or more"),
        ("synthetic@train=9", "train=9 must be at least 1 of each of the 10 classes"),
        ("synthetic@train=513", "train=513 needs 52 images of class 'pattern 2', there are 51"),
        ("synthetic@test=9999999", "test=9999999 needs 1000000 images of class 'pattern 0', there are 26"),
        ("syntetic@train=10", "unknown data set 'syntetic'; did you mean 'synthetic'"),
    ],
)
def test_what_cannot_be_taken_is_said_in_one_line(name, message):
    with pytest.raises(TriptychError) as raised:
        data.load(name)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["", " ", "@train=20"])
def test_no_name_is_not_the_folder_one_stands_in(name):
    with pytest.raises(TriptychError, match="names no data set"):
        data.load(name)


def test_classes_called_by_numbers_are_taken_by_name(tmp_path, capsys):
    for number in range(11):  # by letters: 0, 1, 10, 2, ...
        for image in range(2):
            path = tmp_path / "set" / str(number) / f"{image}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4), 10 * number).save(path)
    part = data.load(f"{tmp_path / 'set'}@classes=5-9")
    assert part.class_names == ("5", "6", "7", "8", "9")
    for split in (part.train, part.test):
        assert [int(image.mean()) // 10 for image in split.images] == [5 + label for label in split.labels]
    assert "classes 5, 6, 7, 8, 9" in capsys.readouterr().err
    with pytest.raises(TriptychError, match=r"must be two or more of the classes called 0, 1, 2, .*, 10"):
        data.load(f"{tmp_path / 'set'}@classes=5-11")
    words = data.load("fashion-mnist-mini@classes=5-9")
    assert words.class_names[0] == "sandal"
    assert "classes sandal, shirt, sneaker, bag, ankle boot" in capsys.readouterr().err


def test_a_mix_takes_the_classes_in_turns():
    assert subset.mixed(np.array([0, 0, 0, 1, 1, 2]), 5).tolist() == [0, 3, 5, 1, 4]
    assert subset.mixed(np.array([2, 0, 1, 0]), 9).tolist() == [1, 2, 0, 3]
