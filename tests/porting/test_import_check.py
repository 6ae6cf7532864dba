"""An import is compared with what it was made of before anything is judged by it: a right one passes without a word,
planted faults of every importer are refused, and the source stays as it was."""

from __future__ import annotations

import importlib
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.marks import every_backend
from tests.symbol_json import node, top, variable

from triptych.__main__ import main
from triptych.backend import registry
from triptych.emitting.port_reference import PortReference
from triptych.importers import onnx_network
from triptych.importers.steps import Imported, Request
from triptych.porting import import_check, sources
from triptych.porting.import_reference import ImportReference
from triptych.spec.layers import Affine, Architecture, BatchNorm, Dense, Flatten, Layer, Pad, with_children
from triptych.utils.errors import TriptychError

INPUT = (3, 12, 12)
FAULT = "the import does not compute what .* computes in .*this is a fault of triptych, please report it"
Fault = Callable[[Imported], Imported]


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def read(name: str, shape: tuple[int, int, int] | None = INPUT, **options: Any) -> Imported:
    return sources.read(name, Request(input=shape), **options)


def needs(name: str) -> None:
    if name not in registry.installed():
        pytest.skip(f"{name} is not installed")
    registry.load(name)  # MXNet cannot be imported before


def other_layers(change: Callable[[Any], Layer], kind: type[Layer]) -> Fault:
    """Every layer of this kind is another one."""

    def changed(layer: Layer) -> Layer:
        return change(layer) if isinstance(layer, kind) else with_children(layer, changed)

    def fault(imported: Imported) -> Imported:
        layers = tuple(map(changed, imported.architecture.layers))
        return replace(imported, architecture=replace(imported.architecture, layers=layers))

    return fault


def other_arrays(change: Callable[[str, Any], Any]) -> Fault:
    def fault(imported: Imported) -> Imported:
        arrays = imported.parameters or {}
        return replace(imported, parameters={path: change(path, value) for path, value in arrays.items()})

    return fault


IMPORTERS = {
    "torch": ("torch_export", "load"),
    "mxnet": ("mxnet_network", "convert"),
    "jax": ("jax_network", "network"),
}


def plant(name: str, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    module, function = IMPORTERS[name]
    importer = importlib.import_module(f"triptych.importers.{module}")
    right = getattr(importer, function)
    monkeypatch.setattr(importer, function, lambda *given, **named: fault(right(*given, **named)))


FAULTS: dict[str, Fault] = {
    "an eps dropped": other_layers(lambda norm: replace(norm, eps=0.0), BatchNorm),
    "a momentum turned round": other_layers(lambda norm: replace(norm, momentum=1 - norm.momentum), BatchNorm),
    "a variance kept with the other divisor": other_layers(
        lambda norm: replace(norm, unbiased=not norm.unbiased), BatchNorm
    ),
    "a norm frozen": other_layers(lambda norm: replace(norm, frozen=True), BatchNorm),
    "kernels turned": other_arrays(lambda path, value: value.swapaxes(-1, -2) if value.ndim == 4 else value),
    "a shift lost": other_arrays(lambda path, value: value * (not path.endswith(".bias"))),
    "mean and shift exchanged": lambda imported: replace(imported, parameters=_exchanged(imported.parameters or {})),
}
# The shifts and means of a network that was never trained are 0, and its scales 1: its own weights show none of these.
PLANTED = [
    *(("torch", fault) for fault in FAULTS),
    *(("mxnet", fault) for fault in ("kernels turned", "a variance kept with the other divisor")),
    *(("jax", fault) for fault in ("an eps dropped", "a shift lost")),
]


def _exchanged(arrays: dict[str, Any]) -> dict[str, Any]:
    def other(path: str) -> str:
        norm, _, role = path.rpartition(".")
        if f"{norm}.running_mean" not in arrays:
            return path
        return f"{norm}.{ {'bias': 'running_mean', 'running_mean': 'bias'}.get(role, role) }"

    return {path: arrays[other(path)] for path in arrays}


@every_backend
def test_of_a_module_that_is_taken_over_rightly_only_a_weaker_comparison_is_told(name: str) -> None:
    imported = read(f"strangers_{name}:mixed")
    weaker = {"mxnet": ["the import was compared as far as fp32 rounds"]}  # its PReLU computes so
    assert [line for line in imported.remarks if "compared" in line] == weaker.get(name, [])


@pytest.mark.parametrize(("name", "fault"), PLANTED)
def test_a_planted_fault_is_refused(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs(name)
    plant(name, FAULTS[fault], monkeypatch)
    with pytest.raises(TriptychError, match=FAULT):
        read(f"strangers_{name}:mixed")


LARGE = (3, 101, 101)  # pixels, where half as many show the same
IN_TRAINING = ("a momentum turned round", "a variance kept with the other divisor", "a norm frozen")


def normed() -> Any:
    torch: Any = pytest.importorskip("torch")
    nn = torch.nn
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), *head)


