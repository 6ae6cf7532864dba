"""A training that MXNet began goes on: its own Trainer's states against its own further steps."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.cli.start import Start
from triptych.data.preprocess import InputTransform
from triptych.exporting import optimizer_states
from triptych.importers import mxnet_network, mxnet_states
from triptych.importers.mxnet_back import Back
from triptych.importers.steps import Imported, Request
from triptych.importers.trainer_states import TrainerStates
from triptych.optim import multipliers
from triptych.optim.optimizers import SGD, Adagrad, Adam, Optimizer, Rates
from triptych.porting import trainer_files
from triptych.spec import analysis
from triptych.utils.errors import TriptychError
from triptych.weights.formats.inert_pickle import Call, Name, loads
from triptych.weights.formats.pickle_writer import dumps

needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
SCRIPT = Path(__file__).with_name("mxnet_trainer.py")
FIRST, MORE, BATCH, SIZE = 8, 100, 8, (3, 8, 10)
# MXNet's operators read these as float32, and not always as the nearest: all are exact in it.
RATE, LATER, MOMENTUM, DECAY = 2**-4, 2**-6, 0.875, 2**-10
# Adam's, too: MXNet says them to its operator in decimals, which that reads as the nearest float32 from 1e-4 on.
ADAM, ADAM_RATE, ADAM_LATER = Adam(weight_decay=DECAY, eps=1e-4, eps_added="before"), 0.01, 0.008
MULTIPLIED = (
    "conv0.*,conv1.*:rate=0.1 dense1.*:rate=10 *.conv.bias,*.dense.bias,dense1.bias:decay=0 dense1.weight:decay=0.5"
)
REQUEST = Request(input=SIZE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with what MXNet left of a training with this optimizer, run once, in a process of its own."""
    folders: dict[str, Path] = {}

    def make(optimizer: str) -> Path:
        if optimizer not in folders:
            folder = folders[optimizer] = tmp_path_factory.mktemp(optimizer)
            random = np.random.default_rng(0)
            np.save(folder / "images.npy", random.integers(0, 256, (FIRST + MORE, BATCH, *SIZE), np.uint8))
            np.save(folder / "labels.npy", random.integers(0, 3, (FIRST + MORE, BATCH)))
            rates = map(str, (ADAM_RATE, ADAM_LATER) if optimizer.startswith("adam") else (RATE, LATER))
            line = [sys.executable, str(SCRIPT), optimizer, str(FIRST), str(MORE), *rates]
            subprocess.run(line, check=True, cwd=folder, env=os.environ | {"PYTHONPATH": ""}, capture_output=True)
        return folders[optimizer]

    return make


def read(folder: Path) -> tuple[Imported, TrainerStates]:
    files = (folder / "before.states", folder / "before-symbol.json", folder / "before-0000.params")
    return mxnet_states.load(*files, REQUEST)


def go_on(framework: Backend, folder: Path, optimizer: Optimizer, rates: Rates, steps: int) -> tuple[Any, Any]:
    """Losses and parameters after more steps here, from MXNet's files."""
    imported, states = read(folder)
    network = framework.build(imported.architecture, execution=exact("fp64"))
    framework.from_canonical(network, imported.parameters or {})
    trainer = framework.Trainer(network, optimizer, InputTransform(*SIZE), 0, states.frozen)
    told = states if states.steps is not None else replace(states, steps=FIRST)
    trainer.load_state(told.state(rates.exact))
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    handles = [trainer.step(images[i], labels[i], rates, i) for i in range(FIRST, FIRST + steps)]
    return trainer.read(handles)[:, 0], framework.to_canonical(network)


