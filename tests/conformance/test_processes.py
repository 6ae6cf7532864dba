"""The level `processes`: it passes what is right, and sees every planted fault."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from faulty_processes import FAULTS
from group_member import NETWORK
from marks import later, needs_backend
from triptych.backend import registry
from triptych.conformance import processes, recorded, rerun, suite
from triptych.conformance.case import Case, make_case
from triptych.conformance.certificate import left_out
from triptych.conformance.chaos import TWINS, neighbour
from triptych.conformance.compare import Check
from triptych.conformance.processes import Assignment, SharedRun
from triptych.conformance.suite import Verdict
from triptych.conformance.trajectory import Arrays, make_trajectory
from triptych.spec import records
from triptych.spec.layers import Architecture, Dense, Flatten
from triptych.utils.errors import TriptychError

FAULTY = Path(__file__).parents[1] / "faulty_processes.py"


def case_and_task(name: str, precision: str) -> tuple[Case, Assignment]:
    case = make_case(NETWORK)
    rate = make_trajectory(case, processes.STEPS).learning_rate
    return case, Assignment(name, NETWORK, precision, rate, 0)


def by_fault(made: Arrays) -> dict[str, Arrays]:
    """What the faulty processes made, apart."""
    return {
        fault: {key.partition("/")[2]: value for key, value in made.items() if key.startswith(f"{fault}/")}
        for fault in FAULTS
    }


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=later if name == "jax" else []) for name in ("torch", "jax")]
)
def test_every_planted_fault_is_seen(name):
    if name not in registry.installed():
        pytest.skip(f"{name} is not installed")
    backend = registry.load(name)
    _, task = case_and_task(name, "fp64")
    expected = processes.steps(backend, task, processes.ALONE)
    made = by_fault(processes.together(backend, task, 2, (str(FAULTY),)))
    right = [fault for fault in FAULTS if all(c.passed for c in processes.judge_arrays(expected, made[fault]))]
    assert right == ["none"]


@pytest.mark.skipif("mxnet" not in registry.installed(), reason="mxnet is not installed")
def test_every_planted_fault_is_seen_in_the_losses(monkeypatch):
    """Of MXNet, whose processes have no float64."""
    backend = registry.load("mxnet")
    case, task = case_and_task("mxnet", "fp32")
    starts = [None, *(neighbour(case, twin) for twin in range(TWINS))]
    alone = [processes.steps(backend, task, processes.ALONE, start) for start in starts]
    made = by_fault(processes.together(backend, task, 2, (str(FAULTY),)))
    runs = cycle(alone)  # as often as they are asked for
    monkeypatch.setattr(processes, "steps", lambda *given: next(runs))
    right = [
        fault for fault in FAULTS if all(c.passed for c in processes.judge_losses(backend, task, case, made[fault]))
    ]
    assert right == ["none"]


@needs_backend
@pytest.mark.parametrize("name", [pytest.param(n, marks=later if n == "jax" else ()) for n in registry.installed()])
def test_conform_has_it_as_a_level(name, here):
    """Float64, but where the backend's several processes have none."""
    Path("small.json").write_text(json.dumps(records.encode(NETWORK)))
    command = [sys.executable, "-m", "triptych", "conform", "--arch", "small.json", "--backends", name]
    ended = subprocess.run(
        [*command, "--precision", "fp64", "--processes", "2", "--json", "out.json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ((run,),) = (read["processes"] for read in json.loads(Path("out.json").read_text()))
    assert run["passed"]
    assert (run["precision"] == "fp64") == (run["refused"] == "")
    assert "20 steps of 2 processes against one" in ended.stdout


def with_processes(verdict: Verdict, **changes: Any) -> Verdict:
    """A verdict that was judged with two processes, each backend's run with `changes`."""
    check = Check("processes", "loss", 0.0, 1.0, 1.0)
    runs = [processes.ProcessesRun(report.name, "fp64", (check,)) for report in verdict.reports]
    return replace(verdict, processes=SharedRun(2, tuple(replace(run, **changes) for run in runs)))


@needs_backend
def test_a_failure_of_several_processes_is_one_of_the_network():
    verdict = suite.run(NETWORK, [registry.load(registry.installed()[0])], precisions=("fp64",))
    assert verdict.passed
    good = with_processes(verdict)
    assert good.passed
    wrong = with_processes(verdict, checks=(Check("processes", "loss", 2.0, 1.0, 1.0),))
    assert not wrong.passed
    assert not with_processes(verdict, checks=()).passed
    names = [report.name for report in verdict.reports]
    assert list(recorded.verdict_faults(good, names)) == []
    assert "processes: the certificate records a failure" in next(recorded.verdict_faults(wrong, names))
    assert list(rerun.differences(good, good, {})) == []
    assert "processes: fails here" in next(rerun.differences(good, wrong, {}))
    others = with_processes(verdict, precision="fp32")
    assert "other checks are recorded than are made here" in next(rerun.differences(others, good, {}))
    assert "processes" in left_out([verdict], ("fp64", "fp32"))
    assert "processes" not in left_out([good], ("fp64", "fp32"))


def test_processes_of_a_network_without_classes_are_refused_before_anything_is_run():
    embedding = Architecture("embedding", (1, 4, 4), 0, (Flatten("flatten"), Dense("dense", 3)))
    with pytest.raises(TriptychError, match="--processes trains on labels, and 'embedding' has no classes"):
        suite.run(embedding, [], processes=2)
