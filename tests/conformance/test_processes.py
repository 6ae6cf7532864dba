"""The level `processes`: it passes what is right, and sees every planted fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faulty_processes import FAULTS
from group_member import NETWORK
from marks import every_backend, needs_backend
from triptych.backend import registry
from triptych.conformance import processes
from triptych.conformance.case import make_case
from triptych.conformance.processes import Assignment
from triptych.conformance.trajectory import make_trajectory
from triptych.spec import records

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
