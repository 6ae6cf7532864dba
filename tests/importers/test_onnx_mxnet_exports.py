"""What MXNet 1.9.1's own exporter (mx.onnx) writes becomes the network that was exported, beside the exporter's faults:
by MXNet's outputs and by onnxruntime's, within the budgets of float32.

The exporter is of onnx 1.7 and 1.8, operator sets 12 and 13; of a later onnx it wants the module `mapping`, which is
gone, and has the file's operator set wrong, so that the fixture gives it both as they were."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from marks import later
from mxnet_cases import CASES
from mxnet_runs import GLUON_ZOO, draw, gluon_input, run_mxnet
from triptych.backend import registry
from triptych.conformance.tolerance import budgets, perturbations
from triptych.importers.onnx_network import load
from triptych.importers.steps import Imported, ImportRefusedError, Request
from triptych.reference.network import forward
from triptych.spec.layers import outputs

onnx: Any = pytest.importorskip("onnx", reason="the onnx package is not installed: pip install 'triptych[onnx]'")
onnxruntime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
if "mxnet" not in registry.installed():
    pytest.skip("MXNet is not installed", allow_module_level=True)

OPSETS = (12, 13)
TYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool")
Export = Callable[[Any, dict[str, Any], tuple[int, ...], int], Path]

# What the exporter takes, and refuses by itself or breaks at.
NOT_EXPORTED = (
    *("convolution_v1", "deconvolution to a shape", "batch_norm_v1", "pooling_v1", "average pooling_v1", "softsign"),
    "synchronised batch norm",
    *("sum pool", "global sum pool", "adaptive average pool", "dense behind a transpose of columns"),
    *("softmax activation", "softmax activation of rows", "l2 normalisation", "l2 normalisation of a map"),
    *("reshape and back", "channel shuffle", "crop of the centre", "passes"),
    *("mean of shuffled", "channels backwards by a slice", "larger of two, broadcast"),
    *("upsampling of two", "upsampling with weights", "upsampling by an odd scale with weights"),
)
ITS_ERRORS = (AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)
NOT_EXPORTED_AT = {12: ("parts from place to place",), 13: ("softmax output", "softmax output of a map")}
# What it writes wrongly, and what is said of that. These two are other networks, and taken as what they are: without
# fix_gamma the gamma that the file holds counts, and before operator set 13 a softmax is over all axes from its own on.
WRONG = ("batch norm with all defaults", "softmax output of a map")
SQUEEZED = r"\(Reshape\) gives \(batch, .*\) the shape \[1, 3, 6|\(ScatterND\)"  # (1, images, channels)
CHANNELS_LAST = ("transposed",)  # so it takes its images: the first transposition is theirs
REFUSED = {
    **dict.fromkeys(("mean", "means one by one", "largest"), SQUEEZED),
    "largest of transposed rows": r"\(Reshape\) gives \(batch, .*\) the shape \[1, 3, 8, 6|\(ScatterND\)",
    "mean of all but": r"\(ReduceMean\) works along axis 0|\(ScatterND\)",  # of `exclude` nothing is left
    "prelu": r"\(PRelu\) has a slope \(6,\) for \(6, 9, 8\)",  # broadcast to the columns
    "slice like another": r"\(GatherND\) is not supported",
    "reversed reshape": r"\(Pad\) computes with constants alone",
    **dict.fromkeys(("tiled", "tiled features"), r"\(Pad\) computes with constants alone"),
    **dict.fromkeys(("each channel twice", "each column three times"), r"\(Tile\) is supported for constants only"),
    **dict.fromkeys(("a broadcast value", "broadcast along the channels"), r"\(Expand\) repeats values"),
    "broadcast like an axis of another": r"\(GatherND\) is not supported",
    "parts from place to place": "computes with constants alone",
    "channels backwards": r"\(Pad\) computes with constants alone",
    "dense at every place": r"\(Flatten\) has axis -1",
    "boxes": "in an order that no layer of the spec makes",  # of two flattened maps, each in another one
}


@pytest.fixture(scope="module", autouse=True)
def mx() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


@pytest.fixture
def export(mx: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Export:
    mapping, helper = ModuleType("onnx.mapping"), onnx.helper
    codes = {np.dtype(name): int(helper.np_dtype_to_tensor_dtype(np.dtype(name))) for name in TYPES}
    mapping.__dict__.update(NP_TYPE_TO_TENSOR_TYPE=codes, TENSOR_TYPE_TO_NP_TYPE={c: t for t, c in codes.items()})
    monkeypatch.setattr(onnx, "mapping", mapping, raising=False)
    monkeypatch.setitem(sys.modules, "onnx.mapping", mapping)
    monkeypatch.setattr(onnx.checker, "check_graph", lambda *_: None)  # by the newest operator set

    def exported(symbol: Any, arrays: dict[str, Any], shape: tuple[int, ...], opset: int) -> Path:
        monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: opset)
        path, given = tmp_path / "net.onnx", {name: mx.nd.array(array) for name, array in arrays.items()}
        mx.onnx.export_model(symbol, given, [shape], np.float32, str(path))
        return path

    return exported


def spelled_out(symbol: Any, mx: Any) -> Any:
    """With the defaults that Gluon writes, and whose absence the exporter takes for False."""
    graph = json.loads(symbol.tojson())
    for node in graph["nodes"]:
        if node["op"] == "FullyConnected":
            node["attrs"].setdefault("flatten", "True")
        if node["op"] == "Deconvolution":
            node["attrs"].setdefault("no_bias", "True")
    return mx.sym.load_json(json.dumps(graph))


def single(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def check(imported: Imported, x: Any, wanted: list[Any]) -> None:
    """The outputs in the order of the file, in units of their float32 budget."""

    def run(**options: Any) -> dict[str, Any]:
        made = forward(imported.architecture, imported.parameters or {}, x, **options).outputs
        return {name: made[name] for name in outputs(imported.architecture)}

    exact, rounded = run(), (run(rounding=each) for each in perturbations(0))
    allowed = budgets(exact, rounded)["fp32"]
    assert len(exact) == len(wanted)
    for (name, y), theirs in zip(exact.items(), wanted, strict=True):
        assert np.abs(y - theirs.reshape(y.shape)).max() <= allowed[name], name
        assert np.ptp(theirs) > 1e-3


def in_onnxruntime(path: Path, x: Any) -> list[Any]:
    onnxruntime.set_default_logger_severity(4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {"data": x}))


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", CASES)
def test_every_operator_is_what_mxnet_exported(name: str, opset: int, export: Export, mx: Any) -> None:
    case = CASES[name]
    symbol, shape = spelled_out(case.build(mx.sym, mx.sym.var("data")), mx), (case.images, *case.shape)
    arrays = single(draw(symbol, shape))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if name in NOT_EXPORTED or name in NOT_EXPORTED_AT[opset]:
        with pytest.raises(ITS_ERRORS):
            export(symbol, arrays, shape, opset)
        return
    path = export(symbol, arrays, shape, opset)
    if name in REFUSED:
        with pytest.raises(ImportRefusedError, match=REFUSED[name]) as caught:
            load(path, Request(keep_softmax=True))
        assert "\n" not in str(caught.value)
        return
    imported = load(path, Request(keep_softmax=True))
    runs = in_onnxruntime(path, x), list(run_mxnet(symbol, arrays, x, False, "float32").outputs)
    x = x.transpose(0, 3, 1, 2) if name in CHANNELS_LAST else x
    own, theirs = runs
    check(imported, x, own)
    if name in WRONG:
        with pytest.raises(AssertionError):
            check(imported, x, theirs)
    else:
        check(imported, x, theirs)


ALWAYS = ("mobilenet0.25", "mobilenetv2_0.25", "resnet18_v1", "resnet18_v2")


@pytest.mark.parametrize("name", [name if name in ALWAYS else pytest.param(name, marks=later) for name in GLUON_ZOO])
def test_a_network_of_gluons_zoo_is_what_mxnet_exported(name: str, export: Export, mx: Any) -> None:
    symbol = mx.gluon.model_zoo.vision.get_model(name)(mx.sym.var("data"))
    shape = gluon_input(name)
    arrays = single(draw(symbol, shape))
    fixed = [node for node in json.loads(symbol.tojson())["nodes"] if node.get("attrs", {}).get("fix_gamma") == "True"]
    arrays |= {f"{node['name'].removesuffix('_fwd')}_gamma": np.ones(3, np.float32) for node in fixed}
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    imported = load(export(symbol, arrays, shape, 13), Request())
    check(imported, x, list(run_mxnet(symbol, arrays, x, False, "float32").outputs))
