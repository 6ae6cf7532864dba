"""The studies that look at trained networks, and those whose runs compete or start from another one's end."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import Silent, table_of
from marks import every_backend, needs_backend
from triptych import data
from triptych.backend import registry
from triptych.data import preprocess
from triptych.optim.optimizers import SGD
from triptych.reference import network as reference
from triptych.studies import contests, dense_scores, experiments, fine_tuning, map_contents, outcome, runner
from triptych.studies.runner import Outcome, Run, Trained, open_folder, plan, recipes_of, train
from triptych.training import feature_maps, models, run_folder
from triptych.training.recipe import Recipe
from triptych.training.run_folder import Epoch
from triptych.utils.errors import TriptychError

PART = "synthetic@train=60,test=20"
TINY = Trained(
    name="tiny",
    question="Which?",
    source="nobody's text",
    base=Recipe("tiny", architecture="lenet_relu", data=PART, epochs=1, learning_rate=0.1),
    runs=(
        Run("first", {"data": f"{PART.replace('@', '@classes=0-3,')}"}),
        Run("case: head", {"freeze": ("conv*", "dense[12].*")}, series="case", start="first"),
        Run("case: all", series="case", start="first"),
        Run("case: anew", series="case"),
    ),
    quick={},
    compete=True,
)
BACKENDS = registry.installed()


def trained(folder, study=TINY, names=BACKENDS[:1]):
    planned = plan(study, recipes_of(study))
    open_folder(folder, study, planned, "cpu").release()
    loaded = [registry.load(name) for name in names]
    return train(planned, loaded, folder, "cpu", lambda title, recipe: nullcontext(Silent()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study's outcomes by backend and run."""
    return {(o.backend, o.name): o for o in trained(tmp_path_factory.mktemp("study") / "out", names=BACKENDS)}


# Runs that start from another one


@every_backend
def test_a_run_starts_from_the_other_one_s_end_on_the_same_backend(finished, name):
    first, head, everything, anew = (finished[name, run.name] for run in TINY.runs)
    assert [o.planned.recipe.init_from for o in (first, head, everything, anew)] == ["", "first", "first", ""]
    assert Path(run_folder.read_recipe(head.folder).init_from) == first.folder
    begun, ended = (run_folder.load(o.folder).model for o in (first, head))
    equal = {path.rpartition(".")[0] for path, value in begun.items() if np.array_equal(value, ended[path])}
    assert equal == {"conv1", "conv2", "dense1", "dense2"}  # dense3 has other classes
    assert head.epochs[0].losses[0] == pytest.approx(everything.epochs[0].losses[0], rel=1e-6)
    assert head.epochs[0].losses[0] != pytest.approx(anew.epochs[0].losses[0], rel=1e-3)


@needs_backend
def test_what_starts_from_a_run_that_diverged_is_not_trained(tmp_path):
    wild = replace(TINY.runs[0], changes={"learning_rate": 1e30, "optimizer": SGD(momentum=0.9)})
    outcomes = trained(tmp_path / "out", replace(TINY, runs=(wild, *TINY.runs[1:])))
    assert [bool(o.problem) for o in outcomes] == [True, True, True, False]
    result = outcome.answer(TINY, outcomes, quick=False)
    assert "LOST: case: all, torch stopped early: 'first', which it starts from, ended early" in "\n".join(
        said.replace(BACKENDS[0], "torch") for said in result.findings
    )
    assert table_of(result, contests.TITLE).rows == ()  # one run alone is no contest


def test_data_that_is_not_here_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    def on_the_mini_set(recipe):
        return replace(recipe, data=recipe.data.replace("fashion-mnist", "fashion-mnist-mini"))

    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path))
    study = replace(fine_tuning.STUDY, runs=fine_tuning.STUDY.runs[-1:])
    recipes = recipes_of(study, change=on_the_mini_set)
    with pytest.raises(TriptychError, match="cifar"):
        plan(study, recipes, data_dir=tmp_path)


def test_the_last_layer_of_every_case_is_new():
    """As many classes as in pretraining, and the old last layer would be taken over."""
    planned = plan(fine_tuning.STUDY, recipes_of(fine_tuning.STUDY, quick=True))
    first, *others = (each.architecture.classes for each in planned)
    assert first not in others
    assert [sum(each.run.series == case for each in planned) for case in fine_tuning.CASES] == [4] * 4


# Who wins


def made(name: str, accuracy: float, backend: str = "torch", test: int = 100) -> Outcome:
    series, _, _ = name.rpartition(": ")
    study = replace(TINY, runs=(Run(name, {"data": f"synthetic@test={test}"}, series=series),))
    epoch = Epoch(1, 1, backend, 1.0, accuracy, 1.0, accuracy, 1.0, 1.0)
    return Outcome(plan(study, recipes_of(study))[0], backend, Path(), (epoch,))


