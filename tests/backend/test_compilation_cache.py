"""What JAX has compiled is kept on the disk: the next process takes it up and computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from triptych.backend import registry
from triptych.utils.files import machine_cache

pytestmark = pytest.mark.skipif("jax" not in registry.installed(), reason="JAX is not installed")
SCRIPT = """
from dataclasses import replace
import jax
from triptych import data
from triptych.backend import registry
from triptych.bench import measure, tasks
hits = []
backend = registry.load("jax")
from jax import monitoring
monitoring.register_event_listener(lambda name, **more: hits.append(name))
network = measure.RECIPE.network.vary(size=(28, 28), width_ratio=1)
recipe = replace(measure.RECIPE, architecture="lenet", network=network, batch_size=4)
first = tasks.Ours(tasks.Task(recipe, "jax", steps=1), data.load("synthetic")).first
print(first, sum("cache_hits" in name for name in hits))
"""


def run(home: Path) -> tuple[str, int]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    loss, hits = done.stdout.split()
    return loss, int(hits)


def test_the_second_process_compiles_less_and_computes_the_same(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert first[1] == 0
    assert second[1] > 0
    assert first[0] == second[0]
    (folder,) = (tmp_path / "triptych" / "jax").iterdir()  # of this processor
    assert folder.is_dir()


def test_without_a_home_there_is_no_cache_and_another_processor_has_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    here = machine_cache("jax")
    assert here is not None
    monkeypatch.setattr("triptych.utils.files.platform.machine", lambda: "another")
    assert machine_cache("jax") != here
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pathlib.Path.expanduser", lambda path: (_ for _ in ()).throw(RuntimeError()))
    assert machine_cache("jax") is None
