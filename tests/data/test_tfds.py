"""Sets in the format of tensorflow-datasets: written and read without TensorFlow, and never half or damaged."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from helpers import python
from triptych import data
from triptych.__main__ import main
from triptych.data import tfds
from triptych.utils.errors import TriptychError

library = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
pytest.importorskip("array_record", reason="array-record is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "theirs"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A root that holds `colour_set()`."""
    root = tmp_path_factory.mktemp("tfds")
    tfds.prepare("colour-set", colour_set(), root)
    return root


def colour_set() -> data.Dataset:
    random = np.random.default_rng(0)
    train, test = (
        data.Split(random.integers(0, 256, (n, 3, 5, 4), np.uint8), random.integers(0, 3, n)) for n in (1100, 7)
    )
    return data.Dataset("colour-set", train, test, ("red", "green", "blue"))


def assert_equal(found: data.Dataset, expected: data.Dataset) -> None:
    assert found.class_names == expected.class_names
    for one, other in ((found.train, expected.train), (found.test, expected.test)):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_what_is_prepared_is_read_back_in_the_same_order(prepared):
    found = data.load("tfds:colour-set", data_dir=prepared)
    assert_equal(found, colour_set())
    assert found.name == "tfds:colour-set"
    assert "tensorflow" not in sys.modules


def test_the_commands(tmp_path, capsys):
    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit, match="0"):
            main(list(arguments))
        out, err = capsys.readouterr()
        assert not err
        return str(out)

    folder = tmp_path / "cache/tfds/synthetic/1.0.0"
    assert call("data", "prepare", "tfds", "synthetic") == f"tfds:synthetic is in {folder}\n"
    assert_equal(data.load("tfds:synthetic"), data.load("synthetic"))
    rows = {row["name"]: row for row in json.loads(call("data", "list", "--json"))}
    assert rows["tfds:synthetic"]["where"] == str(folder)
    assert rows["tfds:synthetic"]["size"] == "512 train, 256 test"
    assert "not here" in next(line for line in call("data", "list").splitlines() if line.startswith("cifar10"))
    with pytest.raises(SystemExit, match="2"):
        main(["data", "prepare", "tfds", "synthetic"])
    assert "is there already" in capsys.readouterr().err


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), np.uint8)


def prepare_photos(folder, kind="Tensor", image="image", classes=True, splits=("train", "validation")):
    """A set as the stock builders store it, with a configuration, and an Image as PNG."""

    class Stock(library.core.GeneratorBasedBuilder, skip_registration=True):
        name = "photos"
        BUILDER_CONFIGS = [library.core.BuilderConfig(name="Small-1", version="9.0.0")]  # noqa: RUF012

        def _info(self):
            options = {"Image": {"encoding_format": "png"}, "Tensor": {"dtype": np.uint8}}[kind]
            features = {
                image: getattr(library.features, kind)(shape=(5, 4, 3), **options),
                "label": library.features.ClassLabel(num_classes=2) if classes else np.int64,
            }
            return library.core.DatasetInfo(
                builder=self,
                features=library.features.FeaturesDict(features),
                supervised_keys=None if image == "image" else (image, "label"),
            )

        def _split_generators(self, manager):
            return {name: self._generate_examples() for name in splits}

        def _generate_examples(self):
            for i, pixels in enumerate(IMAGES):
                yield i, {image: png(pixels) if kind == "Image" else pixels, "label": i % 2}

    Stock(data_dir=folder, file_format="array_record").download_and_prepare()


@pytest.mark.parametrize(("kind", "image"), [("Image", "image"), ("Tensor", "photo")])
def test_a_set_that_somebody_prepared_is_read(tmp_path, kind, image, capfd):
    prepare_photos(tmp_path / "theirs", kind, image)
    capfd.readouterr()
    found = data.load("tfds:photos/Small-1")
    assert capfd.readouterr() == ("", "")
    assert found.class_names == ("0", "1")
    assert sorted(map(bytes, found.test.images)) == sorted(map(bytes, np.moveaxis(IMAGES, 3, 1)))
    assert [name for name, *_ in tfds.prepared()] == ["photos/Small-1"]


@pytest.mark.parametrize("options", [{"classes": False}, {"splits": ("train",)}, {"splits": ("test",)}])
def test_a_set_without_classes_or_splits_is_refused(tmp_path, options):
    prepare_photos(tmp_path / "theirs", **options)
    with pytest.raises(TriptychError, match="tfds:photos/Small-1 has no splits train and test of images with classes"):
        data.load("tfds:photos/Small-1")


def test_the_newest_version_counts(tmp_path):
    for version in ("9.0.0", "10.0.0", "incomplete.ABC_11.0.0"):
        (tmp_path / "some_set" / version).mkdir(parents=True)
        (tmp_path / "some_set" / version / tfds.NOTE).write_text("{}")
    assert tfds.locate("some-set", tmp_path) == tmp_path / "some_set/10.0.0"
    name, _, size = next(tfds.prepared(tmp_path))
    assert name == "some-set"
    assert "damaged" in size


