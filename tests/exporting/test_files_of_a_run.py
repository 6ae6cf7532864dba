"""What a run leaves for others: a model card, and its optimiser's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from marks import NO_FRAMEWORK
from triptych.__main__ import main
from triptych.backend import registry
from triptych.optim import schedules
from triptych.optim.optimizers import SGD
from triptych.training import run_folder
from triptych.training.recipe import Recipe


@pytest.fixture
def run(call: Callable[..., str], here: Path) -> Path:
    if not registry.installed():
        pytest.skip(NO_FRAMEWORK)
    line = ("train", "--backend", registry.installed()[0], "--arch", "lenet", "--data", "synthetic", "--epochs", "1")
    call(*line, "--out", "run", "--momentum", "0.5")
    return here / "run"


def failed(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


def test_a_card_says_what_the_files_say(
    run: Path, call: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    name = registry.installed()[0]
    call("export", "card", "run", "card.md")
    card = Path("card.md").read_text()
    for line in (
        "# lenet",
        "- classes: 10",
        "- parameters: 61,706;",
        "- epochs: 1",
        "momentum 0.5",
        "- pixels: 0 to 1",
    ):
        assert line in card
    assert "- test, after epoch 1 on" in card
    assert "No certificate was given" in card
    line = ("conform", "--arch", "lenet", "--input", "1x28x28", "--backends", name, "--precision", "fp64")
    call(*line, "--certificate", "lenet.json")
    call("export", "card", "run", "card.md", "--certificate", "lenet.json")
    assert f"- passed: {name} against the float64 reference (fp64)" in Path("card.md").read_text()
    assert failed("export", "card", "alexnet", "other.md", "--certificate", "lenet.json") == 2
    assert "is of another network than 'alexnet': lenet" in capsys.readouterr().err
    text = Path("lenet.json").read_text().replace('"seed": 0', '"seed": 1')
    Path("lenet.json").write_text(text)
    assert failed("export", "card", "run", "other.md", "--certificate", "lenet.json") == 2
    assert "is not as it was written" in capsys.readouterr().err
    assert failed("export", "card", "run", "card.txt") == 2


@pytest.mark.parametrize(
    ("file", "words"),
    [("o.pt", "torch.optim.SGD(module.named_parameters(), ...)"), ("o.msgpack", "optax.sgd(0.05, 0.5)")],
)
def test_states_of_a_run(run: Path, file: str, words: str, call: Callable[..., str]) -> None:
    assert words in call("export", "states", "run", file)
    assert Path(file).stat().st_size > 4 * 61_706


@pytest.mark.parametrize(("done", "steps", "words"), [(1, 0, "optax.sgd(0.5, 0.5)"), (1, 2, "optax.sgd(0.05, 0.5)")])
def test_the_rate_of_a_run_that_was_stopped_within_an_epoch(
    done: int, steps: int, words: str, drawn_run: Callable[..., Path], call: Callable[..., str], here: Path
) -> None:
    pytest.importorskip("msgpack")
    schedule, optimizer = schedules.parse("step:every=1,factor=0.1"), SGD(momentum=0.5)
    run = drawn_run("run", Recipe("test", "", "lenet", learning_rate=0.5, optimizer=optimizer, schedule=schedule))
    stopped_after(run, done, steps)
    assert words in call("export", "states", run, "o.msgpack")


def test_a_run_without_a_finished_epoch_has_no_rate(
    drawn_run: Callable[..., Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = drawn_run("run", Recipe("test", "", "lenet"))
    stopped_after(run, 0, 2)
    assert failed("export", "states", run, "o.pt") == 2
    assert "has no finished epoch yet" in capsys.readouterr().err
    assert failed("export", "card", run, "card.md") == 0
    assert "- epochs: 0 of 5\n" in Path("card.md").read_text()


def stopped_after(run: Path, epochs: int, steps: int) -> None:
    """As a run saves that is stopped so many steps into an epoch (of 4)."""
    found = run_folder.load(run)
    assert found is not None
    state = replace(found.state, epoch=epochs, step=4 * epochs + steps, figures=((2.3, 1.0),) * steps)
    run_folder.save(run, run_folder.read_epochs(run)[:epochs], replace(found, state=state))


def test_states_of_what_is_no_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for line in (("nothing", "o.pt"), ("nothing", "o.txt")):
        assert failed("export", "states", *line) == 2
        assert capsys.readouterr().err.count("\n") == 1
