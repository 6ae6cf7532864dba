"""What is run is what the execution says, what is judged is what trains; nothing is allocated before it is needed."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from awkward_networks import BATCH, LABELS, masks_of, parameters, trained
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.backend.execution import DEFAULT, Execution, exact
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD, Adam, Rates
from triptych.training.models import Model
from triptych.training.recipes import Recipe

TRANSFORM = InputTransform(1, 9, 8, (0.3,), (0.7,))
IMAGES = np.random.default_rng(0).integers(0, 256, (BATCH, 1, 9, 8), np.uint8)
OPTIMIZERS = {"sgd": SGD(momentum=0.9), "adam": Adam()}


def held(value: Any, seen: set[int]) -> int:
    """The numbers in all arrays that an object of a backend reaches by its attributes, the network left out."""
    if id(value) in seen or isinstance(value, str | bytes | int | float | type | np.generic):
        return 0
    seen.add(id(value))
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return int(np.prod(value.shape))
    if isinstance(value, dict):
        return sum(held(item, seen) for item in value.values())
    if isinstance(value, list | tuple | set):
        return sum(held(item, seen) for item in value)
    return 0


def optimizer_state(trainer: Any) -> int:
    """The numbers that the optimiser keeps."""
    updater, known = trainer.optimizer, ("named", "network")
    native = getattr(updater, "native", None)
    kept = [value for name, value in vars(updater).items() if name not in (*known, "native")]
    kept += [native.state] if hasattr(native, "state") else []
    kept += [updater.states for updater in getattr(native, "_updaters", ())]
    return held([value for value in kept if value is not None], set())


def built(framework: Backend, execution: Execution = DEFAULT) -> Any:
    network = framework.build(trained(), execution=execution)
    framework.from_canonical(network, parameters(trained()))
    return network


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_the_optimisers_state_comes_with_the_first_step(framework: Backend, optimizer: Any) -> None:
    network = built(framework)
    trainer = framework.Trainer(network, optimizer, TRANSFORM, 0)
    trainer.predict(IMAGES)
    trainer.prepare(IMAGES)
    assert trainer.state() == {}
    assert optimizer_state(trainer) <= 1  # a count of steps
    trainer.step(IMAGES, LABELS, Rates(0.1, 0.9), 0)
    moving = sum(value.size for path, value in parameters(trained()).items() if "running" not in path)
    assert optimizer_state(trainer) >= moving * len(optimizer.slots)
    saved = trainer.state()
    other = framework.Trainer(network, optimizer, TRANSFORM, 0)
    other.load_state(saved)
    assert optimizer_state(other) >= moving * len(optimizer.slots)


def test_a_predictor_has_no_optimiser_and_says_what_a_trainer_does(framework: Backend) -> None:
    network = built(framework)
    predictor = framework.Predictor(network, TRANSFORM)
    trainer = framework.Trainer(network, SGD(), TRANSFORM, 0)
    assert not hasattr(predictor, "optimizer")
    assert isinstance(trainer, framework.Predictor)
    np.testing.assert_array_equal(predictor.predict(IMAGES), trainer.predict(IMAGES))
    np.testing.assert_array_equal(predictor.prepare(IMAGES), trainer.prepare(IMAGES))


def test_a_trained_model_is_applied_by_a_predictor(framework: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(Recipe("model"), mean=(0.3,), std=(0.7,))
    model = Model(recipe, trained(), parameters(trained()), ())
    monkeypatch.setattr(framework, "Trainer", None)
    assert model.predictor(framework).predict(IMAGES).shape == (BATCH, 3)


def test_the_network_carries_its_execution(framework: Backend) -> None:
    assert built(framework).execution == Execution()
    assert built(framework, exact("fp64")).execution == Execution("fp64", "quick")


@pytest.mark.skipif("jax" not in registry.installed(), reason="jax is not installed")
def test_conformance_runs_the_step_that_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """With masks and without, in the first steps and later: one pass and one update, and one step made of the two. Only
    where a compiled function ends is the execution's matter. Inspection looks at that same pass."""
    import jax

    from triptych_jax import compiled

    noted: list[tuple[str, Any]] = []  # what is made, and what is compiled with which options

    def note(owner: Any, name: str, wrap: Any = lambda function: function) -> None:
        right = getattr(owner, name)

        def noting(*given: Any, **options: Any) -> Any:
            noted.append((given[0].__name__ if owner is jax else name, options.get("compiler_options")))
            return right(*given, **options)

        monkeypatch.setattr(owner, name, wrap(noting))

    note(jax, "jit")
    note(compiled, "pass_function")
    note(compiled.Updater, "update_function", staticmethod)
    for make in (compiled.compile_step, compiled.compile_pass, compiled.compile_update):
        make.cache_clear()
    backend, parts, steps = registry.load("jax"), ["training_pass", "update"], []
    for execution, ends in ((Execution(), ["step", *parts]), (exact("fp32"), parts)):
        noted.clear()
        network = built(backend, execution)
        trainer = backend.Trainer(network, SGD(), TRANSFORM, 0)
        steps.append(trainer.compiled_step)
        monkeypatch.setattr(trainer, "compiled_step", counted := Mock(wraps=trainer.compiled_step))
        for number in range(3):
            trainer.step(IMAGES, LABELS, Rates(0.1), number, masks=masks_of(trained(), number) if number else None)
        images = np.zeros((BATCH, *trained().input))
        backend.gradients(network, images, LABELS, masks=masks_of(trained(), 0))
        assert counted.call_count == 3
        assert sorted(name for name, _ in noted if name.endswith("_function")) == ["pass_function", "update_function"]
        as_said = [name for name, options in noted if options == compiled.OPTIONS[execution.compilation]]
        assert sorted(name for name in as_said if name in ("step", *parts)) == ends
    assert inspect.unwrap(steps[0]).__code__ is inspect.unwrap(steps[1]).__code__
