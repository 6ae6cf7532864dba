"""MXNet's RecordIO: packed and read back to the bit, here and by MXNet's own reader; damage is told by its place."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triptych import data
from triptych.__main__ import main
from triptych.backend import registry
from triptych.data import recordio
from triptych.data.dataset import Dataset, Split
from triptych.data.decoded import Reading
from triptych.utils.errors import TriptychError

MAGIC = struct.pack("<I", 0xCED7230A)
RANDOM = np.random.default_rng(3)
needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")


def dataset(channels: int = 3) -> Dataset:
    def split(count: int) -> Split:
        images = RANDOM.integers(0, 256, (count, channels, 7, 9), np.uint8)
        return Split(images, np.arange(count, dtype=np.int64) % 3)

    return Dataset("small", split(9), split(5), ("0", "1", "2"))


def one(value: float, content: bytes = b"x" * 10) -> tuple[np.ndarray, bytes]:
    return np.array([value], np.float32), content


def png() -> bytes:
    into = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (4, 5), np.uint8)).save(into, "png")
    return into.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_packed_is_the_data_set_again(channels: int, tmp_path: Path) -> None:
    packed = dataset(channels)
    files = recordio.pack(packed, tmp_path / "small.rec")
    assert [file.name for file in files] == ["small.rec", "small.idx", "small-test.rec", "small-test.idx"]
    read = data.load(str(tmp_path / "small.rec"))
    for split, other in ((packed.train, read.train), (packed.test, read.test)):
        assert np.array_equal(split.images, other.images)
        assert np.array_equal(split.labels, other.labels)
    assert read.class_names == ("0", "1", "2")
    with pytest.raises(TriptychError, match="is there already"):
        recordio.pack(packed, tmp_path / "small.rec")


def test_without_a_test_file_a_fifth_of_every_class_is_the_test(tmp_path: Path) -> None:
    images = [(np.array([n % 2], np.float32), png()) for n in range(10)]
    recordio.write(tmp_path / "all.rec", images)
    read = data.load(str(tmp_path / "all.rec"))
    assert (len(read.train), len(read.test), sorted(read.test.labels)) == (8, 2, [0, 1])


def test_two_files_of_any_names_are_one_data_set(tmp_path: Path) -> None:
    recordio.write(tmp_path / "a.rec", [one(0, png()), one(1, png())])
    recordio.write(tmp_path / "a-test.rec", [one(0, png())] * 4)
    recordio.write(tmp_path / "b.rec", [one(2, png())] * 3)
    both = f"{tmp_path}/a.rec,{tmp_path}/b.rec"
    read = data.load(both)
    assert (len(read.train), len(read.test), len(read.class_names)) == (2, 3, 3)
    assert len(data.load(f"{both}@classes=0-1").train) == 2
    with pytest.raises(TriptychError, match=r"c\.rec: No such file"):
        data.load(f"{tmp_path}/a.rec,{tmp_path}/c.rec")
    recordio.write(tmp_path / "x.rec,y.rec", [one(n % 2, png()) for n in range(10)])
    assert len(data.load(f"{tmp_path}/x.rec,y.rec").train) == 8  # a file of this name comes first


@needs_mxnet
def test_several_labels_are_read_by_mxnet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry.load("mxnet")
    import mxnet as mx

    labels = np.array([[0, 0.25, 3], [1, -2, 1e-3]], np.float32)
    recordio.write(tmp_path / "m.rec", [(row, png()) for row in labels])
    recordio.write(tmp_path / "m-test.rec", [one(1, png())])
    reader = mx.recordio.MXRecordIO(str(tmp_path / "m.rec"), "r")
    assert all(np.array_equal(mx.recordio.unpack(reader.read())[0].label, row) for row in labels)
    iterator = mx.io.ImageRecordIter(
        path_imgrec=str(tmp_path / "m.rec"), data_shape=(3, 4, 5), batch_size=2, label_width=3
    )
    assert np.array_equal(next(iterator).label[0].asnumpy(), labels)
    assert data.load(str(tmp_path / "m.rec")).train.labels.tolist() == [0, 1]
    assert capsys.readouterr().err == f"{tmp_path}/m.rec: records have up to 3 labels; the first is the class\n"


@pytest.mark.parametrize("name", ["cats-test.rec", "cats_val.rec", "cats-val.rec", "cats_valid.rec"])
def test_the_test_set_lies_beside(name: str, tmp_path: Path) -> None:
    recordio.write(tmp_path / "cats.rec", [one(0, png()), one(1, png())])
    recordio.write(tmp_path / name, [one(1, png())])
    assert len(data.load(str(tmp_path / "cats.rec")).test) == 1


@needs_mxnet
def test_mxnets_own_reader_reads_it(tmp_path: Path) -> None:
    registry.load("mxnet")
    import mxnet as mx

    packed = dataset()
    files = [str(file) for file in recordio.pack(packed, tmp_path / "small.rec")]
    reader = mx.recordio.MXIndexedRecordIO(files[1], files[0], "r")
    for number in (4, 0, 8):
        header, content = mx.recordio.unpack(reader.read_idx(number))
        assert (header.label, header.id) == (packed.train.labels[number], number)
        decoded = mx.image.imdecode(content).asnumpy()
        assert np.array_equal(decoded.transpose(2, 0, 1), packed.train.images[number])
    iterator = mx.io.ImageRecordIter(path_imgrec=files[0], path_imgidx=files[1], data_shape=(3, 7, 9), batch_size=9)
    batch = next(iterator)
    assert np.array_equal(batch.data[0].asnumpy().astype(np.uint8), packed.train.images)
    assert np.array_equal(batch.label[0].asnumpy(), packed.train.labels)


@needs_mxnet
def test_what_mxnet_writes_is_read(tmp_path: Path) -> None:
    """Several labels, and the magic number within the bytes, which cuts a record into parts."""
    registry.load("mxnet")
    import mxnet as mx

    contents = [b"abcd" + MAGIC + b"ef" + MAGIC * 3 + b"g", MAGIC, b"x" * 5 + MAGIC, b""]
    several = struct.pack("<IfQQ", 3, 0, 1, 0) + np.array([1, 0.5, 7], "<f4").tobytes()  # `pack` asks NumPy 1 for these
    writer = mx.recordio.MXIndexedRecordIO(str(tmp_path / "a.idx"), str(tmp_path / "a.rec"), "w")
    for number, content in enumerate(contents):
        alone = mx.recordio.pack(mx.recordio.IRHeader(0, float(number), number, 0), content)
        writer.write_idx(number, several + content if number == 1 else alone)
    writer.close()
    records = recordio.read(tmp_path / "a.rec")
    assert [record.content for record in records] == contents
    assert [record.labels.tolist() for record in records] == [[0.0], [1.0, 0.5, 7.0], [2.0], [3.0]]
    recordio.write(tmp_path / "b.rec", [(record.labels, record.content) for record in records])
    assert (tmp_path / "b.rec").read_bytes() == (tmp_path / "a.rec").read_bytes()
    assert (tmp_path / "b.idx").read_bytes() == (tmp_path / "a.idx").read_bytes()


@pytest.mark.parametrize("content", [b"", MAGIC, MAGIC * 2, b"ab" + MAGIC, b"abcd" + MAGIC + b"e", b"abcd" + MAGIC * 2])
def test_a_record_in_parts_is_one(content: bytes, tmp_path: Path) -> None:
    recordio.write(tmp_path / "a.rec", [one(1, content), one(2, b"rest")])
    assert [record.content for record in recordio.read(tmp_path / "a.rec")] == [content, b"rest"]
    file = (tmp_path / "a.rec").read_bytes()
    heads = sum(file[at : at + 4] == MAGIC for at in range(0, len(file), 4))
    assert heads == 2 + sum(content[at : at + 4] == MAGIC for at in range(0, len(content), 4))


def word(kind: int, length: int) -> bytes:
    return MAGIC + struct.pack("<I", kind << 29 | length)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c[:-8], "is cut off in a record at byte"),
        (lambda c: c + b"\0\0\0", "is cut off in the head of a record at byte"),
        (lambda c: b"nonsense" + c, "is no RecordIO file, or is altered: there is no record at byte 0"),
        (lambda c: c[:45] + b"\1" + c[46:], "is altered"),
        (lambda c: c + word(2, 0), "is part 2 of a record where there can be none"),
        (lambda c: c + word(1, 0), "has no last part"),
        (lambda c: c + word(1, 0) + word(0, 0), "is part 0 of a record"),
        (lambda c: c + word(5, 0), "is part 5 of a record"),
        (lambda c: c + word(0, 4) + b"abcd", "record 2 has 4 bytes, fewer than its header"),
        (lambda c: c + word(0, 24) + struct.pack("<IfQQ", 9, 0, 0, 0), "record 2 says 9 labels"),
        (lambda c: c + word(0, (1 << 29) - 1), "is cut off in a record"),
    ],
)
def test_damage_is_told_by_its_place(change: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recordio.write(path, [one(0), one(1)])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TriptychError, match=words) as raised:
        recordio.read(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_every_cut_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recordio.write(path, [one(0), one(1, MAGIC * 2)])
    whole = path.read_bytes()
    second = int((tmp_path / "a.idx").read_text().split("\n")[1].split("\t")[1])
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length == second:
            (tmp_path / "a.idx").unlink()  # without an index a file that ends with a record is whole
            assert len(recordio.read(path)) == 1
            recordio.write(tmp_path / "a.rec", [one(0), one(1, MAGIC * 2)])
        else:
            with pytest.raises(TriptychError):
                recordio.read(path)


def test_images_labels_and_indices_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.rec"
    recordio.write(path, [one(0, png()), one(1, b"no image"), one(0, png()), one(1, png())])
    with pytest.raises(TriptychError, match=r"a\.rec, record 1 is no image that can be read"):
        data.load(str(path))
    for label in (0.5, -1.0, np.nan, 1e9):
        recordio.write(path, [one(0, png()), one(label, png())])
        with pytest.raises(TriptychError, match=r"record 1 has the label .* which is no class"):
            data.load(str(path))
    path.with_suffix(".idx").write_text("0\t0\n1\t12\n")
    with pytest.raises(TriptychError, match="no record is where its line 2 says"):
        recordio.read(path)
    for odd in ("\x1e0", "9" * 5000):
        path.with_suffix(".idx").write_text(f"0\t{odd}\n")
        with pytest.raises(TriptychError, match="no record is where its line 1 says"):
            recordio.read(path)
    path.write_bytes(b"")
    with pytest.raises(TriptychError, match="is empty"):
        recordio.read(path)
    with pytest.raises(TriptychError, match=r"nothing\.rec: No such file"):
        data.load(str(tmp_path / "nothing.rec"))


def test_images_that_cannot_be_read_are_named_in_order_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.rec"
    recordio.write(path, [one(n % 2, b"no image" if n in (2, 11) else png()) for n in range(20)])
    with pytest.raises(TriptychError, match=r"record 2, .*record 11; remove .* --skip-bad-images"):
        data.load(str(path))
    read = data.load(str(path), reading=Reading(skip_bad=True))
    assert f"{path}: 2 images cannot be read and are left out: {path}, record 2, {path}, record 11" in (
        capsys.readouterr().err
    )
    assert [len(read.train), len(read.test)] == [14, 4]
    recordio.write(path, [one(n % 2, b"no image" if n % 2 else png()) for n in range(20)])
    with pytest.raises(TriptychError, match="nothing is left of class '1'"):
        data.load(str(path), reading=Reading(skip_bad=True))


def test_the_command_packs_and_training_reads(
    tmp_path: Path, call: Callable[..., str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = call("data", "pack", "synthetic", "s.rec", "--format", "jpeg")
    assert "s.rec, s.idx, s-test.rec, s-test.idx" in said
    read = data.load("s.rec")
    assert (len(read.train), len(read.test), len(read.class_names)) == (512, 256, 10)
    with pytest.raises(SystemExit) as stopped:
        main(["data", "pack", "synthetic", "s.rec"])
    assert (stopped.value.code, "s.rec is there already" in capsys.readouterr().err) == (2, True)