def test_the_winner_is_named_with_its_lead_and_a_tie_is_called_one():
    clear = [made("a: x", 0.5), made("a: y", 0.9), made("a: z", 0.7)]
    close = [made("b: x", 0.91), made("b: y", 0.9)]
    first, second = contests.verdicts([*clear, *close])
    assert first == "a: 'y' wins with 0.900, 0.200 over 'z'; the last is 'x' with 0.500."
    noise = 2 * (0.91 * 0.09 / 100 + 0.9 * 0.1 / 100) ** 0.5
    assert second.startswith("b: 'x' is first with 0.910, 'y' has 0.900: no more apart than 100 test images can tell")
    assert f"({noise:.3f})" in second
    (level,) = contests.verdicts([made("c: x", 1.0), made("c: y", 1.0)])
    assert level == "c: 'x' and 'y' are level at 1.000; the last is 'y' with 1.000."
    table = contests.table([*clear, *close])
    assert table.columns[2:5] == ("x", "y", "z")
    assert [row[-1] for row in table.rows] == ["yes", "no"]
    assert [row[:6] for row in table.rows] == [
        ("a", "torch", 0.5, 0.9, 0.7, "y"),
        ("b", "torch", 0.91, 0.9, "-", "x"),
    ]


def test_every_backend_has_its_own_contest():
    outcomes = [made("a: x", 0.3), made("a: x", 0.8, "jax"), made("a: y", 0.6), made("a: y", 0.3, "jax")]
    assert [(c.backend, c.ranked[0]) for c in contests.contests(outcomes)] == [
        ("torch", ("y", 0.6)),
        ("jax", ("x", 0.8)),
    ]
    said = outcome.findings(TINY, outcomes)
    assert [text.partition(" wins")[0] for text in said] == ["torch, a: 'y'", "jax, a: 'x'"]
    result = outcome.answer(TINY, outcomes, quick=True)
    assert result.tables[0].title == contests.TITLE
    captions = [caption for caption, _ in result.figures]
    assert captions == [*(f"{contests.TITLE}, {name}" for name in ("torch", "jax")), "Test accuracy after one epoch: a"]
    alone = outcome.answer(TINY, [o for o in outcomes if o.backend == "jax"], quick=True)
    assert alone.figures[0][0] == contests.TITLE


# What the first blocks see


def test_shapes_are_coarse_and_a_chequerboard_is_not():
    board = np.indices((8, 8)).sum(0) % 2.0
    halves = np.indices((8, 8))[1] // 4 * 1.0
    noise = np.random.default_rng(0).standard_normal((50, 20, 20))
    assert feature_maps.coarse_share(board[None]) == 0
    assert feature_maps.coarse_share(halves[None]) == 1
    assert feature_maps.coarse_share(np.stack([board, halves])) == 0.5
    assert feature_maps.coarse_share(noise) == pytest.approx(map_contents.NOISE, abs=0.01)
    assert feature_maps.coarse_share(noise[:, :, :7]) == pytest.approx(map_contents.NOISE, abs=0.03)
    assert feature_maps.coarse_share(board[None, :1]) is None
    assert feature_maps.coarse_share(np.ones((1, 4, 4))) is None


def test_maps_are_as_like_the_picture_as_they_correlate():
    picture = np.random.default_rng(0).standard_normal((1, 8, 8))
    other = np.random.default_rng(1).standard_normal((8, 8))
    assert feature_maps.likeness(
        np.stack([picture[0], -3 * picture[0] + 1, np.zeros((8, 8))]), picture
    ) == pytest.approx(1)
    found = feature_maps.likeness(np.stack([picture[0], other]), picture)
    assert found == pytest.approx((1 + abs(np.corrcoef(picture.ravel(), other.ravel())[0, 1])) / 2)
    assert feature_maps.likeness(np.zeros((2, 4, 4)), picture) is None
    small = preprocess.resize_matrix(8, 4) @ picture[0] @ preprocess.resize_matrix(8, 4).T
    assert feature_maps.likeness(small[None], picture) == pytest.approx(1)


@pytest.fixture
def taken_as_learned(monkeypatch):
    """One step on 60 images teaches nothing; these tests are about what is looked at."""
    monkeypatch.setattr(Outcome, "unlearned", "")


@needs_backend
def test_what_has_learned_nothing_is_not_looked_at(finished):
    mine = finished[BACKENDS[0], "case: all"]
    assert mine.unlearned
    looked = runner.look(replace(TINY, look=dense_scores.look), [mine], [registry.load(BACKENDS[0])], "cpu")
    assert (looked.tables, looked.findings) == ((), ())


