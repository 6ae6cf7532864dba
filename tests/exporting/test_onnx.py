"""ONNX files of specs: onnx checks them, its evaluator and onnxruntime give what the reference gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import awkward_networks
from marks import later
from triptych import zoo
from triptych.conformance.case import conformance_architecture
from triptych.conformance.tolerance import budgets, perturbations
from triptych.exporting.onnx_layers import LAYERS
from triptych.reference.network import forward
from triptych.spec import analysis
from triptych.spec.layers import (
    GELU,
    SELU,
    Architecture,
    Conv,
    ConvTranspose,
    HardSwish,
    Layer,
    LocalResponseNorm,
    Primitive,
    Softplus,
    with_children,
)
from triptych.utils.errors import TriptychError
from triptych.weights import store

onnx: Any = pytest.importorskip("onnx", reason="the onnx package is not installed: pip install 'triptych[onnx]'")
evaluator: Any = pytest.importorskip("onnx.reference", reason="the onnx package is not installed")
from triptych.exporting import onnx_file  # noqa: E402

onnxruntime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
EVERY = (*awkward_networks.CASES, *zoo.registry())


def network(name: str) -> Architecture:
    return awkward_networks.CASES[name] if name in awkward_networks.CASES else conformance_architecture(name)


def single(layer: Layer) -> Layer:
    """With numbers that float32 holds, as the attributes of ONNX are."""
    if not isinstance(layer, Primitive):
        return with_children(layer, single)
    numbers = {f.name: getattr(layer, f.name) for f in fields(layer)}
    return replace(layer, **{n: float(np.float32(v)) for n, v in numbers.items() if isinstance(v, float)})


def case(name: str, dtype: Any) -> tuple[Architecture, dict[str, np.ndarray], np.ndarray]:
    architecture = network(name)
    architecture = replace(architecture, layers=tuple(map(single, architecture.layers)))
    parameters = {p: v.astype(dtype) for p, v in awkward_networks.parameters(architecture).items()}
    x = np.random.default_rng(4).normal(size=(2, *architecture.input)).astype(np.float32).astype(dtype)
    return architecture, parameters, x


def wanted(architecture: Architecture, parameters: Any, x: Any, **options: Any) -> dict[str, np.ndarray]:
    run = forward(architecture, parameters, x, **options)
    return {path: run.outputs[path] if i else run.logits for i, path in enumerate(run.heads)}


def kinds(architecture: Architecture) -> set[type]:
    return {type(place.layer) for place in analysis.primitives(architecture)}


# What onnx's evaluator (1.23) gets wrong, or computes in float32: grouped transposed convolutions, LRN's window, the
# sixth of HardSwish, erf; the numbers of SELU are attributes, which ONNX has in float32. onnxruntime judges these.
def misjudged(architecture: Architecture) -> bool:
    layers = [place.layer for place in analysis.primitives(architecture)]
    return any(
        isinstance(layer, LocalResponseNorm | HardSwish | SELU)
        or (isinstance(layer, ConvTranspose) and layer.groups > 1)
        or layer == GELU(layer.name, approximate=False)
        for layer in layers
    )


@pytest.mark.parametrize("name", EVERY)
def test_every_network_gives_in_float64_what_the_reference_gives(name: str) -> None:
    architecture, parameters, x = case(name, np.float64)
    if misjudged(architecture):
        pytest.skip("onnx's own evaluator is not right here: onnxruntime judges")
    model = onnx_file.model(architecture, parameters)
    outputs = evaluator.ReferenceEvaluator(model).run(None, {"input": x})
    expected = wanted(architecture, parameters, x)
    assert len(outputs) == len(expected)
    for found, value in zip(outputs, expected.values(), strict=True):
        assert found.shape == value.shape
        assert np.abs(found - value).max() <= 1e-12 * np.abs(value).max()


# Seven passes of the reference each: of the zoo these always, the others in `make test-all`.
FEW = ("lenet", "googlenet", "resnet18_v2", "mobilenet_v2", "densenet121", "vgg11_lrn")
IN_FLOAT32 = [
    name if name in awkward_networks.CASES or name in FEW else pytest.param(name, marks=later) for name in EVERY
]


@pytest.mark.parametrize("name", IN_FLOAT32)
def test_every_network_gives_in_onnxruntime_what_float32_can(name: str) -> None:
    architecture, parameters, x = case(name, np.float32)
    content = onnx_file.model(architecture, parameters).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"input": x})
    expected = wanted(architecture, parameters, x)
    perturbed = [wanted(architecture, parameters, x, rounding=rounding) for rounding in perturbations(0)]
    allowed = budgets(expected, perturbed)["fp32"]
    for found, (path, value) in zip(outputs, expected.items(), strict=True):
        assert np.abs(found - value).max() <= allowed[path]


def test_every_kind_is_tried() -> None:
    assert set(LAYERS) == {kind for name in EVERY for kind in kinds(network(name))}


def test_what_the_file_says_of_itself(tmp_path: Path, call: Callable[..., str]) -> None:
    architecture = zoo.build("lenet")
    store.save(tmp_path / "net.safetensors", awkward_networks.parameters(architecture))
    said = call("export", "onnx", "lenet", tmp_path / "net.onnx", "--weights", tmp_path / "net.safetensors")
    assert "operator set 17" in said
    model = onnx.load(tmp_path / "net.onnx")
    assert (model.opset_import[0].version, model.producer_name) == (17, "triptych")
    assert [value.name for value in model.graph.input] == ["input"]
    assert [size.dim_param or size.dim_value for size in model.graph.output[0].type.tensor_type.shape.dim] == ["N", 10]
    assert {array.name for array in model.graph.initializer} == {
        info.path for info in analysis.parameters(architecture)
    }


def test_a_wrong_export_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Planted: a transposed weight."""
    from triptych.__main__ import main

    monkeypatch.chdir(tmp_path)
    store.save(tmp_path / "net.safetensors", awkward_networks.parameters(zoo.build("lenet")))

    right = LAYERS[Conv]

    def wrong(graph: Any, layer: Any, at: Any) -> str:
        graph.constants[at.arrays["weight"]] = graph.constants[at.arrays["weight"]][:, :, ::-1]
        return right(graph, layer, at)

    monkeypatch.setitem(LAYERS, Conv, wrong)
    with pytest.raises(SystemExit) as stopped:
        main(["export", "onnx", "lenet", "net.onnx", "--weights", "net.safetensors"])
    assert stopped.value.code == 1
    assert "its outputs differ from the reference's" in capsys.readouterr().err
    assert not Path("net.onnx").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lenet net.onnx", "'lenet' has no weights"),
        ("lenet net.txt", "must end in .onnx"),
        ("lenett net.onnx", "did you mean 'lenet'"),
        ("lenet net.onnx --weights nothing", "there is no file nothing"),
    ],
)
def test_bad_input_is_one_line(line: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from triptych.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["export", "onnx", *line.split()])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1), err
    assert words in err


def test_what_cannot_be_written_is_one_line() -> None:
    architecture = zoo.build("lenet")
    parameters = awkward_networks.parameters(architecture)
    far = ConvTranspose("conv", 4, (1, 1), (1, 1), (0, 0), (2, 0), dilation=(3, 1))
    odd = Architecture("odd", (3, 4, 4), 0, (far,))
    with pytest.raises(TriptychError, match=r"'conv': its output padding .* which ONNX cannot express"):
        onnx_file.content(odd, awkward_networks.parameters(odd))
    low = Architecture("low", (3, 4, 4), 0, (Softplus("act", 3.0),))
    with pytest.raises(TriptychError, match="'act': its threshold 3 is below 15, which ONNX cannot express"):
        onnx_file.content(low, {})
    half = {path: value.astype(np.float16) for path, value in parameters.items()}
    with pytest.raises(TriptychError, match="of float16; an ONNX file gets one of"):
        onnx_file.content(architecture, half)
    with pytest.raises(TriptychError, match="do not fit"):
        onnx_file.content(architecture, {})
