"""`triptych port`: a folder of source and weights that is checked as it lies there, and an edit in it that is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marks import needs_backend
from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.conformance.case import Case, make_case
from triptych.conformance.compare import Check
from triptych.conformance.diagnosis.explain import Difference
from triptych.conformance.locate import Located
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.tolerance import PAIRS, UNPERTURBED, budgets, perturbations, unperturbed
from triptych.emitting import port_certificate, port_folder
from triptych.emitting.port_check import OUTPUTS, Ported, _nearest
from triptych.emitting.port_reference import Expected
from triptych.emitting.source_lines import line_of
from triptych.porting import own_network
from triptych.porting.search_size import VALUES, images_needed
from triptych.spec import records
from triptych.spec.kinds.layer_pass import Rounding
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    HardSigmoid,
    MaxPool,
    ReLU,
    Residual,
)
from triptych.utils.arrays import Array, largest

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
        Dropout("dropout", 0.5),
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


@needs_backend
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
    assert f"{name}: DIFFERS in its weights: {bias} is not as it was written" in lines


@needs_backend
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


@needs_backend
def test_a_file_that_does_not_run_is_one_line(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, folder = registry.installed()[0], tmp_path / "ported"
    assert run("port", spec, "--to", name, "--out", folder) == 0
    (folder / name / "model.py").write_text("raise SystemExit(0)\n")
    capsys.readouterr()
    assert run("port", folder, "--check-only") == 2
    assert "model.py:1 cannot be loaded: SystemExit" in capsys.readouterr().err


@pytest.mark.skipif(len(registry.installed()) < 2, reason="fewer than two frameworks are installed")
def test_a_file_that_does_not_run_keeps_no_other_from_being_judged(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (first, other), folder = registry.installed()[:2], tmp_path / "ported"
    assert run("port", spec, "--to", f"{first},{other}", "--out", folder) == 0
    (folder / first / "model.py").write_text("load = None\n")
    capsys.readouterr()
    assert run("port", folder, "--check-only") == 1
    out = capsys.readouterr().out
    assert f"{first}: not run: " in out
    assert f"{other}: structure, forward eval, forward train, gradient agree" in out


def test_neither_check_makes_up_for_the_other() -> None:
    """A gradient that is cut off shows in no output, other weights show in no drawn ones."""
    right, wrong = Check("outputs", "dense", 0.0, 1.0, 1.0), Check("gradient", "dense", 2.0, 1.0, 1.0)
    agree = Located("a", "b", "small", "accumulated", "fp64", ("gradient",), None)
    differ = replace(agree, difference=Difference("dense", "gradient", wrong, ("a",)))
    verdicts = [Ported("torch", located, (own,)).passed for located in (agree, differ) for own in (right, wrong)]
    assert verdicts == [True, False, False, False]


def ported(spec: Path, folder: Path, name: str) -> Path:
    assert run("port", spec, "--to", name, "--out", folder) == 0
    return folder / "certificate.json"


def verified(certificate: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    status = run("verify", certificate)
    return status, capsys.readouterr().out


CLASHES = {  # what is edited, for what, and the layer in which it is then seen
    "torch": {
        "a map of another size": ("nn.MaxPool2d(2)", "nn.MaxPool2d(1)", "nn.Linear("),
        "weights of another size": ("nn.Linear(180,", "nn.Linear(181,", "nn.Linear("),
        "in a residual": ("nn.Conv2d(6, 6, 3, padding=1", "nn.Conv2d(6, 7, 3, padding=1", "nn.Conv2d(6, 7, 3"),
    },
    "mxnet": {
        "a map of another size": ("nn.MaxPool2D(2)", "nn.MaxPool2D(1)", "nn.Dense("),
        "weights of another size": ("nn.Dense(5)", "nn.Dense(6)", "nn.Dense("),
        "in a residual": ("nn.Conv2D(6, 3, padding=1", "nn.Conv2D(7, 3, padding=1", "nn.Conv2D(7, 3"),
    },
    "jax": {
        "a map of another size": ("strides=(2, 2)", "strides=(1, 1)", "nnx.Linear("),
        "weights of another size": ("nnx.Linear(180,", "nnx.Linear(181,", "nnx.Linear("),
        "in a residual": ("nnx.Conv(6, 6, (3, 3), padding=1", "nnx.Conv(6, 7, (3, 3), padding=1", "nnx.Conv(6, 7,"),
    },
}


@pytest.mark.parametrize(("name", "edit"), [(name, edit) for name in registry.installed() for edit in CLASHES[name]])
def test_an_edit_by_which_shapes_clash_is_located(
    name: str, edit: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = ported(spec, tmp_path / "ported", name)
    model, (right, wrong, place) = tmp_path / "ported" / name / "model.py", CLASHES[name][edit]
    text = "# an inserted line\n" + model.read_text()
    assert right in text
    model.write_text(text.replace(right, wrong))
    line = next(n for n, one in enumerate(model.read_text().splitlines(), 1) if place in one)
    status, said = verified(certificate, capsys)
    assert status == 1
    assert f"model.py:{line}" in said, said


def test_lines_of_what_cannot_be_followed() -> None:
    source = """