@every_backend
@pytest.mark.usefixtures("taken_as_learned")
def test_the_blocks_of_a_trained_network_are_drawn_and_described(finished, name):
    study = replace(TINY, look=map_contents.look)
    mine = finished[name, "case: all"]
    result = runner.look(study, [mine], [registry.load(name)], "cpu")
    model = models.load_run(mine.folder)
    test = mine.planned.dataset.test
    x = preprocess.apply_reference(test.images[:1], model.transform)
    outputs = reference.forward(model.architecture, model.parameters, x).outputs
    (table,) = result.tables
    for row, path, sees, step in zip(table.rows, ("the picture", "pool1", "pool2"), (1, 6, 16), (1, 2, 4), strict=True):
        values = outputs.get(path, x)[0]
        assert row[:4] == ("case: all", name, path, "x".join(map(str, values.shape)))
        assert row[6:9] == (pytest.approx(np.abs(values).max(), rel=1e-4), sees, step)
        assert row[9] == pytest.approx(feature_maps.coarse_share(values), rel=1e-3)
    assert "(pattern 0)" in table.title
    assert result.figures[0][1].count("<image") == 1 + 6 + 8
    (said,) = result.findings
    assert "pool2 has 400 values for 784 pixels, each sees 16 of 28 a side" in said


# Dense layers as convolutions


@every_backend
def test_scores_equal_the_plain_network_s_and_crops_are_those_at_their_places(finished, name):
    mine = finished[name, "case: all"]
    model, split = models.load_run(mine.folder), data.load(PART).test
    loaded = registry.load(name)
    same, larger = (dense_scores.measure(model, split, steps, loaded, "cpu") for steps in (0, 1))
    assert same.places == (1, 1)
    assert np.abs(same.crops).max() > 0
    assert same.difference <= dense_scores.ROUNDING
    assert (same.macs, larger.crop_macs) == (same.crop_macs, 4 * same.crop_macs)
    assert (larger.size, larger.scores.shape, larger.macs < larger.crop_macs) == ((32, 32), (20, 10, 2, 2), True)
    x = preprocess.apply_reference(split.images, model.dense((32, 32)).transform)
    crop = reference.forward(model.architecture, model.parameters, x[:, :, 4:, :28]).logits
    np.testing.assert_allclose(larger.crops[:, :, 1, 0], crop, rtol=0, atol=1e-5 * np.abs(crop).max())
    plain = reference.forward(
        model.architecture, model.parameters, preprocess.apply_reference(split.images, model.transform)
    ).logits
    assert same.accuracy(same.scores) == (plain.argmax(1) == split.labels).mean()


@needs_backend
@pytest.mark.usefixtures("taken_as_learned")
def test_a_look_has_a_row_per_size_and_a_figure(finished):
    mine = finished[BACKENDS[0], "case: all"]
    result = runner.look(replace(TINY, look=dense_scores.look), [mine], [registry.load(BACKENDS[0])], "cpu")
    (table,) = result.tables
    assert [row[2:4] for row in table.rows] == [("28x28", "1x1"), ("32x32", "2x2"), ("36x36", "3x3")]
    assert result.figures[0][1].startswith("<svg")
    assert "equal the plain network's up to float32 rounding" in result.findings[0]


def test_scores_that_are_not_the_crops_are_said_to_be_other_ones():
    crops = np.zeros((2, 3, 1, 1))
    crops[:, 1] = 4.0
    scores = crops + 0.1 * np.arange(3)[:, None, None]
    wrong = dense_scores.Measured((8, 8), scores, crops, np.array([1, 2]), 5, 10)
    first, last = dense_scores.sentences("net", [wrong])
    assert "are NOT the plain network's" in first
    assert "the largest difference is 5.0e-02 of the largest logit" in first
    assert "right for 0.500 of the images, that of 1 crops for 0.500; they answer the same on 100.0%" in last
    assert "with 50% of the crops' operations" in last


def test_the_study_s_images_are_as_many_of_each_class(monkeypatch):
    seen = []
    monkeypatch.setattr(dense_scores, "IMAGES", 12)
    monkeypatch.setattr(dense_scores, "measure", lambda model, split, *rest: seen.append(split))
    monkeypatch.setattr(models, "load_run", lambda folder: None)
    mine = made("a: x", 0.5, test=20)
    whole = mine.planned.dataset
    order = np.argsort(whole.test.labels, kind="stable")  # as class folders are read
    sorted_by_class = replace(whole, test=data.Split(whole.test.images[order], whole.test.labels[order]))
    dense_scores.measured(replace(mine, planned=replace(mine.planned, dataset=sorted_by_class)), None, "cpu")
    assert [np.bincount(split.labels).tolist() for split in seen] == [[2, 2, *[1] * 8]] * 3


@needs_backend
@pytest.mark.usefixtures("taken_as_learned")
def test_the_command_puts_first_what_the_look_found(tmp_path, monkeypatch, call):
    one = replace(TINY, runs=(Run("net"),), compete=False, look=dense_scores.look)
    monkeypatch.setattr(experiments, "STUDIES", (one,))
    printed = call("study", "tiny", "--quick", "--out", tmp_path / "out", "--backend", BACKENDS[0])
    assert printed.index("Score maps against crops, 20 test images") < printed.index("Every run")
    assert outcome.QUICK in printed
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("up to float32 rounding") < page.index("reaches the test accuracy")
    assert page.count("<svg") == 3


def test_a_start_that_is_given_takes_the_comparison_away():
    with pytest.raises(TriptychError, match="are the same run"):
        recipes_of(TINY, change=lambda recipe: replace(recipe, init_from="elsewhere"))
