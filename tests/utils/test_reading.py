"""One way to read what anybody may have put there: no pipe is waited for, no device read without end."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from triptych.conformance import certificate
from triptych.emitting import port_check
from triptych.porting import matching, sources
from triptych.spec import records
from triptych.training import checkpoint, run_folder
from triptych.utils import memory
from triptych.utils.errors import TriptychError
from triptych.utils.files import atomic_write, remove_leftovers, write_atomically
from triptych.utils.reading import holds, open_file, read_bounded
from triptych.weights import store
from triptych.weights.formats import fields, npz_file, torch_file

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """What opens a pipe waits for its other end: half a minute, here."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(30)
    yield
    signal.alarm(0)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


STRANGE: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a socket": bind,
    "a folder": Path.mkdir,
}
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "certificate": ("c.json", certificate.read),
    "mapping": ("m.json", matching.read_mapping),
    "recipe": (run_folder.RECIPE, lambda path: run_folder.read_recipe(path.parent)),
    "metrics": (run_folder.METRICS, lambda path: run_folder.read_epochs(path.parent)),
    "state": (checkpoint.STATE, lambda path: checkpoint.read_state(path.parent)),
    "parameters": ("x.safetensors", store.load),
    "header": ("x.safetensors", store.check_header),
    "manifest": (store.MANIFEST, lambda path: store.save(path.with_name("x.safetensors"), {})),
    ".pt": ("x.pt", torch_file.read),
    ".npz": ("x.npz", npz_file.read),
    "any fields": ("x", fields.map_file),
    "spec": ("x.json", lambda path: sources.read(str(path))),
    "a port's weights": ("x.safetensors", lambda path: port_check._load(path.with_name("model.py"), path)),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("what", STRANGE)
def test_what_is_no_file_is_one_line(name: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name has to be short
    file, read = READERS[name]
    STRANGE[what](Path(file))
    monkeypatch.setattr(Path, "is_file", Path.exists)  # it became one since somebody looked
    with pytest.raises(TriptychError) as refused:
        read(Path(file))
    assert len(str(refused.value).splitlines()) == 1
    if what in ("a pipe", "a device"):
        assert "it is a pipe, a socket or a device, and no file" in str(refused.value)


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    (tmp_path / ".x.1-2.tmp").write_bytes(b"half")
    (tmp_path / ".y.1-2.tmp").write_bytes(b"another file's")
    with atomic_write(tmp_path / "x"):
        (written,) = {path.name for path in tmp_path.iterdir()} - {".y.1-2.tmp"}
        write_atomically(tmp_path / "y", b"whole")
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {written, "y"}


def test_leftovers_that_are_no_files_are_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".x.1-2.tmp")
    remove_leftovers(tmp_path)
    assert (tmp_path / ".x.1-2.tmp").exists()


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TriptychError, match="x has more than the 10 bytes that it may have"):
        read_bounded(path, 10)
    assert not holds(path, b"")
    monkeypatch.setattr(memory, "available", lambda: 1 << 30)
    with pytest.raises(TriptychError, match=r"reading .*x needs at least 1.1 TB of memory"):
        read_bounded(path)


def test_as_many_bytes_as_there_may_be_are_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_bounded(tmp_path / "x", 10) == read_bounded(tmp_path / "x") == b"0123456789"
    assert holds(tmp_path / "x", b"0123456789")
    assert not holds(tmp_path / "nothing", b"")
    with pytest.raises(OSError, match="no file can have this name"):
        open_file(tmp_path / "\0")


def test_what_grows_meanwhile_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is asked for before it is read: as if it had ended there."""
    (tmp_path / "x").write_bytes(b"0123456789")
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((0o100644, 0, 0, 0, 0, 0, 9, 0, 0, 0)))
    with pytest.raises(TriptychError, match="grows while it is read"):
        read_bounded(tmp_path / "x", 10)


def test_more_values_than_fit_into_memory_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    for text in ("[" + "[]," * (1 << 20) + "[]]", b"[" + b"[]," * (1 << 20) + b"[]]"):
        with pytest.raises(TriptychError, match="JSON of 2,097,154 values needs at least 210 MB"):
            records.parse(text)


def test_a_text_of_values_without_end_is_not_parsed() -> None:
    """Fifteen million take half a minute where memory is at hand."""
    with pytest.raises(TriptychError, match="JSON of 4,194,306 values; expected at most 4,194,304"):
        records.parse("[" + "," * (1 << 22) + "[")


def test_a_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """By a link: who may replace /dev/null itself should not try it."""
    (tmp_path / "null").symlink_to("/dev/null")
    write_atomically(tmp_path / "null", b"x")
    with pytest.raises(OSError, match="there is something that is no file"), atomic_write(tmp_path / "null"):
        pass
    assert (tmp_path / "null").is_char_device()
    assert not list(tmp_path.glob(".*"))


# Files of the system, of this package, and what this process, or another of the same command, has written itself.
OWN = {
    "utils/memory.py",
    "utils/stderr.py",
    "conformance/processes.py",
    "data/fashion_mnist_mini.py",
}


def test_there_is_no_other_way_to_read() -> None:
    other = re.compile(r"read_bytes\(|read_text\(|\.open\((\"rb?\")?\)|\.open\(encoding|ZipFile\(path\)|json\.load\(")
    files = {
        str(path.relative_to(root)): path.read_text()
        for root in (ROOT / "common" / "triptych", ROOT / "backends")
        for path in root.rglob("*.py")
    }
    assert {name for name, text in files.items() if other.search(text)} == OWN
