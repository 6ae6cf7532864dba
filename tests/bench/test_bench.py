"""`bench`: what it times, in which order, and what it says of it."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from marks import every_backend, needs_backend
from triptych import data, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.bench import flops, measure, report, tasks
from triptych.bench.accuracy import Gate, trained
from triptych.bench.tasks import Task
from triptych.bench.worker import Worker
from triptych.spec.layers import Architecture, Conv, Dense, Flatten, ReLU
from triptych.training.recipe import vary
from triptych.utils.errors import TriptychError
from triptych.zoo import Options

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIRST = ("--backends", *registry.installed()[:1])
TINY = ("--arch", "lenet", "--batch-size", "8", "--steps", "1", "--rounds", "3")


pytestmark = pytest.mark.usefixtures("here")


ARCHITECTURE = zoo.build("lenet")


class Clockwork:
    """In place of a worker: an epoch takes a second, other kinds their own time; every second turn is twice as slow.
    Its training reaches its part of `accuracies`, less a thousandth per seed."""

    def __init__(
        self, task: Task, turns: list[str], losses: dict[str, float], accuracies: dict[str, float] | None = None
    ) -> None:
        self.accuracy = (accuracies or {}).get(task.name, 0.9)
        self.task, self.turns = task, turns
        self.loss = losses.get(task.name, 2.5)
        self.asked = 0
        self.closed = False

    def ask(self, command):
        if command == "first":
            loss = 2.25 if self.task.recipe.dropout == 0 else self.loss
            return {"loss": loss, "seconds": 7.0, "cpu_seconds": 9.0}
        if command == "facts":
            facts = {"versions": {self.task.backend: "1.0"}, "device": "cpu: a processor", "peak_memory": 2**20}
            return facts | {"peak_memory_of_a_child": 2**19}
        if command == "accuracy":
            assert (self.task.recipe.epochs, self.task.recipe.learning_rate) == (2, 0.1)
            return {"accuracy": self.accuracy - 0.001 * self.task.recipe.seed}
        if command == "product":
            return {"flops": 0.0 if self.task.peer else 1e9}
        if self.task.peer and command == "inference":
            return {"images": 0}
        if command == "preparation":
            self.asked += 1
            self.turns.append(self.task.name)
        seconds = {"preparation": 0.5, "training": 2.0, "epoch": 1.0, "inference": 0.25}[command]
        slower = 4 if self.task.peer else 2 if self.asked == 2 else 1
        return {"images": 100, "seconds": slower * seconds, "cpu_seconds": seconds}

    def close(self):
        self.closed = True


@pytest.fixture
def time_of(monkeypatch):
    """`time_of("a", "b", against=...)`: a measurement of subjects of known speed, and whose turn it was."""

    def time_of(*names: str, losses: dict[str, float] | None = None, accuracies=None, network=None, **options):
        turns: list[str] = []
        workers: list[Clockwork] = []

        def start(task):
            workers.append(Clockwork(task, turns, losses or {}, accuracies))
            return workers[-1]

        monkeypatch.setattr(measure.os, "getloadavg", lambda: (3.5, 0.0, 0.0))
        architecture = zoo.build(network) if network else ARCHITECTURE
        found = measure.measure(measure.RECIPE, architecture, names, rounds=3, start=start, **options)
        assert all(worker.closed for worker in workers)
        return found, turns

    return time_of


def test_speeds_are_medians_with_their_range(time_of):
    found, _ = time_of("a")
    facts = report.as_dict(found)
    (row,) = facts["rows"]
    assert row["training"]["rounds"] == [50, 25, 50]
    assert row["training"]["images_per_second"] == 50
    assert (row["training"]["p10"], row["training"]["p90"]) == (pytest.approx(30), 50)
    assert row["training"]["cpu_seconds_per_image"] == pytest.approx(0.02)
    assert row["training"]["of_best_product"] == pytest.approx(flops.of_training(ARCHITECTURE) * 50 / 1e9)
    assert row["first_step"]["seconds"] == 7.0
    assert (facts["load_before"], facts["steps"], facts["rounds"], facts["batch_size"]) == (3.5, 5, 3, 64)
    assert report.as_csv(found).splitlines()[1] == "a,preparation,0,200.0,0.005"


def test_subjects_take_turns_and_the_order_changes(time_of):
    _, turns = time_of("a", "b")
    assert turns == ["a", "b", "b", "a", "a", "b"]


def test_a_backend_is_held_against_its_own_textbook(time_of):
    found, _ = time_of("a", "b", against=["b"])
    assert report.as_dict(found)["against_textbook"] == {"b": {"preparation": 4, "training": 4, "epoch": 4}}
    columns, rows = report.table(found)
    ratios = {row[:2]: row[columns.index("ratio")] for row in rows}
    assert ratios["b", "training"] == "1.00"
    assert ratios["b textbook", "training"] == "0.25"
    assert ("b textbook", "inference") not in ratios
    assert "b against its textbook's loop: preparation 4.00x, training 4.00x, epoch 4.00x" in report.footnotes(found)


def test_no_ratio_counts_where_the_first_losses_differ(time_of):
    found, _ = time_of("a", "b", against=["a"], losses={"a textbook": 2.6, "b": 2.505})
    facts = report.as_dict(found)
    assert [row["same_start"] for row in facts["rows"]] == [True, True, False]
    assert [row["training"]["ratio"] for row in facts["rows"]] == [1, 1, None]
    assert facts["against_textbook"] == {"a": {}}
    assert "the first losses differ (2.5000 and 2.6000)" in report.footnotes(found)[-1]


def test_the_losses_that_are_compared_are_without_dropout(time_of):
    """Every framework draws its own masks."""
    found, _ = time_of("a", against=["a"], losses={"a": 2.0}, network="vgg11")
    assert [row.first["loss"] for row in found.rows] == [2.25, 2.25]
    assert "loss 2.2500 without dropout" in report.footnotes(found)[0]
    assert report.as_dict(found)["against_textbook"]["a"]["training"] == 4
    alone, _ = time_of("a", losses={"a": 2.0}, network="vgg11")
    assert alone.rows[0].first == {"loss": 2.0, "seconds": 7.0, "cpu_seconds": 9.0}


def test_what_is_timed_may_be_chosen(time_of):
    found, _ = time_of("a", against=["a"], kinds=("training",))
    assert [list(row.images_per_second) for row in found.rows] == [["training"], ["training"]]
    assert report.as_dict(found)["against_textbook"] == {"a": {"training": 4}}


def test_no_ratio_counts_where_the_accuracies_differ(time_of):
    gate = Gate(seeds=3, epochs=2, learning_rate=0.1)
    accuracies = {"a": 0.9, "b": 0.9031, "b textbook": 0.9029}
    found, _ = time_of("a", "b", against=["b"], gate=gate, accuracies=accuracies)
    facts = report.as_dict(found)
    assert [row["differs"] for row in facts["rows"]] == ["", "other accuracy", ""]
    assert facts["rows"][0]["accuracies"] == pytest.approx([0.9, 0.899, 0.898])
    assert facts["gate"]["seeds"] == 3
    columns, rows = report.table(found)
    assert {row[0]: row[columns.index("ratio")] for row in rows if row[1] == "training"} == {
        "a": "1.00",
        "b": "other accuracy",
        "b textbook": "0.25",
    }
    assert facts["against_textbook"]["b"]["training"] == 4
    notes = report.footnotes(found)
    assert (
        "a: test accuracy 0.8990 (0.9000, 0.8990, 0.8980) after 2 epochs at 0.1, 3 seeds; the same are means within "
        "0.003" in notes
    )
    found, _ = time_of("b", against=["b"], gate=gate, accuracies=accuracies | {"b textbook": 0.7})
    assert "b against its textbook's loop: the accuracies differ, so no ratio counts" in report.footnotes(found)


@every_backend
def test_both_trainings_reach_the_same(name, monkeypatch):
    monkeypatch.setattr(registry.load_benchmark(name), "WORKERS", 0, raising=False)  # no fork beside JAX's threads
    layers = (Conv("conv", 8, (5, 5), stride=(2, 2)), ReLU("relu"), Flatten("flat"), Dense("dense", 10))
    spec = Architecture("small", (1, 28, 28), 10, layers, source="")
    recipe = replace(measure.RECIPE, network=Options(), spec=spec, data="fashion-mnist-mini")
    gate = Gate(seeds=1, epochs=2, learning_rate=0.01)
    dataset = data.load(recipe.data)
    dataset = replace(dataset, train=part(dataset.train, 1920), test=part(dataset.test, 500))
    (task,) = gate.tasks(Task(recipe, name))
    ours, theirs = trained(task, dataset), trained(replace(task, peer=True), dataset)
    assert ours == pytest.approx(theirs, abs=0.01)  # five images: float32 in another order
    assert ours > 0.4


def part(split: data.Split, count: int) -> data.Split:
    """The first images."""
    return data.Split(split.images[:count], split.labels[:count])


def test_what_was_narrowed_is_said() -> None:
    def of(arch: str, **options: object) -> str:
        recipe = vary(measure.RECIPE, architecture=arch, **options)
        architecture = zoo.build(arch, input=(1, *recipe.network.input[1:]), classes=10)
        return report.narrowed(measure.Bench(recipe, architecture, "cpu", 1, 1, [], 0.0))

    assert of("vgg11") == "channels / 8 (--width-ratio 1), 64x64 pixels for 224x224 (--resolution 224)"
    assert of("vgg11", width_ratio=1.0, size=(224, 224)) == ""


def test_bad_numbers_are_refused(time_of):
    with pytest.raises(TriptychError, match="--steps 0 must be at least 1"):
        time_of("a", steps=0)


@needs_backend
def test_a_worker_that_fails_says_why():
    task = Task(replace(measure.RECIPE, data="nothing"), registry.installed()[0])
    worker = Worker(task)
    with pytest.raises(TriptychError, match="unknown data set 'nothing'"):
        worker.ask("first")
    with pytest.raises(TriptychError, match="ended with status"):
        worker.ask("training")
    worker.close()


def test_a_loss_that_is_no_number_is_refused():
    with pytest.raises(TriptychError, match="the loss is"):
        tasks.check([1.0, float("nan")])


@every_backend
def test_on_every_backend(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--backends", name, *TINY, "--vs", "textbook", "--json", "bench.json", "--csv", "bench.csv"])
    shown = capsys.readouterr().out
    found = json.loads(Path("bench.json").read_text())
    row, peer = found["rows"]
    assert (found["arch"], row["backend"], row["training"]["ratio"]) == ("lenet", name, 1)
    assert (peer["subject"], peer["same_start"]) == (f"{name} textbook", True)
    assert row["device"].startswith("cpu")
    assert row["peak_memory"] > 2**25
    for kind in tasks.KINDS:
        assert len(row[kind]["rounds"]) == 3
        assert row[kind]["images_per_second"] == sorted(row[kind]["rounds"])[1] > 0
    assert len(Path("bench.csv").read_text().splitlines()) == 1 + 3 * (4 + 3)
    assert f"{row['training']['images_per_second']:.0f}" in shown
    assert next(iter(row["versions"].values())) in shown


@needs_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "0"), "--rounds 0 must be at least 1"),
        (("--steps", "1.5"), "is not a whole number"),
        (("--arch", "vgg12"), "unknown architecture"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--backends", "keras"), "unknown backend"),
        (("--vs", "caffe"), "unknown --vs 'caffe'"),
        (("--kinds", "training,sleep"), "unknown --kinds 'sleep'"),
        (("--kinds", ","), "unknown --kinds ''"),
        (("--kinds", "epoch", "--scaling", "a.svg"), "--kinds and --scaling do not go together"),
        (("--epochs", "2"), "--epochs is of the trainings of --seeds; give both"),
        (("--seeds", "2", "--learning-rate", "nan"), "--learning-rate nan must be above 0"),
        (("--seeds", "2", "--scaling", "a.svg"), "--seeds and --scaling do not go together"),
    ],
)
def test_bad_use_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *(() if "--backends" in arguments else FIRST), *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_page_of_speeds(time_of, monkeypatch, here, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import speed_page

    names = {target.run for target in speed_page.TARGETS}
    assert all(re.search(rf"bench .?{name.split('-')[0]}", (BENCHMARKS / "speed.sh").read_text()) for name in names)
    found, _ = time_of("torch", "jax", against=["torch", "jax"], losses={"jax textbook": 3.5})
    for run in ("vgg11-96", "vgg11-96-step"):
        Path(f"{run}.json").write_text(json.dumps(report.as_dict(found)))
    timed = "\tElapsed (wall clock) time (h:mm:ss or m:ss): 2:35.00\n\tMaximum resident set size (kbytes): 5000000\n"
    Path("locate.txt").write_text(f"torch - reference, vgg16, fp64\n  no difference: structure\n{timed}")
    speed_page.main(".")
    lines = capsys.readouterr().out.splitlines()
    assert "| VGG-11/4, dense 1024, batch 128, 96x96, epoch | torch | 1.7x | 4.00x | met |" in lines
    assert "| preparing at 96x96, processor time | torch | 8x | 1.00x | not met |" in lines
    assert "| memory, VGG-11/4 at 96x96 (at most) | torch | 1.1x | 0.67x | met |" in lines
    assert "| VGG-11/4, dense 1024, batch 128, 96x96, step | jax | 1.6x | not run | |" in lines  # another loss
    assert "5.12 GB (6 asked)." in lines
    assert "`locate --arch vgg16 --input 3x224x224`: 2:35.00 (3 minutes asked), " in lines
    assert "| torch textbook | epoch | 25 | 25 to 25 | 10.000 |  |" in lines


@needs_backend
def test_the_benchmark_of_several_architectures(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import throughput

    options = [*TINY[2:], "--backends", registry.installed()[0]]
    throughput.main(["lenet", "--", *options])
    text = capsys.readouterr().out
    assert "## lenet" in text
    assert f"triptych bench --arch lenet {' '.join(options)}`" in text
    assert "of 3 rounds of 1 steps" in text
    assert text.count(f"| {registry.installed()[0]} |") == 1
    with pytest.raises(SystemExit, match="vgg12 could not be timed"):
        throughput.main(["vgg12", "--", *options])
    sys.modules.pop("throughput")