def test_training_is_compared_on_smaller_images_where_these_do(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, int]] = []
    original = ImportReference.__post_init__

    def noted(reference: ImportReference) -> None:
        seen.append((reference.train, reference.images.shape[2]))
        original(reference)

    monkeypatch.setattr(ImportReference, "__post_init__", noted)
    sources.from_object(normed(), "m:normed", None, Request(input=LARGE))
    assert seen == [(False, 101), (True, 49)]


@pytest.mark.parametrize("fault", IN_TRAINING)
def test_what_differs_on_smaller_images_is_judged_on_its_own(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant("torch", FAULTS[fault], monkeypatch)
    with pytest.raises(TriptychError, match=FAULT.replace(".*this", "training.*this")):
        sources.from_object(normed(), "m:normed", None, Request(input=LARGE))


def test_a_network_that_takes_no_other_images_is_compared_on_its_own() -> None:
    torch: Any = pytest.importorskip("torch")
    net = normed()
    net[3] = torch.nn.AvgPool2d(50)  # fails on a smaller map
    imported = sources.from_object(net, "m:net", None, Request(input=LARGE))
    assert [line for line in imported.remarks if "compared" in line] == []


def test_the_first_layer_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("torch")
    plant("torch", FAULTS["a shift lost"], monkeypatch)
    with pytest.raises(TriptychError, match="the first layer whose output it does not have is 'norm'"):
        read("strangers_torch:mixed")


def test_a_module_stays_as_it_was() -> None:
    torch: Any = pytest.importorskip("torch")
    module = importlib.import_module("strangers_torch").mixed().half().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    deterministic = torch.are_deterministic_algorithms_enabled()
    sources.from_object(module, "module", None, Request(input=INPUT))
    assert module.training
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    for name, value in module.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name]), name


def test_a_network_that_cannot_be_copied_stays_as_it_was_too() -> None:
    torch: Any = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.utils.weight_norm(torch.nn.Conv2d(3, 4, 3)), torch.nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    imported = sources.from_object(module, "module", None, Request(input=INPUT))
    assert not any("not compared" in line for line in imported.remarks)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning")
def test_a_hybrid_block_that_has_run_and_has_a_constant_of_its_own_is_compared_with_its_own_values() -> None:
    needs("mxnet")
    mx: Any = importlib.import_module("mxnet")

    class Scaled(mx.gluon.HybridBlock):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = mx.gluon.nn.Conv2D(4, 3)
            self.scale = self.params.get("scale", shape=(1, 4, 1, 1))

        def hybrid_forward(self, F: Any, x: Any, scale: Any) -> Any:  # noqa: N803
            return F.broadcast_mul(self.conv(x), scale)

    block = Scaled()
    block.initialize(mx.init.Normal(0.5))
    block.hybridize()
    block(mx.nd.ones((1, *INPUT)))  # what has run cannot be copied
    before = {name: parameter.data().asnumpy() for name, parameter in block.collect_params().items()}
    imported = sources.from_object(block, "block", None, Request(input=INPUT))
    assert [line for line in imported.remarks if "compared" in line] == []
    for name, parameter in block.collect_params().items():
        assert np.array_equal(parameter.data().asnumpy(), before[name]), name


def scaled_block(constant: bool) -> Any:
    """A block whose convolution waits for its shape, behind a scale of its own, a constant or a parameter."""
    mx: Any = importlib.import_module("mxnet")

    class Scaled(mx.gluon.HybridBlock):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(prefix="net_")
            with self.name_scope():
                self.conv = mx.gluon.nn.Conv2D(4, 3)
                value = mx.nd.array([[[[0.25]], [[0.5]], [[2]]]])
                shape = value.shape
                self.scale = (
                    self.params.get_constant("scale", value) if constant else self.params.get("scale", shape=shape)
                )

        def hybrid_forward(self, F: Any, x: Any, scale: Any) -> Any:  # noqa: N803
            return self.conv(F.broadcast_mul(x, scale))

    return Scaled()


