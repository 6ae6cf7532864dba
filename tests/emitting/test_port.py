"""`triptych port`: a folder of source and weights that is checked as it lies there, and an edit in it that is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from triptych.__main__ import main
from triptych.backend import registry
from triptych.conformance.compare import Check
from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.locate import Located
from triptych.emitting.port_check import Ported
from triptych.spec import records
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    MaxPool,
    ReLU,
    Residual,
)

BODY = Block("body", (Conv("conv", 6, (3, 3), padding=(1, 1), bias=False), BatchNorm("norm"), ReLU("relu")))
GATE = Block("gate", (GlobalAvgPool("pool"), Conv("conv", 6, (1, 1)), HardSigmoid("sigmoid")))
NETWORK = Architecture(
    "small",
    (3, 12, 14),
    5,
    (
        Conv("stem", 6, (3, 3)),
        ReLU("relu"),
        MaxPool("pool", (2, 2), (2, 2)),
        Residual("unit", BODY),
        Branches("attention", (Block("same", ()), GATE), "multiply"),
        Flatten("flatten"),
        Dense("dense", 5),
    ),
)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(records.write(NETWORK))
    return path


@pytest.mark.parametrize("name", registry.installed())
def test_what_is_written_is_the_network_and_an_edit_is_found(
    name: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "ported"
    assert run("port", spec, "--to", name, "--out", folder) == 0
    assert {path.name for path in folder.iterdir()} >= {"README.md", "architecture.json", "model.safetensors", name}
    assert f"{name}: structure, forward eval, forward train, gradient agree" in (folder / "README.md").read_text()
    assert "the source has no weights" in (folder / "README.md").read_text()
    source = (folder / name / "model.py").read_text()
    assert "triptych" not in source
    assert run("port", folder, "--check-only") == 0
    for right, wrong in (("relu", "sigmoid"), ("ReLU", "Sigmoid")):  # wherever there is one, as each framework says it
        source = source.replace(right, wrong)
    (folder / name / "model.py").write_text(source)
    capsys.readouterr()
    assert run("port", folder, "--check-only") == 1
    assert f"{name}: DIFFERS at layer 'relu', level forward eval" in capsys.readouterr().out


def test_other_weights_than_the_canonical_ones_are_found(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in which two arrays have changed places is the same network with other weights."""
    import safetensors.numpy

    name, folder = registry.installed()[0], tmp_path / "ported"
    assert run("port", spec, "--to", name, "--out", folder) == 0
    weights = folder / name / "model.safetensors"
    arrays = safetensors.numpy.load(weights.read_bytes())
    bias = next(key for key, value in arrays.items() if value.shape == (5,))
    weights.write_bytes(safetensors.numpy.save(arrays | {bias: arrays[bias] + 1}))
    capsys.readouterr()
    assert run("port", folder, "--check-only") == 1
    lines = capsys.readouterr().out.splitlines()
    assert "agree with the float64 reference" in lines[0]
    assert lines[1].startswith(f"{name}: DIFFERS in its outputs with its own weights")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("SPEC",), "--out is missing"),
        (("SPEC", "--out", "THERE"), "is there already"),
        (("SPEC", "--to", "theano", "--out", "NEW"), "theano"),
        (("THERE", "--check-only"), "is no folder that `triptych port` has written"),
        (("THERE", "--check-only", "--out", "NEW"), "--check-only takes a folder, and nothing else"),
        (("no.json", "--out", "NEW"), "there is no file no.json"),
    ],
)
def test_bad_usage_is_one_line(
    arguments: tuple[str, ...], words: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    places = {"SPEC": spec, "THERE": tmp_path / "there", "NEW": tmp_path / "new"}
    assert run("port", *(places.get(argument, argument) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_file_that_does_not_run_is_one_line(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, folder = registry.installed()[0], tmp_path / "ported"
    assert run("port", spec, "--to", name, "--out", folder) == 0
    (folder / name / "model.py").write_text("raise SystemExit(0)\n")
    capsys.readouterr()
    assert run("port", folder, "--check-only") == 2
    assert "model.py cannot be loaded: SystemExit" in capsys.readouterr().err


def test_neither_check_makes_up_for_the_other() -> None:
    """A gradient that is cut off shows in no output, other weights show in no drawn ones."""
    right, wrong = Check("outputs", "dense", 0.0, 1.0, 1.0), Check("gradient", "dense", 2.0, 1.0, 1.0)
    agree = Located("a", "b", "small", "accumulated", "fp64", ("gradient",), None)
    differ = replace(agree, difference=Difference("dense", "gradient", wrong, ("a",)))
    verdicts = [Ported("torch", located, (own,)).passed for located in (agree, differ) for own in (right, wrong)]
    assert verdicts == [True, False, False, False]
