"""How often the judge refuses what is right: clean conformance over seeds, small networks, backends and precisions.

    nice -n 19 python benchmarks/false_alarms.py RUNS.jsonl --minutes 60

A run is one backend in one precision on one network and seed, all levels. Each is a line of the file, written at once:
a killed script goes on where it was. What is printed is of the whole file: alarms, runs, and the exact (Clopper and
Pearson's) upper bound of the rate at 95 %. Runs of one network and seed share the reference's budgets, so they are not
quite independent.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from scipy import stats

from triptych.backend import registry
from triptych.conformance.case import conformance_architecture, make_case
from triptych.conformance.conform import conform
from triptych.conformance.levels import LOW
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.suite import PRECISIONS, unable_to
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Initializer,
    MaxPool,
    ReLU,
    Sigmoid,
)

NORMS = Architecture(
    *("norms", (3, 10, 14), 5),
    (
        *(Conv("conv1", 6, (3, 3), padding=(1, 1)), BatchNorm("norm1"), ReLU("relu1"), MaxPool("pool", (2, 2), (2, 2))),
        *(Conv("conv2", 8, (3, 3), (2, 2), (1, 1), bias=False), BatchNorm("norm2", unbiased=False), ReLU("relu2")),
        *(GlobalAvgPool("mean"), Flatten("flatten"), Dropout("dropout", 0.5), Dense("dense", 5)),
    ),
    Initializer("kaiming_normal"),
)
FLAT = Architecture(
    *("flat", (1, 6, 7), 3),
    (Flatten("flatten"), Dense("hidden", 12), Sigmoid("sigmoid"), Dropout("dropout", 0.2), Dense("dense", 3)),
    Initializer("xavier_uniform"),
)


def networks() -> tuple[Architecture, ...]:
    return NORMS, FLAT, conformance_architecture("lenet")


def runs(done: set[tuple[str, int, str, str]]) -> Iterator[dict[str, object]]:
    """Those that are not done yet, seed by seed, without end."""
    frameworks = [registry.load(name) for name in registry.installed()]
    for seed in count():
        for architecture in networks():
            left = [
                (framework, precision)
                for framework in frameworks
                for precision in (*PRECISIONS, *LOW)
                if not unable_to(framework, precision, "cpu")
                and (architecture.name, seed, framework.name, precision) not in done
            ]
            run = ReferenceRun(make_case(architecture, seed)) if left else None
            for framework, precision in left:
                assert run is not None
                failed = [f"{c.level}: {c.tensor}: {c.text}" for c in conform(framework, run, precision).failures]
                yield {
                    "network": architecture.name,
                    "seed": seed,
                    "backend": framework.name,
                    "precision": precision,
                    "failed": failed,
                }


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("file", type=Path)
    options.add_argument("--minutes", type=float, default=0.0)
    given = options.parse_args()
    end = time.monotonic() + 60 * given.minutes
    known = [json.loads(line) for line in given.file.read_text().splitlines()] if given.file.exists() else []
    if given.minutes:
        for run in runs({(r["network"], r["seed"], r["backend"], r["precision"]) for r in known}):
            known.append(run)
            with given.file.open("a") as file:
                file.write(json.dumps(run) + "\n")
            if time.monotonic() > end:
                break
    alarms = [run for run in known if run["failed"]]
    for run in alarms:
        print(run)
    bound = stats.beta.ppf(0.95, len(alarms) + 1, len(known) - len(alarms)) if len(alarms) < len(known) else 1.0
    print(f"{len(alarms)} alarms in {len(known)} runs; the rate is below {bound:.2%} (95 %)")


if __name__ == "__main__":
    main()
