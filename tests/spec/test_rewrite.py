"""Dense layers as convolutions: the plain network at its own size, and at every place of a larger image."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triptych import zoo
from triptych.backend import registry
from triptych.backend.execution import exact
from triptych.reference import network as reference
from triptych.spec import analysis, rewrite
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Block,
    Branches,
    Conv,
    Dense,
    Flatten,
    GlobalAvgPool,
    MaxPool,
    ReLU,
    Residual,
)
from triptych.training import evaluation, models
from triptych.training.recipe import Recipe
from triptych.utils.arrays import largest
from triptych.utils.errors import TriptychError
from triptych.weights import initializers

BACKENDS = registry.installed()
# No padding, so that a crop's edge changes nothing; a flattened map of 3x2; a total stride of 2.
HEAD = (Flatten("flatten"), Dense("dense1", 6), ReLU("relu1"), Dense("dense2", 4, bias=False))
BODY = (Conv("conv", 5, (3, 3)), BatchNorm("norm"), ReLU("relu"), MaxPool("pool", (2, 2), (2, 2)))
PLAIN = Architecture("plain", (2, 8, 6), 4, (Block("trunk", BODY), Block("head", HEAD)))
AVERAGED = replace(PLAIN, layers=(*BODY, GlobalAvgPool("mean"), Flatten("flatten"), Dense("dense", 4)))


def drawn(architecture):
    random = np.random.default_rng(0)
    infos = analysis.parameters(architecture)
    return {info.path: random.uniform(0.1, 1.0, info.shape) - 0.5 * (info.role == "weight") for info in infos}


def crops_of(images, size, stride):
    """`(places, N, C, *size)`, row by row."""
    height, width = images.shape[2:]
    rows, columns = range(0, height - size[0] + 1, stride), range(0, width - size[1] + 1, stride)
    return [[images[:, :, i : i + size[0], j : j + size[1]] for j in columns] for i in rows]


@pytest.mark.parametrize("name", [*BACKENDS, "reference"])
@pytest.mark.parametrize("architecture", [PLAIN, AVERAGED], ids=["flattened", "averaged"])
def test_the_scores_are_those_of_the_crops(architecture, name):
    """The map itself, and its mean against the mean of the crops; in float64, where only rounding is left."""
    values = drawn(architecture)
    images = np.random.default_rng(1).standard_normal((3, 2, 12, 12))
    wide = rewrite.convolve(architecture, (12, 12))
    assert rewrite.score_map(wide) == (4, 3, 4)
    reshaped = rewrite.reshape(wide, values)
    if name == "reference":
        outputs = reference.forward(wide, reshaped, images).outputs
    else:
        loaded = registry.load(name)
        network = loaded.build(wide, execution=exact("fp64"))
        loaded.from_canonical(network, {path: value.astype(np.float64) for path, value in reshaped.items()})
        outputs = loaded.forward(network, images)
    crops = crops_of(images, architecture.input[1:], 2)
    scores = np.array([[reference.forward(architecture, values, crop).logits for crop in row] for row in crops])
    last = wide.layers[-3].name
    np.testing.assert_allclose(outputs[last], scores.transpose(2, 3, 0, 1), rtol=0, atol=1e-13 * largest(scores))
    mean = outputs[rewrite.FLATTEN]
    np.testing.assert_allclose(mean, scores.mean((0, 1)), rtol=0, atol=1e-13 * largest(scores))
    assert np.ptp(scores, (0, 1)).min() > 1e-3  # places differ, or the mean would prove nothing


@pytest.mark.parametrize("name", ["lenet", "alexnet", "vgg11_bn", "nin", "googlenet", "inception_v3"])
def test_at_the_training_size_it_is_the_plain_network(name):
    entry = zoo.get_entry(name)
    ratio, side = entry.conformance
    plain = zoo.build(name, input=(entry.input[0], side, side), classes=7, width_ratio=ratio)
    values = {path: value.astype(np.float64) for path, value in initializers.draw(plain, 0).items()}
    images = np.random.default_rng(0).standard_normal((2, *plain.input))
    same = rewrite.convolve(plain, (side, side))
    expected = reference.forward(plain, values, images).logits
    logits = reference.forward(same, rewrite.reshape(same, values), images).logits
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12 * largest(expected))
    assert {info.path for info in analysis.parameters(same)} == {
        path for path in values if not path.startswith("auxiliary")
    }


def test_what_has_no_dense_form():
    with pytest.raises(TriptychError, match="at least the training size 8x6, got 8x5"):
        rewrite.convolve(PLAIN, (8, 5))
    branch = Block("one", (Conv("conv", 3, (1, 1)), Flatten("flatten"), Dense("dense", 4)))
    with pytest.raises(TriptychError, match=r"layer 'mixed\.one\.(flatten|dense)' is within branches"):
        rewrite.convolve(replace(PLAIN, layers=(Branches("mixed", (branch,)),)), (8, 6))
    pool = Residual("unit", Block("body", ()), Block("short", (Conv("conv", 2, (1, 1)), GlobalAvgPool("mean"))))
    with pytest.raises(TriptychError, match=r"layer 'unit\.short\.mean' is within branches"):
        rewrite.convolve(replace(PLAIN, layers=(Conv("stem", 2, (8, 6)), pool, *HEAD)), (8, 6))


def test_images_keep_their_size_and_aspect_where_they_can():
    assert rewrite.fit_size((40, 30), (28, 28)) == (40, 30)
    assert rewrite.fit_size((14, 20), (28, 28)) == (28, 40)
    assert rewrite.fit_size((20, 14), (28, 28)) == (40, 28)
    assert rewrite.fit_size((3, 1000), (28, 32)) == (28, 9333)
    assert rewrite.fit_size((3, 500), (28, 32)) == (28, 4667)


@pytest.mark.parametrize("name", BACKENDS)
def test_evaluate_and_predict(name, call, drawn_run, tmp_path, monkeypatch):
    """A run of drawn parameters: the plain figures at the training size, others on larger images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "cache"))
    recipe = Recipe("test", architecture="lenet", data="synthetic", initializer="kaiming_normal")
    model = models.load_run(drawn_run("run", recipe))

    def measured(*options):
        return json.loads(call("evaluate", "run", "--backend", name, *options, "--json"))

    plain, same = measured(), measured("--dense", "--dense-size", "28")
    assert same == plain | {
        "loss": pytest.approx(plain["loss"], rel=1e-6),
        "dense_size": [28] * 2,
        "dense_scores": [1, 1],
    }
    large = measured("--dense", "--dense-size", "32x40")
    assert (large["dense_size"], large["dense_scores"]) == ([32, 40], [2, 4])
    assert abs(large["loss"] - plain["loss"]) > 1e-5 * plain["loss"]  # ten times what "same" may be off
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32), np.uint8)
    for size, file in (((28, 28), "small.png"), ((40, 32), "large.png")):
        Image.fromarray(pixels[: size[0], : size[1]]).save(file)
    rows = json.loads(call("predict", "run", "small.png", "large.png", "--dense", "--backend", name, "--json"))
    usual = json.loads(call("predict", "run", "small.png", "large.png", "--backend", name, "--json"))
    near = {name: pytest.approx(usual[0][name], rel=1e-5) for name in ("probability", "probabilities")}
    assert rows[0] == usual[0] | near
    x = pixels[None, None] / 255
    wide = rewrite.convolve(zoo.build("lenet"), (40, 32))
    logits = reference.forward(wide, rewrite.reshape(wide, model.parameters), x).logits[0]
    assert rows[1]["predicted"] == model.class_names[logits.argmax()]
    shares = np.exp(logits - logits.max())
    assert rows[1]["probability"] == pytest.approx(1 / shares.sum(), rel=1e-5)
    picture, scores = evaluation.score_map(model, Path("large.png"), registry.load(name), "cpu")
    assert (picture[0, 0] == pixels).all()
    assert scores.shape == (10, 4, 2)
    assert np.allclose(scores.mean((1, 2)), logits, rtol=1e-4, atol=1e-5)
    call("predict", "run", "large.png", "--dense", "--score-map", "map.png", "--backend", name)
    assert Image.open("map.png").size[0] > 1000
