"""What is run is what the execution says, what is judged is what trains; nothing is allocated before it is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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
    """With masks and without, in the first steps and later: one function, compiled as the execution says."""
    import jax

    from triptych_jax import compiled

    seen: list[tuple[str, Any]] = []
    right = jax.jit

    def noted(function: Any, **options: Any) -> Any:
        seen.append((function.__name__, options.get("compiler_options")))
        return right(function, **options)

    monkeypatch.setattr(jax, "jit", noted)
    for make in ("compile_step", "compile_prediction", "compile_update"):
        getattr(compiled, make).cache_clear()
    for execution in (Execution(), exact("fp32")):
        seen.clear()
        trainer = registry.load("jax").Trainer(built(registry.load("jax"), execution), SGD(), TRANSFORM, 0)
        calls: list[int] = []
        step = trainer.compiled_step
        trainer.compiled_step = lambda *given, step=step, calls=calls: calls.append(len(given)) or step(*given)
        for number in range(3):
            masks = masks_of(trained(), number) if number else None
            trainer.step(IMAGES, LABELS, Rates(0.1), number, masks=masks)
        assert len(calls) == 3
        assert ("step", compiled.OPTIONS[execution.compilation]) in seen
