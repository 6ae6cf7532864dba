"""`--arch` of every kind, in the commands that take it: what is read, what is said, what is refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import triptych
from symbol_json import node, top, variable
from triptych.__main__ import main
from triptych.backend import registry
from triptych.spec import records
from triptych.spec.layers import (
    Architecture,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    Graph,
    Node,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    walk,
)
from triptych.weights import initializers, store
from triptych.weights.formats import mxnet_params

GATE = Block("gate", (GlobalAvgPool("pool"), Conv("conv", 6, (1, 1)), Sigmoid("sigmoid")))
OWN = Architecture(
    "own",
    (1, 28, 28),
    10,
    (
        Conv("conv", 6, (5, 5), (2, 2)),
        PReLU("slope"),
        Branches("attention", (Block("same", ()), GATE), "multiply"),
        Flatten("flatten"),
        Dense("dense", 10),
    ),
)
HEADS = Graph("heads", (Node(ReLU("one")), Node(Sigmoid("two"))), ("one", "two"))
TWO_OUTPUTS = Architecture("two", (3, 8, 8), 0, (Conv("conv", 4, (3, 3)), HEADS))
SYMBOL = top(
    variable("data"),
    variable("conv_weight"),
    variable("conv_bias"),
    node("Convolution", "conv", 0, 1, 2, kernel="(3, 3)", num_filter="4"),
    node("Activation", "relu", 3, act_type="relu"),
    variable("fc_weight"),
    variable("fc_bias"),
    node("FullyConnected", "fc", 4, 5, 6, num_hidden="10"),
    variable("label"),
    node("SoftmaxOutput", "softmax", 7, 8),
)


def symbol_arrays(seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"conv_weight": (4, 1, 3, 3), "conv_bias": (4,), "fc_weight": (10, 4 * 26 * 26), "fc_bias": (10,)}
    return {f"arg:{name}": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def files(here: Path) -> Path:
    """A folder with a spec, one of two outputs, a symbol with two epochs' parameters, and a module."""
    (here / "own.json").write_text(records.write(OWN))
    (here / "two.json").write_text(records.write(TWO_OUTPUTS))
    (here / "net-symbol.json").write_text(json.dumps(SYMBOL))
    for epoch in (1, 2):
        mxnet_params.write(here / f"net-000{epoch}.params", symbol_arrays(epoch))
    (here / "own_module.py").write_text(
        "from pathlib import Path\nfrom triptych.spec import records\n"
        "from triptych.spec.layers import Architecture\n"
        "def net():\n    return records.decode(records.parse(Path('own.json').read_text()), Architecture)\n"
        "number = 3\ndef fails():\n    raise RuntimeError('two\\nlines')\ndef ends():\n    raise SystemExit(0)\n"
    )
    return here


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def test_a_spec_comes_back_as_it_was_printed(files: Path, call: Callable[..., str]) -> None:
    for arch in ("own.json", "own_module:net"):
        assert records.decode(records.parse(call("summary", arch, "--spec")), Architecture) == OWN
    assert "output heads.one 4x6x6, output heads.two 4x6x6" in call("summary", "two.json")


def test_a_spec_by_hand_may_leave_out_what_has_a_default(files: Path, call: Callable[..., str]) -> None:
    layers = [
        {"record": "Conv", "name": "conv", "channels": 4, "kernel": [3, 3]},
        {"record": "Graph", "name": "graph", "nodes": [{"layer": {"record": "ReLU", "name": "a"}}], "outputs": ["a"]},
    ]
    spec = {"record": "Architecture", "name": "short", "input": [3, 8, 8], "classes": 0, "layers": layers}
    (files / "short.json").write_text(json.dumps(spec))
    whole = records.decode(records.parse(call("summary", "short.json", "--spec")), Architecture)
    assert whole.layers == (Conv("conv", 4, (3, 3)), Graph("graph", (Node(ReLU("a")),), ("a",)))


def test_a_symbol_with_the_parameters_beside_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "summary", "net-symbol.json")
    assert status == 0
    assert "net, input 1x28x28, 10 classes" in out
    for words in ("net-0002.params is taken; --weights names another", "'softmax'", "the input 1x28x28 is the usual"):
        assert words in err
    kept = run(capsys, "summary", "net-symbol.json", "--keep-softmax", "--spec")[1]
    architecture = records.decode(records.parse(kept), Architecture)
    assert isinstance(list(walk(architecture.layers))[-1][1], Softmax)
    for option in ("--output", "--until"):
        ended = run(capsys, "summary", "net-symbol.json", option, "relu", "--input", "1x28x28")[1]
        assert "output relu 4x26x26" in ended


def test_a_symbol_may_be_called_as_one_likes(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "net-symbol.json").rename(files / "net.json")
    status, out, err = run(capsys, "summary", "net.json")
    assert status == 0
    assert "net, input 1x28x28, 10 classes" in out
    assert "net-0002.params is taken" in err
    (files / "net.json").write_text(json.dumps({"nodes": [], "heads": []}))
    assert "net.json is no spec" in run(capsys, "summary", "net.json")[2]


