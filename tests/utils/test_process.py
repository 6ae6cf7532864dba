"""The processes of a pool: each computes on its share of the cores; threads stay awake only where nobody else works."""

import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from triptych.utils import process
from triptych.utils.process import begin_worker

POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def test_every_process_of_a_pool_has_its_threads() -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker, (3,)) as pool:
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "3"


def test_no_process_of_a_pool_stays_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "300000")
    with ProcessPoolExecutor(1, get_context("spawn"), begin_worker, (1,)) as pool:
        assert pool.submit(os.getenv, "OMP_WAIT_POLICY").result() == "PASSIVE"
        assert pool.submit(os.getenv, "GOMP_SPINCOUNT").result() is None


@pytest.mark.parametrize(("others", "policy"), [(0.0, "ACTIVE"), (0.5, "PASSIVE"), (None, "PASSIVE")])
def test_threads_stay_awake_where_nobody_else_works(
    others: float | None, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`others` of a core, over the second since the import; None where the system does not tell."""
    for name in POLICIES:  # and what is set here is gone afterwards
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(process.time, "monotonic", lambda: 0.99)
    monkeypatch.setattr(process.time, "process_time", lambda: 7.0)
    monkeypatch.setattr(process, "_first", (0.0, 6.5, 100.0))
    monkeypatch.setattr(process, "_busy", lambda: None if others is None else 100.5 + others)
    process.prepare_process.__wrapped__()
    assert os.environ["OMP_WAIT_POLICY"] == policy
    assert os.environ.get("GOMP_SPINCOUNT") == ("300000" if policy == "ACTIVE" else None)


def test_what_was_seen_long_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that imported the package an hour ago, on a machine that was idle until now."""
    looks = iter([(3600.0, 6.5, 100.0)])
    monkeypatch.setattr(process, "_first", (0.0, 0.5, 50.0))
    monkeypatch.setattr(process, "_look", lambda: next(looks))
    monkeypatch.setattr(process, "_busy", lambda: 100.19)  # in a tenth of a second, which was not this process
    times = iter([3600.0, 3600.1])
    monkeypatch.setattr(process.time, "monotonic", lambda: next(times, 3600.1))
    monkeypatch.setattr(process.time, "process_time", lambda: 6.51)
    assert not process._alone()


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in POLICIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    assert not process.prepare_process.__wrapped__() & set(POLICIES)
    assert "OMP_WAIT_POLICY" not in os.environ
    assert os.environ["GOMP_SPINCOUNT"] == "5"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not tell who uses its cores")
def test_of_two_that_start_at_once_none_takes_the_machine_for_idle() -> None:
    """Where they share two cores; with more of them, each sees the other's as well."""
    cores = set(list(os.sched_getaffinity(0))[:2])
    code = (
        f"import os; os.sched_setaffinity(0, {cores}); input()\nfrom triptych.utils import process\n"
        "process.prepare_process(); print(os.environ['OMP_WAIT_POLICY'])"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    environment = {name: value for name, value in os.environ.items() if name not in POLICIES}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    pair = [subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes) for _ in range(2)]
    time.sleep(0.2)  # until both wait for their line
    for one in pair:
        one.stdin.write("\n")
    assert [one.communicate()[0] for one in pair] == ["PASSIVE\n"] * 2
