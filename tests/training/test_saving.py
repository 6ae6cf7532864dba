"""Saving while training goes on, within an epoch too; resuming from any checkpoint and after kills to the same bits."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import killed
from helpers import Silent
from marks import ALL, NO_FRAMEWORK, every_backend
from triptych.backend import optimizer_state, registry
from triptych.optim.optimizers import SGD, Adam
from triptych.optim.schedules import OneCycle
from triptych.spec.layers import Architecture, BatchNorm, Dense, Flatten
from triptych.training import checkpoint as checkpoints
from triptych.training import checks, keeping, loop, run_folder, saving, sessions
from triptych.training.loop import Listener
from triptych.training.recipe import Recipe
from triptych.training.saving import Interval, SavePlan
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted

BACKENDS = registry.installed()
if not BACKENDS:
    pytest.skip(NO_FRAMEWORK, allow_module_level=True)
RECIPE = replace(killed.RECIPE, batch_size=32, epochs=2, optimizer=SGD(), schedule=OneCycle(), learning_rate=0.1)
EVERY_STEP = SavePlan(keep=100, every=Interval(steps=1))


def session_of(recipe: Recipe, name: str = BACKENDS[0], resumed: Path | None = None) -> sessions.Session:
    return sessions.start(registry.load(name), recipe, killed.images(), resumed=resumed)


def fit(
    folder: Path, recipe: Recipe, name: str = BACKENDS[0], listener: Listener | None = None, **plan
) -> sessions.Session:
    session = session_of(recipe, name, folder if folder.exists() else None)
    keeping.keep_in(session, folder, replace(EVERY_STEP, **plan))
    loop.fit(session, listener or Silent())
    return session


def end_of(folder: Path) -> tuple[list[tuple[float, ...]], dict[str, bytes]]:
    """Losses, and the bits of weights and optimizer's state."""
    found = run_folder.load(folder)
    assert found is not None
    arrays = {**found.model, **{f"optimizer {name}": value for name, value in found.optimizer.items()}}
    return [e.losses for e in run_folder.read_epochs(folder)], {name: a.tobytes() for name, a in arrays.items()}


# --- within an epoch -------------------------------------------------------------------------------------------------


@every_backend
def test_a_run_resumes_from_each_of_its_checkpoints_to_the_same_bits(name, tmp_path):
    """Three steps an epoch: two of the checkpoints are between epochs, the others within one. For a run whose rates
    change at every step, with dropout's and the augmentation's draws behind it."""
    whole = tmp_path / "whole"
    fit(whole, RECIPE, name)
    places = checkpoints.places(whole)
    assert [checkpoints.read_state(place).step for place in places] == [6, 5, 4, 3, 2, 1]
    assert [len(checkpoints.read_state(place).figures) for place in places] == [0, 2, 1, 0, 2, 1]
    for place in places[1:]:
        part = tmp_path / place.name
        part.mkdir()
        for file in (run_folder.RECIPE, run_folder.METRICS):
            shutil.copy(whole / file, part)
        shutil.copytree(place, part / place.name)
        session = fit(part, RECIPE, name)
        assert session.remark.endswith(f"{place.name} before it is taken: {checkpoints.read_state(place).place}")
        assert end_of(part) == end_of(whole)


def signalled(folder: Path, *numbers: int, **plan: Any) -> sessions.Session:
    """A training to which these signals come in the first step of its second epoch."""
    session = session_of(RECIPE)
    keeping.keep_in(session, folder, replace(EVERY_STEP, **plan))
    step = session.trainer.step

    def stepped(images, labels, rates, number, **named):
        for signal_number in numbers if number == 3 else ():
            signal.raise_signal(signal_number)
        return step(images, labels, rates, number, **named)

    session.trainer.step = stepped
    loop.fit(session, Silent())
    return session


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_saves_the_steps_of_a_run_that_is_saved_within_its_epochs(number, status, tmp_path):
    whole, part, plain = tmp_path / "whole", tmp_path / "part", tmp_path / "plain"
    fit(whole, RECIPE)
    expected = f"stopped by {number.name}; 1 finished epochs and 1 steps of the next are kept in {part}"
    with pytest.raises(Interrupted, match=re.escape(expected)) as stopped:
        signalled(part, number, every=Interval(seconds=3600))
    assert stopped.value.exit_status == status
    assert run_folder.load(part).step == 4
    fit(part, RECIPE)
    assert end_of(part) == end_of(whole)
    with pytest.raises(Interrupted, match="1 finished epochs are kept"):
        signalled(plain, number, every=None)
    assert run_folder.load(plain).step == 3