def largest_share(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    assert found.keys() == expected.keys()
    return max(float(np.abs(found[p] - v).max() / (np.abs(v).max() or 1.0)) for p, v in expected.items())


@needs_mxnet
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("sgd", SGD(momentum=MOMENTUM, weight_decay=DECAY)),
        ("nag", SGD(momentum=MOMENTUM, nesterov=True)),
        ("adagrad", Adagrad(eps=1e-30)),
        ("module", SGD(momentum=MOMENTUM)),
        ("adam-module", replace(ADAM, weight_decay=0.0)),
        ("frozen", SGD(momentum=MOMENTUM, weight_decay=DECAY)),
        ("sgd-multiplied", SGD(momentum=MOMENTUM, weight_decay=DECAY)),
        ("adam", ADAM),
        ("adam-multiplied", ADAM),
    ],
)
def test_more_steps_here_are_mxnets_own(
    name: str, optimizer: Optimizer, framework: Backend, trained: Callable[[str], Path]
) -> None:
    """The learning rate drops between the two: MXNet has the old one inside of its velocities."""
    folder = trained(name)
    imported, states = read(folder)
    told = trainer_files.differing(states, optimizer, imported.architecture, states.frozen)
    assert told == (f"--multipliers '{MULTIPLIED}'" if name.endswith("-multiplied") else "")
    optimizer = replace(optimizer, multipliers=multipliers.parse(MULTIPLIED if told else ""))
    assert trainer_files.differing(states, optimizer, imported.architecture, states.frozen) == ""
    rate = ADAM_LATER if name.startswith("adam") else LATER
    losses, parameters = go_on(framework, folder, optimizer, optimizer.rates(rate, MOMENTUM), MORE)
    expected = mxnet_network.load(folder / "after-symbol.json", folder / "after-0000.params", REQUEST).parameters or {}
    np.testing.assert_allclose(losses, json.loads((folder / "losses.json").read_text())[FIRST:], rtol=1e-11, atol=0)
    assert largest_share(parameters, expected) < 1e-11
    before = mxnet_network.load(folder / "before-symbol.json", folder / "before-0000.params", REQUEST).parameters or {}
    assert largest_share(before, expected) > 1e-2  # it was a training


@needs_mxnet
def test_without_the_states_it_is_another_training(
    framework: Backend, trained: Callable[[str], Path], monkeypatch: Any
) -> None:
    monkeypatch.setattr(TrainerStates, "state", lambda self, rate: {})
    folder = trained("sgd")
    losses, _ = go_on(framework, folder, SGD(momentum=MOMENTUM, weight_decay=DECAY), Rates(LATER, MOMENTUM), 4)
    assert np.abs(losses / json.loads((folder / "losses.json").read_text())[FIRST : FIRST + 4] - 1).max() > 1e-6


@needs_mxnet
def test_what_sgd_remembers(trained: Callable[[str], Path]) -> None:
    imported, states = read(trained("sgd"))
    assert states.optimizer == "sgd"
    assert states.steps == FIRST
    assert (states.settings["momentum"], states.settings["weight_decay"], states.learning_rate) == (
        MOMENTUM,
        DECAY,
        RATE,
    )
    assert states.slots["velocity"].keys() == {i.path for i in analysis.parameters(imported.architecture) if i.trained}
    scaled = states.state(RATE)
    for path, array in states.slots["velocity"].items():
        assert np.array_equal(scaled[f"velocity.{path}"], array / -RATE) or np.allclose(
            scaled[f"velocity.{path}"], array / -RATE, rtol=1e-15
        )


@needs_mxnet
def test_adams_moments_and_count(trained: Callable[[str], Path]) -> None:
    imported, states = read(trained("adam"))
    assert (states.optimizer, states.steps, states.settings["beta2"]) == ("adam", FIRST, 0.999)
    assert int(states.state(LATER)["count"]) == FIRST
    told = trainer_files.differing(states, Adam(weight_decay=DECAY), imported.architecture)
    assert told == "--optimizer adam:eps=0.0001,eps_added=before"
    assert trainer_files.differing(states, SGD(momentum=0.9), imported.architecture) == told


@needs_mxnet
@pytest.mark.parametrize("name", ["adam", "sgd-multiplied"])
def test_in_another_form_it_is_another_training(name: str, framework: Backend, trained: Callable[[str], Path]) -> None:
    """What eps is added to, and what the rates are times, is seen in a few steps."""
    folder = trained(name)
    optimizer = replace(ADAM, eps_added="after") if name == "adam" else SGD(momentum=MOMENTUM, weight_decay=DECAY)
    losses, _ = go_on(
        framework, folder, optimizer, optimizer.rates(ADAM_LATER if name == "adam" else LATER, MOMENTUM), 4
    )
    expected = json.loads((folder / "losses.json").read_text())[FIRST : FIRST + 4]
    assert np.abs(losses / expected - 1).max() > 1e-6


BACK = 6  # steps here
OPTIMIZERS = {
    "sgd": SGD(momentum=MOMENTUM, weight_decay=DECAY),
    "nag": SGD(momentum=MOMENTUM, nesterov=True),
    "adam": ADAM,
    "sgd-multiplied": replace(SGD(momentum=MOMENTUM, weight_decay=DECAY), multipliers=multipliers.parse(MULTIPLIED)),
}


