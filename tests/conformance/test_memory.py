"""What a network of many weights is judged with: large arrays on the disk, passes let go of, budgets of one pass."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from triptych.conformance import case as cases
from triptych.conformance import locate, updates
from triptych.conformance.case import conformance_architecture, make_case
from triptych.conformance.conform import conform_together
from triptych.conformance.levels import LEVELS, Level
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.subjects import BackendSubject, ReferenceSubject
from triptych.reference import network as reference
from triptych.utils import arrays, shelf
from triptych.utils.shelf import Shelf


@pytest.fixture
def small_shelf(monkeypatch):
    """Nearly everything is large."""
    monkeypatch.setattr(shelf, "LARGE", 64)
    monkeypatch.setattr(cases, "LARGE", 1)


@pytest.mark.parametrize("room", [0, 2**20], ids=["on the disk", "in memory"])
def test_a_shelf_is_a_dictionary_whose_large_arrays_are_copies(monkeypatch, room):
    monkeypatch.setattr(shelf, "LARGE", 64)
    monkeypatch.setattr(shelf, "ROOM", shelf.Room(room))
    monkeypatch.setattr(shelf, "memory_is_short", lambda: False)  # another test may have said so
    large, small = np.arange(8.0), np.arange(7.0)
    kept = Shelf({"large": large, "small": small})
    large[:] = 0
    assert np.array_equal(kept["large"], np.arange(8.0))
    assert kept["small"] is small
    with pytest.raises(ValueError, match="read-only"):
        kept["large"][0] = 5
    part = kept.select(["small", "large"]).renamed({"large": "new"}).joined(Shelf({"more": small}))
    del kept
    assert list(part) == ["new", "more"]
    assert np.array_equal(part["new"], np.arange(8.0))
    assert list(shelf.select(part, ["more"])) == list(shelf.select({"more": small, "new": large}, ["more"])) == ["more"]


def test_what_shelves_hold_in_memory_is_bounded_and_given_back(monkeypatch):
    monkeypatch.setattr(shelf, "LARGE", 64)
    monkeypatch.setattr(shelf, "ROOM", room := shelf.Room(160))
    monkeypatch.setattr(shelf, "memory_is_short", lambda: False)  # another test may have said so
    kept = Shelf({name: np.arange(8.0) for name in "abc"})
    assert room.held == 128
    del kept["a"]
    assert room.held == 64
    kept["d"] = np.arange(8.0)
    assert room.held == 128
    monkeypatch.setattr(shelf, "memory_is_short", lambda: True)
    del kept["b"]
    kept["b"] = np.ones(8)
    assert room.held == 64
    assert np.array_equal(kept["b"], np.ones(8))
    del kept
    gc.collect()
    assert room.held == 0


def test_of_a_row_nothing_is_kept_when_the_next_one_runs(framework):
    seen: list[weakref.ref[np.ndarray]] = []

    def observed(subject):
        assert all(array() is None for array in seen)
        arrays = {"a": np.zeros(3)}
        seen.append(weakref.ref(arrays["a"]))
        return arrays

    def row(name):
        return Level(name, lambda run: {"a": np.zeros(3)}, observed, list, budgets=lambda *_: {"a": 1.0})

    run = ReferenceRun(make_case(conformance_architecture("lenet"), batch=2))
    [report], pairs = conform_together([framework], run, "fp64", levels=[row("data"), row("gradient"), row("update")])
    assert len(seen) == 3
    assert [check.level for check in report.checks] == ["data", "gradient", "update"]
    assert pairs == []


def test_differences_are_those_of_whole_arrays(monkeypatch):
    monkeypatch.setattr(arrays, "BLOCK", 3)
    left, right = np.arange(8, dtype=np.float32).reshape(2, 4), np.zeros((2, 4))
    right[1, 3] = 17
    assert arrays.largest_difference(left, right) == 10
    left[0, 1] = np.nan
    assert np.isnan(arrays.largest_difference(left, right))
    assert arrays.largest_difference(np.zeros(0), np.zeros(0)) == 0


def test_forward_budgets_are_those_of_all_levels():
    alone, all_levels = (ReferenceRun(make_case(conformance_architecture("lenet"), batch=2)) for _ in range(2))
    found, expected = alone.forward_budgets, all_levels.budgets
    assert {precision: levels["forward eval"] for precision, levels in expected.items()} == found
    assert "budgets" not in vars(alone)
    assert all_levels.forward_budgets == found


def test_what_was_let_go_of_is_computed_again_and_the_gradients_stay():
    run = ReferenceRun(make_case(conformance_architecture("lenet"), batch=2))
    before, gradients = run.outputs(False), run.gradients
    statistics, trace = run.batch_statistics, run.trace(True).arriving
    run.release(training=True)
    assert run.gradients is gradients
    assert run.batch_statistics is statistics
    again = run.outputs(False)
    assert again is not before
    assert all(np.array_equal(again[path], value) for path, value in before.items())
    assert all(np.array_equal(run.trace(True).arriving[path], value) for path, value in trace.items())


def test_a_pass_goes_backward_once():
    case = make_case(conformance_architecture("lenet"), batch=2)
    ran = reference.forward(case.architecture, case.exact, case.images, train=True, masks=case.masks(0))
    reference.backward(ran, case.targets)
    with pytest.raises(RuntimeError, match="let go of"):
        reference.backward(ran, case.targets)
    only = reference.forward(case.architecture, case.exact, case.images, forward_only=True)
    with pytest.raises(RuntimeError, match="let go of"):
        reference.backward(only, case.targets)


def test_a_perturbed_execution_is_gone_when_the_next_is_asked_for():
    """Without a collection of cycles, which does not know how large a map is."""
    run, passes = ReferenceRun(make_case(conformance_architecture("lenet"), batch=2)), []
    gc.disable()
    try:
        for other in run.perturbed():
            assert not [one for one in passes if one() is not None]
            for train in (False, True):
                other.outputs(train)
            passes += [weakref.ref(vars(other)[name]) for name in ("_trained", "_evaluated")]
            del other
    finally:
        gc.enable()
    assert len(passes) == 12


def test_on_the_shelf_the_update_is_the_same(monkeypatch):
    architecture = conformance_architecture("vgg11_bn")
    plain = ReferenceRun(make_case(architecture, batch=2)).update("momentum")
    expected = {name: np.array(value) for name, value in plain.items()}
    monkeypatch.setattr(shelf, "LARGE", 64)
    shelved = ReferenceRun(make_case(architecture, batch=2)).update("momentum")
    assert list(shelved) == list(expected)
    assert all(np.array_equal(shelved[name], value) for name, value in expected.items())
    assert any(name.startswith("velocity") for name in shelved)


@pytest.mark.usefixtures("small_shelf")
def test_a_large_network_is_located_in(framework):
    architecture = conformance_architecture("lenet")
    found = locate.locate_backends(framework.name, "reference", architecture, updates=("momentum",))
    assert found.difference is None
    run = ReferenceRun(make_case(architecture, batch=2))
    wrong = ReferenceRun(make_case(architecture, seed=1, batch=2))
    rows = [level for level in LEVELS if level.optimizer == "momentum"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReferenceSubject, "update", lambda self, name: wrong.update(name), raising=False)
        subject = BackendSubject(framework, framework.build, run, "fp64")
        patch.setattr(subject, "update", lambda name: wrong.update(name))
        difference = locate.locate(subject, ReferenceSubject(run), levels=rows).difference
    assert difference is not None
    assert difference.level == "update"


def test_a_large_case_is_known_by_its_parameters(monkeypatch):
    case = make_case(conformance_architecture("lenet"))
    count = sum(value.size for value in case.parameters.values())
    monkeypatch.setattr(cases, "LARGE", count)
    assert case.large
    monkeypatch.setattr(cases, "LARGE", count + 1)
    assert not case.large
    assert "momentum" in updates.UPDATES
