"""Whether a training learns: the test, what is measured where it does not, and how `train` says it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from helpers import Silent
from marks import every_backend, needs_backend
from triptych import zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.data import synthetic
from triptych.optim.optimizers import SGD
from triptych.reference import network as reference
from triptych.spec.layers import Initializer
from triptych.training import loop, recipes, sessions, watch
from triptych.training.recipe import Recipe, vary
from triptych.training.watch import Chance, Symptoms, Watch, chance_of, dead_share, examine, movements
from triptych.weights import initializers

LN10 = math.log(10)
EVEN = Chance(LN10, 0.1)
BACKENDS = registry.installed()


def watched(losses: list[float], right: float, size: int = 100, chance: Chance = EVEN) -> Watch:
    """A watch that saw these steps, each with so many right answers."""
    watching = Watch(chance, window=len(losses))
    watching.add(np.array([[loss, right] for loss in losses]), [size] * len(losses))
    return watching


@pytest.mark.parametrize(
    ("loss", "right", "stuck"),
    [
        (2.3026, 10, True),  # the textbook's own
        (2.3026, 14, True),  # right by the labels' luck: the loss is at ln(classes) all the same
        (2.20, 14, False),
        (68.8, 10, True),  # Adam on the rate of SGD
        (3.5, 25, False),  # dropout makes a training's loss high, and still it learns
        (1.2, 60, False),
    ],
)
def test_a_training_does_not_learn_at_the_loss_or_the_answers_of_chance(loss: float, right: int, stuck: bool) -> None:
    assert watched([loss] * 20, right).stuck is stuck


@pytest.mark.parametrize(
    ("fall", "right", "stuck"),
    [
        (0.03, 16, False),  # LeNet's sigmoids, when they begin: it is said of no run that is learning by now
        (0.03, 10, True),  # from above chance down to it
        (0.0, 16, True),
        (-0.03, 16, True),
    ],
)
def test_one_that_has_just_begun_to_learn_is_near_chance_and_falls(fall: float, right: int, stuck: bool) -> None:
    scatter = 0.005 * np.random.default_rng(0).standard_normal(40)
    losses = LN10 - 0.005 - fall * (np.arange(40) / 40 - 0.5) + scatter
    watching = watched(losses.tolist(), right)
    assert EVEN.near(watching.loss)
    assert watching.stuck is stuck


def test_nothing_is_said_before_there_are_steps_enough() -> None:
    watching = Watch(EVEN, window=10)
    watching.add(np.array([[LN10, 1.0]] * 9), [10] * 9)
    assert not watching.stuck
    watching.add(np.array([[LN10, 1.0]]), [10])
    assert watching.stuck
    watching.add(np.array([[1.0, 8.0]] * 10), [10] * 10)  # the old ones no longer count
    assert not watching.stuck
    assert watching.first == LN10


def test_chance_is_that_of_the_labels() -> None:
    even = chance_of(np.repeat(np.arange(10), 7))
    assert (even.loss, even.share) == pytest.approx((LN10, 0.1))
    uneven = chance_of(np.array([0] * 9 + [1]))
    assert (uneven.loss, uneven.share) == pytest.approx((0.3250829734, 0.9))
    helped = chance_of(np.repeat(np.arange(10), 7), zoo.build("googlenet", input=(1, 75, 75), classes=10))
    assert helped.loss == pytest.approx(1.6 * LN10)  # two auxiliary losses of 0.3


def test_more_right_answers_than_chance_are_a_matter_of_how_many_images() -> None:
    """Exact tails: P(X >= k) for n trials of 0.1, against 0.001."""
    assert not EVEN.beaten_by(12, 100)
    assert not EVEN.beaten_by(20, 100)  # P = 0.00198
    assert EVEN.beaten_by(21, 100)  # P = 0.00081
    assert EVEN.beaten_by(1200, 10_000)
    assert not EVEN.beaten_by(0, 0)


def test_dead_channels_the_spread_and_the_movement_are_measured() -> None:
    values = np.ones((2, 4, 3, 3))
    values[:, 1] = 0
    values[0, 2] = 0  # alive in the other image
    assert dead_share(values) == 0.25
    assert dead_share(np.array([[0.0, 1.0], [0.0, 0.0]])) == 0.5
    start = {"a.weight": np.ones((2, 2), np.float32), "a.bias": np.zeros(2, np.float32)}
    now = {"a.weight": np.full((2, 2), 1.5, np.float32), "a.bias": np.ones(2, np.float32)}
    assert movements(start, now) == (0.5, 0.5)
    assert movements({"a.bias": start["a.bias"]}, now) is None


def symptoms(**changes: object) -> Symptoms:
    return replace(Symptoms({"relu1": 0.1}, 0.5, 0.5, 2.4, (0.01, 0.1)), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start_spread": 1e-4}, "start is too small"),
        ({"moved": (0.1, 50.0)}, "rate is too large"),
        ({"dead": {"relu1": 0.1, "relu2": 1.0}}, "relu2 has died"),
        ({"first_loss": 205.0}, "start is too large"),
        ({"moved": (1e-6, 1e-5)}, "hardly move"),
        ({}, "none of these stands out"),
        ({"sigmoids": ("a", "b")}, "--optimizer adam"),
        ({"sigmoids": ("a", "b"), "start_spread": 1e-4}, "a quarter of a gradient"),
        ({"sigmoids": ("a", "b"), "moved": (0.1, 50.0)}, "rate is too large"),
    ],
)
def test_the_cause_follows_from_the_measurements(changes: dict[str, object], words: str) -> None:
    assert words in symptoms(**changes).cause(EVEN)


def test_sigmoids_are_told_where_there_is_no_relu() -> None:
    images = synthetic.load().train.images
    for name, count in (("lenet", 4), ("lenet_relu", 0)):
        architecture = zoo.build(name)
        start = initializers.draw(architecture, 0)
        transform = loop.build_transform(Recipe("x", architecture=name), architecture)
        seen = examine(architecture, start, None, images, transform, LN10)
        assert len(seen.sigmoids) == count
        assert any("no ReLU, and 4 sigmoids" in text for text in seen.texts()) is bool(count)


def test_a_start_too_small_and_a_dead_layer_are_seen_in_a_real_network() -> None:
    architecture = zoo.build("vgg11", input=(1, 32, 32), classes=10, width_ratio=16)
    images = synthetic.load().train.images
    transform = loop.build_transform(Recipe("x", architecture="vgg11"), architecture)
    tiny = initializers.draw(architecture, 0, Initializer("normal", 0.01))
    seen = examine(architecture, tiny, tiny, images, transform, LN10)
    assert seen.start_spread is not None
    assert seen.start_spread < 1e-3
    assert "start is too small" in seen.cause(EVEN)
    assert seen.moved == (0.0, 0.0)
    dead = {path: value - 100 if path == "block2.conv1.bias" else value for path, value in tiny.items()}
    seen = examine(architecture, dead, None, images, transform, None)
    assert seen.dead["block2.relu1"] == 1.0
    assert seen.dead["block1.relu1"] < 1.0
    assert "block2.relu1 has died" in seen.cause(EVEN)
    assert any("block2.relu1 100%" in text for text in seen.texts())
    kaiming = initializers.draw(architecture, 0, Initializer("kaiming_uniform"))
    x = loop.watch.preprocess.apply_reference(images[:32], transform)
    assert seen.spread < watch.spread(reference.forward(architecture, kaiming, x).logits)


# The training

STILL = replace(recipes.RECIPES["compare"], data="synthetic", epochs=2, learning_rate=0.0, optimizer=SGD())


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.began: list[tuple[int, int]] = []

    def begin(self, epoch: int, total: int) -> None:
        self.began.append((epoch, total))

    def stuck(self, what: str) -> None:
        self.said.append(what)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few steps, so that the test is quick."""
    monkeypatch.setattr(watch, "AFTER", 6)
    monkeypatch.setattr(Watch, "window", 6)
    monkeypatch.setattr(Watch.__init__, "__defaults__", (6, *Watch.__init__.__defaults__[1:]))