class Net(Module):
    def __init__(self):
        self.first = Sequential(
            *(Layer() for _ in range(3)),
        )
        self.second = row(
            Layer(),
            Part(1) if True else Part(2),
        )
def row(*layers):
    return Sequential(*layers)
def load(path) -> Net:
    return Net()
"""
    assert line_of(source, "first.1") == 4  # of a starred row
    assert line_of(source, "second") == 7
    assert line_of(source, "second.0") == 8
    assert line_of(source, "second.1.inner") == 9
    assert line_of(source, "third") == 0
    assert line_of(source.replace("-> Net", ""), "first") == 0
    assert line_of("def f(:", "first") == 0


@pytest.mark.parametrize("name", registry.installed())
def test_a_certificate_is_verified_and_an_edit_is_located(
    name: str, spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    certificate = ported(spec, tmp_path / "ported", name)
    status, said = verified(certificate, capsys)
    assert status == 0, said
    assert f"verified: {spec} on {name}; 6 checks run again" in said
    model = tmp_path / "ported" / name / "model.py"
    source = model.read_text()
    model.write_text(source + "\n# a remark changes no number\n")
    status, said = verified(certificate, capsys)
    assert status == 0, said
    assert f"note: {name}/model.py is not the one that was written" in said
    model.write_text(source.replace("relu", "tanh").replace("ReLU", "Tanh"))
    status, said = verified(certificate, capsys)
    assert status == 1
    assert f"refused: {name}: DIFFERS at layer 'relu', level forward eval" in said


@pytest.mark.parametrize(
    ("name", "edit"),
    [("torch", ("Norm2d(6", "Norm2d(6, momentum=0.2")), ("mxnet", ("BatchNorm(", "BatchNorm(momentum=0.8"))],
)
def test_how_running_statistics_are_kept_shows_in_training_only(
    name: str, edit: tuple[str, str], spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name not in registry.installed():
        pytest.skip(f"{name} is not installed")
    certificate = ported(spec, tmp_path / "ported", name)
    model = tmp_path / "ported" / name / "model.py"
    assert edit[0] in model.read_text()
    model.write_text(model.read_text().replace(*edit))
    status, said = verified(certificate, capsys)
    assert status == 1
    assert f"refused: {name}: DIFFERS after 2 steps of SGD: unit.body.norm.running_" in said
    assert "at layer" not in said


@needs_backend
def test_files_beside_a_certificate_that_are_not_those_that_were_judged(
    spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, folder = registry.installed()[0], tmp_path / "ported"
    certificate = ported(spec, folder, name)
    text = certificate.read_text()
    certificate.write_text(text.replace('"created": "2', '"created": "3'))
    assert "refused: the certificate is not as it was written" in verified(certificate, capsys)[1]
    certificate.write_text(text)
    told = (folder / "architecture.json").read_text()
    (folder / "architecture.json").write_text(told.replace('"eps": 1e-05', '"eps": 0.001'))
    status, said = verified(certificate, capsys)
    assert status == 1
    assert "refused: architecture.json is not the one that was written" in said
    assert "DIFFERS at layer 'unit.body.norm', level forward eval" in said
    (folder / "architecture.json").write_text(told)
    (folder / name / "model.py").unlink()
    status, said = verified(certificate, capsys)
    assert status == 1
    assert f"refused: {name}/model.py is missing" in said
    certificate.write_text('{"format": "triptych port certificate"}')
    capsys.readouterr()
    assert run("verify", certificate) == 2
    assert "is damaged" in capsys.readouterr().err


@needs_backend
def test_code_that_is_not_the_one_that_was_signed_is_not_run(spec: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, folder = registry.installed()[0], tmp_path / "ported"
    certificate, check = ported(spec, folder, name), port_certificate._check_files
    model = folder / name / "model.py"

    def checked(*arguments: Any) -> None:
        check(*arguments)
        model.write_text(model.read_text() + "\nopen('ran', 'w')\n")  # as soon as it was looked at

    with monkeypatch.context() as patched:
        patched.setattr(port_certificate, "_check_files", checked)
        assert port_certificate.verify(certificate.read_bytes(), certificate, as_written=True)[1].passed
    text = certificate.read_text()
    certificate.write_text(text.replace('"created": "2', '"created": "3'))  # nor is one with a wrong digest, unsigned
    for as_written in (False, True):
        result = port_certificate.verify(certificate.read_bytes(), certificate, as_written=as_written)[1]
        assert (result.passed, result.checks) == (False, 0)
        certificate.write_text(text)
    assert result.reasons == [f"{name}/model.py is not the one that was written; nothing was run"]
    assert not Path("ran").exists()


@pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
def test_the_source_is_compared_in_its_own_framework(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """MXNet's symbol with a gamma that is fixed, and a softmax of the old form at its end; one with another weight than
    was read is found."""
    registry.load("mxnet")
    import mxnet as mx

    from triptych.porting import source_network

    mx.random.seed(0)
    x = mx.sym.Convolution(mx.sym.var("data"), num_filter=4, kernel=(3, 3), name="conv")
    x = mx.sym.BatchNorm(x, fix_gamma=True, eps=2e-5, name="norm")
    x = mx.sym.FullyConnected(mx.sym.Activation(x, act_type="relu"), num_hidden=3, name="dense")
    symbol = mx.sym.SoftmaxActivation(x, name="end")
    shapes, _, states = symbol.infer_shape(data=(1, 2, 6, 5))
    names = [*zip(symbol.list_arguments(), shapes, strict=True)][1:]
    arrays = {f"arg:{name}": mx.nd.random.uniform(-1, 1, shape) for name, shape in names}
    arrays |= {f"aux:{n}": mx.nd.ones(s) for n, s in zip(symbol.list_auxiliary_states(), states, strict=True)}
    symbol.save(str(tmp_path / "net-symbol.json"))
    mx.nd.save(str(tmp_path / "net-0001.params"), arrays)
    line = ("port", tmp_path / "net-symbol.json", "--input", "2x6x5", "--to", registry.installed()[0], "--out")
    assert run(*line, tmp_path / "ported") == 0
    said = capsys.readouterr().out
    assert "source: structure, forward eval, forward train, gradient agree" in said
    assert "source: update: 2 steps of its own SGD are the reference's" in said
    assert run(*line, tmp_path / "part", "--output", "norm") == 0
    said = capsys.readouterr().out
    assert "source: not run: the port ends in norm, and the source runs to its own end" in said
    find = source_network.find

    def other(*arguments: object) -> source_network.SourceNetwork:
        network = find(*arguments)  # type: ignore[arg-type]
        made = network.make()
        made.params["dense_bias"].set_data(mx.nd.zeros(3))
        return replace(network, make=lambda: made)

    monkeypatch.setattr(source_network, "find", other)
    assert run(*line, tmp_path / "other") == 1
    assert "source: DIFFERS in its outputs with its own weights: dense" in capsys.readouterr().out


@needs_backend
def test_all_are_judged_by_one_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass of the full size, nothing of it kept but the outputs; one training per way to keep statistics."""
    from triptych.emitting import port_reference
    from triptych.emitting.emit import dialect_of

    size, calls = (3, 70, 66), []
    layers = (Conv("conv", 4, (3, 3), (2, 2), bias=False), BatchNorm("norm", unbiased=True), GlobalAvgPool("pool"))
    path, forward = tmp_path / "one.json", port_reference.reference.forward
    path.write_text(records.write(Architecture("one", size, 5, (*layers, Flatten("flatten"), Dense("dense", 5)))))

    def watched(architecture: Architecture, *arguments: Any, **options: Any) -> Any:
        made = forward(architecture, *arguments, **options)
        calls.append((architecture.input, set(made.outputs), "train" in options and "trace" not in options))
        return made

    monkeypatch.setattr(port_reference.reference, "forward", watched)
    assert run("port", path, "--to", ",".join(registry.installed()), "--out", tmp_path / "ported") == 0
    assert [kept for shape, kept, _ in calls if shape == size] == [{"dense"}]
    assert {shape for shape, *_ in calls} == {size, (3, 48, 48)}
    ways = {dialect_of(name).kept(layers[1]) for name in registry.installed()}
    assert sum(steps for *_, steps in calls) == 2 * len(ways)
    said = (tmp_path / "ported" / "README.md").read_text()
    assert "and images of 3x48x48" in said
    assert "on the full size, 3x70x66" in said


