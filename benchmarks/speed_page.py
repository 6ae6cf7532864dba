"""The page of speeds, of what `bash benchmarks/speed.sh OUT` left: python benchmarks/speed_page.py OUT > PAGE

What is asked for stands in TARGETS: a run's file, the backend, what is divided by what, and at least how much.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


def _speed(kind: str) -> Callable[[Row, Row], float]:
    return lambda ours, theirs: ours[kind]["images_per_second"] / theirs[kind]["images_per_second"]


def _processor(kind: str) -> Callable[[Row, Row], float]:
    return lambda ours, theirs: theirs[kind]["cpu_seconds_per_image"] / ours[kind]["cpu_seconds_per_image"]


def _first_step(ours: Row, theirs: Row) -> float:
    return float(theirs["first_step"]["seconds"] / ours["first_step"]["seconds"])


def _memory(ours: Row, theirs: Row) -> float:
    """Ours by theirs; a loader's processes, of which the largest is known, are theirs."""
    return float(ours["peak_memory"] / (theirs["peak_memory"] + theirs["peak_memory_of_a_child"]))


class Target(NamedTuple):
    """A figure that is asked for: at least so much, of a memory at most."""

    work: str
    run: str
    backend: str
    figure: Callable[[Row, Row], float]
    asked: float


VGG = "VGG-11/4, dense 1024, batch 128, "
TARGETS = (
    Target("preparing at 96x96, processor time", "vgg11-96", "torch", _processor("preparation"), 8),
    Target("preparing at 28x28, processor time", "lenet", "torch", _processor("preparation"), 40),
    Target(VGG + "32x32, epoch", "vgg11-32", "torch", _speed("epoch"), 1.6),
    Target(VGG + "32x32, step", "vgg11-32", "torch", _speed("training"), 1.6),
    Target(VGG + "96x96, epoch", "vgg11-96", "torch", _speed("epoch"), 1.7),
    Target(VGG + "96x96, step", "vgg11-96", "torch", _speed("training"), 1.7),
    Target(VGG + "32x32, bf16, epoch", "vgg11-32-bf16", "torch", _speed("epoch"), 2.3),
    Target(VGG + "96x96, bf16, epoch", "vgg11-96-bf16", "torch", _speed("epoch"), 3),
    Target(VGG + "32x32, step", "vgg11-32-step", "jax", _speed("training"), 1.6),
    Target(VGG + "96x96, step", "vgg11-96-step", "jax", _speed("training"), 1.6),
    Target(VGG + "32x32, step", "vgg11-32-step", "mxnet", _speed("training"), 1.15),
    Target(VGG + "96x96, step", "vgg11-96-step", "mxnet", _speed("training"), 1.15),
    Target("LeNet, 28x28, batch 256, epoch", "lenet", "torch", _speed("epoch"), 3),
    Target("LeNet, 28x28, batch 256, step", "lenet", "jax", _speed("training"), 3),
    Target("LeNet, 28x28, batch 256, step", "lenet", "mxnet", _speed("training"), 3),
    Target("first step, VGG-11, nothing compiled before", "first-vgg11-cold", "jax", _first_step, 2),
    Target("first step, VGG-11, started again", "first-vgg11-warm", "jax", _first_step, 2),
    Target("first step, Inception v3, nothing compiled before", "first-inception_v3-cold", "jax", _first_step, 2),
    Target("first step, Inception v3, started again", "first-inception_v3-warm", "jax", _first_step, 2),
    Target("memory, VGG-11/4 at 96x96 (at most)", "vgg11-96", "torch", _memory, 1.1),
)
ABOUT = """# Speed beside the textbooks' loops

Made by `bash benchmarks/speed.sh OUT` and `python benchmarks/speed_page.py OUT`. Each subject runs in a process of its
own, in turns; medians of the rounds. A ratio counts only where the first losses, without dropout, are one. "epoch" has
the preparation of PyTorch's images in it, as its users prepare them in four worker processes; the images of the JAX and
MXNet loops were resized beforehand, and ours are resized at every step.

Nothing else works on the cores: OpenMP's threads stay awake while they wait, as a user's script has them. They sleep
where something does; `triptych.utils.process` has what both cost."""


