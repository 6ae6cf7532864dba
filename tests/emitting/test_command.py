"""`triptych emit`, and the verb."""

from __future__ import annotations

from pathlib import Path

import pytest

import triptych
from marks import needs_backend
from triptych.__main__ import main
from triptych.backend import registry

BACKENDS = registry.installed()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_file_is_printed_or_written(backend, call, tmp_path: Path) -> None:
    emitted = triptych.emit("lenet", backend=backend)
    assert call("emit", "lenet", "--backend", backend) == emitted.source
    told = call("emit", "lenet", "--backend", backend, "-o", tmp_path / "lenet.py")
    assert (tmp_path / "lenet.py").read_text(encoding="utf-8") == emitted.source
    assert "class LeNet, 10 arrays" in told


@needs_backend
def test_the_networks_options_are_taken(call) -> None:
    source = call("emit", "vgg11", "--backend", BACKENDS[0], "--classes", "7", "--width-ratio", "8")
    assert "7 logits" in source


@needs_backend
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--backend troch", "did you mean 'torch'"),
        ("-o lenet.txt", "must end in .py"),
        ("-o there.py", "is there already"),
        ("--side-by-side there.py", "must end in .html"),
        ("--side-by-side new.html -o new.py", "give one of them"),
    ],
)
def test_bad_use_is_one_line(options: str, words: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.py").write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        main(["emit", "lenet", *options.split()])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert (tmp_path / "there.py").read_text() == "mine"
