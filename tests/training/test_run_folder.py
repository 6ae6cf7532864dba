"""Run folders: what is written reads back, a kill at any moment leaves a whole checkpoint, damage is noticed."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import positive, small, some_optimizers, some_schedules
from triptych import zoo
from triptych.backend.execution import PRECISIONS
from triptych.data.batches import Augmentation
from triptych.spec import records
from triptych.training import models, recipes, run_folder
from triptych.training.checkpoint import Checkpoint, State
from triptych.training.recipe import Recipe, identity
from triptych.training.run_folder import Epoch
from triptych.utils.errors import TriptychError
from triptych.weights import initializers, store

RECIPE = Recipe("test", architecture="lenet", data="synthetic", epochs=3)
NAMES = tuple(f"pattern {number}" for number in range(10))


class Killed(BaseException):
    """What SIGKILL would do, as an exception."""


def epoch(number: int) -> Epoch:
    return Epoch(number, 8 * number, "torch", 2.0 / number, 0.5, 2.5, 0.4, 1.25, 400.0, (2.25, 2.0 / number))


def checkpoint(number: int) -> Checkpoint:
    model = initializers.draw(zoo.build("lenet"), seed=number)
    state = State(epoch=number, step=8 * number, input=(1, 28, 28), class_names=NAMES, recipe=identity(RECIPE))
    return Checkpoint(state, model, {"conv1.weight": model["conv1.weight"] * 2})


def save(folder: Path, number: int) -> None:
    run_folder.save(folder, [epoch(n + 1) for n in range(number)], checkpoint(number))


def same(left: Checkpoint, right: Checkpoint) -> bool:
    arrays = [(a, b) for a, b in ((left.model, right.model), (left.optimizer, right.optimizer))]
    equal = all(a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a) for a, b in arrays)
    return equal and (left.epoch, left.step) == (right.epoch, right.step)


@pytest.fixture
def run(tmp_path):
    """A run folder with two finished epochs."""
    folder = run_folder.make_folder(tmp_path / "run")
    run_folder.write_recipe(folder, RECIPE)
    save(folder, 1)
    save(folder, 2)
    return folder


def test_what_is_saved_reads_back(run):
    assert run_folder.read_recipe(run) == RECIPE
    assert run_folder.read_epochs(run) == [epoch(1), epoch(2)]
    loaded = run_folder.load(run)
    assert same(loaded, checkpoint(2))
    assert not same(loaded, checkpoint(1))
    files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    parts = ("model.safetensors", "optimizer.safetensors", "state.json")
    kept = ("checkpoint", "checkpoint-00000008")
    assert files == {"recipe.json", "metrics.jsonl", *(f"{place}/{part}" for place in kept for part in parts)}


def test_metrics_are_one_json_object_per_epoch(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    fields = "epoch step backend train_loss train_accuracy test_loss test_accuracy seconds images_per_second"
    assert all(list(line) == [*fields.split(), "losses", "first_step"] for line in lines)


@pytest.mark.parametrize("before", [1, 2])
def test_a_kill_at_any_moment_of_saving_leaves_a_whole_checkpoint(tmp_path, monkeypatch, before):
    """Kills the save before its every change of the disk; then the next save is killed, too, at every moment."""
    left = -1  # how many more changes before the kill

    def counted(change):
        def wrapper(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == -1:
                raise Killed
            return change(*args, **kwargs)

        return wrapper

    for place, name in ((os, "replace"), (os, "fsync"), (shutil, "rmtree"), (Path, "rename"), (Path, "mkdir")):
        monkeypatch.setattr(place, name, counted(getattr(place, name)))

    def attempt(folder: Path, number: int, moment: int) -> bool:
        nonlocal left
        left = moment
        try:
            save(folder, number)
        except Killed:
            return False
        finally:
            left = -1
        return True

    start = tmp_path / "start"
    start.mkdir()
    for number in range(1, before + 1):
        save(start, number)
    moments = 0
    while True:
        folder = tmp_path / f"{moments}"
        shutil.copytree(start, folder)
        finished = attempt(folder, before + 1, moments)
        loaded = run_folder.load(folder)
        assert any(same(loaded, checkpoint(number)) for number in (before, before + 1)), f"killed at change {moments}"
        assert len(run_folder.read_epochs(folder)) >= loaded.epoch
        for second in range(4, 16, 2):
            attempt(folder, loaded.epoch + 1, second)
            assert run_folder.load(folder) is not None, f"killed at change {moments}, then at {second}"
        save(folder, 7)
        assert same(run_folder.load(folder), checkpoint(7))
        others = {path.name for path in folder.iterdir()} - {"metrics.jsonl", "checkpoint"}
        assert [name for name in others if not name.startswith("checkpoint-")] == []
        assert len(others) == 1
        if finished:
            break
        moments += 1
    assert moments >= 16  # else the kills were not where the work is


# --- damage ----------------------------------------------------------------------------------------------------------


def test_beside_a_manifest_of_somebody_elses_nothing_is_written(tmp_path):
    (tmp_path / store.MANIFEST).write_text("[]")
    with pytest.raises(TriptychError, match="is damaged"):
        store.save(tmp_path / "model.safetensors", {"weight": np.zeros(1, np.float32)})
    assert [file.name for file in tmp_path.iterdir()] == [store.MANIFEST]


def test_without_a_manifest_a_file_must_still_be_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    for content in (pickle.dumps({"weight": 1}), b"", b"\x10\0\0\0\0\0\0\0{}"):
        path.write_bytes(content)
        with pytest.raises(TriptychError, match="is no safetensors file"):
            store.load(path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        *(("metrics.jsonl", text) for text in ("{", "[]\n", '{"epoch": 1}\n', '{"losses": 3}\n', "\xff")),
        *(("recipe.json", text) for text in ("", "{", "[]", "{}", '{"name": 1}', "\xff")),
    ],
)
def test_damaged_text_is_refused_by_its_name(run, file, text):
    (run / file).write_bytes(text.encode("latin-1"))
    with pytest.raises(TriptychError, match=Path(file).name):
        _ = run_folder.read_recipe(run), run_folder.read_epochs(run), run_folder.load(run)


def test_a_run_without_a_finished_epoch_has_no_model(tmp_path):
    folder = run_folder.make_folder(tmp_path / "run")
    run_folder.write_recipe(folder, RECIPE)
    assert run_folder.load(folder) is None
    with pytest.raises(TriptychError, match=r"no finished epoch.*--resume"):
        models.load_run(folder)


# --- recipes ---------------------------------------------------------------------------------------------------------

some_recipes = st.builds(
    Recipe,
    name=st.text(max_size=9),
    architecture=st.sampled_from(sorted(zoo.registry())),
    data=st.text(max_size=9),
    network=st.builds(
        zoo.Options,
        classes=st.integers(0, 999),
        input=st.tuples(*(st.integers(0, 999),) * 3),
        width_ratio=positive,
        dense_width=st.none() | st.integers(1, 4096),
        head=st.none() | st.sampled_from(["paper", "small"]),
    ),
    batch_size=st.integers(1, 4096),
    epochs=st.integers(1, 999),
    learning_rate=positive,
    optimizer=some_optimizers,
    test_batch_size=st.integers(0, 99),
    schedule=some_schedules,
    initializer=st.sampled_from(["native", "normal:0.01", *initializers.NAMES]),
    augmentation=st.builds(Augmentation, crop_padding=st.integers(0, 8), flip=st.booleans(), colour=small),
    mean=st.lists(positive, max_size=3).map(tuple),
    std=st.lists(positive, max_size=3).map(tuple),
    precision=st.sampled_from(PRECISIONS),
    seed=st.integers(),
)


@given(some_recipes)
def test_recipes_survive_json(recipe):
    assert records.decode(json.loads(json.dumps(records.encode(recipe))), Recipe) == recipe


@pytest.mark.parametrize("recipe", recipes.RECIPES.values(), ids=lambda recipe: recipe.name)
def test_named_recipes_build_and_survive_a_run_folder(recipe, tmp_path):
    run_folder.write_recipe(tmp_path, recipe)
    assert run_folder.read_recipe(tmp_path) == recipe
    zoo.build_with(recipe.architecture, recipe.network.filled(10, (1, 0, 0)))


def test_a_recipe_of_an_older_version_is_one_clear_line(tmp_path):
    values = {"name": "old", "architecture": "lenet", "height": 28, "width": 28, "optimizer": {"momentum": 0.5}}
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    with pytest.raises(TriptychError, match=r"/recipe.json is no recipe .* written by an older triptych;"):
        run_folder.read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schedule", {}, "schedule: {} is not Constant or Step"),
        ("schedule", None, "schedule: null is not"),
        ("schedule", {"record": "Stop"}, "schedule: "),
        ("schedule", {"record": "SGD", "momentum": 0.9}, "schedule: "),
        ("schedule", {"record": "Step", "every": 4}, "schedule: missing or unknown in Step: 'factor', 'per'"),
        ("optimizer", {"record": "Adam", "momentum": 0.9}, "optimizer: missing or unknown in Adam"),
        ("network", {"classes": 10}, "network: missing or unknown in Options"),
        ("epochs", "3", 'epochs: "3" is not int'),
        ("epochs", 0, "--epochs 0 must be at least 1"),
        ("learning_rate", None, "learning_rate: null is not float"),
    ],
)
def test_a_recipe_with_a_wrong_value_names_its_place(field, value, words, tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(records.encode(RECIPE) | {field: value}))
    with pytest.raises(TriptychError, match=re.escape(words)) as refused:
        run_folder.read_recipe(tmp_path)
    assert str(refused.value).startswith(f"{file} is no recipe")
