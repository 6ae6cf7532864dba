"""How cost grows: time and memory against batch size, resolution, depth and the size of the data set, one backend and
one value after the other, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from triptych.bench.tasks import Task
from triptych.bench.worker import Worker
from triptych.report import figures
from triptych.training import capacity
from triptych.training.recipe import Recipe, vary
from triptych.utils.errors import TriptychError
from triptych.utils.files import told, write_atomically
from triptych.zoo import Options

BATCH_SIZES = (16, 32, 64, 128, 256)
RESOLUTIONS = (32, 48, 64, 96, 128)
DEPTHS = {"vgg11": 11, "vgg13": 13, "vgg16": 16, "vgg19": 19}  # layers with weights
IMAGES = (60_000, 600_000, 6_000_000)
DATA_NETWORK = "lenet"  # small, so that reading counts
COLUMNS = ("backend", "of", "value", "images/s", "p10 to p90", "ms/step", "peak MiB", "own MiB")


@dataclass(frozen=True)
class Point:
    """What was measured at one value of `axis`. `peak_memory`: the most bytes that the process held, pages of mapped
    files included; `own_memory`: what it held in the end without those. `images_per_second`: of every turn."""

    backend: str
    axis: str
    value: int
    images_per_second: tuple[float, ...]
    seconds_per_step: float
    peak_memory: int
    own_memory: int
    peak_device_memory: int | None = None


def tasks(recipe: Recipe, backend: str, device: str, steps: int) -> Iterator[tuple[str, int, Task]]:
    """Every value of every axis, with what is timed at it; what does not vary is the recipe's. A network that is not
    of the zoo has one resolution."""
    for size in BATCH_SIZES:
        yield "batch size", size, Task(replace(recipe, batch_size=size), backend, device, steps)
    for side in RESOLUTIONS if recipe.spec is None else ():
        yield "resolution", side, Task(vary(recipe, input=(0, side, side)), backend, device, steps)
    for name, layers in DEPTHS.items():
        yield "depth", layers, Task(replace(recipe, architecture=name, spec=None), backend, device, steps)
    small = replace(recipe, architecture=DATA_NETWORK, spec=None, network=Options())
    for count in IMAGES:
        yield "images", count, Task(small, backend, device, steps, images=count)


def measure(
    recipe: Recipe,
    backends: Sequence[str],
    *,
    device: str = "cpu",
    steps: int = 5,
    rounds: int = 10,
    tell: Callable[[str], None] = lambda line: None,
    start: Callable[[Task], Worker] = Worker,
) -> list[Point]:
    """Every axis on every backend: `rounds` turns of `steps` training steps; against the number of images, steps on
    batches that are read from all over a mapped file. Raises TriptychError before anything is measured for what cannot
    be built or does not fit into the memory, and where a subject fails."""
    points = []
    for backend in backends:
        planned = list(tasks(recipe, backend, device, steps))
        for axis, value, task in planned:
            with said_of(f"--scaling, {axis} {value:,}"):
                capacity.check_training(task.recipe, device)
        for axis, value, task in planned:
            tell(f"{backend}: {axis} {value:,}")
            worker = start(task)
            try:
                worker.ask("first")
                turns = [worker.ask("fed" if task.images else "training") for _ in range(rounds)]
                facts = worker.ask("facts")
            finally:
                worker.close()
            points.append(_point(backend, axis, value, task, turns, facts))
    return points


@contextmanager
def said_of(what: str) -> Iterator[None]:
    """Errors in here say what they are of."""
    try:
        yield
    except TriptychError as error:
        raise TriptychError(f"{what}: {error}") from None


def _point(
    backend: str, axis: str, value: int, task: Task, turns: Sequence[Mapping[str, float]], facts: Mapping[str, Any]
) -> Point:
    speeds = tuple(turn["images"] / turn["seconds"] for turn in turns)
    seconds = task.recipe.batch_size / float(np.median(speeds))
    device = facts.get("peak_device_memory")
    return Point(backend, axis, value, speeds, seconds, facts["peak_memory"], facts["own_memory"], device)


def as_dicts(points: Sequence[Point]) -> list[dict[str, Any]]:
    """The points as JSON has them."""
    return [asdict(point) for point in points]


def table(points: Sequence[Point]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A row per point: medians over the turns."""
    rows = []
    for point in points:
        median = float(np.median(point.images_per_second))
        low, high = np.percentile(point.images_per_second, (10, 90))
        memory = (f"{size / 2**20:.0f}" for size in (point.peak_memory, point.own_memory))
        speed = (f"{median:.0f}", f"{low:.0f} to {high:.0f}", f"{1e3 * point.seconds_per_step:.1f}")
        rows.append((point.backend, point.axis, f"{point.value:,}", *speed, *memory))
    return COLUMNS, rows


def figure(points: Sequence[Point]) -> str:
    """Images per second and memory against each axis, a line per backend, as an SVG element."""
    from matplotlib.figure import Figure

    axes_of = list(dict.fromkeys(point.axis for point in points))
    names = list(dict.fromkeys(point.backend for point in points))
    drawn = Figure(figsize=(3.2 * len(axes_of), 5.2), layout="constrained")
    panels = drawn.subplots(2, len(axes_of), squeeze=False)
    for column, axis in enumerate(axes_of):
        for name, colour, marker in zip(names, figures.COLOURS, figures.MARKERS, strict=False):
            line = [point for point in points if (point.axis, point.backend) == (axis, name)]
            speeds = [float(np.median(point.images_per_second)) for point in line]
            for row, values in enumerate((speeds, [point.own_memory / 2**20 for point in line])):
                values_of_x = [point.value for point in line]
                panels[row][column].plot(values_of_x, values, color=colour, marker=marker, label=name)
        for row, y in enumerate(("images/s", "own memory, MiB")):
            panel = panels[row][column]
            panel.set(xlabel=axis, ylabel="" if column else y)
            panel.set_ylim(0, 1.08 * panel.dataLim.ymax)
            panel.grid(alpha=0.3)
        if axis == "images":
            for panel in panels[:, column]:
                panel.set_xscale("log")
    panels[0][0].legend()
    return figures.svg(drawn)


def write(points: Sequence[Point], file: Path) -> None:
    """The figure as a file."""
    with told(f"--scaling {file} cannot be written"):
        write_atomically(file, figure(points).encode())
