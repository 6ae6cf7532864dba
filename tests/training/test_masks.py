"""Dropout masks that all backends share: the same training on each, which masks of their own do not make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import killed
from helpers import Silent
from marks import NO_FRAMEWORK
from triptych.backend import registry
from triptych.backend.group import Share
from triptych.spec.layers import Architecture, Block, Dense, Dropout, Flatten, ReLU
from triptych.training import loop, masks, sessions
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError

BACKENDS = registry.installed()
if not BACKENDS:
    pytest.skip(NO_FRAMEWORK, allow_module_level=True)
LAYERS = (Flatten("flatten"), Dense("one", 32), ReLU("relu"), Dropout("drop", 0.5), Dense("two", 10))
NETWORK = Architecture("dropped", (1, 6, 6), 10, LAYERS)
RECIPE = replace(killed.RECIPE, architecture="dropped", spec=NETWORK, batch_size=32, epochs=5, precision="fp64")
RECIPE = replace(RECIPE, network=replace(RECIPE.network, classes=10, input=NETWORK.input), masks=masks.SHARED)


def losses(name: str, recipe: Recipe) -> np.ndarray:
    session = sessions.start(registry.load(name), recipe, killed.images())
    return np.array([epoch.losses for epoch in loop.fit(session, Silent())])


@pytest.mark.skipif(len(BACKENDS) < 2, reason="one framework alone has nobody to share with")
def test_trainings_with_shared_masks_are_one_and_with_their_own_are_not():
    first, *others = (losses(name, RECIPE) for name in BACKENDS)
    for other in others:
        assert (abs(first - other) <= 1e-12 * abs(first)).all()
    first, *others = (losses(name, replace(RECIPE, masks=masks.OWN)) for name in BACKENDS)
    for other in others:
        assert abs(first - other).max() > 1e-3


def test_every_step_and_layer_and_seed_has_masks_of_its_own():
    drawn = [masks.draw(NETWORK, seed, step, 8)["drop"] for seed, step in ((0, 0), (0, 1), (1, 0))]
    assert all(mask.shape == (8, 32) for mask in drawn)
    assert not any(np.array_equal(drawn[0], other) for other in drawn[1:])


def test_layers_of_one_name_have_masks_of_their_own():
    blocks = [Block(name, (ReLU("relu"), Dropout("drop", 0.5))) for name in ("one", "two")]
    drawn = masks.draw(replace(NETWORK, layers=(Flatten("flatten"), *blocks, Dense("last", 10))), 0, 0, 8)
    assert drawn.keys() == {"one.drop", "two.drop"}
    assert not np.array_equal(drawn["one.drop"], drawn["two.drop"])


def test_a_process_has_the_masks_of_its_images():
    whole = masks.draw(NETWORK, 0, 3, 8)["drop"]
    shares = [Share(2, 4, 0, 4, 8), Share(6, 8, 4, 8, 8)]
    assert np.array_equal(masks.draw_part(NETWORK, 0, 3, 8, shares)["drop"], whole[[2, 3, 6, 7]])


def test_another_word_is_refused():
    with pytest.raises(TriptychError, match="did you mean 'shared'"):
        replace(RECIPE, masks="share")