@every_backend
def test_every_backend_says_once_that_it_does_not_learn(name: str, soon: None) -> None:
    recipe = vary(STILL, architecture="lenet", size=(28, 28), width_ratio=1, data="synthetic@train=200,test=20")
    session = sessions.start(registry.load(name), recipe, loop_data(recipe))
    heard = Heard()
    before = session.backend.to_canonical(session.network)
    loop.fit(session, heard)
    assert heard.began == [(1, 7), (2, 7)]
    (said,) = heard.said
    assert said.startswith(f"{name}: does not learn: after ")
    assert "weights hardly move" in said
    assert "rate 0" in said
    after = session.backend.to_canonical(session.network)
    assert all(np.array_equal(before[path], after[path]) for path in before)
    stopped = sessions.start(registry.load(name), recipe, loop_data(recipe))
    with pytest.raises(loop.StuckError, match="0 finished epochs"):
        loop.fit(stopped, Heard(), stop_stuck=True)
    assert stopped.step < 14


def loop_data(recipe: Recipe) -> loop.Dataset:
    from triptych import data

    return data.load(recipe.data)


@needs_backend
def test_one_that_learns_is_left_in_peace(soon: None) -> None:
    recipe = vary(STILL, architecture="lenet_relu", size=(28, 28), width_ratio=1, learning_rate=0.02, epochs=3)
    recipe = replace(recipe, optimizer=SGD(momentum=0.9), batch_size=16)
    session = sessions.start(registry.load(BACKENDS[0]), recipe, loop_data(recipe))
    watch_from, watch.AFTER = watch.AFTER, 60
    try:
        heard = Heard()
        loop.fit(session, heard)
    finally:
        watch.AFTER = watch_from
    assert heard.said == []
    assert session.epochs[0].first_step > 0
    assert session.epochs[1].first_step == 0


@needs_backend
def test_the_command_says_it_and_stops_with_status_1(
    soon: None, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"{tmp_path}/run"
    command = ["train", "--recipe", "compare", "--arch", "lenet", "--data", "synthetic", "--epochs", "1"]
    command += ["--momentum", "0", "--learning-rate", "0", "--stop-stuck", "--backend", BACKENDS[0], "--log-every", "4"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", run])
    assert ended.value.code == 1
    printed = capsys.readouterr().out
    assert "does not learn: after" in printed
    assert "training was stopped, 0 finished epochs are kept" in printed
    with pytest.raises(SystemExit) as ended:
        main([*command, "--out", f"{tmp_path}/other", "--json"])
    assert ended.value.code == 1
    assert "does not learn" in json.loads(capsys.readouterr().out)["does_not_learn"]
