"""`bench --scaling`: what is varied, what is asked of each process, what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from marks import needs_backend
from triptych.__main__ import main
from triptych.backend import registry
from triptych.bench import growth, measure, worker
from triptych.bench.tasks import Ours, Task, repeated
from triptych.data import load, storage
from triptych.zoo import Options, build

FIRST = registry.installed()[:1]


class Clockwork:
    """In place of a worker: a step takes a second for each image, and every image has a MiB."""

    def __init__(self, task: Task) -> None:
        self.task, self.asked, self.closed = task, [], False

    def ask(self, command: str) -> dict[str, float]:
        self.asked.append(command)
        images = self.task.recipe.batch_size * self.task.steps
        memory = {"peak_memory": images << 20, "own_memory": images << 19, "peak_device_memory": None}
        return {"images": images, "seconds": images / 2, "cpu_seconds": 1.0} | memory

    def close(self) -> None:
        self.closed = True


def test_one_thing_varies_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Clockwork] = []

    def start(task: Task) -> Clockwork:
        made.append(Clockwork(task))
        return made[-1]

    points = growth.measure(measure.RECIPE, ("a", "b"), steps=3, rounds=4, start=start)  # type: ignore[arg-type]
    assert all(each.closed for each in made)
    assert [point.backend for point in points] == ["a"] * (len(points) // 2) + ["b"] * (len(points) // 2)
    by_axis = {axis: [point.value for point in points if point.axis == axis] for axis in {p.axis for p in points}}
    depths = tuple(growth.DEPTHS.values())
    wanted = dict(zip(("batch size", "resolution", "depth", "images"), (
        growth.BATCH_SIZES, growth.RESOLUTIONS, depths, growth.IMAGES), strict=True))  # fmt: skip
    assert by_axis == {axis: list(values) * 2 for axis, values in wanted.items()}
    for point, each in zip(points, made, strict=True):
        recipe, kind = each.task.recipe, "fed" if point.axis == "images" else "training"
        assert each.asked == ["first", *[kind] * 4, "facts"]
        assert point.images_per_second == (2.0,) * 4
        assert point.seconds_per_step == recipe.batch_size / 2
        assert point.own_memory << 1 == point.peak_memory
        if point.axis == "resolution":
            assert recipe.network.input[1:] == (point.value, point.value)
        assert (recipe.batch_size == point.value) == (point.axis == "batch size" or point.value == 64)
        assert each.task.images == (point.value if point.axis == "images" else 0)
    columns, rows = growth.table(points)
    assert len(rows) == len(points)
    assert rows[0] == ("a", "batch size", "16", "2", "2 to 2", "8000.0", "48", "24")
    assert len(columns) == len(rows[0])
    drawn = growth.figure(points)
    assert drawn.startswith("<svg")
    assert all(axis in drawn for axis in wanted)


@needs_backend
@pytest.mark.usefixtures("here")
def test_batches_of_a_mapped_set_are_trained_on() -> None:
    task = Task(replace(measure.RECIPE, architecture="lenet", network=Options()), FIRST[0], images=1000)
    subject = Ours(task, load("synthetic"))
    train = subject.session.dataset.train
    assert len(train) == 1000
    assert storage.is_mapped(train.images)
    assert (train.images[512:1000] == load("synthetic").train.images[:488]).all()
    assert worker.answer(subject, "fed", load("synthetic"))["images"] == task.steps * 64
    assert worker.memory()["own_memory"] <= worker.memory()["peak_memory"]


def test_images_come_again_with_their_labels() -> None:
    split = load("synthetic").train
    more = repeated(split, 1300)
    assert (more.images[1024:1300] == split.images[:276]).all()
    assert (more.labels[512:1024] == split.labels).all()


@needs_backend
def test_the_command_draws_and_tells(here: Path, monkeypatch, capsys) -> None:
    for name in ("BATCH_SIZES", "RESOLUTIONS", "IMAGES"):
        monkeypatch.setattr(growth, name, ())
    monkeypatch.setattr(growth, "DEPTHS", {"vgg11": 11})
    with pytest.raises(SystemExit) as ended:
        main(
            ["bench", "--scaling", "g.svg", "--backends", *FIRST, "--steps", "1", "--rounds", "2", "--resolution", "32"]
        )
    assert ended.value.code == 0
    assert "depth" in capsys.readouterr().out
    assert (here / "g.svg").read_text().startswith("<svg")
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--scaling", "g.svg", "--backends", *FIRST, "--vs", "textbook", "--json"])
    assert ended.value.code == 2
    assert "--vs and --scaling do not go together" in capsys.readouterr().err


@needs_backend
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("g.png",), "--scaling g.png is written as SVG; call it g.svg"),
        (("g.svg", "--tuned"), "--tuned and --scaling do not go together"),
        (("g.svg", "--arch", "lenet", "--input", "1x28x28"), "--scaling, depth 11: layer 'block5.pool'"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(options, words, monkeypatch, capsys) -> None:
    monkeypatch.setattr(worker.Worker, "__init__", lambda *given: pytest.fail("a process was started"))
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--scaling", *options, "--backends", *FIRST])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_network_with_an_input_of_its_own_keeps_it() -> None:
    spec = replace(measure.RECIPE, architecture="x", spec=build("lenet"))
    axes = [axis for axis, *_ in growth.tasks(spec, FIRST[0] if FIRST else "", "cpu", 1)]
    assert "resolution" not in axes
    assert "batch size" in axes


def test_points_are_json() -> None:
    point = growth.Point("a", "images", 3, (1.0, 2.0), 0.5, 9, 4)
    assert json.loads(json.dumps(growth.as_dicts([point])))[0]["images_per_second"] == [1.0, 2.0]