def test_a_second_signal_ends_at_once_and_what_is_saved_stays(tmp_path):
    with pytest.raises(Interrupted, match=r"stopped by SIGINT$"):
        signalled(tmp_path / "run", signal.SIGINT, signal.SIGINT)
    assert run_folder.load(tmp_path / "run", RECIPE, resuming=True).step == 3


def test_a_hangup_that_is_ignored_stays_so(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup begins a program
    try:
        assert len(signalled(tmp_path / "run", signal.SIGHUP).epochs) == 2
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("200steps", Interval(200)), ("1 step", Interval(1)), ("30s", Interval(0, 30.0)), ("5min", Interval(0, 300.0)),
     ("2h", Interval(0, 7200.0))],
)  # fmt: skip
def test_intervals(text, expected):
    assert saving.parse_interval(text) == expected


@pytest.mark.parametrize("text", ["", "5", "0s", "-1s", "min", "1.5h", "9" * 5000 + "s", "5 minutes", "٣s"])
def test_what_is_no_interval(text):
    with pytest.raises(TriptychError, match="is no interval; write for example 200steps"):
        saving.parse_interval(text)


# --- the thread ------------------------------------------------------------------------------------------------------


class Held:
    """Saves that wait until they are let go, in place of `run_folder.save`."""

    def __init__(self, fail: bool = False) -> None:
        self.go, self.fail = threading.Event(), fail
        self.now = self.most = self.begun = 0
        self.save, self.arrays = run_folder.save, []

    def __call__(self, folder, epochs, checkpoint, keep) -> None:
        self.begun, self.now = self.begun + 1, self.now + 1
        self.most = max(self.most, self.now)
        before = {name: value.copy() for name, value in checkpoint.model.items()}
        assert self.go.wait(60)
        self.arrays.append((before, checkpoint.model))
        self.now -= 1
        if self.fail:
            raise TriptychError("the disk has gone")
        self.save(folder, epochs, checkpoint, keep)


@every_backend
def test_training_goes_on_while_one_checkpoint_is_written_and_does_not_change_it(name, tmp_path, monkeypatch):
    held, seen = Held(), []
    monkeypatch.setattr(run_folder, "save", held)

    class Watcher(Listener):
        def steps(self, epoch, total, losses, images_per_second):
            seen.append((epoch, len(losses), held.begun))
            if (epoch, len(losses)) == (2, 3):  # before the next save is due, which waits for the first
                held.go.set()

        def epoch(self, epoch):
            seen.append(("saved", epoch.epoch))

    recipe = replace(RECIPE, epochs=2)
    fit(tmp_path / "run", recipe, name, Watcher(), every=None)
    trained = [entry for entry in seen if entry[0] == 2]
    assert trained, "the second epoch was trained while the first was written"
    assert all(begun == 1 for _, _, begun in trained)
    assert seen.index(("saved", 1)) > seen.index(trained[-1]), "an epoch is told of when it is saved"
    assert held.most == 1
    assert held.begun == 2
    for before, after in held.arrays:
        assert all(np.array_equal(before[path], after[path]) for path in before)


def test_a_save_that_fails_ends_the_run_with_the_cause(tmp_path, monkeypatch):
    held = Held(fail=True)
    held.go.set()
    monkeypatch.setattr(run_folder, "save", held)
    with pytest.raises(TriptychError, match="the disk has gone"):
        fit(tmp_path / "run", replace(RECIPE, epochs=50))
    assert held.begun == 1
    run_folder.hold(tmp_path / "run").release()  # the lock is free again


# --- kills -----------------------------------------------------------------------------------------------------------


