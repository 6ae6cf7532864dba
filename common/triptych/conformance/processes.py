"""The level `processes`: twenty steps that several processes make together equal twenty that one makes alone.

The backend's own dropout, crops and flips, batch norm, and a last batch that is no multiple of the processes: what a
training by several gets wrong without an error. Run as a program, it is one of the processes.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.backend.execution import exact
from triptych.backend.group import ALONE, Group
from triptych.conformance.case import BATCH, Case, make_case
from triptych.conformance.chaos import FACTOR, TWINS, judge_pair, neighbour
from triptych.conformance.compare import Check, compare, problem, worst
from triptych.conformance.trajectory import (
    AUGMENTATION,
    BUDGET,
    FLOOR,
    LOSSES,
    RIGHT,
    Arrays,
    Trajectory,
    make_trajectory,
)
from triptych.conformance.updates import MOMENTUM
from triptych.data.batches import feed, plan
from triptych.spec import records
from triptych.spec.layers import Architecture
from triptych.training.distributed.launch import launch
from triptych.training.distributed.membership import one_of
from triptych.training.distributed.shares import cut
from triptych.training.scoring import totals
from triptych.utils.errors import TriptychError
from triptych.weights.initializers import Parameters

LEVEL = "processes"
STEPS = 20
IMAGES = 3 * BATCH - 1
SCORE = "loss and right answers of a test"
RATIO = "losses' distance, in what one unit in the last place does"
PROGRAM = ("-m", "triptych.conformance.processes")
OUT = "arrays.npz"


@dataclass(frozen=True)
class Assignment:
    """What every process is told."""

    backend: str
    architecture: Architecture
    precision: str
    learning_rate: float
    seed: int


@dataclass(frozen=True)
class ProcessesRun:
    """One backend's checks, in the precision that they were made in; `refused`: why not in float64."""

    DERIVED: ClassVar = ("passed",)

    backend: str
    precision: str
    checks: tuple[Check, ...]
    refused: str = ""

    @property
    def passed(self) -> bool:
        """Every check passed, and there is one."""
        return bool(self.checks) and all(check.passed for check in self.checks)


@dataclass(frozen=True)
class SharedRun:
    """What every backend's training by `count` processes is beside one process."""

    DERIVED: ClassVar = ("passed",)

    count: int
    runs: tuple[ProcessesRun, ...]

    @property
    def passed(self) -> bool:
        """Every backend's did, and there is one."""
        return bool(self.runs) and all(run.passed for run in self.runs)


def check_shared(architecture: Architecture) -> None:
    """Raises TriptychError for a network without classes."""
    if not architecture.classes:
        raise TriptychError(f"--processes trains on labels, and '{architecture.name}' has no classes")


def run_shared(backends: Sequence[Backend], architecture: Architecture, count: int, seed: int = 0) -> SharedRun:
    """`judge` of every backend."""
    return SharedRun(count, tuple(judge(backend, architecture, count, seed) for backend in backends))


def judge(backend: Backend, architecture: Architecture, count: int, seed: int = 0) -> ProcessesRun:
    """Hold `count` processes against one: in float64, or, where the backend refuses that for several, in float32 by the
    losses. Raises TriptychError for a network without classes."""
    check_shared(architecture)
    case = make_case(architecture, seed)
    rate = make_trajectory(case, STEPS).learning_rate
    task = Assignment(backend.name, architecture, "fp64", rate, seed)
    try:
        observed = together(backend, task, count)
    except TriptychError as refused:
        if "fp64" not in str(refused):
            return ProcessesRun(backend.name, "fp64", (problem(LEVEL, "(all)", str(refused)),))
        task = Assignment(backend.name, architecture, "fp32", rate, seed)
        checks = judge_losses(backend, task, case, together(backend, task, count))
        return ProcessesRun(backend.name, "fp32", tuple(checks), str(refused))
    return ProcessesRun(backend.name, "fp64", tuple(judge_arrays(steps(backend, task, ALONE), observed)))