@needs_mxnet
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_goes_back_to_mxnets_trainer(
    name: str, framework: Backend, trained: Callable[[str], Path], tmp_path: Path
) -> None:
    """From MXNet, some steps here, and on in MXNet's own Trainer, whose losses are those of going on here."""
    folder, optimizer, more = trained(name), OPTIMIZERS[name], 20
    base = ADAM_RATE if name == "adam" else RATE
    imported, states = read(folder)
    network = framework.build(imported.architecture, execution=exact("fp64"))
    framework.from_canonical(network, imported.parameters or {})
    trainer = framework.Trainer(network, optimizer, InputTransform(*SIZE), 0)
    trainer.load_state(states.state(base))
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    rates = optimizer.rates(base, MOMENTUM)
    trainer.read([trainer.step(images[i], labels[i], rates, i) for i in range(FIRST, FIRST + BACK)])
    back = Back(folder / "before-symbol.json", folder / "before-0000.params", REQUEST, imported.architecture)
    held = optimizer_states.States(
        optimizer, trainer.state(), base, imported.architecture, back=back, parameters=framework.to_canonical(network)
    )
    told = optimizer_states.write(tmp_path / "back.states", held)
    own = f"; set lr_mult (rate) and wd_mult (decay) before: {MULTIPLIED}" * bool(optimizer.multipliers)
    assert told == f"net.collect_params().load('back.params'), gluon.Trainer.load_states('back.states'){own}"
    later = range(FIRST + BACK, FIRST + BACK + more)
    expected = trainer.read([trainer.step(images[i], labels[i], rates, i) for i in later])[:, 0]
    for file in ("images.npy", "labels.npy"):
        (tmp_path / file).symlink_to(folder / file)
    line = [sys.executable, str(SCRIPT), f"back-{name}", str(FIRST + BACK), str(more), "0", "0"]
    subprocess.run(line, check=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": ""}, capture_output=True)
    rate, *found = json.loads((tmp_path / "returned.json").read_text())
    assert rate == base
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=0)
    assert abs(found[-1] / found[0] - 1) > 1e-3  # it learns


