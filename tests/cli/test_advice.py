"""What a refusal advises can be done: every option that it names is one of the command's, or said to be another's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from marks import needs_backend
from triptych.__main__ import main
from triptych.backend import registry
from triptych.cli import app

BACKEND = next(iter(registry.installed()), "")
# By what is given, commands that are refused, and the words in which they are.
REFUSED = {
    "weights.pt": (
        "holds weights alone",
        ["port F --out x", "summary F", "emit F --backend B", "export onnx F o.onnx"],
    ),
    "weights.h5": ("holds weights and no network", ["port F --out x", "summary F", "conform --arch F"]),
    "images": ("images cannot be read", ["data pack ./F o.rec", "bench --data ./F --backends B", "train --data ./F"]),
}
CASES = [(name, command) for name, (_, commands) in REFUSED.items() for command in commands]
FOREIGN = re.compile(r"\w+'s (--[a-z0-9-]+)")  # "convert's --mapping": said to be of another command


def options_of(command: list[str]) -> set[str]:
    """All that a command takes; its help may speak of other commands' options."""
    _, apps, _ = app.parse_commands(command)
    return {name for argument in apps[-1].assemble_argument_collection() for name in argument.names}


def write(name: str) -> None:
    """A file of weights without their network, or class folders in which two files are no images of 8 bits."""
    if name == "weights.pt":
        pytest.importorskip("torch").save({"a.weight": pytest.importorskip("torch").zeros(2, 3)}, name)
    elif name == "weights.h5":
        with pytest.importorskip("h5py").File(name, "w") as file:
            file.attrs["layer_names"] = np.array([b"dense"])
            group = file.create_group("dense")
            group.attrs["weight_names"] = np.array([b"dense/kernel:0"])
            group["dense/kernel:0"] = np.zeros((2, 3), np.float32)
    else:
        for label in "ab":
            Path(name, label).mkdir(parents=True)
            for number in range(4):
                Image.fromarray(np.full((32, 32), 9 * number, np.uint8)).save(Path(name, label, f"{number}.png"))
        Path(name, "a", "9.png").write_bytes(b"no image")
        Image.fromarray(np.full((32, 32), 60_000, np.uint16)).save(Path(name, "b", "9.png"))


@needs_backend
@pytest.mark.parametrize(("name", "command"), CASES)
def test_the_options_that_are_advised_are_there(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(name)
    words = command.replace("F", name).replace("B", BACKEND).split()
    with pytest.raises(SystemExit) as ended:
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert REFUSED[name][0] in line
    advised = set(re.findall(r"--[a-z][a-z0-9-]*", FOREIGN.sub("", line)))
    known = options_of(words[:2] if words[0] in ("data", "export") else words[:1])
    assert advised, line
    assert advised <= known, line


@needs_backend
def test_bad_images_are_left_out_of_a_pack_and_of_a_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write("images")
    for command in (
        "data pack ./images o.rec",
        f"bench --arch lenet --data ./images --steps 1 --rounds 1 --backends {BACKEND} --batch-size 4",
    ):
        with pytest.raises(SystemExit) as ended:
            main([*command.split(), "--skip-bad-images", "--scale-16-bit"])
        assert ended.value.code == 0, capsys.readouterr().err