def test_a_module_is_ported_and_left_as_it_is(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    import triptych

    module = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(36, 4))
    made = triptych.port(module, tmp_path / "ported", to=["torch"], input=(2, 6, 5))
    assert made.passed
    assert [*made.ported] == ["torch", "source"]
    assert (made.not_run, next(module.parameters()).dtype) == ({}, torch.float32)
    path = tmp_path / "ported" / "certificate.json"
    said, result = port_certificate.verify(path.read_bytes(), path)
    assert result.passed
    verdicts = said.verdicts | {"source": replace(said.verdicts["source"], levels=(), difference="DIFFERS")}
    other = replace(said, verdicts=verdicts, digest="")
    path.write_text(records.write(replace(other, digest=records.digest(other))))
    result = port_certificate.verify(path.read_bytes(), path)[1]
    assert result.reasons == ["source: failed in the certificate; it is not run again here"]


def test_a_function_that_draws_its_weights_anew_is_compared_with_those_that_were_ported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    layers = "nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)"
    source = f"from torch import nn\n\n\ndef make():\n    return nn.Sequential({layers})\n"
    (tmp_path / "drawn_anew.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert run("port", "drawn_anew:make", "--input", "2x6x5", "--to", "torch", "--out", tmp_path / "ported") == 0
    assert "source: the reference's outputs with its own weights: differs by" in capsys.readouterr().out


def test_a_source_that_flattens_height_width_channels_takes_the_same_steps(tmp_path: Path) -> None:
    """The columns of its dense layer are in another order than the spec's."""
    pytest.importorskip("jax")
    import triptych

    registry.load("jax")
    from flax import nnx

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.conv, self.dense = nnx.Conv(3, 4, (3, 3), rngs=rngs), nnx.Linear(4 * 6 * 5, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.dense(nnx.relu(self.conv(x)).reshape(len(x), -1))

    made = triptych.port(Net(nnx.Rngs(0)), tmp_path / "ported", to=["jax"], input=(3, 6, 5))
    assert made.ported["source"].lines[2].startswith("update: 2 steps of its own SGD are the reference's")
    assert made.passed


def test_what_runs_on_its_own_size_only_is_judged_on_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    layers = (Conv("conv", 4, (3, 3), (2, 2), bias=False), ReLU("relu"), GlobalAvgPool("pool"), Flatten("flatten"))
    path, folder = tmp_path / "one.json", tmp_path / "ported"
    path.write_text(records.write(Architecture("one", (3, 70, 66), 5, (*layers, Dense("dense", 5)))))
    assert run("port", path, "--to", "torch", "--out", folder) == 0
    assert "and images of 3x48x48" in capsys.readouterr().out
    model = folder / "torch" / "model.py"
    source = model.read_text()
    assert "nn.AdaptiveAvgPool2d(1)" in source
    model.write_text(source.replace("nn.AdaptiveAvgPool2d(1)", "nn.AvgPool2d((34, 32))"))
    assert run("port", folder, "--check-only") == 0
    assert "and images of 3x70x66" in capsys.readouterr().out
    model.write_text(source.replace("nn.AdaptiveAvgPool2d(1)", "nn.AvgPool2d((34, 31))"))
    assert run("port", folder, "--check-only") == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_a_source_whose_pool_adapts_is_judged_on_its_own_size(tmp_path: Path) -> None:
    """Of maps of another size it makes the same size, where the spec's kernel does not."""
    torch = pytest.importorskip("torch")
    import triptych

    layers = torch.nn.Conv2d(3, 4, 3, 2), torch.nn.AdaptiveAvgPool2d((17, 16)), torch.nn.AdaptiveAvgPool2d(1)
    module = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 3))
    made = triptych.port(module, tmp_path / "ported", to=["torch"], input=(3, 70, 66))
    assert made.passed
    assert [one.searched for one in made.ported.values()] == [(3, 50, 50), (3, 70, 66)]


