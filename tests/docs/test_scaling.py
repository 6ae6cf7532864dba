"""docs/scaling.md: its scripts and manifests, as far as a machine without a cluster can check them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from triptych.backend import joining, registry
from triptych.training import run_folder

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
MANIFESTS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_there_is_a_script_and_a_manifest_for_each_framework():
    for blocks in (SCRIPTS, MANIFESTS):
        assert [
            sum(f"--backend {name}" in re.sub(r'",\s*"', " ", block) for block in blocks) for name in registry.BACKENDS
        ] == [1] * 3


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_bash(script):
    ended = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert script.startswith("#!/bin/bash\n#SBATCH ")


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_ends_as_its_training_does(script, tmp_path):
    """Else the scheduler takes a job that failed for one that did not."""
    stand_ins = {"scontrol": "echo here", "srun": "exit 3", "triptych": "exec sleep 20"}
    for name, body in stand_ins.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "here"}
    assert subprocess.run(["bash"], input=script, text=True, env=environment, timeout=15, check=False).returncode == 3


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_a_job_set(manifest):
    """The fields that jobset.x-k8s.io/v1alpha2 and a batch/v1 Job need for pods that know their number."""
    yaml = pytest.importorskip("yaml")
    read: dict[str, Any] = yaml.safe_load(manifest)
    assert (read["apiVersion"], read["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name, jobs = read["metadata"]["name"], read["spec"]["replicatedJobs"]
    hosts = set()
    for job in jobs:
        spec = job["template"]["spec"]
        assert spec["completionMode"] == "Indexed"
        assert spec["parallelism"] == spec["completions"] > 0
        pod = spec["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        assert {"name", "image", "command", "args"} <= set(container)
        hosts |= {
            f"{name}-{job['name']}-{replica}-{index}.{name}"
            for replica in range(job["replicas"])
            for index in range(spec["completions"])
        }
    named = set(re.findall(rf"{name}-[a-z]+-\d-\d\.{name}", manifest))
    assert named
    assert named <= hosts  # the pod that the others look for is one of the set


SMALL = ("--recipe", "d2l-lenet", "--data", "synthetic@train=96,test=40", "--batch-size", "24", "--epochs", "1")
VARIABLES = {
    "SLURM": lambda rank: {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": rank,
    },
    "Kubernetes": lambda rank: {
        "JAX_COORDINATOR_ADDRESS": f"localhost:{PORT}",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": rank,
    },
}
PORT = joining.free_port()


@pytest.mark.skipif("jax" not in registry.installed(), reason="JAX is not installed")
@pytest.mark.parametrize("scheduler", VARIABLES)
def test_processes_find_each_other_by_a_schedulers_variables(scheduler, here):
    """What the page's scripts put into the environment of JAX, twice on this machine."""
    command = [sys.executable, "-m", "triptych", "train", "--backend", "jax", *SMALL, "--out", "run"]
    started = [
        subprocess.Popen(command, env={**os.environ, **VARIABLES[scheduler](rank)}, stderr=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    try:
        for process in started:
            _, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert len(run_folder.read_epochs(Path("run"))) == 1