def test_its_own_weights_are_built_and_others_where_they_are_named(files: Path) -> None:
    pytest.importorskip("torch")
    network = triptych.build("net-symbol.json", backend="torch", input=(1, 28, 28))
    conv = dict(network.named_parameters())["conv.weight"].detach().numpy()
    np.testing.assert_array_equal(conv, symbol_arrays(2)["arg:conv_weight"])


def test_a_network_of_its_own_is_trained_and_its_run_is_a_network(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe holds the whole spec: the file may go."""
    names = registry.installed()
    if not names:
        pytest.skip("no framework is installed")
    line = ("train", "--recipe", "d2l-lenet", "--data", "fashion-mnist-mini", "--epochs", 1, "--learning-rate", 0.1)
    assert run(capsys, *line, "--arch", "own.json", "--backend", names[0], "--out", "run")[0] == 0
    (files / "own.json").unlink()
    recipe = json.loads((files / "run" / "recipe.json").read_text())
    assert recipe["architecture"] == recipe["spec"]["name"] == "own"
    status, out, _ = run(capsys, "summary", "run", "--spec")
    assert (status, records.decode(records.parse(out), Architecture)) == (0, OWN)
    measured = [run(capsys, "evaluate", "run", "--backend", name, "--json")[1] for name in names]
    assert {round(json.loads(text)["accuracy"], 3) for text in measured} == {
        round(json.loads(measured[0])["accuracy"], 3)
    }


def test_a_network_with_weights_is_evaluated_as_it_is(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = registry.installed()
    if not names:
        pytest.skip("no framework is installed")
    data = ("--data", "fashion-mnist-mini", "--backend", names[0], "--json")

    def loss(*arguments: object) -> float:
        status, out, _ = run(capsys, "evaluate", *arguments, *data)
        assert status == 0
        return float(json.loads(out)["loss"])

    last, first = loss("net-symbol.json"), loss("net-0001.params", "--arch", "net-symbol.json")
    assert last != first
    assert loss("net-0002.params", "--arch", "net-symbol.json") == last
    store.save(files / "own.safetensors", initializers.draw(OWN, 3))
    assert loss("own.safetensors", "--arch", "own.json") == loss("own.json", "--weights", "own.safetensors")
    for model, words in (("own.json", "has no weights"), ("two.json", "has no weights")):
        status, _, err = run(capsys, "evaluate", model, *data)
        assert (status, words in err, err.count("\n")) == (2, True, 1)


REFUSED = {
    "summary own.json --width-ratio 2": "--width-ratio is for networks of the zoo; 'own.json' is complete",
    "summary own.json --head small": "--head is for networks of the zoo",
    "conform --arch own.json --classes 5": "--classes is for networks of the zoo",
    "summary own.json --input 1x32x32": "own.json is a spec and complete",
    "summary vgg11 --output pool1": "--output is for networks from files and modules; 'vgg11' is one of the zoo",
    "summary vgg11 --keep-softmax": "--keep-softmax is for networks from files",
    "summary no.json": "there is no file no.json",
    "summary own_module:number": "is a int; expected an Architecture, or a network of",
    "summary own_module:fails": "'own_module:fails' failed: RuntimeError: two lines",
    "summary own_module:ends": "'own_module:ends' failed: SystemExit: 0",
    "summary own_module:absent": "unknown name in 'own_module' 'absent'",
    "summary .": "is not a run folder",
    "summary vgg17": "did you mean 'vgg19'",
    "conform --arch ,": "unknown architecture ''",
    "train --arch two.json --data fashion-mnist-mini": "'two' has no classes, so it cannot be trained on labels",
    "summary own.json --weights no.safetensors": "there is no file no.safetensors",
    "summary net-symbol.json --weights own.json": "own.json",
    "summary net-symbol.json --output nothing": "nothing",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_refused_in_one_line(line: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if line.startswith(("train", "conform")) and not registry.installed():
        pytest.skip("no framework is installed")
    status, out, err = run(capsys, *line.split())
    assert (status, out) == (2, "")
    assert REFUSED[line] in err
    assert err.rstrip().rpartition("\n")[2].startswith("triptych: ")


def test_several_outputs_are_judged_by_cotangents(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = registry.installed()
    if not names:
        pytest.skip("no framework is installed")
    line = ("conform", "--arch", "two.json", "--backends", names[0], "--precision", "fp64")
    assert run(capsys, *line, "--certificate", "two.certificate")[0] == 0
    certificate = json.loads((files / "two.certificate").read_text())
    assert certificate["architectures"][0]["verdict"]["architecture"]["layers"][1]["outputs"] == ["one", "two"]
    checks = certificate["architectures"][0]["verdict"]["reports"][0]["checks"]
    assert {"heads.one", "heads.two"} <= {check["tensor"] for check in checks if check["level"] == "forward eval"}
    assert run(capsys, "verify", "two.certificate")[0] == 0
