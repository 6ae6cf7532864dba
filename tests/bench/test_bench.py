"""`bench`: what it times, in which order, and what it says of it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from marks import every_backend, needs_backend
from triptych import data, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.backend.execution import Device
from triptych.bench import measure
from triptych.training import loop
from triptych.training.recipe import vary
from triptych.utils.errors import TriptychError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIRST = ("--backends", *registry.installed()[:1])
TINY = ("--arch", "lenet", "--batch-size", "8", "--steps", "1", "--rounds", "3")


pytestmark = pytest.mark.usefixtures("here")


class Clockwork:
    """A backend of known speed: a training step takes `seconds`, for which `read` waits, a batch of inference half of
    that, the first ones ten times as long."""

    def __init__(
        self, name: str, seconds: float, clock: list[float], turns: list[str], loss: float, batch_size: int
    ) -> None:
        self.name, self.seconds, self.clock, self.turns = name, seconds, clock, turns
        self.loss, self.batch_size = loss, batch_size
        self.trained = self.predicted = 0
        self.queued = 0.0

    def step(self, images, labels, rates, number, *, gather=None, masks=None):
        assert number == self.trained
        assert len(images) == len(labels) == self.batch_size
        self.trained += 1
        self.turns.append(self.name)
        self.queued += self.seconds * (10 if number < measure.WARM_UP else 1)

    def read(self, handles):
        self.clock[0], self.queued = self.clock[0] + self.queued, 0.0
        return np.full((len(handles), 2), self.loss)

    def predict(self, images):
        self.clock[0] += self.seconds / 2 * (1 if self.predicted else 10)
        self.predicted += 1

    def devices(self):
        return [Device("cuda:0", True, "another"), Device("cpu", True, f"the processor of {self.name}")]

    def versions(self):
        return {self.name: "1.0"}

    def peak_memory(self, device):
        return 12


@pytest.fixture
def time_of(monkeypatch):
    """`time_of(a=0.1, b=0.2)`: a measurement of backends with these seconds per step, and whose turn it was."""

    def time_of(
        loss: float = 1.0, steps: int = 2, batch_size: int = 64, **seconds: float
    ) -> tuple[measure.Bench, list[str]]:
        clock, turns = [0.0], []
        made = [Clockwork(name, value, clock, turns, loss, batch_size) for name, value in seconds.items()]
        recipe = replace(measure.RECIPE, batch_size=batch_size)
        monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
        monkeypatch.setattr(loop, "start", lambda made, *_, **__: type("Session", (), {"trainer": made}))
        monkeypatch.setattr(measure.os, "getloadavg", lambda: (3.5, 0.0, 0.0))
        return measure.measure(recipe, data.load("synthetic"), made, steps=steps, rounds=3), turns

    return time_of


def test_what_was_narrowed_is_said() -> None:
    def of(arch: str, **options: object) -> str:
        recipe = vary(measure.RECIPE, architecture=arch, **options)
        architecture = zoo.build(arch, input=(1, *recipe.network.input[1:]), classes=10)
        return measure.narrowed(measure.Bench(recipe, architecture, "cpu", 1, [], 0.0))

    assert of("vgg11") == "channels / 8 (--width-ratio 1), 64x64 pixels for 224x224 (--resolution 224)"
    assert of("vgg11", width_ratio=1.0, size=(224, 224)) == ""


def test_speeds_are_images_per_second_without_the_warm_up(time_of):
    found, _ = time_of(a=0.1, b=0.2)
    for row, seconds in zip(found.rows, (0.1, 0.2), strict=True):
        assert row.training == pytest.approx([64 / seconds] * 3)
        assert row.inference == pytest.approx([128 / seconds] * 3)
    columns, rows = measure.table(found)
    assert [row[columns.index("ratio")] for row in rows] == ["1.00", "0.50"]
    assert rows[1] == ("b", "b 1.0", "320", "320 to 320", "0.50", "640", "640 to 640", "0.50")
    facts = measure.as_dict(found)
    assert facts["rows"][1]["training"]["ratio"] == pytest.approx(0.5)
    assert (facts["rows"][1]["device"], facts["rows"][1]["peak_memory"]) == ("cpu: the processor of b", 12)
    assert facts["load_before"] == 3.5
    assert (facts["input"], facts["batch_size"], facts["steps"], facts["rounds"]) == ([1, 64, 64], 64, 2, 3)


def test_the_backends_take_turns_and_the_order_changes(time_of):
    _, turns = time_of(a=0.1, b=0.2)
    warm_up, rounds = turns[: 2 * measure.WARM_UP], turns[2 * measure.WARM_UP :]
    assert "".join(warm_up) == "aabb"
    assert "".join(rounds) == "aabb" + "bbaa" + "aabb"


def test_a_median_and_not_a_mean(time_of):
    found, _ = time_of(a=0.1)
    found.rows[0].training[1] = 1e9  # somebody stopped the clock
    assert measure.as_dict(found)["rows"][0]["training"]["images_per_second"] == pytest.approx(640)
    assert measure.table(found)[1][0][2:5] == ("640", "640 to 1000000000", "1.00")


def test_a_batch_may_be_larger_than_the_set(time_of):
    found, _ = time_of(a=0.1, batch_size=600)
    assert found.rows[0].training == pytest.approx([6000] * 3)


def test_a_loss_that_is_no_number_and_no_rounds_are_refused(time_of):
    for loss in (float("nan"), float("inf")):
        with pytest.raises(TriptychError, match="the loss is"):
            time_of(loss=loss, a=0.1)
    with pytest.raises(TriptychError, match="--steps 0 must be at least 1"):
        time_of(steps=0, a=0.1)


@every_backend
def test_on_every_backend(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--backends", name, *TINY, "--json", "bench.json"])
    shown = capsys.readouterr().out
    found = json.loads(Path("bench.json").read_text())
    (row,) = found["rows"]
    assert (found["arch"], row["backend"], row["training"]["ratio"]) == ("lenet", name, 1)
    assert row["device"].startswith("cpu")
    for kind in ("training", "inference"):
        assert len(row[kind]["rounds"]) == 3
        assert row[kind]["images_per_second"] == sorted(row[kind]["rounds"])[1] > 0
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
    ],
)
def test_bad_use_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", *(() if "--backends" in arguments else FIRST), *arguments])
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


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
