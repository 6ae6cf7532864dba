"""Training that takes over layers of another run, and training of a part of the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from marks import needs_backend
from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.training import run_folder
from triptych.utils.errors import TriptychError
from triptych.weights import initializers, transfer

BACKENDS = registry.installed()
EVERY = ("train", "--arch", "lenet", "--data", "synthetic", "--resolution", "28", "--epochs", "1")
RATES = ("--learning-rate", "0.1", "--momentum", "0.9", "--weight-decay", "0.01")


pytestmark = pytest.mark.usefixtures("here")


def drawn(classes=10, seed=0, **options):
    architecture = zoo.build("lenet", classes=classes, **options)
    return architecture, initializers.draw(architecture, seed)


def test_a_layer_is_taken_whole_or_not_at_all():
    architecture, fresh = drawn(classes=12)
    given = {path: value + 1 for path, value in drawn(seed=1)[1].items()}
    given["conv2.bias"] = given["conv2.bias"][:-1]
    del given["dense1.bias"]
    values, new = transfer.take_over(architecture, fresh, given)
    assert new == ("conv2", "dense1", "dense3")
    assert list(values) == list(fresh)
    for path, value in values.items():
        source = fresh if path.rpartition(".")[0] in new else given
        assert np.array_equal(value, source[path]), path


def test_patterns_match_whole_paths_and_statistics():
    bn = zoo.build("vgg11_bn", input=(3, 32, 32), width_ratio=16)
    assert transfer.frozen_paths(bn, ["block1.*"]) == {
        *(f"block1.conv1.{name}" for name in ("weight", "bias")),
        *(f"block1.norm1.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    }
    assert transfer.frozen_paths(bn, ["dense[12].bias", "dense3.w*"]) == {"dense1.bias", "dense2.bias", "dense3.weight"}
    assert transfer.frozen_paths(bn, []) == frozenset()
    with pytest.raises(TriptychError, match="leaves nothing of 'vgg11_bn' to train"):  # statistics are not trained
        transfer.frozen_paths(bn, ["*.weight", "*.bias"])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_new_head_on_a_frozen_trunk(name, call):
    """From a run of another backend with other classes; the start is gone before the second epoch."""
    call(*EVERY, *RATES, "--backend", BACKENDS[0], "--out", "first", "--classes", "12")
    options = ("--backend", name, "--init-from", "first", "--freeze", "conv*,dense1.*")
    out = call(*EVERY, *RATES, *options, "--out", "second")
    assert out.splitlines()[0] == "first: new layers: dense3"
    recipe = json.loads((Path("second") / "recipe.json").read_text())
    assert (recipe["init_from"], recipe["freeze"]) == ("first", ["conv*", "dense1.*"])
    shutil.move("first", "elsewhere")
    call("train", "--backend", name, "--resume", "second", "--epochs", "2")
    before, after = run_folder.load(Path("elsewhere")), run_folder.load(Path("second"))
    equal = {path for path, value in after.model.items() if np.array_equal(value, before.model[path])}
    frozen = {f"{layer}.{kind}" for layer in ("conv1", "conv2", "dense1") for kind in ("weight", "bias")}
    assert equal == frozen
    assert set(after.optimizer) == {f"velocity.{path}" for path in after.model.keys() - frozen}


@needs_backend
def test_a_start_that_fits_wholly_is_said_so_and_is_the_same_network(call):
    call(*EVERY, *RATES, "--out", "first")
    out = call(*EVERY, "--learning-rate", "0", "--init-from", "first/checkpoint/model.safetensors", "--out", "second")
    assert out.splitlines()[0] == "first/checkpoint/model.safetensors: every layer was taken over"
    before, after = run_folder.load(Path("first")), run_folder.load(Path("second"))
    assert all(np.array_equal(value, after.model[path]) for path, value in before.model.items())


@needs_backend
def test_a_resumed_run_keeps_what_it_began_from(call, capsys):
    call(*EVERY, *RATES, "--out", "run")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", "run", "--epochs", "2", "--freeze", "conv1.*"])
    assert "with --resume only --epochs" in capsys.readouterr().err
