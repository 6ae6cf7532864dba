"""Two networks of strangers against each other: modules and files of several frameworks, right and wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.__main__ import main
from triptych.backend import registry
from triptych.backend.execution import Execution
from triptych.conformance.case import make_case
from triptych.conformance.locate import Located
from triptych.importers.steps import Imported, Request
from triptych.porting import reach, sources, strangers
from triptych.porting.own_network import locate_port
from triptych.porting.spec_port import SpecPort
from triptych.porting.two_specs import OWN, WEIGHTS, locate_specs
from triptych.reference import network as reference
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Block,
    Branches,
    Clip,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    Layer,
    PReLU,
    ReLU,
    Residual,
)
from triptych.spec.rewrite import fold_batch_norms
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import draw

INPUT = (3, 12, 12)
FRAMEWORKS = {
    "strangers_torch": "torch",
    "strangers_mxnet": "mxnet",
    "strangers_jax": "jax",
    "strangers_loaded": "mxnet",
}
LOADED = """
from mxnet import gluon

def labelled():
    return gluon.SymbolBlock.imports("{0}/train-symbol.json", ["data", "softmax_label"], "{0}/train-0000.params")

def plain():
    return gluon.SymbolBlock.imports("{0}/net-symbol.json", ["data"], "{0}/train-0000.params")
"""


def needs(*names: str) -> None:
    for name in names:
        framework = FRAMEWORKS.get(name.partition(":")[0])
        if framework and framework not in registry.installed():
            pytest.skip(f"{framework} is not installed")


def check(left: str, right: str, **options: Any) -> Located:
    needs(left, right)

    def read(name: str, keep_softmax: bool) -> Imported:
        return sources.read(name, Request(input=INPUT, keep_softmax=keep_softmax))

    return strangers.locate(left, right, read, strangers.Options(**options))


def precision_of(left: str, right: str) -> str:
    """MXNet multiplies by the slopes of a PReLU or leaky ReLU in float32, whatever it is given."""
    return "fp32" if any(name.startswith(("strangers_mxnet", "strangers_loaded")) for name in (left, right)) else "fp64"


@pytest.mark.parametrize(
    ("left", "right", "words"),
    [
        ("strangers_torch:mixed", "strangers_mxnet:mixed", "the spec is 'strangers_mxnet:mixed', imported"),
        ("strangers_jax:mixed", "strangers_torch:mixed", "the spec is 'strangers_torch:mixed', imported"),
        ("strangers_torch:mixed", "strangers_jax:mixed", "the spec is 'strangers_jax:mixed', imported"),
        ("strangers_torch:parallel", "strangers_torch:mixed", "21 parameters"),
        ("strangers_torch:compiled", "strangers_torch:mixed", "21 parameters"),
        ("strangers_torch:half", "strangers_torch:mixed", "21 parameters"),
        ("strangers_torch:Heads", "strangers_torch:mixed", "do not depend on them: second.weight, second.bias"),
        ("strangers_torch:detector", "strangers_mxnet:detector", "images given as NCHW; 6 parameters"),
        ("strangers_torch:ends_in_softmax", "strangers_torch:ends", "the softmax at its end is left out"),
    ],
)
def test_right_ones_agree_whatever_they_are_written_in(left: str, right: str, words: str) -> None:
    located = check(left, right, precision=precision_of(left, right))
    assert located.difference is None
    assert located.levels[:4] == ("structure", "forward eval", "forward train", "gradient")
    assert {"dropout", "calls"} <= set(located.levels)
    assert words in " ".join(located.notes)
    assert (located.left, located.right) == (left, right)


@pytest.mark.parametrize(
    ("left", "right", "layer", "cause"),
    [
        ("strangers_torch:other_eps", "strangers_torch:mixed", "unit1.body.norm2", "eps is 0.001, not 1e-05"),
        ("strangers_jax:other_eps", "strangers_torch:mixed", "unit1.body.norm2", "eps is 0.001, not 1e-05"),
        ("strangers_mxnet:mixed", "strangers_torch:other_eps", "unit1.body.norm2", ""),
        ("strangers_torch:shared_slope", "strangers_torch:mixed", "slope", ""),
        ("strangers_torch:other_bound", "strangers_torch:mixed", "unit1.body.hardtanh", "the upper bound is missing"),
        ("strangers_torch:no_add", "strangers_torch:mixed", "unit1", "the shortcut is missing"),
        ("strangers_torch:no_gate", "strangers_torch:mixed", "product1", "only branch 'identity' is taken"),
        ("strangers_torch:swapped", "strangers_torch:mixed", "mixed1", "the branches are concatenated in the order"),
        ("strangers_torch:other_slope", "strangers_torch:detector", "leaky_relu", "a leaky ReLU is applied, slope 0.2"),
    ],
)
def test_a_planted_fault_is_named_at_its_layer(left: str, right: str, layer: str, cause: str) -> None:
    difference = check(left, right, precision=precision_of(left, right)).difference
    assert difference is not None
    assert difference.layer == layer
    assert cause in difference.cause


def test_a_difference_as_small_as_float32s_rounding_is_one_in_float64() -> None:
    """An eps that is off by a hundredth changes no more than MXNet's PReLU does; only the user can tell them apart."""
    located = check("strangers_torch:nearly_the_eps", "strangers_torch:mixed")
    assert located.precision == "fp64"
    assert located.difference is not None
    assert located.difference.layer == "unit1.body.norm2"
    assert located.difference.cause == "eps is 1.01e-05, not 1e-05"
    assert "--precision fp32 judges it in that" in located.difference.note
    slopes = check("strangers_torch:mixed", "strangers_mxnet:mixed").difference
    assert slopes is not None
    assert slopes.layer.startswith("prelu")  # Gluon counts them over the process
    assert "--precision fp32 judges it in that" in slopes.note


