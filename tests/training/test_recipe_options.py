"""What old weights and own data want of a recipe: the images' numbers, dropout, a new head, a warning."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest

from helpers import Silent
from marks import needs_backend
from triptych import data, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.data import preprocess
from triptych.spec import rewrite
from triptych.spec.layers import Dropout, walk
from triptych.training import keeping, loop, recipes, run_folder, sessions
from triptych.training.recipe import Recipe, build_transform, identity, vary
from triptych.utils.errors import TriptychError
from triptych.weights import transfer
from triptych.weights.initializers import draw

BACKENDS = registry.installed()
LENET = Recipe("lenet", architecture="lenet_dropout", data="synthetic@train=40,test=10", batch_size=20, epochs=1)
COLOURS = zoo.build("vgg11", input=(3, 32, 32), classes=10, width_ratio=32)


def test_numbers_of_0_to_255_are_the_same_as_of_0_to_1() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8)
    caffe = replace(LENET, mean=(103.94, 116.78, 123.68), pixel_range=255.0, channel_order="bgr")
    found = preprocess.apply_reference(images, build_transform(caffe, COLOURS))
    expected = images[:, ::-1].astype(float) - np.array(caffe.mean).reshape(3, 1, 1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    plain = preprocess.apply_reference(images, build_transform(replace(LENET, pixel_range=255.0), COLOURS))
    np.testing.assert_allclose(plain, images, atol=1e-9)


def test_bgr_needs_three_channels() -> None:
    with pytest.raises(TriptychError, match="--channel-order bgr needs a network with 3 channels"):
        build_transform(replace(LENET, channel_order="bgr"), zoo.build("lenet"))


def test_every_dropout_gets_the_rate() -> None:
    changed = rewrite.with_dropout(zoo.build("vgg11", head="small", input=(3, 32, 32)), 0.2)
    rates = [layer.rate for _, layer in walk(changed.layers) if isinstance(layer, Dropout)]
    assert rates == [0.2] * 8
    with pytest.raises(TriptychError, match="'lenet' has no dropout"):
        rewrite.with_dropout(zoo.build("lenet"), 0.2)
    with pytest.raises(TriptychError, match="--dropout 1 must be"):
        rewrite.with_dropout(changed, 1)


def test_the_head_is_the_last_layer_with_weights() -> None:
    architecture = zoo.build("googlenet", input=(3, 75, 75), classes=10, width_ratio=8)
    parameters = draw(architecture, 0)
    gone = parameters.keys() - transfer.without_head(architecture, parameters).keys()
    assert gone == {path for path in parameters if path.startswith("dense.")}


@needs_backend
def test_a_new_head_is_new_with_the_same_classes_too_and_the_run_keeps_its_dropout(tmp_path: Path) -> None:
    backend, dataset = registry.load(BACKENDS[0]), data.load(LENET.data)
    first = sessions.start(backend, replace(LENET, dropout=0.1), dataset)
    keeping.keep_in(first, tmp_path / "first")
    loop.fit(first, Silent())
    assert run_folder.read_recipe(tmp_path / "first").dropout == 0.1
    second = replace(LENET, init_from=str(tmp_path / "first"), seed=1)
    assert sessions.start(backend, second, dataset).new_layers == ()
    third = sessions.start(backend, replace(second, new_head=True), dataset)
    assert third.new_layers == ("dense3",)
    keeping.keep_in(third, tmp_path / "third")
    loop.fit(third, Silent())
    found = run_folder.load(tmp_path / "third", run_folder.read_recipe(tmp_path / "third"), resuming=True)
    assert found is not None
    assert found.epoch == 1


@needs_backend
def test_adam_on_a_rate_for_sgd_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--recipe", "d2l-lenet", "--data", "synthetic@train=20,test=10", "--epochs", "1"]
    words += ["--optimizer", "adam"]
    for number, more in enumerate(([], ["--learning-rate", "0.001"])):
        with pytest.raises(SystemExit):
            main([*words, "--backend", BACKENDS[0], "--out", str(tmp_path / str(number)), *more])
        told = capsys.readouterr().err
        assert ("--optimizer adam takes the recipe's rate, 0.9, which is one for sgd" in told) is (more == [])
    assert vary(recipes.RECIPES["adam-vgg"], epochs=1).optimizer.normalized


@dataclass(frozen=True)
class Later(Recipe):
    """A recipe of a later version, with one more field."""

    another: int = 3


def test_a_field_that_came_later_leaves_older_runs_theirs() -> None:
    old = {field.name: getattr(LENET, field.name) for field in fields(LENET)}
    assert identity(Later(**old)) == identity(LENET)
    assert identity(Later(**old, another=4)) != identity(LENET)
    assert identity(replace(LENET, seed=1)) != identity(LENET)
