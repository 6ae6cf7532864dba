"""The textbooks' loops train the same network from the same start on the same images as ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from marks import every_backend
from triptych import data
from triptych.backend import registry
from triptych.backend.execution import Execution
from triptych.bench import flops, measure
from triptych.bench.peers import textbook
from triptych.optim.optimizers import Rates
from triptych.spec.layers import Architecture, Auxiliary, Conv, Dense, Flatten, GlobalAvgPool
from triptych.training import sessions
from triptych.training.recipe import draw
from triptych.zoo import Options

RATES = Rates(0.1, 0.9)


def with_auxiliary() -> Architecture:
    """Of which the loss has two terms."""
    side = Auxiliary("side", (GlobalAvgPool("pool"), Flatten("flat"), Dense("dense", 10)), 0.4)
    layers = (Conv("conv", 4, (3, 3), stride=(2, 2)), side, Flatten("flat"), Dense("dense", 10))
    return Architecture("small", (1, 32, 32), 10, layers, source="")


@every_backend
@pytest.mark.parametrize("spec", [None, with_auxiliary()], ids=["lenet", "auxiliary classifier"])
def test_the_textbooks_loop_does_the_same_steps(name, spec, monkeypatch):
    monkeypatch.setattr(registry.load_benchmark(name), "WORKERS", 0, raising=False)  # no fork beside JAX's threads
    network = Options(10, (1, 32, 32))
    recipe = replace(measure.RECIPE, architecture="lenet", network=network, batch_size=8, initializer="")
    recipe = recipe if spec is None else replace(recipe, spec=spec)
    dataset = data.load("synthetic")
    session = sessions.start(registry.load(name), recipe, dataset)
    plain = textbook(session.architecture, name, draw(recipe, session.architecture), 8, RATES)
    images, labels = dataset.train.images[:24], dataset.train.labels[:24]
    theirs = plain.train(plain.load(images, labels))
    ours = [session.trainer.step(images[i : i + 8], labels[i : i + 8], RATES, i // 8) for i in (0, 8, 16)]
    # the textbook's Pillow rounds resized pixels to whole grey levels
    assert theirs == pytest.approx(session.trainer.read(ours)[:, 0], rel=2e-3)
    assert np.ptp(theirs) > 0.01


@every_backend
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
def test_a_matrix_product_can_be_timed(name, precision):
    registry.load(name).apply_execution(Execution(precision), "cpu")
    assert registry.load_benchmark(name).matrix_product(16, Execution(precision), "cpu")() is None


def test_the_arithmetic_of_a_step():
    layers = (Conv("one", 2, (3, 3), padding=(1, 1)), Flatten("flat"), Dense("two", 10))
    architecture = Architecture("small", (1, 4, 4), 10, layers, source="")
    conv, dense = 4 * 4 * 9 * 2, 32 * 10
    assert flops.of_training(architecture) == 4 * conv + 6 * dense
    assert flops.of_inference(architecture) == 2 * (conv + dense)
