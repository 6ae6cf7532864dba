"""The training loop on every backend: the same steps everywhere, and no end of it loses or changes anything."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import AtOnce, Silent
from marks import NO_FRAMEWORK
from triptych import data, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.cli.options import NetworkOptions
from triptych.cli.run_options import RunOptions
from triptych.data import Dataset, Split, batches
from triptych.data.batches import Augmentation
from triptych.optim.optimizers import SGD
from triptych.optim.schedules import Constant, OneCycle, Plateau
from triptych.training import keeping, loop, models, recipes, run_folder, saving, sessions
from triptych.training.recipe import Recipe, build_architecture, identity, start_name
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted
from triptych.weights import initializers

BACKENDS = registry.installed()
if not BACKENDS:
    pytest.skip(NO_FRAMEWORK, allow_module_level=True)
every_backend = pytest.mark.parametrize("name", BACKENDS)
LENET = Recipe("lenet", architecture="lenet", data="synthetic", batch_size=32, epochs=2, learning_rate=0.1, seed=3)
LENET = replace(LENET, optimizer=SGD(momentum=0.9, weight_decay=1e-3))
VGG = Recipe(
    "vgg",
    network=zoo.Options(input=(0, 32, 32), width_ratio=16, head="small"),
    batch_size=32,
    epochs=2,
    learning_rate=0.02,
)
VGG = replace(VGG, augmentation=Augmentation(4, True), optimizer=SGD(momentum=0.9))
CROP_AND_FLIP = Augmentation(crop_padding=3, flip=True)


@pytest.fixture(scope="module", autouse=True)
def at_once():
    """That another thread saves is the subject of test_saving."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "ThreadPoolExecutor", AtOnce)
        yield


@pytest.fixture(scope="module")
def dataset():
    """The first of the synthetic images: three steps an epoch, all of one size, because JAX compiles every size."""
    return first_images(96)


def first_images(count: int) -> Dataset:
    whole = data.load("synthetic")
    train, test = (Split(split.images[:count], split.labels[:count]) for split in (whole.train, whole.test))
    return Dataset("synthetic", train, test, whole.class_names)


def fit(name, recipe, dataset, folder, after=None, resume=False):
    session = sessions.start(registry.load(name), recipe, dataset, resumed=folder if resume else None)
    keeping.keep_in(session, folder)
    loop.fit(session, Silent(after))
    return session


def losses(session) -> list[float]:
    return [loss for epoch in session.epochs for loss in epoch.losses]


def assert_same_end(resumed, whole):
    """The same losses, parameters and velocity, to the bit."""
    assert losses(resumed) == losses(whole)
    assert len(losses(whole)) == 3 * whole.recipe.epochs
    one, other = run_folder.load(resumed.folder), run_folder.load(whole.folder)
    for part in ("model", "optimizer"):
        left, right = getattr(one, part), getattr(other, part)
        assert left.keys() == right.keys() != set()
        assert [path for path in left if not np.array_equal(left[path], right[path])] == []


# VGG, for its dropout, on one backend: JAX compiles it for a quarter of a minute.
@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        *(pytest.param(name, LENET, id=f"{name}-lenet") for name in BACKENDS),
        pytest.param(BACKENDS[0], VGG, id=f"{BACKENDS[0]}-vgg"),
    ],
)
def test_an_interrupted_run_resumes_to_the_same_bits(name, recipe, dataset, tmp_path):
    whole = fit(name, recipe, dataset, tmp_path / "whole")
    with pytest.raises(Interrupted, match="SIGTERM; 1 finished epochs are kept in"):
        fit(name, recipe, dataset, tmp_path / "part", lambda epoch: signal.raise_signal(signal.SIGTERM))
    assert [epoch.epoch for epoch in run_folder.read_epochs(tmp_path / "part")] == [1]
    assert_same_end(fit(name, recipe, dataset, tmp_path / "part", resume=True), whole)