def test_norms_over_maps_of_one_place_are_given_images_enough(tmp_path: Path) -> None:
    """Over two values a batch norm's gradient is the rest of a cancellation, and through several of them no float64
    tells it: a right port of a ResNet at 32x32 was refused."""
    pytest.importorskip("torch")
    architecture = zoo.build("resnet18_v1", width_ratio=2, input=(3, 32, 32), classes=10)
    assert images_needed(architecture) == VALUES
    assert images_needed(NETWORK) == 2
    (path := tmp_path / "places.json").write_text(records.write(architecture))
    assert run("port", path, "--to", "torch", "--out", tmp_path / "ported") == 0


@pytest.mark.parametrize("name", registry.installed())
def test_no_execution_is_perturbed_for_a_bias_before_a_batch_norm(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its gradient is the rest of a cancellation, of which its own scale says nothing; the network stands in memory."""
    layers = (Conv("conv", 8, (3, 3)), BatchNorm("norm"), ReLU("relu"), Flatten("flatten"), Dense("dense", 3))
    (path := tmp_path / "biased.json").write_text(records.write(Architecture("biased", (2, 9, 8), 3, layers)))

    def refuse(run: ReferenceRun) -> None:
        raise AssertionError("an execution is perturbed")

    monkeypatch.setattr(ReferenceRun, "perturbed", refuse)
    assert run("port", path, "--to", name, "--out", tmp_path / "ported") == 0
    assert "gradient agree" in capsys.readouterr().out


def test_what_a_sum_is_allowed_is_less_than_its_budget() -> None:
    """By the rounding of the sum alone, as no execution was perturbed; a bias of few values has none."""
    few, many = (
        ReferenceRun(make_case(Architecture("one", (2, 9, 8), 3, (*biased, Flatten("flatten"), Dense("dense", 3)))))
        for biased in ((Conv("conv", channels, (3, 3)), BatchNorm("norm"), ReLU("relu")) for channels in (7, 8))
    )
    assert "conv.bias" in many.gradients
    assert "conv.bias" in few.gradients
    assert "conv.bias" in many.sum_errors
    assert "conv.bias" not in few.sum_errors
    for precision, by_level in many.budgets.items():
        allowed = unperturbed(precision, many.gradients, many.sum_errors)
        assert allowed["conv.bias"] > UNPERTURBED[precision] * largest(many.gradients["conv.bias"])
        assert all(0 < allowed[path] <= by_level["gradient"][path] for path in many.sum_errors)


def test_no_more_executions_run_than_somebody_needs() -> None:
    """What is within the budget of some of them is within that of all."""
    calls: list[Rounding] = []

    def compute(rounding: Rounding) -> dict[str, Array]:
        calls.append(rounding)
        return {"a": rounding(np.ones(50), 1)}

    expected = Expected(compute)
    for _ in range(2):
        assert _nearest(OUTPUTS, expected, {"a": np.full(50, 1 + 2.0**-22)}, "fp32").passed
        assert len(calls) == 2  # the exact one, and one that is perturbed
    for _ in range(2):
        wrong = _nearest(OUTPUTS, expected, {"a": np.full(50, 1 + 2.0**-18)}, "fp32")
        assert not wrong.passed
        assert len(calls) == 1 + 2 * PAIRS
    assert wrong.budget == budgets(expected.exact, map(compute, perturbations(0)))["fp32"]["a"]


@needs_backend
def test_no_maps_of_training_lie_beside_those_of_evaluation(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the images do not reach is asked of a pass in evaluation, after the search."""
    kept: list[bool] = []
    name = registry.installed()[0]
    folder = ported(spec, tmp_path / "ported", name).parent
    expect = port_folder.expectation(folder)
    asked = own_network.unreached

    def noted(case: Case, inputs: Mapping[str, Array]) -> list[str]:
        kept.append("_trained" in vars(expect.run))
        return list(asked(case, inputs))

    monkeypatch.setattr(own_network, "unreached", noted)
    assert port_folder.check(folder, [name], expect)[name].passed
    assert kept == [False]
