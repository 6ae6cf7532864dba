"""Memory that is not enough: estimated from the spec before a framework is imported, one line where it ends at work."""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import Silent
from marks import every_backend, needs_backend
from triptych import data, zoo
from triptych.__main__ import main
from triptych.backend import registry
from triptych.spec import analysis, footprint
from triptych.training import capacity, loop, sessions
from triptych.training.recipe import Recipe
from triptych.utils import memory
from triptych.utils.errors import TriptychError

GIGABYTE = 10**9
LENET = ["--arch", "lenet", "--data", "synthetic", "--resolution", "28"]
# What is tried, and what of it the line names.
TOO_LARGE = [
    (["train", "--batch-size", "5120000"], "batches of 5120000 images of 3x224x224", "lower --batch-size ("),
    (["train", "--resolution", "1000000"], "images of 3x1000000x1000000", "lower --resolution"),
    (["train", "--dense-width", "1000000000"], "training 'vgg11'", "--dense-width"),
    (["train", "--classes", "1000000000"], "training 'vgg11'", "--classes"),
    (
        ["train", "--recipe", "d2l-lenet", "--batch-size", "9" * 15],
        "batches of 999999999999999 images",
        "lower --batch-size",
    ),
    (["compare", "--resolution", "1000000"], "training 'vgg11'", "lower --resolution"),
    (["bench", "--batch-size", "999999999"], "batches of 999999999 images", "lower --batch-size ("),
    (["conform", "--resolution", "1000000"], "judging 'vgg11' on 4 images", "lower --resolution"),
    (["locate", "--left", "reference", "--right", "torch", "--resolution", "1000000"], "judging 'vgg11'", "lower"),
    (["feature-maps", "x.png", "--dense-width", "1000000000"], "drawing the parameters of 'vgg11'", "--dense-width"),
    (["evaluate", "x.safetensors", "--arch", "vgg11", "--resolution", "1000000"], "running 'vgg11'", "--resolution"),
]


@pytest.fixture
def no_framework(monkeypatch):
    monkeypatch.setattr(registry, "load", lambda name: pytest.fail("a framework was imported"))


@needs_backend
@pytest.mark.usefixtures("here", "no_framework")
@pytest.mark.parametrize(("arguments", "tried", "way_out"), TOO_LARGE, ids=lambda value: " ".join(value)[:40])
def test_what_cannot_fit_is_said_before_a_framework_is_imported(arguments, tried, way_out, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available", lambda: 16 * GIGABYTE)
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    for fragment in (tried, way_out, "needs at least", "16.0 GB are to be had here"):
        assert fragment in error


@pytest.mark.parametrize("name", ["vgg11", "resnet18_v2", "densenet121", "googlenet", "mobilenet_v2"])
def test_the_estimate_is_below_what_training_keeps(name):
    """A bound that was too high would refuse what works."""
    architecture = zoo.build(name)
    totals = analysis.totals(architecture)
    least = footprint.trained(architecture, 1)
    assert 0 < least.per_image <= totals.training_bytes
    parameters = sum(int(np.prod(info.shape)) for info in analysis.parameters(architecture))
    assert 2 * 4 * totals.parameters < least.fixed <= 3 * 4 * parameters
    assert footprint.evaluated(architecture).per_image <= totals.forward_bytes


def test_half_precision_and_a_device_of_its_own_need_less(monkeypatch):
    recipe = Recipe("test", architecture="vgg11", batch_size=150)
    monkeypatch.setattr(memory, "available", lambda: 4 * GIGABYTE)
    with pytest.raises(TriptychError, match=r"lower --batch-size \([0-9]+ may fit\)"):
        capacity.check_training(recipe, "cpu")
    capacity.check_training(Recipe("test", architecture="vgg11", batch_size=150, precision="bf16"), "cpu")
    capacity.check_training(recipe, "cuda:0")


def test_a_batch_in_micro_batches_needs_the_memory_of_one(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4 * GIGABYTE)
    recipe = Recipe("test", architecture="vgg11", batch_size=1500, accumulate=100)
    capacity.check_training(recipe, "cpu")
    with pytest.raises(TriptychError, match="micro-batches of 150 images") as refused:
        capacity.check_training(replace(recipe, accumulate=10), "cpu")
    fits = int(str(refused.value).rpartition("(")[2].split()[0])
    capacity.check_training(replace(recipe, batch_size=fits, accumulate=10), "cpu")


def test_the_batch_that_may_fit_fits(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 4 * GIGABYTE)
    with pytest.raises(TriptychError, match="may fit") as refused:
        capacity.check_training(Recipe("test", architecture="vgg11", batch_size=100_000), "cpu")
    fits = int(str(refused.value).rpartition("(")[2].split()[0])
    capacity.check_training(Recipe("test", architecture="vgg11", batch_size=fits), "cpu")
    with pytest.raises(TriptychError, match=f"{fits} may fit"):
        capacity.check_training(Recipe("test", architecture="vgg11", batch_size=fits + 1), "cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_limits_of_the_process_and_of_a_container_count(tmp_path, monkeypatch):
    free = memory.available()
    assert free is not None
    assert free > 0
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); "
        "from triptych.utils.memory import available; print(available())"
    )
    path = os.pathsep.join(path for path in sys.path if path)
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert 1 << 29 < int(run.stdout) < 1 << 30
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    for content, expected in (("max\n", False), ("4096\n", True)):
        (tmp_path / "memory.max").write_text(content)
        assert (memory.available() == 4096) == expected
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    assert memory.available() == 4096
    (tmp_path / "memory.max").unlink()
    assert memory.available() is None


