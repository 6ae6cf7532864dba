"""Bring your own port: networks written as a user writes them, in each framework, against the spec."""

from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from marks import later
from mutants import networks as nets
from triptych import zoo
from triptych.__main__ import main
from triptych.backend.registry import installed
from triptych.backend.registry import load as load_backend
from triptych.conformance.locate import Located
from triptych.porting.discover import find
from triptych.porting.own_network import locate_port, without_dropout
from triptych.spec.layers import (
    Architecture,
    Auxiliary,
    BatchNorm,
    Block,
    Branches,
    Composite,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Graph,
    Initializer,
    Named,
    Node,
    ReLU,
    Residual,
    walk,
)
from triptych.utils.errors import TriptychError

NORMED = Architecture(
    "normed",
    (3, 8, 8),
    5,
    (
        *(
            Conv("conv", 8, (3, 3), padding=(1, 1)),
            BatchNorm("norm", momentum=0.01, unbiased=False),
            ReLU("relu"),
            GlobalAvgPool("pool"),
        ),
        *(Flatten("flatten"), Dropout("dropout", 0.5), Dense("dense", 5)),
    ),
    Initializer("kaiming_normal"),
)
LENET = zoo.build("lenet")
# The textbook's AlexNet, a sixteenth as wide; at 112 pixels as at 224, padding 1 and 0 give the same shapes.
ALEXNET = zoo.build("alexnet", input=(1, 112, 112), width_ratio=16)

TORCHVISION = """
import torch

library = torch.library.Library("torchvision", "DEF")  # a CPU-only torch has none of its operators
for name in ("nms", "qnms"):
    library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from torchvision.models import alexnet, vgg11, vgg16, vgg19
"""
FRAMEWORKS = {"own_torch": "torch", "own_mxnet": "mxnet", "own_jax": "jax"}  # of the networks in these files


def test_dropout_goes_wherever_it_is() -> None:
    dropped = Block("block", (Dropout("dropout", 0.5),))
    graph = Graph("graph", (Node(dropped),), ("block",))
    parts = (dropped, Branches("branches", (dropped,)), Residual("residual", dropped, replace(dropped, name="b")))
    composites = (*parts, graph)
    assert {type(layer) for layer in composites} == {*get_args(Composite)} - {Auxiliary}
    layers = (*composites, Auxiliary("auxiliary", dropped.layers, 0.3), Dropout("dropout", 0.5))
    without = without_dropout(Architecture("dropped", (1, 4, 4), 2, layers))
    rates = {path: layer.rate for path, layer in walk(without.layers) if isinstance(layer, Dropout)}
    assert rates == dict.fromkeys(
        (
            "block.dropout",
            "branches.block.dropout",
            "graph.block.dropout",
            "residual.b.dropout",
            "residual.block.dropout",
            "dropout",
        ),
        0.0,
    )


def test_a_record_that_is_not_known_is_not_passed_over() -> None:
    layers: Any = (Named("of a kind to come"),)
    with pytest.raises(AssertionError, match="unreachable"):
        without_dropout(Architecture("unknown", (1, 4, 4), 2, layers))


@pytest.fixture(scope="module", autouse=True)
def own(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Modules that are no networks, importable as the command line finds them."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_torchvision.py").write_text(TORCHVISION)
    (folder / "own_leaves.py").write_text("raise SystemExit(0)\n")
    (folder / "own_broken.py").write_text("import no_such_package\n")
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def check(reference: str, architecture: Architecture, **options: Any) -> Located:
    name = FRAMEWORKS[reference.partition(":")[0]]
    if name not in installed():
        pytest.skip(f"{name} is not installed")
    return locate_port(find(reference), architecture, name=reference, **options)


@pytest.mark.parametrize(
    ("reference", "note"),
    [
        ("own_torch:lenet", ""),
        ("own_torch:ChannelsLast", "'dense1' were permuted"),
        ("own_mxnet:lenet", ""),
        ("own_jax:lenet", "'dense1' were permuted"),
        ("own_jax:function", "'dense1' were permuted"),
    ],
)
def test_a_right_port_shows_no_difference(reference: str, note: str) -> None:
    result = check(reference, LENET)
    assert result.difference is None
    assert note in " ".join(result.notes)
    assert ("permuted" in " ".join(result.notes)) == bool(note)
    assert set(result.not_run) == {"dropout's draws", "data", "loss", "update"}


