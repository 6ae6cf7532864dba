"""Throughput of backends against each other: the same network, start and batches, timed in turns."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triptych import zoo
from triptych.backend.contract import Backend, Images, Labels, Trainer
from triptych.data import Dataset
from triptych.optim.optimizers import SGD, Rates
from triptych.spec import analysis
from triptych.spec.layers import Architecture
from triptych.training import loop
from triptych.training.recipe import Recipe, build_architecture
from triptych.utils.errors import TriptychError
from triptych.utils.process import cores, vector_features
from triptych.zoo import Options, check_count

# Small enough for a minute on two cores. The rate is low, so that no loss overflows: special numbers take other times.
RECIPE = Recipe(
    name="bench",
    data="synthetic",
    network=Options(input=(0, 64, 64), width_ratio=8),
    batch_size=64,
    learning_rate=0.001,
    optimizer=SGD(momentum=0.9),
    initializer="kaiming_uniform",
)
WARM_UP = 2  # steps that are not timed: compiling, choosing algorithms, asking for memory


@dataclass
class Speeds:
    """A backend's speeds in images per second, one per round; `device` is what it is, in the backend's words."""

    backend: Backend
    device: str
    training: list[float] = field(default_factory=list)
    inference: list[float] = field(default_factory=list)
    peak_memory: int = 0


@dataclass(frozen=True)
class Bench:
    """What was timed, under which conditions, and the rows in the order in which they were asked for. `load` is the
    machine's mean number of running processes over the minute before: what else it had to do."""

    recipe: Recipe
    architecture: Architecture
    device: str
    steps: int
    rows: list[Speeds]
    load: float


def measure(
    recipe: Recipe,
    dataset: Dataset,
    backends: Sequence[Backend],
    *,
    device: str = "cpu",
    steps: int = 5,
    rounds: int = 5,
    tell: Callable[[str], None] = lambda line: None,
) -> Bench:
    """Time `steps` training steps and as many batches of inference of each backend, round by round.

    In turns, and every second round in reverse order, so that what else the machine does falls on all alike. A step
    is that of a real training: from the stored images in memory to the updated weights. Raises TriptychError
    for numbers below 1, and where the loss is not finite.
    """
    check_count("--steps", steps)
    check_count("--rounds", rounds)
    load = os.getloadavg()[0]
    architecture = build_architecture(recipe, dataset)
    sessions = [loop.start(each, recipe, dataset, device=device, architecture=architecture) for each in backends]
    rows = [Speeds(backend, device_text(backend, device)) for backend in backends]
    index = np.arange(recipe.batch_size) % len(dataset.train)
    images, labels = dataset.train.images[index], dataset.train.labels[index]
    rates = Rates(recipe.learning_rate, recipe.optimizer.momentum)
    pairs = list(zip(sessions, rows, strict=True))
    for session, row in pairs:
        tell(f"{row.backend.name}: warming up")
        train(session.trainer, images, labels, rates, range(WARM_UP))
        infer(session.trainer, images, 1)
    for number in range(rounds):
        tell(f"round {number + 1} of {rounds}")
        first = WARM_UP + number * steps
        for session, row in pairs if number % 2 == 0 else reversed(pairs):
            count = steps * recipe.batch_size
            row.training.append(count / train(session.trainer, images, labels, rates, range(first, first + steps)))
            row.inference.append(count / infer(session.trainer, images, steps))
    for row in rows:
        row.peak_memory = row.backend.peak_memory(device)
    return Bench(recipe, architecture, device, steps, rows, load)


def narrowed(measured: Bench) -> str:
    """What of a network of the zoo is smaller here than in its source; empty if nothing is."""
    options = measured.recipe.network
    if measured.recipe.spec is not None:
        return ""
    (_, *size), (_, *own) = measured.architecture.input, zoo.get_entry(measured.architecture.name).input
    said = [f"channels / {options.width_ratio:g} (--width-ratio 1)"] if options.width_ratio != 1 else []
    if size != own:
        said.append(f"{size[0]}x{size[1]} pixels for {own[0]}x{own[1]} (--resolution {own[0]})")
    return ", ".join(said)


def train(trainer: Trainer, images: Images, labels: Labels, rates: Rates, numbers: range) -> float:
    """Seconds of these steps. Raises TriptychError if a loss is not finite."""
    began = time.perf_counter()
    results = trainer.read([trainer.step(images, labels, rates, number) for number in numbers])
    seconds = time.perf_counter() - began  # `read` has waited for the device
    if not np.isfinite(results).all():
        raise TriptychError(f"the loss is {results[:, 0].tolist()}: such numbers take other times than real ones")
    return seconds


def infer(trainer: Trainer, images: Images, count: int) -> float:
    """Seconds of `count` batches of predictions."""
    began = time.perf_counter()
    for _ in range(count):
        trainer.predict(images)  # returns an array in memory, so it has waited
    return time.perf_counter() - began


def device_text(backend: Backend, name: str) -> str:
    """The device with what the backend says it is."""
    device = next((device for device in backend.devices() if device.name == name), None)
    return f"{name}: {device.reason}" if device is not None and device.reason else name


COLUMNS = ("backend", "versions", "training images/s", "range", "ratio", "inference images/s", "range", "ratio")


def table(bench: Bench) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Medians over the rounds, their ranges, and their ratios to the first row."""
    rows: list[tuple[str, ...]] = []
    for row in as_dict(bench)["rows"]:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        rows.append((row["backend"], versions, *_cells(row["training"]), *_cells(row["inference"])))
    return COLUMNS, rows


def _cells(speed: dict[str, Any]) -> tuple[str, str, str]:
    span = f"{min(speed['rounds']):.0f} to {max(speed['rounds']):.0f}"
    return f"{speed['images_per_second']:.0f}", span, f"{speed['ratio']:.2f}"


def as_dict(bench: Bench) -> dict[str, Any]:
    """The measurement as JSON has it."""
    return {
        "arch": bench.recipe.architecture,
        "input": list(bench.architecture.input),
        "parameters": analysis.totals(bench.architecture).parameters,
        "batch_size": bench.recipe.batch_size,
        "precision": bench.recipe.precision,
        "device": bench.device,
        "steps": bench.steps,
        "rounds": len(bench.rows[0].training),
        "cores": cores(),
        "vector_features": list(vector_features()),
        "load_before": bench.load,
        "rows": [_row(row, bench.rows[0]) for row in bench.rows],
    }


def _row(row: Speeds, first: Speeds) -> dict[str, Any]:
    facts: dict[str, Any] = {"backend": row.backend.name, "versions": row.backend.versions()}
    facts |= {"device": row.device, "peak_memory": row.peak_memory}
    for kind in ("training", "inference"):
        speeds = getattr(row, kind)
        median = statistics.median(speeds)
        ratio = median / statistics.median(getattr(first, kind))
        facts[kind] = {"images_per_second": median, "ratio": ratio, "rounds": speeds}
    return facts