ELEMENTS = 10**9  # four gigabytes of float32


def too_large(name: str) -> None:
    if name == "torch":
        import torch

        torch.zeros(ELEMENTS)
    elif name == "jax":
        import jax.numpy

        jax.numpy.zeros(ELEMENTS).block_until_ready()
    else:
        import mxnet

        mxnet.nd.zeros(ELEMENTS).wait_to_read()


@pytest.fixture
def little_left() -> Iterator[None]:
    """Half a gigabyte of address space more than the process has, as `ulimit -v` leaves it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 500_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@every_backend
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_that_ends_in_training_is_one_line(name, monkeypatch, cache, request):
    """Each framework's own error, when a step wants more than there is."""
    session = sessions.start(
        registry.load(name), Recipe("test", architecture="lenet", epochs=1), data.load("synthetic")
    )
    monkeypatch.setattr(session.trainer, "step", lambda *_, **__: too_large(name))
    request.getfixturevalue("little_left")  # from now on
    with pytest.raises(memory.OutOfMemoryError, match="training 'lenet' in batches of 128 images of 1x28x28") as ended:
        loop.fit(session, Silent())
    assert f"out of memory: {name}: " in str(ended.value)
    assert "lower --batch-size, or lower --resolution" in str(ended.value)
    assert "Traceback" not in str(ended.value)


@every_backend
def test_other_errors_are_no_lack_of_memory(name):
    framework = registry.load(name)
    assert not any(framework.out_of_memory(kind("shapes differ")) for kind in (ValueError, RuntimeError))
    assert not registry.out_of_memory(RuntimeError("shapes differ"))
    assert registry.out_of_memory(MemoryError())


def test_a_library_that_finds_no_room_is_one_line(monkeypatch, capsys):
    """matplotlib's, after the training, and a framework's own."""

    def refused(*_: object) -> None:
        raise ImportError("libXau.so: failed to map segment from shared object")

    monkeypatch.setattr(analysis, "totals", refused)
    with pytest.raises(SystemExit, match="2"):
        main(["summary", "lenet"])
    monkeypatch.setattr(registry.importlib, "import_module", refused)
    for name in registry.installed()[:1]:
        with pytest.raises(memory.OutOfMemoryError, match=f"importing backend '{name}' .libXau"):
            registry.load(name)
    assert capsys.readouterr().err.count("out of memory") == 1


def test_threads_that_cannot_be_started_are_refused_before(monkeypatch):
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (1 << 23, 1 << 23))
    for left, refused in ((None, False), (1 << 27, False), ((1 << 27) - 1, True)):
        monkeypatch.setattr(memory, "_left_of_limit", lambda left=left: left)
        with pytest.raises(memory.OutOfMemoryError, match="16 threads and 134") if refused else nullcontext():
            memory.check_threads(16, "JAX")


@pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
def test_a_thread_of_mxnets_that_finds_no_room_is_a_lack_of_memory():
    error = registry.load("mxnet") and importlib.import_module("mxnet.base").MXNetError
    assert registry.out_of_memory(error("MXNetError: Resource temporarily unavailable"))
    assert not registry.out_of_memory(error("MXNetError: Shape inconsistent"))


@pytest.mark.skipif("jax" not in registry.installed(), reason="JAX is not installed")
def test_jax_looks_for_room_for_its_threads_before_it_starts_them(monkeypatch):
    device = importlib.import_module("triptych_jax.device")
    monkeypatch.setattr(memory, "_left_of_limit", lambda: 1)
    with pytest.raises(memory.OutOfMemoryError, match="JAX takes"):
        importlib.reload(device)


@pytest.mark.parametrize("size", [1 << 50, 1 << 60, 1 << 70])  # a MemoryError, two ValueErrors
def test_numpys_own_errors_end_with_2(size, monkeypatch, capsys):
    monkeypatch.setattr(analysis, "totals", lambda _: np.empty(size))
    with pytest.raises(SystemExit, match="2"):
        main(["summary", "lenet"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "out of memory" in error