@pytest.mark.parametrize("names", [("fused", "unfused"), ("unfused", "fused")])
def test_folded_batch_norms_are_told_and_the_rest_is_compared_in_evaluation(names: tuple[str, str]) -> None:
    located = check(*(f"strangers_torch:{name}" for name in names))
    assert located.difference is None
    assert "batch norms folded into the layers before them: 'norm' into 'conv'" in " ".join(located.notes)
    assert located.levels == ("structure", "forward eval")
    assert "no batch norms to train" in located.not_run["forward train, gradient"]


def test_a_fault_beside_folded_batch_norms_is_found() -> None:
    difference = check("strangers_torch:fused_sigmoid", "strangers_torch:unfused").difference
    assert difference is not None
    assert (difference.layer, difference.cause) == ("relu", "a sigmoid is applied, not a ReLU")


def test_channels_last_code_is_given_channels_last_images() -> None:
    located = check("strangers_torch:last", "strangers_torch:first", layout="NHWC")
    assert located.difference is None
    assert "the columns of 'out' were permuted for it" in " ".join(located.notes)


def test_where_neither_can_be_imported_both_reasons_are_given() -> None:
    words = r"neither can be.*'strangers_mxnet:imperative': the Gluon block.*'strangers_jax:in_order': .*primitive sort"
    with pytest.raises(TriptychError, match=words) as caught:
        check("strangers_mxnet:imperative", "strangers_jax:in_order")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Gluon network as it is exported, with and without a loss, and a module that loads it."""
    needs("strangers_mxnet:mixed")
    registry.load("mxnet")
    import mxnet as mx

    import strangers_mxnet

    folder = tmp_path_factory.mktemp("exported")
    network = strangers_mxnet.mixed()
    network.hybridize()
    network(mx.nd.zeros((1, *INPUT)))
    network.export(str(folder / "train"))
    (folder / "train-symbol.json").rename(folder / "net-symbol.json")
    loss = mx.sym.SoftmaxOutput(network(mx.sym.var("data")), mx.sym.var("softmax_label"), name="softmax")
    loss.save(str(folder / "train-symbol.json"))
    (folder / "strangers_loaded.py").write_text(LOADED.format(folder))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.mark.parametrize("name", ["plain", "labelled"])
def test_an_exported_network_that_is_loaded_is_a_port(exported: Path, name: str) -> None:
    located = check("strangers_torch:mixed", f"strangers_loaded:{name}", precision="fp32")
    assert located.difference is None
    assert "the spec is 'strangers_loaded" in located.notes[0]


def test_a_file_is_the_spec_of_a_module(exported: Path) -> None:
    file = str(exported / "train-symbol.json")
    for sides in ((file, "strangers_torch:mixed"), ("strangers_torch:mixed", file)):
        located = check(*sides)
        assert located.difference is None
        assert f"the spec is '{file}', imported" in located.notes
        assert any("SoftmaxOutput" in note for note in located.notes)
    difference = check("strangers_torch:other_eps", file).difference
    assert difference is not None
    assert difference.cause == "eps is 0.001, not 1e-05"


def test_the_command_on_two_networks(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(exported / "train-symbol.json")

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(["locate", *arguments, "--input", "3x12x12"])
        captured = capsys.readouterr()
        return int(exit_.value.code or 0), captured.out, captured.err

    status, out, _ = run("--left", "strangers_torch:no_add", "--right", file)
    assert status == 1
    assert "likely cause: the shortcut is missing" in out
    status, out, _ = run(
        "--left", "strangers_torch:mixed", "--right", "strangers_mxnet:mixed", "--precision", "fp32", "--json"
    )
    assert (status, json.loads(out)["agree"]) == (0, True)
    for options, words in (
        (("--arch", "vgg11"), "--arch vgg11 is for backends"),
        (("--device", "cuda"), "--device and --optimizers are for backends"),
        (("--weights", "w.safetensors"), "--weights is for one network"),
    ):
        status, _, error = run("--left", "strangers_torch:mixed", "--right", file, *options)
        assert (status, error.count("\n")) == (2, 1)
        assert words in error


def net(*layers: Layer, name: str = "net") -> Architecture:
    ends = (GlobalAvgPool("mean"), Flatten("flatten"), Dense("dense", 3))
    return Architecture(name, (2, 6, 9), 3, (*layers, *ends), Initializer("kaiming_normal"))


CONV = Conv("conv", 4, (3, 3), padding=(1, 1), bias=False)
NORM = BatchNorm("norm")
BOTH = net(CONV, NORM, ReLU("relu"), Residual("unit", Block("body", (Conv("c", 4, (3, 3), padding=(1, 1)),))))


def imported(architecture: Architecture, seed: int = 0) -> Imported:
    return Imported(architecture, dict(draw(architecture, seed, architecture.initializer)))


def both(left: Imported, right: Imported) -> Located:
    return locate_specs("left", left, "right", right)


def test_two_files_agree_in_what_they_compute_and_in_their_own_weights() -> None:
    located = both(imported(BOTH), imported(BOTH))
    assert located.difference is None
    assert located.levels == ("structure", "forward eval", "forward train", "gradient", WEIGHTS, OWN)
    assert "with their own weights the outputs differ by 0.000e+00" in " ".join(located.notes)


def flipped(parameters: dict[str, Any]) -> None:
    parameters["unit.body.c.weight"] = parameters["unit.body.c.weight"][:, :, ::-1].copy()


def permuted(parameters: dict[str, Any]) -> None:
    parameters["dense.weight"] = parameters["dense.weight"][:, ::-1].copy()


@pytest.mark.parametrize(("change", "layer"), [(flipped, "unit.body.c"), (permuted, "dense")])
def test_a_weight_of_one_file_that_differs_is_named(change: Callable[[dict[str, Any]], None], layer: str) -> None:
    left, right = imported(BOTH), imported(BOTH)
    assert left.parameters is not None
    change(left.parameters)
    difference = both(left, right).difference
    assert difference is not None
    assert (difference.layer, difference.level) == (layer, WEIGHTS)
    assert difference.note == f"1 of {len(left.parameters)} arrays differ"


def test_weights_that_are_rounded_to_half_precision_agree_and_much_less_does_not() -> None:
    left, right = imported(BOTH), imported(BOTH)
    assert left.parameters is not None
    rounded = {path: value.astype(np.float16) for path, value in left.parameters.items()}
    for kept in (rounded, {path: value.astype(np.float32) for path, value in rounded.items()}):
        located = both(replace(left, parameters=dict(kept)), right)
        assert located.difference is None
        assert OWN not in located.levels
        assert "16 bits" in located.not_run[OWN]
    coarse = {path: value.astype(np.float16) * np.float16(1.01) for path, value in left.parameters.items()}
    difference = both(replace(left, parameters=coarse), right).difference
    assert difference is not None
    assert difference.level == WEIGHTS


def test_two_files_that_compute_otherwise_are_told_apart_before_their_weights() -> None:
    other = net(CONV, replace(NORM, eps=1e-3), *BOTH.layers[2:4])
    difference = both(imported(other, 1), imported(BOTH)).difference
    assert difference is not None
    assert (difference.layer, difference.level, difference.cause) == ("norm", "forward eval", "eps is 0.001, not 1e-05")


def test_what_only_training_shows_is_said() -> None:
    other = net(Dropout("drop", 0.5), CONV, replace(NORM, momentum=0.01), *BOTH.layers[2:4])
    notes = " ".join(both(imported(other), imported(BOTH)).notes)
    assert "dropout rates 'left' 0.5, 'right' has none" in notes
    assert "momentum of batch norms 'left' 0.01 (n - 1), 'right' 0.1 (n - 1)" in notes


def test_two_files_one_of_them_folded_are_compared_by_their_outputs() -> None:
    right = imported(BOTH)
    assert right.parameters is not None
    parameters = right.parameters | {"norm.running_var": np.full(4, 2.0, np.float32), "norm.weight": np.arange(4.0)}
    architecture, norms = fold_batch_norms(BOTH)
    assert norms == {"conv": "norm"}
    factor = parameters["norm.weight"] / np.sqrt(parameters["norm.running_var"] + NORM.eps)
    folded = {path: value for path, value in parameters.items() if not path.startswith("norm")}
    folded["conv.weight"] = parameters["conv.weight"] * factor[:, None, None, None]
    folded["conv.bias"] = parameters["norm.bias"] - parameters["norm.running_mean"] * factor
    left = Imported(architecture, folded)
    located = both(left, Imported(BOTH, parameters))
    assert located.difference is None
    assert located.levels == ("structure", "forward eval", OWN)
    wrong = {**folded, "conv.bias": folded["conv.bias"] + 0.1}
    difference = both(replace(left, parameters=wrong), Imported(BOTH, parameters)).difference
    assert difference is not None
    assert difference.level == OWN


def test_a_file_without_weights_is_said() -> None:
    located = both(Imported(BOTH, None), imported(BOTH))
    assert located.difference is None
    assert located.not_run[WEIGHTS] == "'left' has none of its own"


def test_batch_norms_are_folded_wherever_they_are() -> None:
    row = Block("row", (CONV, NORM))
    architecture = net(row, Branches("b", (Block("x", (CONV, NORM)), Block("y", ()))), Residual("r", row), NORM)
    folded, norms = fold_batch_norms(architecture)
    assert norms == {f"{path}.conv": f"{path}.norm" for path in ("row", "b.x", "r.row")}
    assert folded.layers[0] == Block("row", (replace(CONV, bias=True),))
    assert folded.layers[3] == NORM


def test_every_upper_bound_is_reached() -> None:
    architecture = net(CONV, NORM, Clip("clip", 0.0, 6.0), PReLU("slope"))
    case = make_case(architecture)
    trace = reference.Trace()
    reference.forward(architecture, case.exact, case.images, trace=trace)
    assert len(list(reach.unreached(case, trace.inputs))) == 1
    larger = reach.reaching(case)
    reference.forward(architecture, larger.exact, case.images, trace=trace)
    assert list(reach.unreached(larger, trace.inputs)) == []
    assert reach.reaching(make_case(BOTH)).parameters is not None


def test_values_go_beyond_the_bounds_and_no_further():
    """Far beyond them a handful of values between 0 and 6 decides, and rounding decides those."""
    layers = [
        layer for n in range(6) for layer in (Conv(f"conv{n}", 4, (3, 3), padding=(1, 1)), Clip(f"bound{n}", 0.0, 6.0))
    ]
    case = reach.reaching(make_case(Architecture("deep", (3, 8, 8), 0, tuple(layers))))
    trace = reference.Trace()
    reference.forward(case.architecture, case.exact, case.images, trace=trace, forward_only=True)
    highest = [float(np.max(trace.inputs[f"bound{n}"])) for n in range(6)]
    assert min(highest) > 6
    assert max(highest) < 100


def test_a_spec_as_a_port_gives_what_the_reference_gives() -> None:
    case = make_case(BOTH)
    port = SpecPort(BOTH, 1)
    port.load(case.parameters)
    ran = reference.forward(BOTH, case.exact, case.images, train=True)
    loss_gradient = np.random.default_rng(0).normal(size=ran.logits.shape)
    gradient = ran.pull(loss_gradient)
    run = port.run(case.images, train=True, cotangents=[loss_gradient])
    assert np.array_equal(run.outputs[0], ran.logits)
    assert run.input_gradient is not None
    assert np.allclose(run.input_gradient, gradient, rtol=1e-12, atol=0)


def test_a_network_with_too_few_outputs_is_told() -> None:
    needs("strangers_torch:detector")
    import strangers_torch

    spec = sources.read("strangers_torch:detector", Request(input=INPUT)).architecture
    network = strangers_torch.detector()
    network.forward = lambda x: network.scores(network.body(x))
    difference = locate_port(network, spec).difference
    assert difference is not None
    assert difference.check.problem.startswith("your network has 1 output(s), the spec 2")


def test_a_concat_is_trained_in_float32_where_mxnets_own_gradient_fails() -> None:
    """At these channels oneDNN cannot split the gradient; at others the whole process ends."""
    needs("strangers_mxnet:mixed")
    registry.load("mxnet")
    import mxnet as mx
    from mxnet import gluon

    from triptych_mxnet.port import Port

    data = mx.sym.var("data")
    x = mx.sym.Concat(*(mx.sym.Convolution(data, num_filter=n, kernel=(1, 1)) for n in (24, 40)), dim=1)
    x = mx.sym.Convolution(mx.sym.Convolution(x, num_filter=16, kernel=(3, 3)), num_filter=8, kernel=(1, 1))
    port = Port(gluon.SymbolBlock(x, data), None, Execution(precision="fp32"))
    images = np.ones((2, 3, 8, 8), np.float32)
    port.parameters(images)
    assert [y.kind for y in port.run(images, train=True).captured] == ["Conv", "Conv", "concatenate", "Conv", "Conv"]