def test_a_resumed_run_remembers_the_tests_of_its_schedule(dataset, tmp_path):
    """The rate falls in the third epoch because of the first two, and the run was stopped in between."""
    recipe = replace(LENET, epochs=3, schedule=Plateau(patience=0, threshold=1.0))
    whole = fit(BACKENDS[0], recipe, dataset, tmp_path / "whole")
    with pytest.raises(Interrupted, match="2 finished epochs"):
        fit(BACKENDS[0], recipe, dataset, tmp_path / "part", lambda e: e.epoch == 2 and signal.raise_signal(15))
    assert_same_end(fit(BACKENDS[0], recipe, dataset, tmp_path / "part", resume=True), whole)
    constant = fit(BACKENDS[0], replace(recipe, schedule=Constant()), dataset, tmp_path / "constant")
    assert losses(constant)[:7] == losses(whole)[:7]
    assert not set(losses(constant)[7:]) & set(losses(whole)[7:])


def test_a_signal_in_the_last_moment_is_not_swallowed(dataset, tmp_path):
    """Else `compare` would go on with the next backend."""
    with pytest.raises(Interrupted) as stopped:
        fit(BACKENDS[0], LENET, dataset, tmp_path, lambda e: e.epoch == 2 and signal.raise_signal(signal.SIGINT))
    assert stopped.value.exit_status == 130
    assert len(run_folder.read_epochs(tmp_path)) == run_folder.load(tmp_path).epoch == 2


# --- across backends -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exact_runs(dataset, tmp_path_factory):
    """Per backend: an uninterrupted float64 run with augmentation, and a copy of its folder after the first epoch."""
    # One cycle: learning rate and momentum change in every step, of an SGD that was made without momentum.
    optimizer = replace(LENET.optimizer, momentum=0.0)
    recipe = replace(LENET, precision="fp64", augmentation=CROP_AND_FLIP, optimizer=optimizer, schedule=OneCycle())
    found = {}
    for name in BACKENDS:
        folder = tmp_path_factory.mktemp(name)
        copy = folder.with_name(f"{name}-first")

        def keep(epoch, folder=folder, copy=copy):
            if epoch.epoch == 1:
                shutil.copytree(folder, copy)

        found[name] = fit(name, recipe, dataset, folder, keep), copy
    return found


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(BACKENDS, 2)))
def test_backends_take_the_same_steps(first, second, exact_runs):
    one, other = np.array([losses(exact_runs[name][0]) for name in (first, second)])
    assert (abs(one - other) <= 1e-12 * abs(one)).all()
    assert len(set(one)) == len(one)
    accuracies = [[(e.train_accuracy, e.test_accuracy) for e in exact_runs[n][0].epochs] for n in (first, second)]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize(("first", "second"), list(itertools.product(BACKENDS, repeat=2)))
def test_any_backend_continues_a_run(first, second, exact_runs, dataset, tmp_path):
    whole, copy = exact_runs[first]
    folder = shutil.copytree(copy, tmp_path / "run")
    resumed = fit(second, whole.recipe, dataset, folder, resume=True)
    assert [epoch.backend for epoch in run_folder.read_epochs(folder)] == [first, second]
    np.testing.assert_allclose(losses(resumed), losses(whole), rtol=0, atol=1e-9)
    forgetful = np.array(losses(resumed)[3:]) - losses(whole)[3:]
    assert abs(forgetful).max() < 1e-9 < abs(np.diff(losses(whole))).max()


class Recorder:
    """A trainer that trains nothing and notes what it is given."""

    def __init__(self):
        self.seen = []
        self.tested = []

    def step(self, *given, gather, shares):
        assert [share.entire for share in shares] == [True]
        self.seen.append((*given, gather))

    def settle(self):
        pass

    def read(self, handles):
        return np.tile([float(len(self.seen)), 1.0], (len(handles), 1))

    def predict(self, images):
        self.tested.append(len(images))
        return np.eye(10, dtype=np.float32)[np.zeros(len(images), int)]


def test_every_trainer_is_given_the_planned_batches():
    """Whatever the backend: this is the common loop. Seventeen steps and a small last batch, to pass every reading."""
    dataset = first_images(132)
    recipe = replace(LENET, epochs=1, batch_size=8, test_batch_size=100, augmentation=CROP_AND_FLIP)
    recipe = replace(recipe, schedule=OneCycle())
    session = sessions.start(registry.load(BACKENDS[0]), recipe, dataset)
    session.trainer = recorder = Recorder()
    (epoch,) = loop.fit(session, Silent())
    plan = batches.plan(recipe.seed, 0, 132, 8, CROP_AND_FLIP)
    assert [len(batch) for batch in plan] == [8] * 16 + [4]
    for number, (batch, given) in enumerate(zip(plan, recorder.seen, strict=True)):
        images, labels, rates, step, gather = given
        assert np.array_equal(images, dataset.train.images[batch.index])
        assert np.array_equal(labels, dataset.train.labels[batch.index])
        for left, right in zip(gather, batches.gather_indices(batch, 28, 28, 3), strict=True):
            assert np.array_equal(left, right)
        assert (step, rates) == (number, recipe.rates(number, 17))
    assert recorder.tested == [100, 32]
    # Read at once, once more for the pace, then many together.
    assert epoch.losses == (1.0, 2.0) + (17.0,) * 15
    assert epoch.train_loss == pytest.approx((3 * 8 + 17 * 116) / 132)  # a mean over images, not over steps
    assert (epoch.epoch, epoch.step, epoch.train_accuracy, epoch.test_accuracy) == (1, 17, 17 / 132, 14 / 132)