@every_backend
def test_random_kills_lose_and_change_nothing(name, tmp_path):
    """Half a minute of processor time for twelve: each kill is of a training that has begun anew."""
    kills = 67 if ALL else 4
    command = [sys.executable, killed.__file__, name, str(tmp_path), str(kills), "7"]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["kills"] == kills


# --- one writer ------------------------------------------------------------------------------------------------------


def test_a_resume_beside_a_running_training_is_refused(tmp_path):
    refusals = []

    def resume(epoch) -> None:
        with pytest.raises(TriptychError, match=f"run is in use by process {os.getpid()}; wait for its end") as refused:
            session_of(RECIPE, resumed=tmp_path / "run")
        refusals.append(refused)

    fit(tmp_path / "run", RECIPE, listener=Silent(resume))
    assert len(refusals) == 2
    assert session_of(replace(RECIPE, epochs=2), resumed=tmp_path / "run").step == 6


LOCKS = """
import os, sys, time
from pathlib import Path
from triptych.training import run_folder
held = run_folder.claim(Path(sys.argv[1]))
(Path(sys.argv[1]) / "recipe.json").write_text("{}")
print("mine", flush=True)
time.sleep(60)
"""


def claim(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", LOCKS, str(folder)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def test_a_crash_releases_the_lock(tmp_path):
    process = claim(tmp_path / "run")
    assert process.stdout.readline() == "mine\n"
    with pytest.raises(TriptychError, match=f"is in use by process {process.pid}"):
        run_folder.hold(tmp_path / "run")
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / "run" / ".lock").exists()
    run_folder.hold(tmp_path / "run").release()
    assert not (tmp_path / "run" / ".lock").exists()


def test_of_many_that_claim_a_folder_at_once_one_gets_it(tmp_path):
    """In threads, whose locks are as apart as those of processes; each tries as soon as all are there."""
    for number in range(20):
        folder, barrier, got = tmp_path / str(number), threading.Barrier(8), []

        def attempt(folder=folder, barrier=barrier, got=got) -> None:
            barrier.wait()
            try:
                held = run_folder.claim(folder)
            except TriptychError:
                return
            (folder / "recipe.json").write_text("{}")
            got.append(held)

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 1
        got[0].release()


