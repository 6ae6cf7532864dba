"""The commands as a person or a script calls them: help, summaries, training, prediction, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import python
from marks import needs_backend
from triptych.backend import registry
from triptych.cli import COMMANDS, expand_json

BACKENDS = registry.installed()
FRAMEWORKS = ("torch", "mxnet", "jax", "flax", "optax", "numpy")
QUICK = ("--recipe", "d2l-lenet", "--data", "synthetic", "--epochs", "2")
ENTRY = {"name", "kind", "output", "parameters", "macs", "receptive_field", "stride", "auxiliary"}


pytestmark = pytest.mark.usefixtures("here")


# --- help and what is imported ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [name for name, _ in COMMANDS])
def test_help_has_an_example_that_names_the_command(command, call):
    text = call(command, "--help")
    assert re.search(rf"Example: triptych {command}\b", text)
    assert "Usage: triptych" in text


def test_help_lists_every_command(call):
    text = call("--help")
    assert all(re.search(rf"^\W*{name} +[A-Z]\w+ \w+", text, re.MULTILINE) for name, _ in COMMANDS)


@pytest.mark.parametrize("line", ["--help", "--version", "archs", "summary vgg11", "summary vgg11 --json"])
def test_no_framework_and_no_numpy_is_imported_without_need(line):
    lines = ["import sys", "from triptych.__main__ import main", "try:", f"    main({line.split()})"]
    lines += ["except SystemExit as end:", "    assert end.code == 0"]
    lines += [f"print([name for name in {FRAMEWORKS} if name in sys.modules], file=sys.stderr)"]
    run = python("\n".join(lines))
    assert run.stderr == "[]\n"
    assert run.stdout


# --- summaries -------------------------------------------------------------------------------------------------------


def test_summary_json(call):
    found = json.loads(call("summary", "vgg11", "--json"))
    parts = {"arch", "input", "classes", "parameters", "macs", "layers"}
    ours = {"auxiliary_parameters", "auxiliary_macs", "forward_bytes", "training_bytes"}
    assert found.keys() == parts | ours
    assert (found["arch"], found["input"], found["classes"]) == ("vgg11", [3, 224, 224], 1000)
    assert (found["parameters"], found["macs"]) == (132_863_336, 7_609_090_048)
    layers = found["layers"]
    assert all(layer.keys() == ENTRY for layer in layers)
    for total in ("parameters", "macs"):
        assert sum(layer[total] for layer in layers) == found[total]
    pools = [layer for layer in layers if layer["kind"] == "MaxPool"]
    assert [layer["receptive_field"] for layer in pools] == [4, 10, 30, 70, 150]
    assert [layer["stride"] for layer in pools] == [2, 4, 8, 16, 32]
    assert layers[0] == {
        "name": "block1.conv1",
        "kind": "Conv",
        "output": [64, 224, 224],
        "parameters": 3 * 64 * 9 + 64,
        "macs": 3 * 64 * 9 * 224 * 224,
        "receptive_field": 3,
        "stride": 1,
        "auxiliary": False,
    }
    assert layers[-1]["output"] == [1000]


def test_summary_options_reach_the_network(call):
    options = ("--input", "1x224x224", "--classes", "10", "--width-ratio", "4", "--dense-width", "4096")
    found = json.loads(call("summary", "vgg11", *options, "--json"))
    assert (found["parameters"], found["macs"]) == (43_093_322, 512_155_648)
    found = json.loads(call("summary", "vgg11", "--resolution", "32", "--classes", "10", "--head", "small", "--json"))
    assert (found["parameters"], found["macs"]) == (9_272_790, 152_816_616)


def test_summary_as_text(call):
    lines = call("summary", "vgg11", "--input", "1x224x224", "--blocks").splitlines()
    assert lines[0] == "block1 output shape: (1, 64, 112, 112)"
    assert lines[-1].endswith("output shape: (1, 1000)")
    text = call("summary", "vgg11")
    assert "parameters 132,863,336, multiply-accumulates 7,609,090,048 per image" in text
    assert re.search(r"conv1 +Conv +64x224x224 +1,792 +86,704,128 +3 +1\n", text)


def test_json_goes_to_the_screen_or_to_a_file(call, tmp_path):
    shown = call("summary", "lenet", "--json")
    assert call("summary", "lenet", "--json", "new/summary.json") == ""
    assert (tmp_path / "new" / "summary.json").read_text() == shown
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "summary.json"]
    assert call("summary", "--json", "lenet") == shown


def test_json_goes_into_a_pipe(call, tmp_path):
    """A pipe or a device, as /dev/null, is written to, not replaced by a file."""
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert call("summary", "lenet", "--json=pipe") == ""
    assert json.loads(os.read(end, 1 << 16))["arch"] == "lenet"
    os.close(end)
    assert (tmp_path / "pipe").is_fifo()


def test_json_takes_no_argument_of_the_command_for_its_file():
    for argument in ("runs/vgg11", "model.safetensors", "photos/cat.png", "--first"):
        assert expand_json(["predict", "--json", argument]) == ["predict", "--json=-", argument]
    assert expand_json(["archs", "--json"]) == ["archs", "--json=-"]
    assert expand_json(["archs", "--json", "a.json"]) == ["archs", "--json", "a.json"]


@needs_backend
def test_archs_and_doctor(call):
    rows = {row["arch"]: row for row in json.loads(call("archs", "--json"))}
    assert (rows["lenet"]["parameters"], rows["lenet"]["macs"]) == (61_706, 416_520)
    assert "61,706" in call("archs")
    found = {entry["backend"]: entry for entry in json.loads(call("doctor", "--json"))}
    assert list(found) == list(registry.BACKENDS)
    assert [name for name in found if found[name]["works"]] == BACKENDS
    for name in BACKENDS:
        assert found[name]["versions"] == registry.load(name).versions()
        assert found[name]["devices"][0] | {"reason": ""} == {"name": "cpu", "available": True, "reason": ""}
        assert all(device["reason"] for device in found[name]["devices"])


# --- training, evaluation, prediction --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKENDS)
def test_train_on_one_backend_and_use_it_on_all(name, call, tmp_path):
    """Colour photographs of odd sizes, in class folders; the brightness of a channel tells the class."""
    random = np.random.default_rng(0)
    for label, channel in (("red", 0), ("blue", 2)):
        for number in range(10):
            pixels = random.integers(0, 60, (20 + number % 3, 33, 3), dtype=np.uint8)
            pixels[..., channel] += 160
            (tmp_path / "photos" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    options = ("--arch", "lenet", "--data", "photos", "--input", "3x20x32", "--init", "kaiming_normal", "--seed", "1")
    rates = ("--learning-rate", "0.3", "--momentum", "0.9", "--batch-size", "8", "--epochs", "1")
    out = json.loads(call("train", "--backend", name, *options, *rates, "--out", "run", "--json"))
    assert (out["run"], out["recipe"], len(out["epochs"])) == ("run", "d2l-vgg", 1)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines == out["epochs"]
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert (recipe["architecture"], recipe["data"], recipe["network"]["input"]) == ("lenet", "photos", [3, 20, 32])
    pictures = ["photos/red/0.png", "photos/blue/1.png"]
    shares = []
    for other in BACKENDS:
        measured = json.loads(call("evaluate", "run", "--backend", other, "--json"))
        assert (measured["backend"], measured["data"], measured["images"]) == (other, "photos", 4)
        assert measured["accuracy"] == lines[0]["test_accuracy"]
        assert measured["loss"] == pytest.approx(lines[0]["test_loss"], rel=1e-5)
        rows = json.loads(call("predict", "run", *pictures, "--backend", other, "--json"))
        assert [(row["image"], row["true"]) for row in rows] == [(picture, None) for picture in pictures]
        assert {row["predicted"] for row in rows} <= {"red", "blue"}
        shares.append([row["probability"] for row in rows])
    np.testing.assert_allclose(shares, np.broadcast_to(shares[0], np.shape(shares)), rtol=1e-5)


@pytest.mark.parametrize("name", BACKENDS[:1])
def test_predict_against_the_truth(name, call, tmp_path):
    options = ("--init", "kaiming_normal", "--learning-rate", "0.5", "--momentum", "0.9", "--batch-size", "32")
    out = call("train", "--backend", name, *QUICK, *options, "--out", "run")
    pattern = rf"{name} epoch \d/2: loss \d\.\d{{4}}, train .*, test .*, .* s, \d+ images/s"
    *epochs, last = out.splitlines()
    assert len(epochs) == 2
    assert all(re.fullmatch(pattern, line) for line in epochs)
    assert last == "model and metrics are in run"
    assert not re.search(r"[^\n -~]", out)  # no control characters where no terminal is
    rows = json.loads(call("predict", "run", "--first", "12", "--json"))
    assert [row["true"] for row in rows] == [f"pattern {index % 10}" for index in range(12)]
    right = sum(row["predicted"] == row["true"] for row in rows)
    assert f"{right} of 12 right" in call("predict", "run", "--first", "12")
    file = tmp_path / "run" / "checkpoint" / "model.safetensors"
    (alone,) = json.loads(call("predict", file, "--arch", "lenet", "--data", "synthetic", "--first", "1", "--json"))
    near = {name: pytest.approx(rows[0][name], rel=1e-5) for name in ("probability", "probabilities")}
    assert alone == rows[0] | near


@pytest.mark.skipif("torch" not in BACKENDS, reason="PyTorch is not installed")
def test_a_recipe_in_reduced_precision_can_be_used_elsewhere(call):
    call("train", "--backend", "torch", *QUICK, "--precision", "bf16", "--out", "run")
    for name in BACKENDS:
        out = json.loads(call("evaluate", "run", "--backend", name, "--precision", "fp32", "--json"))
        assert out["images"] == 256


# --- pipes and terminals ---------------------------------------------------------------------------------------------


def triptych(line: str) -> str:
    return f"{sys.executable} -m triptych {line}"


@pytest.mark.parametrize("line", ["archs", "summary vgg19", "summary vgg19 --json"])
def test_a_closed_pipe_gives_no_traceback(line):
    """`true` ends at once, long before Python writes."""
    command = f"{triptych(line)} | true; echo ${{PIPESTATUS[0]}}"
    run = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("141\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line():
    run = subprocess.run(["bash", "-c", f"{triptych('archs')} >/dev/full"], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == "triptych: cannot read or write: [Errno 28] No space left on device\n"
    closed = subprocess.run(["bash", "-c", f"{triptych('archs --json')} >&-"], capture_output=True, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")


@needs_backend
def test_a_terminal_gets_a_progress_bar():
    leader, follower = pty.openpty()
    command = [*triptych("train").split(), *QUICK, "--batch-size", "8", "--backend", BACKENDS[0], "--out", "run"]
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other end is closed
                break
    os.close(leader)
    assert process.returncode == 0
    text = shown.decode()
    assert re.search(r"epoch [12]/2.*\d+/64.*loss \d\.\d{4}.* images/s", text)
    assert "\x1b[" in text
    assert re.search(r"epoch 2/2: loss .* images/s\r\n", text)
    drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    bars = [line for line in drawn if "━" in line]
    assert max(map(len, bars)) <= 80  # else the terminal breaks it, and the next one is drawn below
    assert {line.split("/64")[0].split()[-1] for line in bars if "/64" in line} >= {"64"}
    assert not any("/100 " in line for line in bars), "a total that is not the epoch's"
