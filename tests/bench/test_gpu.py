"""`benchmarks/gpu.py`: what is done is not done again, and what could not be run says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import gpu

    yield gpu
    sys.modules.pop("gpu")


def results(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def test_without_time_nothing_is_run_and_the_status_says_so(gpu, tmp_path, capsys):
    assert gpu.main(["--tiny", "--limit", "0", "--out", str(tmp_path)]) == 1
    found = results(tmp_path)
    names = [job.name for job in gpu.jobs(["torch", "jax"])]
    assert list(found["jobs"]) == names
    assert {entry["status"] for entry in found["jobs"].values()} == {"not run: no time was left"}
    assert capsys.readouterr().out.count("-> not run") == len(names)
    assert [job.part for job in gpu.jobs(["torch", "jax"])] == sorted(job.part for job in gpu.jobs(["torch", "jax"]))


def test_what_is_done_stays_and_what_failed_is_run_when_asked(gpu, tmp_path, monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr(gpu, "run", lambda job, options, environment, found, left: ran.append(job.name))
    jobs = {job.name: {"part": job.part, "status": "done", "results": {}} for job in gpu.jobs(["torch"])}
    jobs["planted"]["status"] = "failed, status 1: no memory"
    (tmp_path / "result.json").write_text(json.dumps({"jobs": jobs}))
    assert gpu.main(["--backends", "torch", "--out", str(tmp_path)]) == 1
    assert ran == []
    assert gpu.main(["--backends", "torch", "--out", str(tmp_path), "--again"]) == 1
    assert ran == ["planted"]


def test_a_job_that_fails_and_one_that_is_wrong_are_told(gpu, tmp_path, monkeypatch):
    script = tmp_path / "gpu.py"
    script.write_text(
        "import sys\n"
        'print(\'["one", {"passed": false}]\', flush=True)\n'
        "print('no result')\n"
        "if sys.argv[2] == 'planted': sys.exit('out of memory')\n"
    )
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    options = gpu.parse(["--out", str(tmp_path)])
    found: dict = {"jobs": {}}
    by_name = {job.name: job for job in gpu.jobs(options.backends)}
    for name in ("planted", "trajectory"):
        gpu.run(by_name[name], options, {}, found, 60)
    assert found["jobs"]["planted"]["status"] == "failed, status 1: out of memory"
    assert found["jobs"]["trajectory"]["status"] == "failed: one"
    assert found["jobs"]["trajectory"]["results"] == {"one": {"passed": False}}
    assert results(tmp_path) == found
