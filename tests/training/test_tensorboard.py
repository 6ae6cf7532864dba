"""Logs of a training, read back by TensorBoard's own reader."""

from __future__ import annotations

import importlib.util
import json

import pytest

from helpers import python
from marks import needs_backend
from triptych.__main__ import main
from triptych.backend import registry
from triptych.training import tensorboard
from triptych.training.run_folder import Epoch
from triptych.utils.errors import TriptychError

pytest.importorskip("tensorboard", reason="tensorboard is not installed")
LENET = ("train", "--recipe", "d2l-lenet", "--data", "synthetic", "--batch-size", "128")


pytestmark = pytest.mark.usefixtures("here")


def train(*arguments: object) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*LENET[:1], *map(str, arguments)])


def read(folder) -> dict[str, dict[int, float]]:
    """Every curve of all the logs in a folder: value by step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})  # 0: all of them
    events.Reload()
    return {
        tag: {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}
        for tag in events.PluginTagToContent("scalars")  # what its page draws
    }


@needs_backend
def test_every_figure_of_a_run_and_of_what_resumes_it_is_logged(tmp_path, capsys):
    train(*LENET[1:], "--epochs", 1, "--out", "run", "--tensorboard", "--backend", registry.installed()[0])
    capsys.readouterr()
    train("--resume", "run", "--epochs", 3, "--tensorboard", "--json")
    epochs = json.loads(capsys.readouterr().out)["epochs"]
    curves = read(tmp_path / "run/tensorboard")
    names = {"loss/train": "train_loss", "loss/test": "test_loss", "accuracy/train": "train_accuracy",
             "accuracy/test": "test_accuracy", "speed/images per second": "images_per_second"}  # fmt: skip
    assert curves.keys() == {*names, "loss/step"}
    for tag, name in names.items():
        assert curves[tag] == pytest.approx({e["epoch"]: e[name] for e in epochs}, rel=1e-6)
    losses = [loss for e in epochs for loss in e["losses"]]
    assert curves["loss/step"] == pytest.approx(dict(enumerate(losses, start=1)), rel=1e-6)
    assert len(losses) == 12


def test_whoever_hears_of_an_epoch_finds_it_in_the_log(tmp_path):
    """So a kill loses nothing; and what listens to the run hears of every step."""
    heard = []

    class Reader:
        def steps(self, *figures):
            heard.append(figures)

        def epoch(self, epoch):
            heard.append(read(tmp_path)["loss/test"])

    with tensorboard.logged(Reader(), tmp_path) as listener:
        listener.steps(1, 4, (), 512.0)
        listener.epoch(Epoch(1, 4, "torch", 2.0, 0.1, 1.5, 0.2, 1.0, 512.0, (2.0,) * 4))
    assert heard == [(1, 4, (), 512.0), {1: 1.5}]


def test_only_the_process_that_has_a_run_writes_and_only_where_it_can(tmp_path):
    assert tensorboard.place("logs", None) is None
    (tmp_path / "file").touch()
    with pytest.raises(TriptychError, match="cannot be written"), tensorboard.logged(None, tmp_path / "file" / "logs"):
        pass


@needs_backend
def test_a_folder_of_ones_own_and_none(tmp_path):
    train(*LENET[1:], "--epochs", 1, "--out", "run", "--tensorboard", "logs/first")
    assert len(read(tmp_path / "logs/first")["loss/step"]) == 4
    assert not (tmp_path / "run/tensorboard").exists()
    train(*LENET[1:], "--epochs", 1, "--out", "plain")
    assert not list((tmp_path / "plain").rglob("*tfevents*"))


@needs_backend
def test_without_the_package_nothing_is_begun(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(SystemExit, match="2"):
        main([*LENET, "--out", "run", "--tensorboard"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs the package 'tensorboard'" in line
    assert "triptych[tensorboard]" in line
    (tmp_path / "file").touch()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main([*LENET, "--out", "other", "--tensorboard", "file"])
    assert "--tensorboard file is a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_its_writer_needs_no_framework():
    code = (
        "import sys; from tensorboard.summary import Writer; w = Writer('x'); w.add_scalar('a', 1.0, 1); w.close();"
        "assert not {'torch', 'tensorflow', 'jax', 'mxnet'} & set(sys.modules)"
    )
    python(code)
