"""The studies that train: their data, the engine on every backend, and that nothing finished is trained again."""

from __future__ import annotations

import json
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import Silent, table_of
from marks import every_backend, needs_backend
from triptych import studies, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.data.batches import Augmentation
from triptych.optim.optimizers import SGD
from triptych.report import figures
from triptych.spec.analysis import totals
from triptych.studies import drawing, duration, experiments, outcome
from triptych.studies.runner import (
    Outcome,
    PublishedFigures,
    Run,
    Trained,
    open_folder,
    plan,
    recipe_of,
    recipes_of,
    slug,
    train,
)
from triptych.training import run_folder, sessions
from triptych.training.recipe import Recipe, vary
from triptych.training.run_folder import Epoch
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted

TINY = Trained(
    name="tiny",
    question="Does ReLU bear a rate of 0.1?",
    source="nobody's text",
    base=Recipe("tiny", architecture="lenet", data="synthetic", epochs=2, learning_rate=0.1),
    runs=(
        Run(
            "sigmoid",
            published=PublishedFigures("a text", "its rate", seconds=50.0, loss=(2.0, 1.0), test=(0.5, 0.625)),
            series="nonlinearity",
        ),
        Run("ReLU", {"architecture": "lenet_relu"}, published=PublishedFigures(seconds=25.0, test=(0.75,))),
    ),
    quick={"epochs": 1, "batch_size": 64},
    notes=("A note <of> ours.",),
    traps=("A trap & its end.",),
    floor=0.05,
)
BACKENDS = registry.installed()


def end(epoch):
    raise Interrupted(2)


def silent(title, recipe):
    return nullcontext(Silent())


def trained(folder, study=TINY, names=BACKENDS[:1], quick=True, show=silent):
    planned = plan(study, recipes_of(study, quick=quick))
    open_folder(folder, study, planned, "cpu").release()
    return train(planned, [registry.load(name) for name in names], folder, "cpu", show)


# The data


@pytest.mark.parametrize("study", experiments.STUDIES, ids=lambda study: study.name)
def test_every_run_can_be_built_and_is_another_one(study):
    small = {"fashion-mnist": "fashion-mnist-mini", "cifar10": "synthetic"}

    def on_a_small_set(recipe: Recipe) -> Recipe:  # the full one need not be here
        name, mark, part = recipe.data.partition("@")
        return replace(recipe, data=f"{small[name]}{mark}{part.replace('train=600', 'train=60')}")

    full = plan(study, recipes_of(study, change=on_a_small_set))
    quick = plan(study, recipes_of(study, quick=True))
    assert [p.run for p in full] == [p.run for p in quick] == list(study.runs)
    assert len({slug(run.name) for run in study.runs}) == len(study.runs)  # their folders
    names = [run.name for run in study.runs]
    assert all(run.start in ("", *names[:place]) for place, run in enumerate(study.runs))
    if not study.compete:  # the accuracies of an axis are of the same data
        assert {recipe_of(study, run).data for run in study.runs} == {study.base.data}
    assert all(totals(q.architecture).macs < totals(f.architecture).macs for f, q in zip(full, quick, strict=True)) or (
        study.name in ("shallow", "feature-maps", "dense")  # LeNet is small as it is
    )


def test_quick_leaves_out_long_runs_and_compiles_as_the_study_says():
    study = replace(TINY, runs=(TINY.runs[0], replace(TINY.runs[1], long=True)), quick_compilation="quick")
    shorter = study.shortened()
    assert shorter.runs == TINY.runs[:1]
    assert [each.compilation for each in plan(shorter, recipes_of(shorter, quick=True))] == ["quick"]
    assert {each.compilation for each in plan(study, recipes_of(study))} == {"full"}
    assert [run.name for run in experiments.INCEPTION.runs if run.long] == [
        "v4: deeper, one plan",
        "Inception-ResNet v2: residual, as large as v4",
    ]


@pytest.mark.parametrize("study", experiments.STUDIES, ids=lambda study: study.name)
def test_quick_is_of_few_images_and_a_small_part_of_the_full_work(study):
    """The 3 minutes on 2 cores that --quick is for are no test; this bounds the work."""
    work = 0
    for planned in plan(study, recipes_of(study, quick=True)):
        assert planned.recipe.epochs * len(planned.dataset.train) <= 3 * 5120
        work += totals(planned.architecture).macs * len(planned.dataset.train) * planned.recipe.epochs
    assert work < 2.5e11


