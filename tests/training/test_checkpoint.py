"""Checkpoints: every damage is named, and the one before is taken; without one, nothing is changed."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from triptych import zoo
from triptych.spec import records
from triptych.training import checkpoint as checkpoints
from triptych.training import run_folder
from triptych.training.checkpoint import MODEL, OPTIMIZER, STATE, Checkpoint, State
from triptych.training.recipe import Recipe, identity
from triptych.training.run_folder import Epoch
from triptych.utils import files
from triptych.utils.errors import TriptychError
from triptych.weights import initializers, store

RECIPE = Recipe("test", architecture="lenet", data="synthetic", epochs=3)
STEPS = 8  # of an epoch


def checkpoint(step: int) -> Checkpoint:
    epoch, within = divmod(step, STEPS)
    names = tuple(f"pattern {number}" for number in range(10))
    figures = ((2.5, 3.0),) * within
    state = State(
        epoch=epoch, step=step, input=(1, 28, 28), class_names=names, recipe=identity(RECIPE), figures=figures
    )
    model = initializers.draw(zoo.build("lenet"), seed=step)
    return Checkpoint(state, model, {"velocity.conv1.weight": model["conv1.weight"] * 2})


def save(folder: Path, step: int, keep: int = run_folder.KEPT) -> None:
    epochs = [Epoch(n, STEPS * n, "torch", 2.0 / n, 0.5, 2.5, 0.4, 1.25, 400.0, (2.0 / n,)) for n in (1, 2, 3)]
    run_folder.save(folder, epochs[: step // STEPS], checkpoint(step), keep)


def load(folder: Path) -> Checkpoint:
    found = run_folder.load(folder, RECIPE, resuming=True)
    assert found is not None
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run after its first epoch, and three steps of the second."""
    folder = run_folder.make_folder(tmp_path / "run")
    run_folder.write_recipe(folder, RECIPE)
    save(folder, 8)
    save(folder, 11)
    return folder


@pytest.fixture
def other(tmp_path: Path, run: Path) -> Path:
    """The newest checkpoint of another run with the same recipe."""
    folder = tmp_path / "other"
    shutil.copytree(run, folder)
    save(folder, 16)
    return folder / "checkpoint"


def flip_bit(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = {
    "bit": flip_bit,
    "truncated": lambda path, other: path.write_bytes(path.read_bytes()[:-1]),
    "longer": lambda path, other: path.write_bytes(path.read_bytes() + b" "),
    "empty": lambda path, other: path.write_bytes(b""),
    "pickle": lambda path, other: path.write_bytes(pickle.dumps({"a": 1})),
    "removed": lambda path, other: path.unlink(),
    "folder": lambda path, other: (path.unlink(), path.mkdir()),
    "another's": lambda path, other: path.write_bytes((other / path.name).read_bytes()),
}


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, STATE])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_is_taken(run, other, name, damage):
    DAMAGES[damage](run / "checkpoint" / name, other)
    found = load(run)
    assert (found.epoch, found.step) == (1, 8)
    assert np.array_equal(found.model["conv1.weight"], checkpoint(8).model["conv1.weight"])
    # state.json of another run does not fit to the files that are there
    named = MODEL if (name, damage) == (STATE, "another's") else name
    assert str(run / "checkpoint" / named) in found.remark
    assert "checkpoint-00000008 before it is taken: epoch 1, step 8" in found.remark
    DAMAGES["bit"](run / "checkpoint-00000008" / name, other)
    before = contents(run)
    with pytest.raises(TriptychError) as refused:
        load(run)
    text = str(refused.value)
    assert text.startswith(f"no checkpoint in {run} can be used: ")
    assert str(run / "checkpoint-00000008" / name) in text
    assert str(run / "checkpoint" / named) in text
    assert contents(run) == before


def test_a_whole_folder_of_another_run_is_seen(run, other):
    shutil.rmtree(run / "checkpoint")
    shutil.copytree(other, run / "checkpoint")
    found = load(run)  # its metrics are not this run's
    assert found.step == 8
    assert "the beginning of" in found.remark
    assert "metrics.jsonl was altered" in found.remark


def test_every_bit_of_the_state_counts(run):
    path = run / "checkpoint" / STATE
    whole = path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(TriptychError):
                checkpoints.read_state(path.parent)


def test_a_bit_of_the_metrics_leaves_no_checkpoint_of_these_epochs(run):
    flip_bit(run / "metrics.jsonl", run)
    with pytest.raises(TriptychError, match=r"metrics.jsonl was altered.*nothing was changed"):
        load(run)
    assert run_folder.load(run, RECIPE).step == 11, "who only wants the model does not need them"


