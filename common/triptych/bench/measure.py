"""Speeds of backends against each other and against their textbooks' loops: the same network, start and batches, each
subject in a process of its own, timed in turns."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from triptych.bench import accuracy
from triptych.bench.accuracy import NONE, Gate
from triptych.bench.tasks import KINDS, Task
from triptych.bench.worker import Worker
from triptych.optim.optimizers import SGD
from triptych.spec.layers import Architecture, Dropout, walk
from triptych.training.recipe import Recipe
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
SAME_LOSS = {"bf16": 3e-2, "fp16": 1e-2}  # relative; the textbook's Pillow rounds resized pixels to whole grey levels
FP32_LOSS = 5e-3


@dataclass
class Speeds:
    """One subject: by kind, images per second and the processor's seconds per image of every turn; `first` is its first
    step, with compilation: loss (of a step without dropout if it says so) and seconds from nothing to the loss read,
    its warm-up included. `products` are FLOP/s of the best matrix product of every turn; `accuracies` those of the
    gate's trainings."""

    task: Task
    first: dict[str, Any] = field(default_factory=dict)
    images_per_second: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds_per_image: dict[str, list[float]] = field(default_factory=dict)
    products: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    accuracies: list[float] = field(default_factory=list)

    def add(self, kind: str, answer: dict[str, float]) -> None:
        """Note one turn."""
        if answer["images"]:
            self.images_per_second.setdefault(kind, []).append(answer["images"] / answer["seconds"])
            self.cpu_seconds_per_image.setdefault(kind, []).append(answer["cpu_seconds"] / answer["images"])


@dataclass(frozen=True)
class Bench:
    """What was timed, under which conditions, and the rows in the order in which they were asked for. `load` is the
    machine's mean number of running processes over the minute before: what else it had to do."""

    recipe: Recipe
    architecture: Architecture
    device: str
    steps: int
    rounds: int
    rows: list[Speeds]
    load: float
    gate: Gate = NONE


def measure(
    recipe: Recipe,
    architecture: Architecture,
    backends: Sequence[str],
    *,
    against: Sequence[str] = (),
    tuned: bool = False,
    device: str = "cpu",
    steps: int = 5,
    rounds: int = 10,
    kinds: Sequence[str] = KINDS,
    gate: Gate = NONE,
    tell: Callable[[str], None] = lambda line: None,
    start: Callable[[Task], Worker] = Worker,
) -> Bench:
    """Time `steps` training steps, as many batches of the other kinds, and an epoch of each backend, round by round;
    then of the textbooks of the backends in `against`. Afterwards, one after the other, a first step without dropout
    where there is one, whose loss is then the one that is compared, and the trainings of the `gate`.

    In turns, and every second round in reverse order, so that what else the machine does falls on all alike. Raises
    TriptychError for numbers below 1, and where a subject fails or its loss is not finite.
    """
    check_count("--steps", steps)
    check_count("--rounds", rounds)
    load = os.getloadavg()[0]
    tasks = [Task(recipe, name, device, steps) for name in backends]
    plain = replace(recipe, precision="fp32")
    tasks += [Task(plain, name, device, steps, peer=True, tuned=tuned) for name in against]
    rows, workers = [Speeds(task) for task in tasks], []
    try:
        for row in rows:  # one after the other: the first step is timed, too
            tell(f"{row.task.name}: first step")
            workers.append(start(row.task))
            row.first = workers[-1].ask("first")
        pairs = list(zip(rows, workers, strict=True))
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for row, worker in pairs if number % 2 == 0 else reversed(pairs):
                for kind in kinds:
                    row.add(kind, worker.ask(kind))
                row.products += [flops] if (flops := worker.ask("product")["flops"]) else []
        for row, worker in pairs:
            row.facts = worker.ask("facts")
    finally:
        for worker in workers:
            worker.close()
    if len(rows) > 1 and any(isinstance(layer, Dropout) for _, layer in walk(architecture.layers)):
        for row in rows:  # each draws its own masks
            row.first |= {"loss": loss_without_dropout(row.task, start, tell), "without_dropout": True}
    for row in rows:
        row.accuracies = [accuracy_of(each, start, tell) for each in gate.tasks(row.task)]
    return Bench(recipe, architecture, device, steps, rounds, rows, load, gate)


def loss_without_dropout(task: Task, start: Callable[[Task], Worker], tell: Callable[[str], None]) -> float:
    """Of the first step, in a process of its own."""
    tell(f"{task.name}: first loss without dropout")
    worker = start(replace(task, recipe=replace(task.recipe, dropout=0.0)))
    try:
        return float(worker.ask("first")["loss"])
    finally:
        worker.close()


def accuracy_of(task: Task, start: Callable[[Task], Worker], tell: Callable[[str], None]) -> float:
    """Of one training, in a process of its own."""
    tell(f"{task.name}: training for the accuracy, seed {task.recipe.seed}")
    worker = start(task)
    try:
        worker.ask("first")
        return float(worker.ask("accuracy")["accuracy"])
    finally:
        worker.close()


def differs(row: Speeds, other: Speeds) -> str:
    """What of two subjects is not the same, so that no ratio of them is a speed-up; empty if nothing is."""
    if not same_start(row, other):
        return "other loss"
    return "" if accuracy.same(row.accuracies, other.accuracies) else "other accuracy"


def same_start(row: Speeds, other: Speeds) -> bool:
    """Whether the first losses are one."""
    allowed = max(SAME_LOSS.get(each.task.recipe.precision, FP32_LOSS) for each in (row, other))
    one, two = float(row.first["loss"]), float(other.first["loss"])
    return abs(one - two) <= allowed * abs(two)