def judge_arrays(expected: Arrays, observed: Arrays) -> list[Check]:
    """One check per array: `BUDGET` of its scale, which is at least `FLOOR` of the largest array's."""
    most = max(float(np.abs(value).max(initial=0)) for value in expected.values())
    scales = {name: max(float(np.abs(value).max(initial=0)), FLOOR * most) for name, value in expected.items()}
    return compare(LEVEL, expected, observed, {name: BUDGET * scale for name, scale in scales.items()})


def judge_losses(backend: Backend, task: Assignment, case: Case, observed: Arrays) -> list[Check]:
    """The losses' distance from one process, by what one unit in the last place does to one process (see `chaos`)."""
    starts = [None, *(neighbour(case, twin) for twin in range(TWINS))]
    alone = [np.asarray(steps(backend, task, ALONE, start)[LOSSES], np.float64) for start in starts]
    several = [np.asarray(observed[LOSSES], np.float64)]
    distance = judge_pair("one", "several", {"one": alone, "several": several})
    if distance.verdict == "undecided":
        return [problem(LEVEL, LOSSES, "nothing can be said: runs of one process are strangers from the start")]
    return [Check(LEVEL, RATIO, distance.ratio, FACTOR, 1.0)]


def together(backend: Backend, task: Assignment, count: int, program: Sequence[str] = PROGRAM) -> Arrays:
    """The arrays of `steps`, of process 0 of `count`. Raises TriptychError with what went wrong in one of them."""
    with tempfile.TemporaryDirectory() as folder:
        file, meeting = Path(folder) / "task.json", Path(folder) / "processes"
        file.write_text(json.dumps(records.encode(task)))
        meeting.mkdir()
        launch(backend.members(count, meeting), (*program, str(file)))
        with np.load(Path(folder) / OUT, allow_pickle=False) as made:
            return dict(made)


def steps(backend: Backend, task: Assignment, group: Group, start: Parameters | None = None) -> Arrays:
    """Losses, right answers, parameters, statistics, the optimiser's state and a test after a group's `STEPS` steps."""
    case = make_case(task.architecture, task.seed)
    trajectory = Trajectory(case, task.learning_rate, STEPS)
    network = backend.build(task.architecture, execution=exact(task.precision, "full"))
    backend.from_canonical(network, case.parameters if start is None else start)
    trainer = backend.Trainer(network, MOMENTUM, trajectory.transform, task.seed, group=group)
    stored, labels = trajectory.images()
    stored, labels = stored[:IMAGES], labels[:IMAGES]
    epochs = range(-(-STEPS // -(-IMAGES // BATCH)))
    batches = [batch for epoch in epochs for batch in plan(task.seed, epoch, IMAGES, BATCH, AUGMENTATION)]
    parts = cut(batches[:STEPS], group, 1)
    fed = feed(stored, labels, [batch for batch, _ in parts], AUGMENTATION)
    rates = MOMENTUM.rates(task.learning_rate, MOMENTUM.momentum)
    handles = [
        trainer.step(given, right_answers, rates, number, gather=gather, shares=parts[number][1])
        for number, (given, right_answers, gather) in enumerate(fed)
    ]
    losses, right = trainer.read(handles).T
    trainer.settle()
    mine = group.part_of(IMAGES)
    score = group.gather(totals(trainer.predict(stored[mine]).astype(float), labels[mine])).sum(0)
    return {LOSSES: losses, RIGHT: right, SCORE: score, **backend.to_canonical(network), **trainer.state()}


def as_dict(shared: SharedRun) -> list[dict[str, Any]]:
    """Every backend's as `conform --json` has it: the worst check."""
    fields = ("backend", "precision", "passed", "refused")
    return [
        {name: getattr(run, name) for name in fields} | {"worst": records.encode(worst(run.checks))}
        for run in shared.runs
    ]


def main(file: Path) -> None:
    """One of the processes: `python -m triptych.conformance.processes TASK`."""
    task = records.decode(json.loads(file.read_text()), Assignment)
    backend = registry.load(task.backend)
    group = backend.join("cpu", 1)
    with one_of(group):
        backend.apply_execution(exact(task.precision, "full"), "cpu")
        arrays = steps(backend, task, group)
        if group.rank == 0:
            np.savez(file.with_name(OUT), allow_pickle=False, **arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
