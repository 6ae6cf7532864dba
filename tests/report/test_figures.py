"""What the figures of reports show, read from matplotlib's axes; and the page of one run."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from triptych import zoo
from triptych.report import figures, panels, run
from triptych.training import recipes
from triptych.training.run_folder import Epoch

EPOCHS = (
    Epoch(1, 2, "torch", 2.25, 0.125, 2.5, 0.25, 3.0, 640.0, (2.5, 2.0)),
    Epoch(2, 4, "torch", 1.25, 0.5, 1.5, 0.375, 4.0, 480.0, (1.5, 1.0)),
)
OTHERS = tuple(Epoch(e.epoch, e.step, "jax", *(0.0,) * 6, tuple(v - 0.5 for v in e.losses)) for e in EPOCHS)


@pytest.fixture
def drawn(monkeypatch):
    """The axes in place of the picture."""
    monkeypatch.setattr(figures, "svg", lambda figure: figure.axes[0])


def curves(axes):
    """By name: the points of every line."""
    return {line.get_label(): list(zip(*map(list, line.get_data()), strict=True)) for line in axes.get_lines()}


def places(axes):
    """The points of all lines that have some; those of the legend have none."""
    return [points for line in axes.get_lines() if (points := list(zip(*map(list, line.get_data()), strict=True)))]


def labels(axes):
    return axes.get_xlabel(), axes.get_ylabel()


@pytest.mark.usefixtures("drawn")
def test_losses_of_every_step_in_their_order():
    axes = figures.loss_curves({"torch": EPOCHS, "jax": OTHERS[:1]})
    assert curves(axes) == {"torch": [(1, 2.5), (2, 2.0), (3, 1.5), (4, 1.0)], "jax": [(1, 2.0), (2, 1.5)]}
    assert labels(axes) == ("step", "training loss")
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.get_lines()}) == 2


@pytest.mark.usefixtures("drawn")
def test_accuracies_after_every_epoch():
    assert curves(figures.accuracy_curves({"torch": EPOCHS})) == {"torch": [(1, 0.25), (2, 0.375)]}
    both = figures.learning_curves(EPOCHS)
    assert curves(both) == {"train": [(1, 0.125), (2, 0.5)], "test": [(1, 0.25), (2, 0.375)]}
    assert labels(both) == ("epoch", "accuracy")


@pytest.mark.usefixtures("drawn")
def test_differences_to_the_first_backend_have_no_sign():
    lower = figures.loss_differences({"torch": EPOCHS, "jax": OTHERS})
    higher = figures.loss_differences({"jax": OTHERS, "torch": EPOCHS, "same": OTHERS})
    assert curves(lower) == {"jax - torch": [(step, 0.5) for step in (1, 2, 3, 4)]}
    assert curves(higher)["torch - jax"] == curves(lower)["jax - torch"]
    assert curves(higher)["same - jax"][0] == (1, 1e-9)  # a logarithm has no place for 0
    assert lower.get_yscale() == "log"


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize(("stacked", "bottoms", "lefts"), [(True, [0, 0, 1, 2, 4, 6], 2), (False, [0] * 6, 6)])
def test_bars_stand_on_or_beside_each_other(stacked, bottoms, lefts):
    axes = figures.bars(("a", "b"), {"one": (1, 2), "two": (3, 4), "three": (5, 6)}, y="number", stacked=stacked)
    assert [bar.get_y() for bar in axes.patches] == bottoms
    assert [bar.get_height() for bar in axes.patches] == [1, 2, 3, 4, 5, 6]
    assert len({bar.get_x() for bar in axes.patches}) == lefts
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]


@pytest.mark.usefixtures("drawn")
def test_points_and_lines_have_their_names_and_axes():
    points = figures.scatter({"small": {"torch": (1.0, 0.5)}, "large": {"torch": (100.0, 0.75)}}, x="cost", y="gain")
    assert places(points) == [[(1.0, 0.5)], [(100.0, 0.75)]]
    assert (labels(points), points.get_xscale()) == (("cost", "gain"), "log")
    lines = figures.lines({"rising": [(1, 0.1), (2, 0.2)]}, x="depth", y="accuracy")
    assert (curves(lines), labels(lines)) == ({"rising": [(1, 0.1), (2, 0.2)]}, ("depth", "accuracy"))


@pytest.mark.usefixtures("drawn")
def test_no_two_points_are_alike_and_names_that_crowd_are_turned():
    on_all = dict.fromkeys(("torch", "mxnet", "jax"), (1.0, 0.5))
    axes = figures.scatter({str(number): on_all for number in range(40)}, x="", y="")
    drawn = [line for line in axes.get_lines() if len(line.get_xdata())]
    assert len({(line.get_color(), line.get_marker(), line.get_fillstyle()) for line in drawn}) == 120
    named = {line.get_label() for line in axes.get_lines()} - {line.get_label() for line in drawn}
    assert named == {*map(str, range(40)), "torch", "mxnet", "jax"}  # 43, not 120
    many = figures.lines({str(number): [(1, 0.1 * number)] for number in range(40)}, x="", y="", marked=True)
    assert len({(line.get_color(), line.get_marker()) for line in many.get_lines()}) == 40
    crowded = figures.bars(["a" * 40, "b" * 40], {"x": [1, 2]}, y="")
    assert [label.get_rotation() for label in crowded.get_xticklabels()] == [30, 30]


@pytest.mark.usefixtures("drawn")
def test_what_a_text_prints_is_drawn_in_grey_and_one_epoch_as_bars():
    axes = figures.accuracy_curves({"ours": EPOCHS}, {"ours": (0.3, 0.4), "last": (0.5,)})
    assert curves(axes)["ours, published"] == [(1, 0.3), (2, 0.4)]
    assert curves(axes)["last, published"] == [(2, 0.5)]
    assert {line.get_color() for line in axes.get_lines()[1:]} == {figures.GREY}
    assert all(tick == int(tick) for tick in axes.get_xticks())
    bars = figures.ranks({"first": 0.25, "second": 0.5}, x="test accuracy")
    assert [(bar.get_y() + 0.4, bar.get_width()) for bar in bars.patches] == [(0, 0.25), (1, 0.5)]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["first", "second"]


def test_panels_have_the_same_axes_their_own_lines_and_the_others_behind(monkeypatch):
    monkeypatch.setattr(figures, "svg", lambda figure: figure)
    groups = {f"run {n}": {"torch": [(1, 0.1 * n), (2, 0.2)], "jax": [(1, 0.3)]} for n in range(5)}
    figure = panels.panels(groups, x="epoch", y="accuracy", texts={"run 1": [(2, 0.9)]})
    assert [axes.get_title() for axes in figure.axes] == list(groups)
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    second = figure.axes[1].get_lines()
    own = [line for line in second if line.get_label() in ("torch", "jax")]
    assert [list(zip(*line.get_data(), strict=True)) for line in own] == list(groups["run 1"].values())
    assert [line.get_label() for line in second].count(panels.BEHIND) == 8
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in own}) == 2
    (legend,) = figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(
        ["torch", "jax", panels.PUBLISHED, panels.BEHIND]
    )
    shown = [axes.get_xlabel() for axes in figure.axes]
    assert shown == ["", "", "epoch", "epoch", "epoch"]  # the lowest of each of the three columns


@pytest.mark.parametrize("bars", [3, 40])
def test_bars_across_have_room_for_their_names(monkeypatch, bars):
    monkeypatch.setattr(figures, "svg", lambda figure: figure)
    figure = figures.ranks({f"name {n}": 0.5 for n in range(bars)}, x="test accuracy")
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))


@pytest.mark.parametrize(("names", "below"), [(figures.FEW, 0), (figures.FEW + 1, 1)])
def test_many_names_stand_below_the_axes(monkeypatch, names, below):
    monkeypatch.setattr(figures, "svg", lambda figure: figure)
    figure = figures.lines({str(number): [(0, number)] for number in range(names)}, x="", y="")
    assert len(figure.legends) == below
    assert (figure.axes[0].get_legend() is None) == bool(below)


def test_the_page_of_a_run_has_its_curves_epochs_and_recipe(tmp_path):
    recipe = replace(recipes.RECIPES["d2l-lenet"], initializer="")
    run.write(tmp_path, recipe, zoo.build("lenet"), EPOCHS, {"package": "1.2"})
    text = (tmp_path / run.REPORT).read_text()
    found = [
        (caption, re.findall(r"<!-- (training loss|accuracy) -->", figure))
        for caption, figure in re.findall(r"<figcaption>(.*?)</figcaption>(.*?)</figure>", text, re.DOTALL)
    ]
    captions = {"Loss of every training step": ["training loss"], "Accuracy after every epoch": ["accuracy"]}
    assert found == list(captions.items())
    rows = [re.findall(r"<td>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text, re.DOTALL)]
    assert ["1", "torch", "2.2500", "0.1250", "2.5000", "0.2500", "3.0", "640"] in rows
    assert ["architecture", "lenet"] in rows
    assert ["initializer", "xavier_uniform"] in rows  # the network's own, which the recipe does not name
    assert "package 1.2" in text