@pytest.mark.parametrize("initialized", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_a_block_that_waits_for_its_shapes_keeps_a_scale_of_its_own(constant: bool, initialized: bool) -> None:
    needs("mxnet")
    block = scaled_block(constant)
    if initialized:
        block.initialize()
    if not (constant or initialized):
        with pytest.raises(TriptychError, match="net computes with its parameter 'net_scale', which has no value yet"):
            sources.from_object(block, "net", None, Request(input=INPUT))
        return
    imported = sources.from_object(block, "net", None, Request(input=INPUT))
    scale = imported.architecture.layers[0]
    assert isinstance(scale, Affine)
    assert imported.parameters is None
    if constant:
        assert (scale.scale, imported.remarks) == ((0.25, 0.5, 2), ())
    else:
        assert scale.scale == tuple(block.scale.data().asnumpy().astype(float).ravel())
        assert imported.remarks == ("the array 'net_scale' is a constant here; MXNet would train it",)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:(Converting|Iterating)")
@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("scripted", []),
        ("traced", ["has one mode; taken over is its evaluation"]),
        ("traced in training", ["is exported for training; here it has both modes"]),
        ("frozen", ["has one mode; taken over is its evaluation", "the import was compared as far as fp32 rounds"]),
    ],
)
def test_torchscript_in_memory_is_compared_in_the_modes_that_it_has(form: str, said: list[str]) -> None:
    torch: Any = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    images = torch.randn(2, *INPUT)
    scripts: dict[str, Callable[[], Any]] = {
        "scripted": lambda: torch.jit.script(module),
        "traced": lambda: torch.jit.trace(module.eval(), images),
        "traced in training": lambda: torch.jit.trace(module, images, check_trace=False),
        "frozen": lambda: torch.jit.freeze(torch.jit.script(module.eval())),
    }
    script = scripts[form]()
    before = {name: value.clone() for name, value in script.state_dict().items()}
    remarks = sources.from_object(script, "script", None, Request(input=INPUT)).remarks
    assert [line.partition("traced or frozen")[2].lstrip(", ") or line for line in remarks] == said
    assert all(torch.equal(value, before[name]) for name, value in script.state_dict().items())


def test_an_exported_program_in_memory_is_refused_with_the_way() -> None:
    torch: Any = pytest.importorskip("torch")
    program = torch.export.export(torch.nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, *INPUT),))
    for candidate in (program, program.module()):
        with pytest.raises(TriptychError, match=r"torch.export.save\(program, 'net.pt2'\)"):
            sources.from_object(candidate, "program", None, Request(input=INPUT))