def test_an_architecture_that_is_built_already_is_not_built_again(dataset, tmp_path, monkeypatch):
    architecture = build_architecture(LENET, dataset)
    monkeypatch.setattr(zoo, "build_with", lambda *_: pytest.fail("it is built again"))
    recipe = replace(LENET, epochs=1)
    session = sessions.start(registry.load(BACKENDS[0]), recipe, dataset, architecture=architecture)
    keeping.keep_in(session, tmp_path / "run")
    loop.fit(session, Silent())
    assert run_folder.load(tmp_path / "run").state.input == (1, 28, 28)


def test_native_start_is_each_framework_s_own(dataset):
    def start(name, **changes):
        session = sessions.start(registry.load(name), replace(LENET, **changes), dataset)
        return session.backend.to_canonical(session.network)

    drawn = initializers.draw(build_architecture(LENET, dataset), LENET.seed)
    for name in BACKENDS:
        shared, native, again = start(name), start(name, initializer="native"), start(name, initializer="native")
        other = start(name, initializer="native", seed=4)
        assert all(np.array_equal(shared[path], drawn[path]) for path in drawn), name
        for path in (path for path in drawn if path.endswith("weight")):
            assert np.array_equal(native[path], again[path]), (name, path)
            assert not np.array_equal(native[path], other[path]), (name, path)
            assert not np.allclose(native[path], drawn[path]), (name, path)
    natives = [start(name, initializer="native")["dense1.weight"] for name in BACKENDS]
    assert not any(np.allclose(left, right) for left, right in itertools.combinations(natives, 2))


def test_a_start_that_no_recipe_names_is_the_architecture_s_own(dataset):
    """AlexNet's of 2012 is published: normal, 0.01. Xavier's would be ten times as wide in its first layer."""
    small = zoo.Options(input=(0, 67, 67), width_ratio=16)
    recipe = Recipe("own start", architecture="alexnet_2012", network=small, data="synthetic")
    for chosen, expected in ((recipe, 0.01), (replace(recipe, initializer="normal:0.1"), 0.1)):
        session = sessions.start(registry.load(BACKENDS[0]), chosen, dataset)
        weight = session.backend.to_canonical(session.network)["conv1.weight"]
        assert weight.std() == pytest.approx(expected, rel=0.1)
        named = initializers.draw(session.architecture, 0, initializers.parse(f"normal:{expected}"))
        assert np.array_equal(weight, named["conv1.weight"])


@pytest.mark.parametrize(
    ("recipe", "arch", "init", "expected"),
    [
        ("imagenet-vgg", None, None, "xavier_uniform"),
        ("imagenet-vgg", "alexnet_2012", None, "normal:0.01"),
        ("d2l-vgg", "alexnet_2012", None, "normal:0.01"),  # the recipe's start is VGG's own, and this is another's
        ("d2l-vgg", "alexnet_2012", "xavier_uniform", "xavier_uniform"),
        ("compare", "alexnet_2012", None, "kaiming_uniform"),  # chosen for a short training, whatever the network
        ("d2l-lenet", None, None, "xavier_uniform"),
    ],
)
def test_the_start_of_a_command_is_the_named_one_or_the_spec_s(recipe, arch, init, expected):
    chosen = RunOptions(arch=arch, init=init).apply(recipes.get_recipe(recipe), NetworkOptions(resolution=224))
    assert start_name(chosen, zoo.build(chosen.architecture)) == expected


# --- a loss that is not finite ---------------------------------------------------------------------------------------