def test_what_is_not_here_or_wrong_is_one_line(prepared, tmp_path):
    with pytest.raises(TriptychError, match=r"no prepared fashion_mnist in .*triptych data prepare tfds fashion-mnist"):
        data.load("tfds:fashion-mnist")
    for name in ("../x", "x/../y"):
        with pytest.raises(TriptychError, match="names no set"):
            data.load(f"tfds:{name}")
    folder = tmp_path / "cache/tfds/colour_set/1.0.0"
    folder.mkdir(parents=True)
    for file in (prepared / "colour_set/1.0.0").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    record = next(folder.glob("*train*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    record.write_bytes(content)
    with pytest.raises(TriptychError, match=r"tfds:colour-set: .*hash mismatch"):
        data.load("tfds:colour-set")
    record.unlink()
    with pytest.raises(TriptychError, match="tfds:colour-set: "):
        data.load("tfds:colour-set")


def test_without_the_package_the_way_to_it_is_named(prepared, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TriptychError, match=r"needs the package 'tensorflow_datasets'.*'triptych\[tfds\]'"):
        data.load("tfds:colour-set", data_dir=prepared)


def test_a_killed_preparation_leaves_nothing_that_counts(tmp_path):
    """Killed as soon as it writes images; the next one clears up."""
    arguments = [sys.executable, "-m", "triptych", "data", "prepare", "tfds", "fashion-mnist-mini"]
    root = tmp_path / "cache/tfds"
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    while not list(root.rglob("incomplete*")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert {path.name for path in root.iterdir()} == {".fashion_mnist_mini.preparing", ".fashion_mnist_mini.lock"}
    assert not list(tfds.prepared())
    with pytest.raises(TriptychError, match="no prepared"):
        data.load("tfds:fashion-mnist-mini")
    tfds.prepare("fashion-mnist-mini", colour_set())
    assert [path.name for path in root.iterdir()] == ["fashion_mnist_mini"]
    assert_equal(data.load("tfds:fashion-mnist-mini"), colour_set())


def test_an_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "_examples", lambda split: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tfds.prepare("x", colour_set(), tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize(
    ("shapes", "kind", "message"),
    [
        (((4, 4, 1), (5, 4, 1)), np.uint8, "images of several shapes"),
        (((4, 4, 1),) * 2, np.float32, "float32"),
        (((4, 4),) * 2, np.uint8, r"\(4, 4\) uint8"),
    ],
)
def test_images_that_cannot_be_one_array_are_refused(shapes, kind, message):
    class Several(list):
        def __getitems__(self, indices):
            return [self[i] for i in indices]

    source = Several({"image": np.zeros(shape, kind), "label": 0} for shape in shapes)
    with pytest.raises(TriptychError, match=f"{message}.*--data DIR"):
        tfds._read(source, "image", "label", "tfds:x")


def test_nothing_of_it_is_imported_for_a_list():
    code = "import sys; from triptych import data; data.describe(); assert 'tensorflow_datasets' not in sys.modules"
    python(code)


NAMES = [
    {"pythonClassName": "evil.module.Feature"},
    {"python_class_name": "evil.module.Feature"},
    {"type": "evil.module.Feature", "content": {}},
    {
        "pythonClassName": "tensorflow_datasets.core.features.x.Y",
        "json": '{"a": {"type": "evil.module.F", "content": ""}}',
    },
    {"pythonClassName": ["evil.module"]},
    {"features": [{"pythonClassName": "tensorflow_datasets.evil.Feature"}]},
]


@pytest.mark.parametrize("described", NAMES, ids=repr)
def test_a_description_that_names_a_module_imports_nothing(described, tmp_path, monkeypatch):
    folder = tmp_path / "set" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / tfds.NOTE).write_text("{}")
    (folder / tfds.FEATURES).write_text(json.dumps({"features": described}))
    monkeypatch.setattr(tfds, "_library", lambda _: pytest.fail("TFDS was asked"))
    with pytest.raises(TriptychError, match=r"evil.*none of TFDS's own features"):
        data.load("tfds:set", data_dir=tmp_path)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b"\xff", b'{"json": 1}{', None])
def test_a_description_that_cannot_be_read_is_named(content, tmp_path):
    folder = tmp_path / "set" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / tfds.NOTE).write_text("{}")
    if content is not None:
        (folder / tfds.FEATURES).write_bytes(content)
    with pytest.raises(TriptychError, match=r"features.json cannot be read"):
        data.load("tfds:set", data_dir=tmp_path)
    (folder / tfds.NOTE).write_bytes(content or b"")
    assert "damaged" in next(size for _, _, size in tfds.prepared(tmp_path))