class TestFiles:
    """Of ONNX in onnxruntime, of MXNet in MXNet."""

    @pytest.fixture
    def onnx_file(self, tmp_path: Path) -> Path:
        onnx: Any = pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        helper, weight = onnx.helper, np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", auto_pad="SAME_UPPER", strides=[2, 2])],
            "g",
            [helper.make_tensor_value_info("x", 1, ["N", *INPUT])],
            [helper.make_tensor_value_info("y", 1, None)],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
        return path

    @pytest.mark.parametrize("batch", [1, 3])
    def test_a_file_for_training_of_so_many_images_is_run_on_so_many(self, batch: int, tmp_path: Path) -> None:
        """In parts of a batch a batch norm would have the statistics of each part."""
        onnx: Any = pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
        helper, random = onnx.helper, np.random.default_rng(0)
        drawn = {name: (1 + random.random(3)).astype(np.float32) for name in ("scale", "shift", "mean", "var")}
        graph = helper.make_graph(
            [
                helper.make_node("BatchNormalization", ["x", *drawn], ["y", "m", "v"], "norm", training_mode=1),
                helper.make_node("Relu", ["y"], ["z"], "relu"),
            ],
            "net",
            [helper.make_tensor_value_info("x", 1, [batch, 3, 8, 8])],
            [helper.make_tensor_value_info("z", 1, [batch, 3, 8, 8])],
            [onnx.numpy_helper.from_array(value, name) for name, value in drawn.items()],
        )
        path = tmp_path / "net.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), path)
        imported = import_check.of_file(onnx_network.load(path, Request()), path, None, Request())
        assert not any("not compared" in line for line in imported.remarks)

    def test_a_right_one_passes_without_a_word(self, onnx_file: Path) -> None:
        assert read(str(onnx_file), None).remarks == ()

    def test_padding_on_the_wrong_side_is_refused(self, onnx_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        fault = other_layers(lambda pad: replace(pad, padding=(pad.padding[1], pad.padding[0], *pad.padding[2:])), Pad)
        right = onnx_network.load
        monkeypatch.setattr(onnx_network, "load", lambda *given: fault(right(*given)))
        with pytest.raises(TriptychError, match=FAULT):
            read(str(onnx_file), None)

    def test_without_its_framework_a_line_says_that_nothing_was_compared(
        self, onnx_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(import_check, "OnnxSession", _absent)
        assert read(str(onnx_file), None).remarks == (
            "the import was not compared with net.onnx itself: onnxruntime is not installed",
        )

    def test_only_the_table_of_summary_is_printed_without_it(
        self, onnx_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(import_check, "OnnxSession", _absent)
        for options, said in ([], False), (["--spec"], True):
            with pytest.raises(SystemExit) as ended:
                main(["summary", str(onnx_file), *options])
            assert ended.value.code == 0
            assert ("not compared" in capsys.readouterr().err) == said

    def test_its_networks_do_not_stand_beside_each_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        needs("mxnet")
        mx: Any = importlib.import_module("mxnet")
        net = mx.gluon.nn.HybridSequential()
        net.add(mx.gluon.nn.Conv2D(4, 3, in_channels=3), mx.gluon.nn.BatchNorm(in_channels=4))
        net.initialize()
        net.hybridize()
        net(mx.nd.zeros((1, *INPUT)))
        net.export(str(tmp_path / "net"))
        blocks: list[weakref.ref[Any]] = []
        original = import_check._Comparison.started

        def noted(comparison: Any, values: Any) -> Any:
            assert not [block for block in blocks if block() is not None]
            port = original(comparison, values)
            blocks.append(weakref.ref(port.block))
            return port

        monkeypatch.setattr(import_check._Comparison, "started", noted)
        imported = read(str(tmp_path / "net-symbol.json"))
        assert [line for line in imported.remarks if "compared" in line] == []
        assert len(blocks) == 2
        assert not any(block() for block in blocks)

    def test_a_softmax_with_a_temperature_keeps_it(self, tmp_path: Path) -> None:
        needs("mxnet")
        names = (variable("data"), variable("f_weight"), variable("f_bias"))
        dense = node("FullyConnected", "f", 0, 1, 2, num_hidden="4")
        path = tmp_path / "net-symbol.json"
        path.write_text(json.dumps(top(*names, dense, node("softmax", "p", 3, temperature="2.0"))))
        arrays = np.random.default_rng(0).standard_normal((5, 12)).astype(np.float32)
        registry.load("mxnet")
        mx: Any = importlib.import_module("mxnet")
        values = {"arg:f_weight": mx.nd.array(arrays[:4]), "arg:f_bias": mx.nd.array(arrays[4, :4])}
        mx.nd.save(str(tmp_path / "net-0000.params"), values)
        imported = read(str(path), (3, 2, 2))
        assert [type(layer).__name__ for layer in imported.architecture.layers][-1] == "Affine"
        assert [line for line in imported.remarks if "compared" in line] == []


def _absent(*_: Any) -> Any:
    raise TriptychError("onnxruntime is not installed")


def test_flax_modules_in_odd_forms() -> None:
    needs("jax")
    odd = importlib.import_module("odd_jax")
    for make in (odd.dictionary, odd.channels_first):
        imported = sources.from_object(make(), make.__name__, None, Request(input=(4, 4, 4)))
        assert imported.remarks == ()


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_statistics_of_the_batch_in_evaluation_are_refused(name: str) -> None:
    needs(name)
    with pytest.raises(TriptychError, match="takes the statistics of the batch in evaluation, too"):
        read(f"odd_{name}:batch_statistics", (4, 4, 4))


def test_what_wavers_is_said_not_to_be_compared() -> None:
    needs("torch")
    assert any("drawn, or changes from call to call" in line for line in read("odd_torch:dropping", (4, 4, 4)).remarks)


def test_layers_of_16_bits_are_compared_as_far_as_these_round() -> None:
    needs("torch")
    imported = read("odd_torch:half_inside", (4, 4, 4))
    assert imported.remarks == ("the import was compared as far as fp16 rounds",)


def test_a_network_that_changes_its_images_in_place_is_compared() -> None:
    needs("torch")
    assert read("odd_torch:in_place", (4, 4, 4)).remarks == ()


def test_a_softmax_in_float32_is_no_difference() -> None:
    """It rounds, too: behind logits far from each other the shares themselves are no measure of that."""
    architecture = Architecture("shares", (2, 1, 1), 3, (Flatten("flatten"), Dense("dense", 3)))
    images = np.random.default_rng(0).standard_normal((2, 2, 1, 1)).astype(np.float32)
    for seed in range(60):
        random = np.random.default_rng(seed)
        values = {"dense.weight": 3 * random.standard_normal((3, 2)), "dense.bias": random.standard_normal(3)}
        imported = Imported(architecture, {path: value.astype(np.float32) for path, value in values.items()})
        reference = ImportReference(imported, images, train=False, ends={"dense": "softmax"})
        ported = PortReference(architecture, imported.parameters or {})
        ported.__dict__["images"] = images
        logits = reference.exact["dense"].astype(np.float32)
        powers = np.exp(logits - logits.max(1, keepdims=True))
        shares = powers / powers.sum(1, keepdims=True)
        shares += np.float32(1.7 * 2**-24) * (shares > 0.5)  # as the exponentials of others round
        assert reference.nearest({"dense": shares}, "fp32").passed, seed
        *_, most = ported.outputs({"dense": "softmax"}).budgets()
        assert most["fp32"]["dense"] > 2 * 2.0**-24
        assert not reference.nearest({"dense": shares * np.float32(1 + 2**-16)}, "fp32").passed
