"""Class folders as they come: odd, damaged and hostile images, names of any bytes, links in circles, a cache in use."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marks import needs_backend
from triptych import data
from triptych.__main__ import main
from triptych.data import decoded
from triptych.utils.errors import TriptychError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four small RGB images."""
    for number, name in enumerate(("ant", "bee")):
        for index in range(4):
            save(tmp_path / "set" / name / f"{index}.png", Image.new("RGB", (6, 8), (number * 90, index, 7)))
    return tmp_path / "set"


def save(path: Path, image: Image.Image, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG that says it has this size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def palette() -> Image.Image:
    return Image.new("RGB", (6, 8), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)


def renamed(path: Path, suffix: str, image: Image.Image) -> None:
    """An image in the format of another name."""
    save(path.with_suffix(suffix), image)
    path.with_suffix(suffix).rename(path)


# name of the file, what is written, and what of an image every reader has to agree on: its middle pixel
READ: dict[str, tuple[str, Callable[[Path], None], tuple[int, int, int]]] = {
    "CMYK": ("x.jpg", lambda p: save(p, Image.new("CMYK", (6, 8), (255, 0, 0, 0))), (0, 255, 255)),
    "palette": ("x.png", lambda p: save(p, palette()), (10, 20, 30)),
    "alpha": ("x.png", lambda p: save(p, Image.new("RGBA", (6, 8), (10, 20, 30, 0))), (10, 20, 30)),
    "grey with alpha": ("x.png", lambda p: save(p, Image.new("LA", (6, 8), (9, 0))), (9, 9, 9)),
    "black and white": ("x.png", lambda p: save(p, Image.new("1", (6, 8), 1)), (255, 255, 255)),
    "1x1": ("x.png", lambda p: save(p, Image.new("RGB", (1, 1), (1, 2, 3))), (1, 2, 3)),
    "a line": ("x.png", lambda p: save(p, Image.new("RGB", (1, 4000), (1, 2, 3))), (1, 2, 3)),
    "animated": (
        "x.png",
        lambda p: save(
            p, Image.new("RGB", (6, 8), (5, 5, 5)), save_all=True, append_images=[Image.new("RGB", (6, 8), (99, 0, 0))]
        ),
        (5, 5, 5),
    ),
    "a GIF called PNG": (
        "x.png",
        lambda p: save(p.with_suffix(".gif"), palette()) or p.with_suffix(".gif").rename(p),
        (10, 20, 30),
    ),
}
REFUSED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("x.png", lambda p: p.write_bytes(b""), "no image that can be read"),
    "text": ("x.jpg", lambda p: p.write_text("<html>"), "no image that can be read"),
    "16 bits": ("x.png", lambda p: save(p, Image.fromarray(np.zeros((8, 6), np.uint16))), "expected 8 bits"),
    "cut off": ("x.png", lambda p: p.write_bytes(png(6, 8)[:40]), "x.png"),
    "no pixels": ("x.png", lambda p: p.write_bytes(png(6, 8)), "cannot be decoded"),
    "no size": ("x.png", lambda p: p.write_bytes(png(0, 0)), "x.png"),
    "a bomb": ("x.png", lambda p: p.write_bytes(png(13_000, 13_000, bytes(10**6))), "13000x13000 pixels"),
    "a large bomb": ("x.png", lambda p: p.write_bytes(png(2**31 - 1, 2**31 - 1)), "x.png"),
    "a long bomb": (
        "x.png",
        lambda p: p.write_bytes(png(1 << 24, 1, bytes((1 << 24) + 1))),
        "read are sides",
    ),
    "a long comment": (
        "x.png",
        lambda p: p.write_bytes(b"P6\n#" + b"x" * 4096 + b"\n2 2 255\n" + bytes(12)),
        "its sizes",
    ),
    "EPS, which Ghostscript would draw": (
        "x.png",
        lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 8\n%%EndComments\n"),
        "no image that can be read",
    ),
    "TIFF": (
        "x.png",
        lambda p: renamed(p, ".tif", Image.new("RGB", (6, 8))),
        "no image that can be read",
    ),
}


@pytest.mark.parametrize("what", READ)
def test_odd_images_are_read_as_they_look(what: str, folder: Path) -> None:
    name, write, pixel = READ[what]
    write(folder / "ant" / name)
    images = decoded.decode([folder / "ant" / name, folder / "bee" / "0.png"], (8, 6))
    assert images.shape == (2, 3, 8, 6)
    assert np.abs(images[0, :, 4, 3].astype(int) - pixel).max() <= 2
    assert len(data.load(str(folder)).train) == 7


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_image_or_a_bomb_is_named(what: str, folder: Path) -> None:
    name, write, message = REFUSED[what]
    write(folder / "ant" / name)
    with pytest.raises(TriptychError, match=message) as refused:
        data.load(str(folder))
    assert str(folder / "ant" / name) in str(refused.value)
    assert data_is_not_cached()