@pytest.mark.parametrize("study", experiments.STUDIES, ids=lambda study: study.name)
def test_published_figures_are_of_every_epoch_or_of_the_last(study):
    for run in study.runs:
        for values in (run.published.loss, run.published.train, run.published.test):
            assert len(values) in (0, 1, recipe_of(study, run).epochs)


# The engine


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The tiny study on every backend: its folder and outcomes."""
    folder = tmp_path_factory.mktemp("study") / "out"
    return folder, trained(folder, names=BACKENDS)


@every_backend
def test_every_backend_trains_every_run(finished, name):
    folder, outcomes = finished
    mine = [o for o in outcomes if o.backend == name]
    assert [o.name for o in mine] == ["sigmoid", "ReLU"]
    assert all(len(o.epochs) == 1 and o.epochs[0].backend == name for o in mine)
    assert (folder / name / "relu" / "recipe.json").is_file()
    first = [o for o in outcomes if o.name == "ReLU"]
    losses = [o.epochs[0].losses[0] for o in first]
    assert max(losses) - min(losses) < 1e-5  # the same start, the same images


@needs_backend
def test_finished_runs_are_taken_from_the_folder(finished, monkeypatch):
    folder, outcomes = finished

    def start(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(sessions, "start", start)
    assert [o.epochs for o in trained(folder, names=BACKENDS)] == [o.epochs for o in outcomes]


@needs_backend
def test_a_killed_study_ends_as_one_that_was_not(tmp_path):
    whole = trained(tmp_path / "whole", quick=False)
    with pytest.raises(Interrupted):
        trained(tmp_path / "killed", quick=False, show=lambda title, recipe: nullcontext(Silent(after=end)))
    (tmp_path / "killed" / BACKENDS[0] / "relu" / "part").mkdir(parents=True)  # killed before its recipe was written
    (kept,) = run_folder.read_epochs(tmp_path / "killed" / BACKENDS[0] / "sigmoid")
    resumed = trained(tmp_path / "killed", quick=False)
    assert resumed[0].epochs[0] == kept, "the epoch was trained again: its seconds are others"
    assert [[e.losses for e in o.epochs] for o in resumed] == [[e.losses for e in o.epochs] for o in whole]


@needs_backend
def test_a_folder_of_other_settings_is_refused(finished):
    with pytest.raises(TriptychError, match="holds a study with other settings"):
        trained(finished[0], quick=False)
    with pytest.raises(TriptychError, match="holds a study with other settings"):
        open_folder(finished[0], TINY, plan(TINY, recipes_of(TINY, quick=True)), "cuda")


def test_quick_overrules_a_run_and_what_a_run_says_of_quick_overrules_that():
    run = Run("", {"epochs": 5, "batch_size": 8}, {"batch_size": 4})
    recipes = [recipe_of(TINY, run, quick=quick) for quick in (False, True)]
    assert [(recipe.epochs, recipe.batch_size) for recipe in recipes] == [(5, 8), (1, 4)]


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TriptychError, match="already used"):
        open_folder(tmp_path, TINY, plan(TINY, recipes_of(TINY)), "cpu")


def test_options_that_take_the_difference_away_are_refused():
    with pytest.raises(TriptychError, match="'larger images' and 'smaller images' are the same run"):
        recipes_of(experiments.RESOLUTION, quick=True, change=lambda recipe: vary(recipe, size=(48, 48)))


@needs_backend
def test_a_run_that_diverges_ends_alone(tmp_path):
    rates = tuple(Run(f"rate {rate:g}", {"learning_rate": rate}) for rate in (1e30, 0.1))
    relu = replace(TINY.base, architecture="lenet_relu", optimizer=SGD(momentum=0.9))
    study = replace(TINY, base=relu, runs=rates)
    wild, tame = outcomes = trained(tmp_path / "out", study)
    assert "the loss is" in wild.problem
    assert wild.accuracy is None
    assert tame.accuracy is not None
    result = outcome.answer(study, outcomes, quick=True)
    assert any(said.startswith("LOST: rate 1e+30") and "stopped early" in said for said in result.findings)
    assert [row[2] == "-" for row in table_of(result, "Every run").rows] == [True, False]
    assert table_of(result, "Every run").rows[0][3] == "LOST"
    assert result.lost == (f"rate 1e+30, {BACKENDS[0]} (ended early)",)
    assert "(ended early)" in result.figures[0][1] or not wild.epochs


# The answer


def made(run: Run, *accuracies: float, seconds: float = 1.0, width_ratio: float = 1.0) -> Outcome:
    """An outcome without training."""
    base = vary(TINY.base, width_ratio=width_ratio)
    study = replace(TINY, base=base, runs=(Run(run.name, published=run.published, series=run.series),))
    planned = plan(study, recipes_of(study))[0]
    epochs = tuple(
        Epoch(n, n, "torch", 1 / n, accuracy, 1.0, accuracy, seconds * n, 512 / (seconds * n))
        for n, accuracy in enumerate(accuracies, start=1)
    )
    return Outcome(planned, "torch", Path(), epochs)


def test_costs_and_published_figures_stand_beside_ours():
    sigmoid, relu = TINY.runs
    outcomes = [made(sigmoid, 0.2, 0.4, seconds=4.0), made(relu, 0.3, 0.6, seconds=6.0)]
    result = outcome.answer(TINY, outcomes, quick=False)
    table = table_of(result, "Every run")
    first, second = (dict(zip(table.columns, row, strict=True)) for row in table.rows)
    values = 1 * 28 * 28 + 2 * (6 * 28 * 28 + 16 * 10 * 10) + 6 * 14 * 14 + 2 * 400 + 2 * (120 + 84) + 10
    size = {"parameters": 61_706, "MACs": 416_520, "activations, MiB": values * 4 * 128 / 2**20}
    reached = {"test accuracy": 0.4, "learned": "yes", "train accuracy": 0.4, "published: test accuracy": 0.625}
    alone = {"against": "-", "times as long": 1.0, "time saved": "-", "accuracy drop": "-"}
    names = {"run": "sigmoid", "backend": "torch"}
    assert first == names | size | reached | alone | {"s / epoch": 4.0, "published: times as long": 1.0}
    reached = {"test accuracy": 0.6, "learned": "yes", "train accuracy": 0.6, "published: test accuracy": 0.75}
    beside = {"against": "sigmoid", "times as long": 1.5, "time saved": -0.5, "accuracy drop": pytest.approx(-0.2)}
    names = {"run": "ReLU", "backend": "torch"}
    assert second == names | size | reached | beside | {"s / epoch": 6.0, "published: times as long": 0.5}
    (text,) = table_of(result, "Published").rows
    assert text == ("sigmoid", "a text", "its rate", 50.0, 1.0, 0.625)
    settings = table_of(result, "Settings").rows
    trained_so = ("sigmoid", "lenet", "synthetic", "1x28x28", "1", 128, 2, "sgd", 0.1)
    assert settings[0] == (*trained_so, "constant", "xavier_uniform")  # without the columns that have nothing
    given = {
        "dropout": 0.1,
        "init_from": "other",
        "freeze": ("conv*", "dense1.*"),
        "augmentation": Augmentation(4, True),
    }
    headed = {"architecture": "vgg11", "head": "small", "size": (32, 32)}
    tuned = vary(outcomes[0].planned.recipe, **given, **headed)
    vgg = zoo.build("vgg11", input=(1, 32, 32), head="small")
    (row,) = outcome.settings([replace(outcomes[0].planned, recipe=tuned, architecture=vgg)]).rows
    start, end = ("sigmoid", "vgg11, head small", "synthetic", "1x32x32"), ("other", "conv*, dense1.*")
    assert row == (*start, "1", "0.1", *trained_so[5:], "constant", *end, "crops, padding 4, flips")
    epochs = table_of(result, "Every epoch").rows
    assert [row[-2:] for row in epochs] == [(2.0, 0.5), (1.0, 0.625), ("-", "-"), ("-", "-")]
    assert not any("--quick" in said for said in result.findings)
    assert "--quick" in outcome.answer(TINY, outcomes, quick=True).findings[0]
    assert replace(outcomes[0], problem="it diverged").accuracy is None
    assert drawing.costs(outcomes)["sigmoid"] == {"torch": (0.41652, 0.4)}


def column(outcomes: list[Outcome], name: str) -> list[object]:
    table = table_of(outcome.answer(TINY, outcomes, quick=False), "Every run")
    return [row[table.columns.index(name)] for row in table.rows]


def test_seconds_are_held_against_the_first_row_of_the_same_backend():
    one, other = (made(run, 0.5, seconds=seconds) for run, seconds in zip(TINY.runs, (4.0, 6.0), strict=True))
    outcomes = [one, other, replace(one, backend="jax", epochs=other.epochs), replace(other, backend="jax")]
    assert column(outcomes, "times as long") == [1.0, 1.5, 1.0, 1.0]


def test_seconds_are_held_against_the_run_that_is_named_and_trained_on_the_same_in_the_same_batches():
    one, other, third = (made(Run(name), 0.5, seconds=s) for name, s in (("a", 4.0), ("b", 6.0), ("c", 3.0)))
    named = replace(third, planned=replace(third.planned, run=Run("c", beside="b")))
    assert column([one, other, named], "times as long") == [1.0, 1.5, 0.5]
    assert column([one, other, named], "against") == ["-", "a", "b"]
    larger = replace(third, planned=replace(third.planned, recipe=replace(third.planned.recipe, batch_size=8)))
    assert column([one, other, larger], "times as long") == [1.0, 1.5, "-"]


def test_a_row_that_has_learned_nothing_is_marked_everywhere_and_nothing_is_concluded_from_it():
    steps = [Run(f"depth {n}", series="depth") for n in range(1, 5)]
    narrow = (1.0, 1.0, 2.0, 1.0)  # the one that has learned nothing would be the smallest above the floor
    given = zip(steps, (0.5, 0.6, 0.1, 0.8), narrow, strict=True)
    rows = [made(run, accuracy, width_ratio=ratio) for run, accuracy, ratio in given]
    result = outcome.answer(replace(TINY, floor=0.05), rows, quick=False)
    assert column(rows, "learned") == ["yes", "yes", "NO", "yes"]
    assert result.unlearned == ("depth 3, torch (does not learn)",)
    assert "depth 3, torch (does not learn)" in "".join(svg for _, svg in result.figures)
    assert result.findings == (
        "NOT LEARNED: depth 3, torch: its test accuracy of 0.100 is not above chance, 0.102; nothing is concluded "
        "from it.",
        "torch: depth 4 has the best test accuracy, 0.800.",
        "torch: depth 4 is the smallest at or above 0.05: 61,706 parameters, test accuracy 0.800.",
        "torch, depth: nothing can be said from depth 3 on, which has not learned.",
    )
    stuck = replace(rows[0], epochs=tuple(replace(e, losses=(2.3026,) * 5) for e in rows[0].epochs))
    assert "its loss of 2.3026 is that of chance" in stuck.unlearned
    assert studies.as_dict("tiny", False, result, "")["unlearned"] == result.unlearned


@pytest.mark.parametrize(("number", "in_panels"), [(figures.FEW, False), (figures.FEW + 1, True), (8, True)])
def test_many_curves_stand_in_a_panel_per_run_and_no_legend_names_a_run_on_a_backend(number, in_panels):
    text = PublishedFigures("a text", "", test=(0.5, 0.6))
    runs = [Run(f"run {n}", published=text) for n in range(number // 2)]
    both = [replace(made(run, 0.2, 0.4), backend=name) for run in runs for name in ("torch", "jax")]
    both += [made(Run("alone"), 0.3, 0.4)] * (number % 2)
    both[0] = replace(both[0], problem="it diverged")
    (caption, drawn), *_ = drawing.drawings(TINY, both)
    assert caption == "Test accuracy after every epoch"
    said = re.findall("<!-- (.*?) -->", drawn)  # what matplotlib writes beside the letters that it draws
    assert ("run 0, torch ended early" in said) == in_panels
    assert said.count("torch") == said.count("published") == in_panels  # the legend has a name once
    assert any("run 1, jax" in one for one in said) != in_panels
    told = {"of": ": a series", "name": lambda o: "their name"}
    assert drawing.learning(both, **told)[0] == f"{caption}: a series"


def test_a_point_that_has_learned_nothing_has_a_name_that_says_so():
    well, badly = made(Run("deep"), 0.5), made(Run("deep"), 0.1)
    assert set(drawing.costs([well, replace(badly, backend="jax")])) == {"deep", "deep, jax (does not learn)"}


def test_a_tie_has_no_single_best():
    said = outcome.findings(replace(TINY, floor=None), [made(TINY.runs[0], 0.5), made(TINY.runs[1], 0.5)])
    assert said[0] == "torch: sigmoid and ReLU are level at the best test accuracy, 0.500."


def test_an_axis_pays_until_the_accuracy_stops_rising():
    steps = [Run(f"depth {n}", series="depth") for n in range(1, 5)]
    rising = [made(run, accuracy) for run, accuracy in zip(steps, (0.5, 0.6, 0.7, 0.8), strict=True)]
    flat = [made(run, accuracy) for run, accuracy in zip(steps, (0.5, 0.6, 0.604, 0.8), strict=True)]
    said = outcome.findings(replace(TINY, floor=None), rising)
    assert said[1:] == ["torch, depth: every step gains at least 0.005, up to depth 4."]
    said = outcome.findings(replace(TINY, floor=None), flat)
    assert said[1:] == ["torch, depth: stops paying at depth 2: depth 3 gains +0.004 (under 0.005 is no gain)."]


def test_the_smallest_network_above_the_floor_is_named():
    small, large = made(Run("small"), 0.8), made(Run("large"), 0.9, width_ratio=0.5)
    worse = made(Run("as small, but worse"), 0.75)
    for floor, expected in ((0.7, "small is the smallest"), (0.85, "large is the smallest"), (0.95, "no run reaches")):
        said = outcome.findings(replace(TINY, floor=floor), [worse, large, small])
        assert said[0] == "torch: large has the best test accuracy, 0.900."
        assert said[1].startswith(f"torch: {expected}")
    said = outcome.findings(replace(TINY, floor=None), [small, replace(large, backend="jax")])
    assert [words.partition(" has")[0] for words in said] == ["torch: small", "jax: large"]  # each by itself
    alone = replace(TINY, floor=None, runs=TINY.runs[:1])
    assert outcome.findings(alone, [small]) == ["torch: small reaches the test accuracy 0.800."]


# The command


@needs_backend
def test_the_command_writes_a_page_with_notes_traps_and_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "STUDIES", (TINY,))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "study-tiny-quick"
    options = ["--quick", "--backend", BACKENDS[0]]
    for _ in range(2):  # the second takes everything from the first
        with pytest.raises(SystemExit) as stopped:
            main(["study", "tiny", *options, "--json", str(tmp_path / "study.json")])
        assert stopped.value.code == 0, "no row is lost"
    printed = capsys.readouterr().out
    assert "sigmoid" in printed
    assert "finished before" in printed
    page = (folder / "report.html").read_text()
    for words in (
        "A note &lt;of&gt; ours.",
        "A trap &amp; its end.",
        outcome.QUICK,
        "<svg",
        "published: test accuracy",
        "its rate",
    ):
        assert words in page
    assert "src=" not in page
    found = json.loads((tmp_path / "study.json").read_text())
    assert found["quick"]
    assert [row[0] for row in found["tables"][0]["rows"]] == ["sigmoid", "ReLU"]
    assert (folder / "figure2.svg").is_file()


@needs_backend
def test_a_long_study_says_how_long_it_will_take_and_a_lost_row_is_status_1(tmp_path, monkeypatch, capsys):
    wild = replace(TINY, runs=(*TINY.runs, Run("wild", {**TINY.runs[1].changes, "learning_rate": 1e30})))
    monkeypatch.setattr(experiments, "STUDIES", (wild,))
    command = ["study", "tiny", "--backend", BACKENDS[0], "--epochs", "1", "--out", str(tmp_path / "out")]
    for said in ("timing 2 steps of each of 3 runs", "timing 2 steps of each of 1 runs"):  # the lost one goes on
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 1
        printed = capsys.readouterr().out
        assert said in printed
        assert re.search(r"this study will take about \d+ s; stopped, it goes on where it was", printed)
        assert "LOST: wild" in printed
    assert [duration.spoken(seconds) for seconds in (0.2, 45, 720, 12000)] == ["1 s", "45 s", "12 min", "3 h 20 min"]


@needs_backend
def test_studies_of_the_same_networks_share_them(tmp_path, monkeypatch, capsys):
    one, two = (
        replace(TINY, name=name, networks="both", source=f"the text {name}", runs=TINY.runs[:1])
        for name in ("one", "two")
    )
    monkeypatch.setattr(experiments, "STUDIES", (one, two))
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        with pytest.raises(SystemExit) as stopped:
            main(["study", name, "--quick", "--backend", BACKENDS[0]])
        assert stopped.value.code == 0
    assert "finished before" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "study-both-quick",
        "study-one-quick",
        "study-two-quick",
    }


def test_the_studies_that_share_their_networks_train_the_same():
    shared = [study for study in experiments.STUDIES if study.networks]
    assert [study.name for study in shared] == ["feature-maps", "dense"]
    for quick in (False, True):
        first, second = (recipes_of(study, quick=quick) for study in shared)
        assert first == second


def test_every_study_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["study"])
    printed = capsys.readouterr().out
    assert [line.split()[0] for line in printed.splitlines()] == ["study", *studies.registry()]