@needs_mxnet
def test_the_command_goes_on(trained: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from triptych.__main__ import main

    folder = trained("sgd")
    line = ("train", "--backend", "mxnet", "--arch", folder / "before-symbol.json", "--input", "3x8x10")
    line += (
        "--init-from",
        folder / "before-0000.params",
        "--states",
        folder / "before.states",
        "--data",
        "synthetic@classes=0-2,train=64",
    )
    line += ("--epochs", "1", "--out", "run", "--learning-rate", "0.0625", "--weight-decay", "0.001")
    with pytest.raises(SystemExit, match="0"):
        main([*map(str, line), "--momentum", "0.875"])
    said = capsys.readouterr().out
    assert "sgd (weight_decay 0.0009765625, momentum 0.875), learning rate 0.0625, after 8 steps" in said
    symbol, params = folder / "before-symbol.json", folder / "before-0000.params"
    own = ("--symbol", str(symbol), "--params", str(params))
    before = params.read_bytes()
    for words, why in (
        (("back.states", *own[:2]), "--symbol and --params are given together"),
        (("back.states",), "give --symbol and --params"),
        (("back.pt", *own), "are for .states, MXNet's, not for 'back.pt'"),
        ((str(params.with_suffix(".states")), *own), "would write the weights over"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["export", "states", "run", *words])
        assert why in capsys.readouterr().err
    assert params.read_bytes() == before
    with pytest.raises(SystemExit, match="0"):
        main(["export", "states", "run", "back.states", *own])
    assert "gluon.Trainer.load_states('back.states')" in capsys.readouterr().out
    assert {"back.states", "back.params"} <= {path.name for path in here.iterdir()}


@needs_mxnet
@pytest.mark.parametrize("name", ["sgd-multiplied", "adam"])
def test_the_command_says_what_to_give(
    name: str, trained: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.__main__ import main

    folder = trained(name)
    line = f"train --backend {registry.installed()[0]} --arch {folder}/before-symbol.json --input 3x8x10 --out run"
    line += f" --init-from {folder}/before-0000.params --states {folder}/before.states --weight-decay 0.001"
    line += " --data synthetic@classes=0-2,train=64 --epochs 1 --momentum 0.875".removesuffix(
        " --momentum 0.875" * (name == "adam")
    )
    with pytest.raises(SystemExit, match="2"):
        main(line.split())
    given = shlex.split(capsys.readouterr().err.partition(" is not: give ")[2])
    with pytest.raises(SystemExit, match="0"):
        main([*line.split(), *given])
    recipe = json.loads(Path("run/recipe.json").read_text())["optimizer"]
    assert recipe.get("eps_added", "after") == ("before" if name == "adam" else "after")
    assert bool(recipe.get("multipliers")) == (name != "adam")
    with pytest.raises(SystemExit, match="0"):
        main(["train", "--resume", "run", "--epochs", "2"])
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["export", "states", "run", "back.pt"])
    said = capsys.readouterr().out
    assert ("adds eps after" in said) == (name == "adam")


@needs_mxnet
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--momentum 0.5", "give --momentum 0.875"),
        ("--optimizer adam", "give --optimizer sgd"),
        ("--momentum 0.875 --nesterov", "give --no-nesterov"),
        ("--states nothing", "there is no file nothing"),
        ("--init-from other.params", "there is no file other.params"),
        ("--init-from other.npz", "needs --arch NAME-symbol.json and --init-from FILE.params"),
        ("--arch lenet", "needs --arch NAME-symbol.json and --init-from FILE.params"),
    ],
)
def test_states_of_another_training_are_refused(
    options: str, words: str, trained: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.__main__ import main

    folder, given = trained("sgd"), options.split()
    files = {"arch": "before-symbol.json", "init-from": "before-0000.params", "states": "before.states"}
    line = ["train", "--backend", "mxnet", "--data", "synthetic@classes=0-2,train=64", "--epochs", "1", *given]
    for option, file in files.items():
        line += [] if f"--{option}" in given else [f"--{option}", str(folder / file)]
    line += ["--input", "3x8x10"] if "lenet" not in given else []
    with pytest.raises(SystemExit) as stopped:
        main(line)
    err = capsys.readouterr().err
    notes = ("data 'synthetic", "takes the recipe's rate", "compared as far as fp32 rounds")
    refused = [line for line in err.splitlines() if not any(note in line for note in notes)]
    assert (stopped.value.code, len(refused)) == (2, 1), err
    assert words in err


def refused(path: Path, folder: Path) -> str:
    with pytest.raises(TriptychError) as raised:
        mxnet_states.load(path, folder / "before-symbol.json", folder / "before-0000.params", REQUEST)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("bombed",)


@needs_mxnet
def test_what_is_no_file_of_states_is_one_line(trained: Callable[[str], Path], here: Path) -> None:
    folder = trained("sgd")
    content = (folder / "before.states").read_bytes()
    path = here / "other.states"
    for value, words in (
        (({}, Bomb()), "optimizer 'mkdir'"),
        ([1, 2], "does not hold the states"),
        (({0: 1}, object()), "optimizer 'object'"),
    ):
        path.write_bytes(pickle.dumps(value))
        assert words in refused(path, folder)
    made = Call(Name("mxnet.optimizer.optimizer", "RMSProp"), (), {"lr": 0.5})
    path.write_bytes(dumps(({}, made)))
    assert "'RMSProp', which adds eps under the root of a mean that decays" in refused(path, folder)
    for length in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path, folder)
    assert not Path("bombed").exists()
    assert "cannot read the states" in refused(here / "nothing", folder)


def test_a_pickle_is_data(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, (1, 2, 3, 4)], "b": b"x" * 300, "c": bytearray(b"yz"), "d": -(1 << 40), "ä": {}}
    for protocol in range(6):
        found = loads(pickle.dumps([value, value], protocol), "file")
        assert found == [value, value], protocol
    bomb = loads(pickle.dumps(Bomb()), "file")
    assert isinstance(bomb, Call)
    assert (bomb.what, bomb.arguments) == (Name("posix", "mkdir"), ("bombed",))
    with pytest.raises(TriptychError, match="more than 1,000,000 instructions"):
        loads(b"\x80\x02" + b"}0" * 600_000 + b"N.", "file")
    nested = b"\x80\x02}" + b"N" + b"\x85" * 400_000
    with pytest.raises(TriptychError, match="a dict has a tuple for a key"):
        loads(nested + b"Ns.", "file")
    with pytest.raises(TriptychError, match="no whole pickle"):
        loads(b"\x80\x04" + b"N" + b"\x85" * 400_000 + b"N\x93.", "file")