def rates_of(folder: Path, learning_rate: float) -> None:
    """The run as if it had been begun with this rate."""
    recipe, found = replace(run_folder.read_recipe(folder), learning_rate=learning_rate), run_folder.load(folder)
    run_folder.write_recipe(folder, recipe)
    changed = replace(found, state=replace(found.state, recipe=identity(recipe)))
    run_folder.save(folder, run_folder.read_epochs(folder), changed, keep=1)


@every_backend
def test_nan_stops_and_keeps_the_epochs_before(name, dataset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_, **__: dataset)
    folder = tmp_path / "run"
    fit(name, replace(LENET, epochs=1), dataset, folder)
    before = models.load_run(folder).parameters
    rates_of(folder, 1e30)
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--backend", name, "--resume", str(folder), "--epochs", "4"])
    error = capsys.readouterr().err
    assert error.startswith(f"triptych: {name}: the loss is ")
    assert error.count("\n") == 1
    assert re.search("at step [45];", error)  # step 3, the second epoch's first, still has the old weights' loss
    assert "1 finished epochs are kept in" in error
    assert [epoch.epoch for epoch in run_folder.read_epochs(folder)] == [1]
    assert all(np.array_equal(value, before[path]) for path, value in models.load_run(folder).parameters.items())
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", str(folder), "--backend", name])


@every_backend
def test_a_last_step_that_breaks_the_network_is_not_saved(name, tmp_path):
    """Its own loss was finite: only the test shows it."""
    recipe = replace(LENET, learning_rate=3e38, epochs=1)
    with pytest.raises(TriptychError, match=r"the loss is (nan|inf) at step 1; .* 0 finished epochs"):
        fit(name, recipe, first_images(32), tmp_path)
    assert run_folder.load(tmp_path) is None


# --- clocks ----------------------------------------------------------------------------------------------------------

CLOCKS = {"stands still": 0, "runs backwards": -1, "jumps": 1e9}


@pytest.mark.parametrize("pace", CLOCKS.values(), ids=list(CLOCKS))
def test_no_clock_breaks_a_training(pace, here, call, monkeypatch):
    ticks = itertools.count(1e6, pace)
    for clock in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, clock, lambda: next(ticks))
    train = ("train", "--recipe", "d2l-lenet", "--data", "synthetic", "--batch-size", "128", "--epochs", "2")
    call(*train, "--save-every", "1s", "--out", "run")
    assert [min(epoch.seconds, epoch.images_per_second) >= 0 for epoch in run_folder.read_epochs(here / "run")] == [
        1,
        1,
    ]
    call("evaluate", "run", "--json")


# --- signals to a process --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [*((name, signal.SIGINT) for name in BACKENDS), (BACKENDS[0], signal.SIGTERM), (BACKENDS[0], signal.SIGKILL)],
)
def test_a_stopped_process_keeps_its_epochs_and_resumes(name, number, tmp_path):
    options = ["--recipe", "d2l-lenet", "--data", "synthetic", "--batch-size", "32", "--learning-rate", "0.1"]
    options += ["--momentum", "0.9", "--weight-decay", "1e-3"]  # as LENET, for which JAX has compiled already
    folder, whole = tmp_path / "part", tmp_path / "whole"
    command = [sys.executable, "-m", "triptych", "train", *options, "--epochs", "5000", "--out", str(folder)]
    command += ["--backend", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stdout.readline().startswith(f"{name} epoch 1/5000: loss")
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    done = len(run_folder.read_epochs(folder))
    if number == signal.SIGKILL:
        assert (process.returncode, error) == (-signal.SIGKILL, "")
        done = run_folder.load(folder).epoch
    else:
        assert process.returncode == 128 + number
        expected = f"triptych: stopped by {number.name}; {done} finished epochs are kept in {folder} "
        assert error.startswith(expected)
        assert error.count("\n") == 1
    assert 1 <= done < 5000
    for target in (["--resume", str(folder)], ["--out", str(whole), *options]):
        with pytest.raises(SystemExit, match="0"):
            main(["train", "--epochs", str(done + 1), "--backend", name, *target])
    resumed, uninterrupted = ([e.losses for e in run_folder.read_epochs(place)] for place in (folder, whole))
    assert resumed == uninterrupted
    one, other = (models.load_run(place).parameters for place in (folder, whole))
    assert all(np.array_equal(one[path], other[path]) for path in other)
    assert run_folder.read_recipe(folder).epochs == done + 1