def pair(run: Row, backend: str) -> tuple[Row, Row] | None:
    """A backend and its textbook's loop, if both were timed and started alike."""
    of = [row for row in run["rows"] if row["backend"] == backend]
    ours, theirs = next((r for r in of if not r["peer"]), None), next((r for r in of if r["peer"]), None)
    alike = backend in run["against_textbook"] and run["against_textbook"][backend]
    return (ours, theirs) if ours and theirs and alike else None


def targets(runs: dict[str, Row]) -> Iterator[str]:
    """A line for each target."""
    yield "| work | backend | asked | measured | |"
    yield "|---|---|---|---|---|"
    for target in TARGETS:
        found = pair(runs[target.run], target.backend) if target.run in runs else None
        if found is None:
            yield f"| {target.work} | {target.backend} | {target.asked:g}x | not run | |"
            continue
        value = target.figure(*found)
        met = value <= target.asked if target.figure is _memory else value >= target.asked
        yield f"| {target.work} | {target.backend} | {target.asked:g}x | {value:.2f}x | {'met' if met else 'not met'} |"


def turns(runs: dict[str, Row]) -> Iterator[str]:
    """A table of every run."""
    for name, run in runs.items():
        yield f"\n## {name}\n"
        yield f"{run['rounds']} rounds of {run['steps']} steps; load before {run['load_before']:.1f}.\n"
        yield "| subject | kind | images/s | p10 to p90 | processor ms/image | of the best product |"
        yield "|---|---|---|---|---|---|"
        for row in run["rows"]:
            for kind in (kind for kind in ("preparation", "training", "epoch", "inference") if kind in row):
                facts = row[kind]
                share = f"{facts['of_best_product']:.0%}" if "of_best_product" in facts else ""
                span, cost = f"{facts['p10']:.0f} to {facts['p90']:.0f}", 1e3 * facts["cpu_seconds_per_image"]
                speed = f"{facts['images_per_second']:.0f}"
                yield f"| {row['subject']} | {kind} | {speed} | {span} | {cost:.3f} | {share} |"
        yield ""
        for row in run["rows"]:
            memory = (row["peak_memory"] + row["peak_memory_of_a_child"] * row["peer"]) / 2**20
            accuracies = ", ".join(f"{value:.4f}" for value in row["accuracies"])
            gate = f"; test accuracies {accuracies}" if accuracies else ""
            yield f"- {row['subject']}: first step {row['first_step']['seconds']:.1f} s, {memory:.0f} MiB{gate}"


def located(folder: Path) -> Iterator[str]:
    """What GNU time says of `locate` on VGG-16 at 224x224, where 6 GB and 3 minutes are asked."""
    file = folder / "locate.txt"
    said = file.read_text() if file.exists() else ""
    kilobytes = re.search(r"Maximum resident set size \(kbytes\): (\d+)", said)
    elapsed = re.search(r"Elapsed .*?: ([0-9:.]+)$", said, re.MULTILINE)
    if kilobytes and elapsed and "no difference" in said:
        yield f"\n`locate --arch vgg16 --input 3x224x224`: {elapsed[1]} (3 minutes asked), "
        yield f"{int(kilobytes[1]) * 1024 / 1e9:.2f} GB (6 asked)."


def main(folder: str) -> None:
    """Print the page."""
    runs = {path.stem: json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))}
    run = next(iter(runs.values()))
    versions = {name: v for each in runs.values() for row in each["rows"] for name, v in row["versions"].items()}
    told = ", ".join(f"{name} {version}" for name, version in versions.items())
    machine = f"{run['processor']}, {run['cores']} cores, {', '.join(run['vector_features']) or 'no vector features'}"
    print(f"{ABOUT}\n\n{machine}; {told}.\n")
    print("\n".join((*targets(runs), *located(Path(folder)), *turns(runs))))


if __name__ == "__main__":
    main(*sys.argv[1:])