def test_metrics_ahead_of_the_checkpoint_are_no_damage(run):
    """Killed between the two."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write((run / "metrics.jsonl").read_text().replace('"epoch": 1', '"epoch": 2'))
    assert load(run).remark == ""


def test_a_changed_recipe_is_seen_and_more_epochs_are_none(run):
    assert run_folder.load(run, replace(RECIPE, epochs=9, name="x")).remark == ""
    with pytest.raises(TriptychError, match=r"of another recipe than recipe.json has"):
        run_folder.load(run, replace(RECIPE, learning_rate=0.04))


@pytest.mark.parametrize(
    "change",
    [
        {"epoch": -1}, {"step": -7}, {"step": 10**30}, {"epoch": 2}, {"step": 12}, {"seconds": -1.0},
        {"figures": ((1.0, 1.0),) * 2}, {"epoch": 0, "step": 3},
    ],
)  # fmt: skip
def test_a_state_with_a_right_digest_must_still_fit_the_metrics(run, change):
    path = run / "checkpoint" / STATE
    values = json.loads(path.read_text()) | {"digest": ""} | records.encode(change)
    path.write_text(json.dumps(values | {"digest": records.digest(values)}))
    assert load(run).step == 8


def test_what_was_removed_is_not_begun_anew(run):
    shutil.rmtree(run / "checkpoint")
    found = load(run)
    assert (found.step, found.remark[:24]) == (8, f"{run}/checkpoint is not"[:24])
    shutil.rmtree(run / "checkpoint-00000008")
    with pytest.raises(TriptychError, match="there was one, and it was removed"):
        load(run)
    (run / "metrics.jsonl").unlink()
    assert run_folder.load(run, RECIPE, resuming=True) is None


def test_a_run_that_was_killed_within_its_first_save_begins_anew(tmp_path, monkeypatch):
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "write", kill)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 8)
    assert (tmp_path / "metrics.jsonl").exists()
    assert run_folder.load(tmp_path, resuming=True) is None


def test_so_many_stay_as_one_says_and_the_damaged_do_not(tmp_path):
    folder = run_folder.make_folder(tmp_path / "run")
    for step in (3, 6, 8, 11, 14):
        save(folder, step, keep=3)
    assert [place.name for place in checkpoints.places(folder)] == [
        "checkpoint", "checkpoint-00000011", "checkpoint-00000008",
    ]  # fmt: skip
    flip_bit(folder / "checkpoint" / STATE, folder)
    flip_bit(folder / "checkpoint-00000011" / MODEL, folder)
    assert run_folder.load(folder, resuming=True).step == 8
    save(folder, 11, keep=3)  # the run went on from 8
    assert [checkpoints.read(place).step for place in checkpoints.places(folder)] == [11, 8]
    assert {path.name for path in folder.iterdir()} == {"metrics.jsonl", "checkpoint", "checkpoint-00000008"}
    save(folder, 14, keep=1)
    assert [checkpoints.read(place).step for place in checkpoints.places(folder)] == [14]


def test_the_model_file_alone_is_checked_against_the_state_beside_it(run, other):
    flip_bit(run / "checkpoint" / MODEL, other)
    with pytest.raises(TriptychError, match=r"model.safetensors was altered: its SHA-256"):
        store.load(run / "checkpoint" / MODEL)


def test_who_reads_while_the_next_one_is_saved_gets_one_of_the_two(run, monkeypatch):
    """Between reading the state and the model, a training replaces both."""
    read_state = checkpoints.read_state
    saved = []

    def read(place: Path) -> State:
        state = read_state(place)
        if not saved:
            saved.append(True)
            save(run, 16)
        return state

    monkeypatch.setattr(checkpoints, "read_state", read)
    found = load(run)
    assert (found.step, found.remark) == (16, "")


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_seen_before_anything_is_written(run, monkeypatch):
    before = contents(run)
    monkeypatch.setattr(run_folder, "free_bytes", lambda _: 1000)
    with pytest.raises(TriptychError, match=r"epoch 2, step 16 cannot be saved .*: [\d,]+ bytes are needed, 1,000 are"):
        save(run, 16)
    assert contents(run) == before


@pytest.mark.parametrize("writes", range(4))
def test_a_disk_that_fills_up_meanwhile_leaves_what_was_there(run, monkeypatch, writes):
    """At the first to the fourth file of the save."""
    fsync, left = os.fsync, [writes]

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(files, "sync_folder", lambda _: None)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TriptychError, match=r"No space left on device; [\d,]+ bytes were needed, [\d,]+ are free; the"):
        save(run, 16)
    monkeypatch.undo()
    assert load(run).step == 11
    assert not list(run.rglob("*.tmp"))
    assert len(contents(run)) == len(contents(run / "checkpoint")) * 2 + 2


def test_of_a_folder_that_goes_while_it_is_written_nothing_is_said_to_be_whole(run, monkeypatch):
    def gone(*_):
        shutil.rmtree(run)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(checkpoints, "prepare", gone)
    with pytest.raises(TriptychError, match="No such file or directory; the folder is gone, with what was saved in it"):
        save(run, 9)


def test_a_folder_that_has_gone_is_not_made_again(run):
    shutil.rmtree(run)
    with pytest.raises(TriptychError, match=r"cannot be saved in .*: No such file or directory; the folder is gone"):
        save(run, 16)
    assert not run.exists()


def test_every_name_is_on_the_disk_before_the_one_before_it_is_removed(run, monkeypatch):
    """The order that a loss of power asks for: files, their folder, the run's folder, and only then anything less."""
    events: list[tuple[str, str]] = []
    fsync, rmtree, replaced, rename = os.fsync, shutil.rmtree, os.replace, Path.rename

    def note(kind, act, name):
        def wrapper(*args, **kwargs):
            events.append((kind, name(args[0])))
            return act(*args, **kwargs)

        return wrapper

    def named(descriptor: int) -> str:
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name

    monkeypatch.setattr(os, "fsync", note("fsync", fsync, named))
    monkeypatch.setattr(shutil, "rmtree", note("remove", rmtree, lambda path: Path(path).name))
    monkeypatch.setattr(os, "replace", note("replace", replaced, lambda path: Path(path).name))
    monkeypatch.setattr(Path, "rename", note("rename", rename, lambda path: path.name))
    save(run, 16)
    kinds = [kind for kind, _ in events]
    renamed = max(index for index, kind in enumerate(kinds) if kind == "rename")
    assert events[renamed + 1] == ("fsync", "run")
    assert kinds[renamed + 2 :] == ["remove"] * (len(kinds) - renamed - 2)
    for index, (kind, name) in enumerate(events):
        if kind == "replace":
            assert events[index - 1] == ("fsync", name), "its content is there before its name"
            assert events[index + 1][0] == "fsync"
