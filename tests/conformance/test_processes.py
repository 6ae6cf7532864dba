"""The level `processes`: it passes what is right, and sees every planted fault."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from faulty_processes import FAULTS
from group_member import NETWORK
from marks import every_backend, needs_backend
from triptych.backend import registry
from triptych.conformance import processes, recorded, rerun, suite
from triptych.conformance.case import make_case
from triptych.conformance.certificate import left_out
from triptych.conformance.compare import Check
from triptych.conformance.processes import Assignment, SharedRun
from triptych.conformance.suite import Verdict
from triptych.conformance.trajectory import make_trajectory
from triptych.spec import records
from triptych.spec.layers import Architecture, Dense, Flatten
from triptych.utils.errors import TriptychError

FAULTY = Path(__file__).parents[1] / "faulty_processes.py"


@pytest.mark.skipif("torch" not in registry.installed(), reason="the faults are planted in PyTorch's processes")
def test_every_planted_fault_is_seen():
    backend = registry.load("torch")
    rate = make_trajectory(make_case(NETWORK), processes.STEPS).learning_rate
    task = Assignment("torch", NETWORK, "fp64", rate, 0)
    made = processes.together(backend, task, 2, (str(FAULTY),))
    expected = processes.steps(backend, task, processes.ALONE)
    passed = []
    for fault in FAULTS:
        observed = {key.partition("/")[2]: value for key, value in made.items() if key.startswith(f"{fault}/")}
        if all(check.passed for check in processes.judge_arrays(expected, observed)):
            passed.append(fault)
    assert passed == ["none"]


@needs_backend
@every_backend
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