def data_is_not_cached() -> bool:
    return not list(Path(os.environ["TRIPTYCH_DATA"]).rglob("*.npy"))


def test_a_bomb_is_refused_before_a_pixel_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ant" / "x.png").write_bytes(png(13_000, 13_000))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(TriptychError, match="13000x13000 pixels"):
        decoded.stored_size(folder / "ant" / "x.png")


@needs_backend
def test_names_of_any_bytes_are_classes_and_are_shown(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names = [b"a b", b"c\nd", b"<b>&amp;$x", b"e\xff\xfe", b"f\x1b[2J", "ä猫".encode(), b"-g"]
    for number, name in enumerate(names):
        for index in range(2):
            place = os.path.join(b"set", name)
            os.makedirs(place, exist_ok=True)
            save(tmp_path / "x.png", Image.new("RGB", (8, 8), (number, index, 0)))
            os.rename(b"x.png", os.path.join(place, b"%d\xff\x1b.png" % index))
    assert sorted(os.fsencode(name) for name in data.load("set").class_names) == sorted(names)
    options = ["--recipe", "d2l-lenet", "--data", "set", "--epochs", "1", "--resolution", "28"]
    commands = [
        ["train", *options, "--out", "run"],
        ["evaluate", "run", "--confusion", "c.png", "--grid", "g.png"],
        ["predict", "run", "--first", "7"],
        ["predict", "run", str(next(Path("set").rglob("*.png")))],
        ["predict", "run", "--first", "7", "--json"],
    ]
    for command in commands:
        with pytest.raises(SystemExit, match="0"):
            main(command)
        shown = capsys.readouterr()
        (shown.out + shown.err).encode()
        assert "\x1b" not in shown.out + shown.err
    for file in ("run/report.html", "c.png", "g.png"):
        assert Path(file).stat().st_size > 0


def test_links_in_circles_end(folder: Path, tmp_path: Path) -> None:
    (folder / "ant" / "again").symlink_to(folder)
    (folder / "ant" / "loop.png").symlink_to("loop.png")
    (folder / "ant" / "gone.png").symlink_to("nothing.png")
    assert data.load(str(folder)).class_names == ("ant", "bee")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(TriptychError, match="no folder"):
        data.load(str(tmp_path / "circle"))
    os.mkfifo(folder / "bee" / "pipe.png")
    assert len(data.load(str(folder)).train) == 6


def test_a_file_that_is_replaced_while_it_is_decoded_is_not_cached_as_what_it_was(folder: Path, monkeypatch) -> None:
    original, replaced = decoded.decode_all, folder / "ant" / "1.png"

    def decode(*arguments):
        images = original(*arguments)
        save(replaced, Image.new("RGB", (6, 8), (222, 0, 0)))
        os.utime(replaced, ns=(5, 5))
        return images

    monkeypatch.setattr(decoded, "decode_all", decode)
    data.load(str(folder))
    monkeypatch.setattr(decoded, "decode_all", original)
    images = np.concatenate([split.images for split in (data.load(str(folder)).train, data.load(str(folder)).test)])
    assert (images[:, 0, 0, 0] == 222).sum() == 1


WRITER = """
import sys
from triptych import data
for _ in range(6):
    assert len(data.load(sys.argv[1]).train) == 6
"""


def test_two_processes_that_fill_one_cache_do_not_disturb_each_other(folder: Path, cache: Path) -> None:
    path = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", WRITER, str(folder)]
    both = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    cached = data.load(str(folder)).train.images
    shutil.rmtree(cache)
    assert (cached == data.load(str(folder)).train.images).all()


NOTES = [b"", b"[]", b"{}", b'{"key": 1, "sha256": 2}', b"[" * 100_000, b"\xff", b'{"key": "' + b"x" * 70_000 + b'"}']


@pytest.mark.parametrize("note", NOTES, ids=lambda note: repr(note[:20]))
def test_a_cache_note_of_anything_is_made_again(note: bytes, folder: Path, cache: Path) -> None:
    before = data.load(str(folder))
    (file,) = cache.rglob("*.json")
    whole = file.read_bytes()
    file.write_bytes(note)
    assert (data.load(str(folder)).train.images == before.train.images).all()
    assert file.read_bytes() == whole