@needs_mxnet
def test_a_module_says_neither_its_optimizer_nor_how_long_it_ran(trained: Callable[[str], Path], here: Path) -> None:
    folder = trained("module")
    _, states = read(folder)
    assert (states.settings, states.steps, set(states.decays.values())) == ({}, None, {1.0})  # Gluon's variables say so
    graph = json.loads((folder / "before-symbol.json").read_text())
    for node in graph["nodes"]:
        node.get("attrs", {}).pop("__wd_mult__", None)
    (here / "net-symbol.json").write_text(json.dumps(graph))
    files = (folder / "before.states", here / "net-symbol.json", folder / "before-0000.params")
    imported, unsaid = mxnet_states.load(*files, REQUEST)  # a Module's gammas decay, and its shifts do not
    told = trainer_files.differing(unsaid, SGD(momentum=0.5, weight_decay=DECAY), imported.architecture)
    assert told == "--multipliers '*.bias:decay=0'"
    assert trainer_files.differing(states, SGD(momentum=0.5, nesterov=True), imported.architecture) == ""
    two = here / "two.states"
    two.write_bytes(pickle.dumps({0: (1, 2)}))
    assert "no array of MXNet's" in refused(two, trained("module"))


@needs_mxnet
@pytest.mark.parametrize(
    ("name", "steps", "words"),
    [
        ("adam-module", None, "does not say after how many steps it was saved: --states-steps says it"),
        ("adam", 3, "leave --states-steps out"),
        ("module", 3, "leave --states-steps out"),
    ],
)
def test_steps_are_told_where_they_are_wanted(
    name: str, steps: int | None, words: str, trained: Callable[[str], Path]
) -> None:
    _, states = read(trained(name))
    with pytest.raises(TriptychError, match=words):
        Start(states=Path("x.states"), steps=steps).counted(states)
    told = Start(states=Path("x.states"), steps=FIRST).counted(read(trained("adam-module"))[1])
    assert int(told.state(LATER)["count"]) == FIRST


@needs_mxnet
@pytest.mark.parametrize(
    ("multiplier", "value", "words"),
    [
        ("lr_mult", -0.1, "lr_mult of 'hybridsequential0_conv0_weight' is -0.1; expected at least 0"),
        ("lr_mult", 0.0, "moves on by a velocity of before"),
        ("wd_mult", "x", "wd_mult of 'hybridsequential0_conv0_weight' is 'x'"),
    ],
)
def test_a_rate_or_a_decay_that_is_none_is_refused(
    multiplier: str, value: object, words: str, trained: Callable[[str], Path], here: Path
) -> None:
    """Gluon writes both into the symbol's variables."""
    folder = trained("sgd")
    graph = json.loads((folder / "before-symbol.json").read_text())
    node = next(node for node in graph["nodes"] if node["name"].endswith("conv0_weight"))
    words = words.replace("hybridsequential0_conv0_weight", node["name"])
    node["attrs"][f"__{multiplier}__"] = str(value)
    (here / "net-symbol.json").write_text(json.dumps(graph))
    with pytest.raises(TriptychError) as raised:
        mxnet_states.load(folder / "before.states", here / "net-symbol.json", folder / "before-0000.params", REQUEST)
    assert words in str(raised.value)