def test_a_folder_that_another_has_used_up_meanwhile_is_refused(tmp_path, monkeypatch):
    """It had it, wrote, and let go, between our look and our lock."""
    make = run_folder.make_folder

    def made(folder: Path) -> Path:
        make(folder)
        (folder / run_folder.RECIPE).write_text("{}")
        return folder

    monkeypatch.setattr(run_folder, "make_folder", made)
    with pytest.raises(TriptychError, match="is already used"):
        run_folder.claim(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [run_folder.RECIPE]


def test_of_many_that_choose_a_name_at_once_each_gets_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    threads = [threading.Thread(target=lambda: names.append(run_folder.new_folder("x"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 8


def test_a_folder_that_holds_a_killed_one_s_beginnings_only_is_free(tmp_path):
    (tmp_path / ".recipe.json.123-4.tmp").write_text("{")
    (tmp_path / ".lock").write_text("123")
    session = session_of(RECIPE)
    keeping.keep_in(session, tmp_path)
    loop.fit(session, Silent())
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


# --- what a checkpoint has to fit to ---------------------------------------------------------------------------------


def change_optimizer(folder: Path, change) -> None:
    found = run_folder.load(folder)
    changed = replace(found, optimizer=change(dict(found.optimizer)))
    run_folder.save(folder, run_folder.read_epochs(folder), changed, keep=1)


SLOT = "mean.conv1.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: {}, "'mean.conv1.weight' (6, 1, 5, 5) is missing"),
        (lambda state: {n: v for n, v in state.items() if n != SLOT}, f"'{SLOT}' (6, 1, 5, 5) is missing"),
        (lambda state: state | {SLOT: np.ones(1, np.float32)}, f"'{SLOT}' has the shape (1,), expected (6, 1, 5, 5)"),
        (lambda state: state | {SLOT: state[SLOT][:5]}, f"'{SLOT}' has the shape (5, 1, 5, 5)"),
        (lambda state: state | {"velocity.conv1.weight": state[SLOT]}, "is of another optimizer or network"),
        (lambda state: state | {SLOT: state[SLOT] * np.nan}, "holds what is no finite number"),
        (lambda state: state | {SLOT: state[SLOT].astype(np.int32)}, "holds what is no finite number"),
        (lambda state: {n: v for n, v in state.items() if n != "count"}, "'count' () is missing"),
        (lambda state: state | {"count": np.asarray(2.5)}, "'count' is 2.5"),
        (lambda state: state | {"count": np.asarray(-3.0)}, "'count' is -3.0"),
        (lambda state: {n.replace("mean", "velocity"): v for n, v in state.items()}, "is missing"),
    ],
)
def test_an_optimizer_s_state_that_does_not_fit_is_refused(change, words, tmp_path):
    recipe = replace(RECIPE, epochs=1, optimizer=Adam(), schedule=killed.RECIPE.schedule)
    fit(tmp_path / "run", recipe, every=None)
    change_optimizer(tmp_path / "run", change)
    with pytest.raises(TriptychError, match=re.escape(words)) as refused:
        session_of(replace(recipe, epochs=2), resumed=tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_what_an_optimizer_remembers_nothing_of_need_not_be_there():
    architecture = session_of(RECIPE).architecture
    expected = optimizer_state.shapes(SGD(momentum=0.9), architecture)
    optimizer_state.check({}, expected, needed=False, where="here")
    with pytest.raises(TriptychError, match="is missing"):
        optimizer_state.check({}, expected, needed=True, where="here")


def test_a_run_goes_on_with_its_own_images_and_class_names_only(tmp_path):
    fit(tmp_path / "run", replace(RECIPE, epochs=1), every=None)
    state, whole = run_folder.load(tmp_path / "run").state, killed.images()
    (train, test), names = (whole.train, whole.test), whole.class_names
    moved = replace(train, images=np.roll(train.images, 1, axis=0))
    others = {
        "training images or labels of 'synthetic' are others": replace(whole, train=moved),
        "test images or labels of 'synthetic' are others": replace(whole, test=replace(test, labels=test.labels[::-1])),
        "class 1 of 'synthetic' is 'x', and was 'pattern 1'": replace(whole, class_names=(names[0], "x", *names[2:])),
        "class 0 of 'synthetic' is 'a', and was 'pattern 0'": replace(whole, class_names=("a", *names)),
    }
    for words, dataset in others.items():
        with pytest.raises(TriptychError, match=re.escape(words)):
            checks.check_data(state, dataset)
    checks.check_data(state, whole)


# --- the last batch --------------------------------------------------------------------------------------------------

SMALL = Architecture("small", (1, 4, 4), 10, (Flatten("flatten"), Dense("one", 8), BatchNorm("norm"), Dense("two", 10)))


@every_backend
def test_a_last_batch_of_one_number_per_channel_is_refused_before_training(name):
    recipe = replace(RECIPE, architecture="small", spec=SMALL, batch_size=95)
    recipe = replace(recipe, network=replace(recipe.network, input=(1, 4, 4), classes=10))
    words = "the last batch of 96 images by 95 would give batch norm 'norm', whose maps are 1x1"
    with pytest.raises(TriptychError, match=re.escape(words)):
        session_of(recipe, name)
    with pytest.raises(TriptychError, match="by 1 would give batch norm"):
        session_of(replace(recipe, batch_size=1), name)
    session_of(replace(recipe, batch_size=94), name)
    session_of(replace(recipe, freeze=("norm.running_*",)), name)


def test_several_processes_share_the_last_batch():
    recipe = replace(RECIPE, batch_size=93)
    checks.check_batches(SMALL, recipe, 96, frozenset(), 2)  # synchronised: over the whole batch
    recipe = replace(recipe, batch_norm="local")
    with pytest.raises(TriptychError, match="of 96 images by 93"):
        checks.check_batches(SMALL, recipe, 96, frozenset(), 2)
    with pytest.raises(TriptychError, match="of 96 images by 93"):
        checks.check_batches(SMALL, replace(RECIPE, batch_size=93, accumulate=2), 96, frozenset(), 2)
    checks.check_batches(SMALL, replace(recipe, batch_size=92), 96, frozenset(), 2)
