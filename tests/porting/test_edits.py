"""The edit that mends a port is printed, and tried on a copy in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych.__main__ import main
from triptych.porting.edits import Times, arguments_of, parameters_of

pytest.importorskip("torch")
SOURCE = """
from torch import nn


def build():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5{conv}),
        nn.Sigmoid(),
        nn.AvgPool2d({pool}),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2, 2),
        nn.Flatten(),
        nn.LazyLinear(120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    )


network = build
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("edited_port", None)


def located(folder: Path, capsys: pytest.CaptureFixture[str], conv: str, pool: str, *options: str) -> str:
    (folder / "edited_port.py").write_text(SOURCE.format(conv=conv, pool=pool))
    with pytest.raises(SystemExit):
        main(["locate", "--left", "edited_port:network", "--right", "lenet", *options])
    captured = capsys.readouterr()
    return captured.out + captured.err


@pytest.mark.parametrize(
    ("conv", "edit"),
    [
        (", padding=1", "edited_port.py:7: padding=1 -> padding=2"),
        (", 1, 1", "edited_port.py:7: 1 -> 2"),
        ("", "edited_port.py:7: nn.Conv2d(1, 6, 5) -> nn.Conv2d(1, 6, 5, padding=2)"),
    ],
)
def test_the_edit_is_found_and_tried(folder: Path, capsys: pytest.CaptureFixture[str], conv: str, edit: str) -> None:
    said = located(folder, capsys, conv, "2, 2", "--try")
    assert edit in said
    assert "tried on a copy in memory: the difference is gone" in said
    assert conv in (folder / "edited_port.py").read_text()  # the file stays as it is


def test_without_a_trial_the_edit_is_printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = located(folder, capsys, ", padding=1", "2, 2")
    assert "edited_port.py:7: padding=1 -> padding=2" in said
    assert "tried" not in said


def test_what_is_no_argument_cannot_be_tried(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "edited_port.py").write_text(SOURCE.format(conv=", padding=2", pool="2, 2").replace("Sigmoid", "ReLU"))
    with pytest.raises(SystemExit):
        main(["locate", "--left", "edited_port:network", "--right", "lenet", "--try"])
    assert "there is nothing to try" in capsys.readouterr().out


def test_a_right_port_has_no_edit_and_a_start_of_its_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "edit:" not in located(folder, capsys, ", padding=2", "2, 2")
    said = located(folder, capsys, ", padding=2", "2, 2", "--check-init")
    assert "level initialisation" in said
    assert "conv1.bias: starts at values from" in said


def test_lines_are_counted_as_python_counts_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "edited_port.py").write_text("\f" + SOURCE.format(conv=", padding=1", pool="2, 2"))
    with pytest.raises(SystemExit):
        main(["locate", "--left", "edited_port:network", "--right", "lenet"])
    assert "edited_port.py:7: padding=1 -> padding=2" in capsys.readouterr().out


def test_a_source_that_cannot_be_read_costs_no_verdict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# coding: latin-1\n# \xe9\n" + SOURCE.format(conv=", padding=1", pool="2, 2")
    (folder / "edited_port.py").write_text(text, encoding="latin-1")
    with pytest.raises(SystemExit) as ended:
        main(["locate", "--left", "edited_port:network", "--right", "lenet", "--try"])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "first difference: layer 'conv1'" in said
    assert "its source cannot be read" in said


def test_try_needs_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["locate", "--left", "torch", "--right", "reference", "--arch", "lenet", "--try"])
    assert ended.value.code == 2
    assert "--try is for your own network" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cause", "arguments"),
    [
        ("SAME padding, the odd pixel below and right: the padding is SAME, not (1, 1)", ("SAME", ((1, 1), (1, 1)))),
        ("the padding is (4, 4), not (0, 0)", ("SAME", "VALID")),
        ("the padding is (0, 0), not (2, 1)", ("VALID", ((2, 2), (1, 1)))),
    ],
)
def test_a_padding_may_be_stated_by_its_name(cause: str, arguments: tuple[object, object]) -> None:
    assert ("padding", *arguments) in list(arguments_of(cause))


def test_what_a_call_takes_is_known_where_the_signature_does_not_say() -> None:
    import torch.nn.functional as functional

    class Called(type):
        def __call__(cls, *args: object, **kwargs: object) -> object:
            return type.__call__(cls, *args, **kwargs)

    class Layer(metaclass=Called):
        def __init__(self, rate: float, seed: int = 0) -> None:
            pass

    taken = [[each.name for each in parameters_of(function)] for function in (Layer, functional.max_pool2d)]
    assert taken[0] == ["rate", "seed"]
    assert taken[1][:4] == ["input", "kernel_size", "stride", "padding"]


@pytest.mark.parametrize(
    ("cause", "argument"),
    [
        ("constant factor 5 in the LRN term: alpha divided by n", ("alpha", None, Times(5.0))),
        ("constant factor 5 in the LRN term: alpha not divided by n", ("alpha", None, Times(0.2))),
        ("SAME padding or ceil for floor: there is one window more", ("convention", "full", "valid")),
        ("average for maximum pooling", ("pool", "avg", "max")),
        ("it is active in training and in evaluation", ("mode", "always", "training")),
    ],
)
def test_a_cause_names_the_argument(cause: str, argument: tuple[object, ...]) -> None:
    assert argument in list(arguments_of(cause))


def test_a_momentum_may_be_stated_either_way() -> None:
    assert ("momentum", 0.99, 0.1) in list(arguments_of("the momentum is 0.99, not 0.1"))
    turned = list(arguments_of("momentum 0.1 is taken for the weight of the old statistics"))
    assert [right for _, _, right in turned] == [0.1, 0.9]