@needs_mxnet
def test_what_is_frozen_in_mxnet_is_to_be_frozen_here(
    trained: Callable[[str], Path], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.__main__ import main

    folder = trained("frozen")
    imported, states = read(folder)
    paths = [info.path for info in analysis.parameters(imported.architecture)]
    norm = next(path for path in paths if path.endswith("running_mean")).rpartition(".")[0]
    assert states.frozen == {*paths[:2], f"{norm}.weight"}
    assert not states.frozen & states.slots["velocity"].keys()
    line = ("train", "--backend", registry.installed()[0], "--arch", folder / "before-symbol.json", "--input", "3x8x10")
    line += ("--init-from", folder / "before-0000.params", "--states", folder / "before.states", "--out", "run")
    line += ("--data", "synthetic@classes=0-2,train=64", "--epochs", "1", "--momentum", "0.875")
    with pytest.raises(SystemExit, match="2"):
        main([*map(str, line)])
    words = f"--freeze {','.join(sorted(states.frozen))}"
    assert f"give {words}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main([*map(str, line), *words.split()])


@needs_mxnet
def test_a_rate_of_its_own_is_said_without_a_momentum_too(trained: Callable[[str], Path], here: Path) -> None:
    """Nothing is remembered of an array then, but that it is trained."""
    folder = trained("sgd")
    graph = json.loads((folder / "before-symbol.json").read_text())
    next(n for n in graph["nodes"] if n["name"].endswith("conv0_weight"))["attrs"]["__lr_mult__"] = "2.0"
    (here / "net-symbol.json").write_text(json.dumps(graph))
    made = Call(Name("mxnet.optimizer.optimizer", "SGD"), (), {"lr": 0.5, "momentum": 0.0, "wd": 0.0, "num_update": 3})
    arrays = mxnet_network.read_arrays(folder / "before-0000.params")
    (here / "plain.states").write_bytes(dumps((dict.fromkeys(range(len(arrays))), made)))
    files = (here / "plain.states", here / "net-symbol.json", folder / "before-0000.params")
    imported, states = mxnet_states.load(*files, REQUEST)
    first = analysis.parameters(imported.architecture)[0].path
    assert trainer_files.differing(states, SGD(), imported.architecture) == f"--multipliers '{first}:rate=2'"


@needs_mxnet
def test_what_does_not_decay_is_said(trained: Callable[[str], Path], here: Path) -> None:
    folder = trained("sgd")
    graph = json.loads((folder / "before-symbol.json").read_text())
    for node in graph["nodes"]:
        if node["op"] == "null" and node["name"].endswith(("bias", "gamma", "beta")):
            node["attrs"]["__wd_mult__"] = "0.0"
    (here / "net-symbol.json").write_text(json.dumps(graph))
    files = (folder / "before.states", here / "net-symbol.json", folder / "before-0000.params")
    imported, states = mxnet_states.load(*files, REQUEST)
    optimizer = SGD(momentum=MOMENTUM, weight_decay=DECAY)
    assert trainer_files.differing(states, optimizer, imported.architecture) == "--decayed weights"
    assert trainer_files.differing(states, replace(optimizer, decayed="weights"), imported.architecture) == ""
    none = replace(optimizer, weight_decay=0.0, decayed="weights")  # then it does not matter
    assert trainer_files.differing(states, none, imported.architecture) == ""


@needs_mxnet
@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"clip_gradient": 0.5}, "gradients were clipped there (clip_gradient), and are not here"),
        (
            {"lr_scheduler": Call(Name("mxnet.lr_scheduler", "FactorScheduler"), ())},
            "; its lr_scheduler changes that rate",
        ),
        ({"clip_gradient": None, "lr_scheduler": None}, "after 3 steps"),
    ],
)
def test_what_is_not_repeated_here_is_said(
    own: dict[str, object], words: str, trained: Callable[[str], Path], here: Path
) -> None:
    folder = trained("sgd")
    fields = {"lr": 0.5, "momentum": 0.0, "wd": 0.0, "num_update": 3, **own}
    arrays = mxnet_network.read_arrays(folder / "before-0000.params")
    made = Call(Name("mxnet.optimizer.optimizer", "SGD"), (), fields)
    (here / "own.states").write_bytes(dumps((dict.fromkeys(range(len(arrays))), made)))
    _, states = mxnet_states.load(
        here / "own.states", folder / "before-symbol.json", folder / "before-0000.params", REQUEST
    )
    assert words in states.summary
    assert states.summary.endswith("after 3 steps") == (None in own.values())


@needs_mxnet
@pytest.mark.parametrize(("decay", "said"), [(0.5, True), (0.0, False)])
def test_a_decay_beside_the_step_is_said(decay: float, said: bool, trained: Callable[[str], Path], here: Path) -> None:
    folder, fields = trained("sgd"), {"lr": 0.5, "wd": decay, "float_stable_eps": 1e-7}
    made = Call(Name("mxnet.optimizer.optimizer", "AdaGrad"), (), fields)
    (here / "own.states").write_bytes(dumps(({0: None}, made)))
    files = folder / "before-symbol.json", folder / "before-0000.params"
    _, states = mxnet_states.load(here / "own.states", *files, REQUEST)
    assert states.summary.startswith("adagrad (")
    assert ("AdaGrad decays beside its step" in states.summary) == said