@pytest.mark.parametrize(("reference", "before"), [("own_torch:Dropping", "dense2"), ("own_jax:linen_lenet", "dense1")])
def test_dropout_belongs_to_the_network(reference: str, before: str) -> None:
    """Called as a function or as a module: where the spec has one, and where it has none."""
    place = [layer.name for layer in LENET.layers].index(before)
    layers = (*LENET.layers[:place], Dropout("dropout", 0.5), *LENET.layers[place:])
    assert check(reference, replace(LENET, layers=layers)).difference is None
    difference = check(reference, LENET).difference
    assert difference is not None
    assert (difference.level, difference.cause) == (
        "dropout",
        "a dropout of rate 0.5 follows, that the spec does not have",
    )


def test_a_port_whose_layers_behave_otherwise_in_training() -> None:
    assert check("own_jax:Normed", NORMED).difference is None


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_search_for_a_cause_warns_of_nothing() -> None:
    """Among the faults tried is the mean for the variance, which has no root."""
    difference = check("own_torch:misplaced", NORMED).difference
    assert difference is not None
    assert (difference.layer, difference.level) == ("norm", "forward eval")


@pytest.mark.parametrize(
    ("reference", "layer", "level", "cause"),
    [
        ("own_torch:relu", "sigmoid2", "forward eval", "a ReLU is applied, not a sigmoid"),
        ("own_torch:no_bias", "conv2", "structure", "the bias is left out"),
        (
            "own_torch:WrongGradient",
            "flatten",
            "gradient",
            "the gradient that comes back from 'flatten' is multiplied by 2",
        ),
        ("own_torch:CutOff", "conv1", "gradient", ""),
        ("own_torch:scripted", "sigmoid1", "forward eval", "a ReLU is applied, not a sigmoid"),
        ("own_mxnet:relu", "sigmoid2", "forward eval", "a ReLU is applied, not a sigmoid"),
        ("own_mxnet:Surplus", "own_surplus", "structure", ""),
        ("own_jax:linen_max", "pool2", "forward eval", "maximum for average pooling"),
    ],
)
def test_a_wrong_port_is_named_at_its_layer(reference: str, layer: str, level: str, cause: str) -> None:
    difference = check(reference, LENET).difference
    assert difference is not None
    assert (difference.layer, difference.level, difference.cause) == (layer, level, cause)


def test_the_textbooks_alexnet_parts_at_its_first_convolution() -> None:
    """Padding 1 in one framework and 0 in the other: same shapes and counts, other numbers."""
    assert check("own_torch:alexnet", ALEXNET).difference is None
    difference = check("own_mxnet:alexnet", ALEXNET).difference
    assert difference is not None
    assert (difference.layer, difference.level) == ("conv1", "forward eval")
    assert difference.cause == "the padding is (0, 0), not (1, 1)"


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("zoo_vgg11", zoo.build("vgg11", input=(3, 32, 32))),
        pytest.param("zoo_vgg16", zoo.build("vgg16", input=(3, 64, 64)), marks=later),
        pytest.param("zoo_alexnet", zoo.build("alexnet_owt"), marks=later),
        pytest.param("zoo_vgg11", zoo.build("vgg11"), marks=later),
    ],
    ids=lambda value: value if isinstance(value, str) else "x".join(map(str, value.input)),
)
def test_gluons_own_model_zoo(name: str, architecture: Architecture) -> None:
    assert check(f"own_mxnet:{name}", architecture).difference is None


