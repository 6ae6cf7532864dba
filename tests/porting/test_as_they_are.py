"""Ports are judged as they are: what a look at each layer does not show, and right ones in unusual forms."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.__main__ import main
from triptych.backend.registry import installed
from triptych.conformance.levels import PARAMETERS
from triptych.porting.align import places_of
from triptych.porting.discover import find, find_adapter
from triptych.porting.own_levels import LEVELS
from triptych.porting.own_network import locate_port
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
    Initializer,
    MaxPool,
    ReLU,
    Residual,
    Softmax,
)
from triptych.utils.errors import TriptychError

torch = pytest.importorskip("torch")
KAIMING = Initializer("kaiming_normal")
BRANCHES = (Block("one", (Conv("conv", 4, (1, 1)),)), Block("three", (Conv("conv", 4, (3, 3), padding=(1, 1)),)))
NET = Architecture(
    "net",
    (3, 8, 10),
    5,
    (
        *(
            Conv("conv", 8, (3, 3), padding=(1, 1), bias=False),
            BatchNorm("norm"),
            ReLU("relu"),
            MaxPool("pool", (2, 2), (2, 2)),
        ),
        *(Branches("mixed", BRANCHES), Flatten("flatten"), Dense("fc1", 16)),
        *(ReLU("relu1"), Dropout("dropout", 0.5), Dense("fc2", 5)),
    ),
    KAIMING,
)


BOUNDLESS = Architecture(
    "boundless",
    (3, 8, 10),
    5,
    (
        *(Conv("conv", 4, (3, 3), bias=False), BatchNorm("norm", unbiased=False), ReLU("relu"), GlobalAvgPool("pool")),
        *(Flatten("flatten"), Dense("fc", 5)),
    ),
    KAIMING,
)
ALONE = (PARAMETERS, LEVELS[-1])  # it is called, and nothing else


def unit(name: str) -> Residual:
    return Residual(name, Block("body", (ReLU("relu"), Conv("conv", 6, (3, 3), padding=(1, 1)))))


END = (ReLU("relu"), GlobalAvgPool("pool"), Flatten("flatten"), Dense("fc", 4))
SHORTCUT = Architecture(
    "shortcut", (3, 8, 8), 4, (Conv("stem", 6, (3, 3), padding=(1, 1)), unit("unit"), *END), KAIMING
)
TWO = replace(SHORTCUT, layers=(SHORTCUT.layers[0], unit("unit"), unit("second"), *END))


@pytest.mark.parametrize(
    ("name", "level", "layer", "words"),
    [
        ("momentum_09", "statistics", "norm", "momentum 0.1 is taken for the weight of the old statistics"),
        ("momentum_none", "statistics", "norm", "their mean (momentum=None)"),
        ("momentum_0", "statistics", "norm", "the momentum is 0, not 0.1: they do not move"),
        ("momentum_099", "statistics", "norm", "the momentum is 0.99, not 0.1"),
        ("biased", "statistics", "norm", "the running variance is kept biased, not unbiased"),
        ("alpha", "dropout", "dropout", "it is alpha dropout, not dropout"),
        ("spatial", "dropout", "dropout", "it is dropout of whole channels, not dropout"),
        ("rate", "dropout", "dropout", "the rate is 0.9, not 0.5"),
        ("no_dropout", "dropout", "dropout", "there is no dropout in training"),
        ("Early", "dropout", "dropout", "it follows 'mixed'"),
        ("always", "forward eval", "dropout", "dropout is active in evaluation"),
        ("Squeezed", "calls", "fc2", "an axis is lost (squeeze)"),
        ("Fixed", "calls", "fc2", "it does not take every number of images"),
        ("Centred", "calls", "fc2", "the number of images counts"),
        ("Large", "calls", "fc2", "a batch larger than those before is treated otherwise"),
        ("Stateful", "calls", "fc2", ""),
    ],
)
def test_what_no_layer_shows_is_found(name: str, level: str, layer: str, words: str) -> None:
    difference = locate_port(find(f"watched_torch:{name}"), NET).difference
    assert difference is not None
    assert (difference.level, difference.layer) == (level, layer)
    assert words in difference.cause


@pytest.mark.parametrize(
    ("name", "note"),
    [
        *(("Net", ""), ("Commuted", ""), ("InPlace", ""), ("OtherOrder", ""), ("Products", "")),
        ("Convolutions", "'fc1' is written as a convolution, weight (16, 8, 4, 5)"),
        ("Folded", "batch norms folded into the layers before them: 'norm' into 'conv'"),
    ],
)
def test_a_right_port_in_an_unusual_form_passes(name: str, note: str) -> None:
    located = locate_port(find(f"watched_torch:{name}"), NET)
    assert located.difference is None
    assert note in "; ".join(located.notes)


@pytest.mark.parametrize("name", ["FeaturesFirst", "NamedFeatures"])
def test_of_several_outputs_those_with_the_specs_shapes_are_compared(name: str) -> None:
    located = locate_port(find(f"watched_torch:{name}"), NET)
    assert located.difference is None
    assert "of its 2 outputs only those at [1], counted from 0, that have its shapes" in "; ".join(located.notes)


def test_the_first_outputs_are_compared_where_the_shapes_do_not_tell() -> None:
    assert places_of([(5,)], [(2, 16), (2, 5)]) == [1]
    assert places_of([(5,), (16,)], [(2, 16), (2, 5)]) == [1, 0]
    assert places_of([(5,)], [(2, 5), (2, 5)]) == [0]
    assert places_of([(5,)], [(2, 16), (2, 4)]) == [0]


def test_what_the_number_of_images_changes_is_told_in_the_layer() -> None:
    difference = locate_port(find("watched_torch:by_count"), SHORTCUT).difference
    assert difference is not None
    assert difference.layer == "relu"  # a factor goes through it
    assert "depends on the others of its batch, or on how many they are: " in difference.cause
    other = locate_port(find("watched_torch:halved"), SHORTCUT).difference
    assert other is not None
    assert "batch" not in other.cause


@pytest.mark.parametrize(
    ("name", "layer", "cause"), [("corrupted", "unit", ""), ("bounded", "unit.body.relu", "ReLU6 is applied")]
)
def test_in_place_statements_and_bounds_stay_as_they_are(name: str, layer: str, cause: str) -> None:
    assert locate_port(find("watched_torch:shortcut"), SHORTCUT).difference is None
    difference = locate_port(find(f"watched_torch:{name}"), SHORTCUT).difference
    assert difference is not None
    assert (difference.layer, difference.level) == (layer, "forward eval")
    assert cause in difference.cause


@pytest.mark.parametrize(
    ("name", "level", "layer", "cause"),
    [
        ("halved", "forward eval", "unit", "the shortcut is multiplied by 0.5"),
        ("earlier", "forward eval", "unit", "an activation (ReLU) comes before the addition, in the body"),
        ("detached", "gradient", "unit", "no gradient comes back from 'unit'"),
        ("random", "dropout", "unit.body.conv", "random numbers are drawn in training"),
    ],
)
def test_a_shortcut_that_is_taken_otherwise_is_found(name: str, level: str, layer: str, cause: str) -> None:
    torch.manual_seed(0)  # with which nothing is dropped in the first pass
    difference = locate_port(find(f"watched_torch:{name}"), SHORTCUT).difference
    assert difference is not None
    assert (difference.layer, difference.level) == (layer, level)
    assert cause in difference.cause


@pytest.mark.parametrize("name", ["torch", "mxnet", "jax"])
def test_a_bound_far_beyond_common_values_is_found(name: str) -> None:
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    assert locate_port(find(f"beside_{name}:net"), BOUNDLESS, rows=ALONE).difference is None
    difference = locate_port(find(f"beside_{name}:bounded"), BOUNDLESS, rows=ALONE).difference
    assert difference is not None
    assert (difference.layer, difference.cause) == ("relu", "its output is bounded at 50")


def test_a_softmax_that_overflows_is_found() -> None:
    right = replace(BOUNDLESS, layers=(*BOUNDLESS.layers, Softmax("softmax")))
    net = find("beside_torch:net")
    assert locate_port(net.append(torch.nn.Softmax(1)), right, rows=ALONE).difference is None
    net[-1] = find("watched_torch:Exponential")
    difference = locate_port(net, right, rows=ALONE).difference
    assert difference is not None
    assert difference.layer == "softmax"
    assert "it overflows where values are large" in difference.cause


@pytest.mark.parametrize(("library", "way"), [("equinox", "equinox.partition"), ("keras", "net.save('net.keras')")])
def test_a_network_of_another_library_is_refused_with_the_way_that_there_is(library: str, way: str) -> None:
    network = type("Net", (), {"__module__": f"{library}.nn", "__call__": lambda self, x: x})()
    with pytest.raises(TriptychError, match=re.escape(way)):
        locate_port(network, NET)


def test_the_parameters_of_a_function_may_be_a_tree_that_can_be_called() -> None:
    if "jax" not in installed():
        pytest.skip("jax is not installed")
    assert find_adapter(find("own_jax:callable_tree")) is not None


def test_shared_weights_are_named_at_the_second_layer() -> None:
    net = find("watched_torch:Tied")
    del net.other
    difference = locate_port(net, TWO).difference
    assert difference is not None
    assert (difference.layer, difference.cause) == ("second.body.conv", "it shares the parameters of 'unit.body.conv'")


def test_what_is_no_part_of_the_spec_is_ignored_when_it_is_said_and_the_line_says_how() -> None:
    ignored: list[str] = []
    for pattern in ("unused*", "mean"):
        difference = locate_port(find("watched_torch:Heads"), NET, ignored=ignored).difference
        assert difference is not None
        assert f"--ignore '{pattern}' leaves it out" in difference.note
        ignored.append(pattern)
    assert locate_port(find("watched_torch:Heads"), NET, ignored=ignored).difference is None


def test_frozen_layers_are_ignored_when_it_is_said() -> None:
    difference = locate_port(find("watched_torch:frozen"), NET).difference
    assert difference is not None
    assert (difference.layer, difference.level) == ("conv", "gradient")
    assert "--ignore 'conv.*'" in difference.note
    assert locate_port(find("watched_torch:frozen"), NET, ignored=["conv.*"]).difference is None


def test_a_network_is_given_back_as_it_was() -> None:
    net = find("watched_torch:Net").double()
    net.drop.eval()
    before: dict[str, Any] = {name: value.clone() for name, value in net.state_dict().items()}
    assert locate_port(net, NET, precision="fp32").difference is None
    after = net.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert [net.training, net.drop.training] == [True, False]


def test_a_mapping_is_proposed_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    locate_port(find("watched_torch:OtherOrder"), NET, propose=path)
    mapping = json.loads(path.read_text())
    assert (mapping["one.weight"], mapping["norm.running_var"]) == ("mixed.one.conv.weight", "norm.running_var")
    assert locate_port(find("watched_torch:OtherOrder"), NET, mapping=path).difference is None
    net = find("watched_torch:Net")
    net.surplus = torch.nn.Parameter(torch.zeros(7))
    locate_port(net, NET, propose=path)
    assert json.loads(path.read_text())["surplus"] == ""


def test_a_jax_function_keeps_its_own_axes() -> None:
    jax = pytest.importorskip("jax")
    draw = np.random.default_rng(0).normal
    shapes = {"conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "fc.weight": (5, 4 * 8 * 10), "fc.bias": (5,)}

    def network(p: Any, x: Any) -> Any:
        order = ("NCHW", "OIHW", "NCHW")
        x = jax.lax.conv_general_dilated(x, p["conv.weight"], (1, 1), "SAME", dimension_numbers=order)
        x = jax.nn.relu(x + p["conv.bias"][:, None, None]).reshape(len(x), -1)
        return x @ p["fc.weight"].T + p["fc.bias"]

    layers = (Conv("conv", 4, (3, 3), padding=(1, 1)), ReLU("relu"), Flatten("flatten"), Dense("fc", 5))
    spec = Architecture("plain", (3, 8, 10), 5, layers, KAIMING)
    arrays = {name: draw(size=shape) for name, shape in shapes.items()}
    assert locate_port((network, arrays), spec, layout="NCHW").difference is None


def test_a_batch_norms_arrays_without_roles_stay_ambiguous(tmp_path: Path) -> None:
    pytest.importorskip("jax")
    arrays = {name: np.ones(3) for name in ("g", "b", "m", "v")}
    spec = Architecture("norm", (3, 4, 4), 0, (BatchNorm("norm"),), KAIMING)
    path = tmp_path / "mapping.json"
    with pytest.raises(TriptychError, match=r"ambiguous.*mapping\.json is one to edit"):
        locate_port((lambda p, x: x * p["g"] + p["b"] + p["m"] * p["v"], arrays), spec, propose=path)
    assert set(json.loads(path.read_text())) == set(arrays)


def test_layers_of_less_precision_are_judged_in_it_and_it_is_said() -> None:
    with pytest.raises(TriptychError, match="--precision fp32, fp16 or bf16"):
        locate_port(find("watched_torch:HalfBlock"), NET)
    difference = locate_port(find("watched_torch:HalfBlock"), NET, precision="fp32").difference
    assert difference is not None
    assert "it computes in float16 somewhere: --precision fp16 judges it in that" in difference.note
    assert locate_port(find("watched_torch:HalfBlock"), NET, precision="fp16").difference is None
    assert locate_port(find("watched_torch:rate"), NET, precision="fp16").difference is not None
    difference = locate_port(find("watched_torch:Single"), NET).difference
    assert difference is not None
    assert "it computes in float32 somewhere: --precision fp32 judges it in that" in difference.note
    assert locate_port(find("watched_torch:Single"), NET, precision="fp32").difference is None


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["locate", *arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out + captured.err


def test_converted_weights_are_compared_when_it_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    networks = ("--left", "watched_torch:flipped", "--right", "watched_torch:source", "--input", "3x8x8")
    assert run(capsys, *networks)[0] == 0
    status, out = run(capsys, *networks, "--left-weights", "own")
    assert status == 1
    assert "level weights" in out
    assert "likely cause: the kernel is flipped: convolution for cross-correlation" in out
    same = ("--left", "watched_torch:source", "--right", "watched_torch:source_again", "--input", "3x8x8")
    status, out = run(capsys, *same, "--left-weights", "own")
    assert (status, "weights agree" in out) == (0, True)


@pytest.mark.parametrize("right", ["vgg11bn", "resnet", "torhc"])
def test_an_unknown_name_is_said(capsys: pytest.CaptureFixture[str], right: str) -> None:
    status, said = run(capsys, "--left", "watched_torch:Net", "--right", right)
    assert (status, said.count("\n")) == (2, 1)
    assert f"unknown architecture, backend or reference '{right}'" in said
