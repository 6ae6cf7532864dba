"""Figures of images and what they show: feature maps, predictions beside the truth, confusion."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from marks import needs_backend
from triptych import zoo
from triptych.backend import registry
from triptych.data import Dataset, Split
from triptych.data.preprocess import apply_reference
from triptych.reference import network as reference
from triptych.report import pictures, run, tables
from triptych.spec.layers import Architecture, Block, Branches, Conv, Dense, Flatten, Residual
from triptych.training import evaluation, feature_maps, models
from triptych.training.recipe import Recipe
from triptych.training.run_folder import Epoch
from triptych.utils.errors import TriptychError
from triptych.weights import initializers

BACKENDS = registry.installed()
LENET = Recipe("test", architecture="lenet", data="synthetic", epochs=1)


def test_confusion_counts_true_by_predicted():
    logits = np.array([[0, 2, 1], [3, 0, 0], [0, 0, 1], [0, 9, 1.0]])
    split = Split(np.zeros((4, 1, 1, 1), np.uint8), np.array([0, 0, 1, 1]))
    dataset = Dataset("two", split, split, ("cat", "dog"))
    model = models.draw_model(Recipe("three", architecture="lenet", network=zoo.Options(3, (1, 28, 28))))
    assert evaluation.Evaluation(model, dataset, "none", logits).confusion.tolist() == [[1, 1, 0], [0, 1, 1]]


def test_the_figures_say_which_is_which():
    images = np.zeros((3, 1, 4, 4), np.uint8)
    split = Split(images, np.array([0, 1, 1]))
    figure = pictures.predictions(split, np.eye(2)[[0, 0, 1]], ("cat", "dog"), title="title", columns=2)
    titles = [(axes.get_title(), axes.title.get_color()) for axes in figure.axes]
    assert titles[:3] == [("cat", pictures.RIGHT), ("cat\nnot dog", pictures.WRONG), ("dog", pictures.RIGHT)]
    assert len(titles) == 4  # no more rows than images need
    matrix = np.array([[5, 2, 1], [0, 7, 3]])
    (axes,) = pictures.confusion(matrix, ("cat", "dog"), ("cat", "dog", "2"), title="title").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    shades = axes.get_images()[0].get_array()
    np.testing.assert_allclose(shades, [[5 / 8, 2 / 8, 1 / 8], [0, 0.7, 0.3]])
    assert {text.get_position(): text.get_text() for text in axes.texts} == {
        (column, row): str(matrix[row, column]) for row in range(2) for column in range(3)
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    many = [f"class {number}" for number in range(pictures.ANNOTATED + 1)]
    (axes,) = pictures.confusion(np.zeros((len(many),) * 2, np.int64), many, many, title="no image at all").axes
    assert not axes.texts
    assert (axes.get_images()[0].get_array() == 0).all()


def test_a_name_is_drawn_and_printed_as_it_is(tmp_path, capsys):
    names = ("a$b$", r"$\frac$", "[bold]:cat:")
    split = Split(np.zeros((3, 1, 4, 4), np.uint8), np.array([0, 1, 2]))
    figure = pictures.predictions(split, np.eye(3), names, title="$x_{$")
    pictures.save(figure, tmp_path / "grid.svg")
    pictures.save(pictures.confusion(np.eye(3, dtype=np.int64), names, names, title="$x_{$"), tmp_path / "matrix.svg")
    assert all("$x_{$" in (tmp_path / f"{name}.svg").read_text() for name in ("grid", "matrix"))
    tables.print_table(names, [names], title=names[2])
    printed = capsys.readouterr().out
    assert [printed.count(name) for name in names] == [2, 2, 3]


def test_no_more_columns_than_there_are_maps():
    figure = pictures.feature_maps(np.zeros((1, 4, 4), np.uint8), {"conv1": np.ones((6, 3, 3))}, title="", channels=999)
    assert len(figure.axes) == 2 * 6


def test_the_maps_are_drawn_below_the_picture():
    picture, maps = np.arange(18, dtype=np.uint8).reshape(3, 2, 3), {"conv": np.arange(12.0).reshape(3, 2, 2)}
    cells = pictures.feature_maps(picture, maps, title="title", channels=2).axes
    shown = [cell.get_images()[0].get_array() if cell.get_images() else None for cell in cells]
    assert (shown[0] == picture.transpose(1, 2, 0)).all()
    assert shown[1] is None
    assert np.array_equal(shown[2:], maps["conv"][:2])
    assert cells[2].get_title("left") == "conv  3x2x2  0 to 11"
    assert [cell.get_images()[0].get_clim() for cell in cells[2:]] == [(0, 11), (0, 11)]  # one scale for the layer


def test_the_scores_of_the_best_classes_are_drawn_best_first():
    scores = np.arange(10.0)[:, None, None] + np.array([[0.0, 0.5]])
    names = [f"class {number}" for number in range(10)]
    cells = pictures.score_map(np.zeros((1, 4, 8), np.uint8), scores, names, title="title").axes
    assert [cell.get_title() for cell in cells[1:3]] == ["class 9\n9.25", "class 8\n8.25"]
    assert np.array_equal(cells[1].get_images()[0].get_array(), scores[9])
    assert {cell.get_images()[0].get_clim() for cell in cells[1:]} == {(0.0, 9.5)}  # one scale for all


def test_dead_and_constant_maps_are_told_apart_and_long_titles_are_not_cut():
    maps = {"relu": np.stack([np.zeros((2, 2)), np.full((2, 2), 0.17), np.eye(2)])}
    figure = pictures.feature_maps(np.zeros((1, 2, 2), np.uint8), maps, title="word " * 60)
    texts = [[text.get_text() for text in cell.texts] for cell in figure.axes[3:]]
    assert texts == [["dead"], ["constant\n0.17"], []]
    (title,) = [text for text in figure.texts if "word" in text.get_text()]
    figure.draw_without_rendering()
    assert title.get_window_extent().width <= figure.bbox.width


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_file_of_a_figure_does_not_say_when_it_was_drawn(tmp_path, suffix):
    figure = pictures.predictions(Split(np.zeros((1, 1, 4, 4), np.uint8), np.zeros(1, int)), np.eye(1), "a", title="")
    pictures.save(figure, tmp_path / f"x{suffix}")
    content = (tmp_path / f"x{suffix}").read_bytes()
    assert len(content) > 1000
    assert not re.search(rb"CreationDate|<dc:date>", content)
    with pytest.raises(TriptychError, match="cannot be written"):
        pictures.save(figure, tmp_path / f"x{suffix}" / f"x{suffix}")


def test_which_layers_are_the_first_blocks():
    vgg, alexnet = (zoo.build(name) for name in ("vgg11", "alexnet"))
    assert feature_maps.stages(vgg, 2) == ("block1", "block2")
    assert feature_maps.stages(zoo.build("lenet"), 9) == ("pool1", "pool2")
    assert feature_maps.stages(alexnet, 2) == ("pool1", "pool2")
    assert feature_maps.stages(zoo.build("googlenet"), 2) == (
        "inception3a",
        "inception3b",
    )  # its poolings are no blocks
    assert feature_maps.matching(vgg, ["block2.conv1", "*1.relu1"]) == ("block1.relu1", "block2.conv1")
    with pytest.raises(TriptychError, match=r"--layers 'dense\*' matches no layer of 'vgg11' with a map"):
        feature_maps.matching(vgg, ["dense*"])
    with pytest.raises(TriptychError, match=r"--layers 'auxiliary\*' matches no layer of 'googlenet' with a map"):
        feature_maps.matching(zoo.build("googlenet"), ["auxiliary*"])
    conv = (Conv("conv", 2, (1, 1)),)
    stages = (Branches("mixed", (Block("a", conv),)), Residual("unit", Block("body", conv)))
    vector = Block("head", (Flatten("flatten"), Dense("dense", 2)))
    assert feature_maps.stages(Architecture("x", (2, 4, 4), 2, (*stages, vector)), 3) == ("mixed", "unit")
    with pytest.raises(TriptychError, match="--blocks 0 must be at least 1"):
        feature_maps.stages(vgg, 0)


@pytest.mark.parametrize("name", BACKENDS)
def test_captured_maps_are_those_of_the_reference(name):
    architecture = zoo.build("lenet")
    model = models.Model(LENET, architecture, initializers.draw(architecture, 0), ())
    picture = np.random.default_rng(0).integers(0, 256, (1, 1, 20, 30), np.uint8)
    maps = feature_maps.capture(registry.load(name), model, picture, ("pool1", "conv2"))
    outputs = reference.forward(architecture, model.parameters, apply_reference(picture, model.transform)).outputs
    assert list(maps) == ["pool1", "conv2"]
    for path, found in maps.items():
        np.testing.assert_allclose(found, outputs[path][0], rtol=0, atol=1e-5)
    (row,) = feature_maps.describe({"x": np.array([[[0, 2], [0, -3]], [[0, 0], [0, 0]]])})
    assert (row.layer, row.shape, row.zeros, row.dead, row.scale) == ("x", (2, 2, 2), 0.75, 1, 3)


@needs_backend
def test_the_commands_draw(call, drawn_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "cache"))
    drawn_run("run", LENET)
    out = json.loads(call("evaluate", "run", "--grid", "grid.png", "--confusion", "confusion.svg", "--json"))
    matrix = np.array(out["confusion"])
    assert (matrix.shape, matrix.sum()) == ((10, 10), out["images"])
    assert matrix.trace() / matrix.sum() == pytest.approx(out["accuracy"])
    assert b"<svg" in (tmp_path / "confusion.svg").read_bytes()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)).save("x.png")
    text = call("feature-maps", "x.png", "--run", "run", "--blocks", "2", "--out", "maps.png")
    assert "lenet, trained (run)" in text
    assert "6x14x14" in text
    for file in ("grid.png", "maps.png"):
        with Image.open(file) as drawn:
            assert np.ptp(np.asarray(drawn.convert("L"))) > 200


def test_the_page_of_a_run_has_its_curves(tmp_path):
    epochs = [Epoch(n, 4 * n, "torch", 2 / n, 0.1 * n, 2.3, 0.05 * n, 1.0, 512.0, (2.0, 1.5)) for n in (1, 2)]
    run.write(tmp_path, LENET, zoo.build("lenet"), epochs, {"package": "1.2"})
    text = (tmp_path / run.REPORT).read_text()
    assert text.count("<svg") == 2
    first = ("1", "torch", "2.0000", "0.1000", "2.3000", "0.0500", "1.0", "512")
    second = ("2", "torch", "1.0000", "0.2000", "2.3000", "0.1000", "1.0", "512")
    for row in (first, second):
        assert "".join(f"<td>{cell}</td>" for cell in row) in text
    assert "<tr><td>data</td><td>synthetic</td></tr>" in text
    assert "package 1.2" in text
    assert not re.search(r"<(script|link)[^>]*(src|href)=.https?:", text)