def test_a_block_that_has_values_for_some_layers_gets_the_others_without_a_word() -> None:
    """As a file that `load` fills has, after a layer was added to it."""
    if "mxnet" not in installed():
        pytest.skip("MXNet is not installed")
    load_backend("mxnet")
    from mxnet import gluon

    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.Conv2D(4, 3, in_channels=3), gluon.nn.Dense(5))
    net[0].initialize()
    layers = (Conv("conv", 4, (3, 3)), Flatten("flatten"), Dense("dense", 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        located = locate_port(net, Architecture("net", (3, 8, 8), 5, layers))
    assert located.difference is None


@later
@pytest.mark.parametrize(("name", "spec"), [("alexnet", "alexnet_owt"), *((n, n) for n in ("vgg11", "vgg16", "vgg19"))])
def test_torchvision(name: str, spec: str) -> None:
    for package in ("torch", "torchvision"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; a job of `make test-all` has both")
    assert locate_port(find(f"own_torchvision:{name}"), zoo.build(spec)).difference is None


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_a_flag_that_lowers_the_precision_is_off_for_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    try:
        assert check("own_torch:Autocast", LENET, precision="fp32").difference is None
        assert torch.is_autocast_enabled("cpu")
    finally:
        torch.set_autocast_enabled("cpu", False)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(TriptychError, match="torch: the precision flag NVIDIA_TF32_OVERRIDE is 1, which a running"):
        check("own_torch:lenet", LENET, precision="fp32")


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_the_two_flatten_orders_are_not_mixed_up_with_other_faults() -> None:
    """A wrong layer behind the flatten is found although its weights had to be permuted."""
    import torch

    net = find("own_torch:ChannelsLast")
    net.classifier[1] = torch.nn.ReLU()
    result = locate_port(net, LENET)
    assert result.difference is not None
    assert (result.difference.layer, result.difference.cause) == ("sigmoid3", "a ReLU is applied, not a sigmoid")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["locate", *arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_the_command_on_a_port(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--left", "own_torch:relu", "--right", "lenet")
    assert status == 1
    assert "first difference: layer 'sigmoid2', level forward eval" in out
    assert "likely cause: a ReLU is applied, not a sigmoid" in out
    assert "not run: update" in out
    status, out, _ = run(capsys, "--left", "own_torch:lenet", "--right", "lenet", "--json")
    assert (status, json.loads(out)["agree"]) == (0, True)


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "own_broken:net",
            "module 'own_broken' cannot be imported: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        ("own_torch:missing", "unknown name in 'own_torch' 'missing'"),
        ("own_torch:takes", "'own_torch:takes' needs arguments (size)"),
        ("own_torch:fails", "'own_torch:fails' failed: RuntimeError: no weights here"),
        ("own_torch:leaves", "'own_torch:leaves' failed: SystemExit: 0"),
        ("own_leaves:net", "module 'own_leaves' cannot be imported: SystemExit: 0"),
        ("builtins:dict", "a dict is no network of"),
        ("own_torch:number", "a int is no network of"),
        (
            "own_torch:broken",
            "'own_torch:broken' failed in its layer '2' on images (2, 1, 28, 28) as NCHW: RuntimeError",
        ),
    ],
)
def test_what_is_no_port_is_one_line(capsys: pytest.CaptureFixture[str], name: str, words: str) -> None:
    status, _, error = run(capsys, "--left", name, "--right", "lenet")
    assert status == 2
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
@pytest.mark.parametrize("option", [("--device", "cuda"), ("--optimizers", "all")])
def test_an_option_that_a_port_does_not_have_is_refused(
    capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    status, _, error = run(capsys, "--left", "own_torch:lenet", "--right", "lenet", *option)
    assert status == 2
    assert "--device and --optimizers are for backends" in error


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "a mapping is an object of names"),
        ('{"0.weigth": "conv1.weight"}', "'0.weigth'; did you mean '0.weight'?"),
    ],
)
def test_a_bad_mapping_file_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "mapping.json"
    path.write_text(content)
    status, _, error = run(capsys, "--left", "own_torch:lenet", "--right", "lenet", "--mapping", str(path))
    assert status == 2
    assert words in error


def test_side_classifiers_are_left_out_and_it_is_said() -> None:
    torch = pytest.importorskip("torch")
    layers = (torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 6 * 9, 3))
    found = locate_port(torch.nn.Sequential(*layers), nets.SIDE)
    assert found.difference is None
    assert found.not_run["auxiliary classifiers"] == "left out on both sides"
    assert "auxiliary classifiers" not in locate_port(torch.nn.Sequential(*layers), nets.PLAIN).not_run


@pytest.mark.skipif("torch" not in installed(), reason="torch is not installed")
def test_gradients_that_somebodys_training_has_left_are_not_counted() -> None:
    import torch

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    network(torch.ones(2, 3, 2, 2)).sum().backward()
    layers = (Flatten("flatten"), Dense("dense", 3))
    located = locate_port(network, Architecture("left", (3, 2, 2), 3, layers))
    assert located.difference is None
