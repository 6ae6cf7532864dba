"""Isolates the tests and settles the process (threads, allocator) before any of them imports a framework; prints the
matrix of planted faults."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import isolation
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.utils.process import cores, prepare_process

# Several run at once, on a share of the cores each.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))))
prepare_process()
for number in (signal.SIGINT, signal.SIGHUP):  # what runs the tests may ignore them, and their processes would, too
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_configure(config: pytest.Config) -> None:
    sources = [config.rootpath / folder for folder in config.getini("pythonpath")]
    config.add_cleanup(isolation.begin(sources).cleanup)


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    """A test that reached for the network fails, even if the exception was caught on the way."""
    yield
    assert isolation.attempted_connections() == []


@pytest.fixture(params=registry.installed())
def framework(request: pytest.FixtureRequest) -> Backend:
    """Every installed backend in turn."""
    return registry.load(request.param)


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, so that none reads what another, or the user, has left."""
    folder = tmp_path_factory.mktemp("data") / "cache"
    monkeypatch.setenv("TRIPTYCH_DATA", str(folder))
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own folder as the one it works in, with a cache of its own in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`call("summary", "vgg11")`: its standard output, after an end with status 0 and nothing on stderr."""
    from triptych.__main__ import main

    def call(*arguments: object) -> str:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (stopped.value.code, err) == (0, ""), err
        return out

    return call


@pytest.fixture
def drawn_run(tmp_path: Path) -> Callable[..., Path]:
    """`drawn_run("run", recipe)`: a run folder of LeNet after one epoch, of parameters as they are drawn."""
    from triptych import zoo
    from triptych.training import run_folder
    from triptych.training.checkpoint import Checkpoint, State
    from triptych.training.recipe import identity
    from triptych.training.run_folder import Epoch
    from triptych.weights import initializers

    def make(name: str, recipe: Any) -> Path:
        folder = run_folder.make_folder(tmp_path / name)
        run_folder.write_recipe(folder, recipe)
        model = initializers.draw(zoo.build("lenet"), 0)
        epoch = Epoch(1, 4, "torch", 2.3, 0.1, 2.3, 0.1, 1.0, 512.0, (2.3,) * 4)
        names = tuple(f"pattern {number}" for number in range(10))
        state = State(epoch=1, step=4, input=(1, 28, 28), class_names=names, recipe=identity(recipe))
        run_folder.save(folder, [epoch], Checkpoint(state, model, {}))
        return folder

    return make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Mutant x backend, from the properties of the tests that ran; nothing is written."""
    reports = (report for reports in terminalreporter.stats.values() for report in reports)
    properties = (pair for report in reports for pair in getattr(report, "user_properties", ()))
    results = list(dict.fromkeys(tuple(value) for name, value in properties if name == "mutant"))
    if results:
        from mutants import CATALOGUE, matrix
        from triptych.backend.registry import BACKENDS

        terminalreporter.section("planted faults: killed at which level")
        for line in matrix.lines(list(CATALOGUE.values()), list(BACKENDS), results):
            terminalreporter.write_line(line)
