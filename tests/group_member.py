"""One of several processes in a test: trains as `train` does, several recipes one after the other, and keeps the runs.

`python group_member.py BACKEND DEVICES OUT RECIPE-PRECISION...`; alone where no launcher has started it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from triptych import data
from triptych.backend import registry
from triptych.backend.execution import Execution
from triptych.backend.group import Group
from triptych.data import Dataset, Split
from triptych.data.batches import Augmentation
from triptych.optim.optimizers import SGD
from triptych.spec.layers import (
    Architecture,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    MaxPool,
    ReLU,
)
from triptych.training import loop, sessions
from triptych.training.distributed.membership import one_of
from triptych.training.recipe import Recipe
from triptych.weights.initializers import Parameters

LAYERS = (
    Conv("conv1", 8, (3, 3), padding=(1, 1)),
    BatchNorm("bn1"),
    ReLU("relu1"),
    MaxPool("pool1", (2, 2), (2, 2)),
    Dropout("drop1", 0.3),
    Conv("conv2", 8, (3, 3), padding=(1, 1)),
    BatchNorm("bn2"),
    ReLU("relu2"),
    Flatten("flatten"),
    Dropout("drop2", 0.5),
    Dense("output", 10),
)
NETWORK = Architecture("small", (1, 12, 12), 10, LAYERS)
PLAIN = replace(NETWORK, layers=tuple(layer for layer in LAYERS if not isinstance(layer, BatchNorm)))
LOCAL = replace(NETWORK, layers=tuple(layer for layer in LAYERS if not isinstance(layer, Dropout)))
# 49 images in batches of 16: twenty steps, every fourth of a single image, which no two processes can share.
RECIPE = Recipe(
    "group",
    architecture="small",
    spec=NETWORK,
    data="synthetic",
    batch_size=16,
    epochs=5,
    learning_rate=0.05,
    optimizer=SGD(momentum=0.9, weight_decay=1e-3),
    augmentation=Augmentation(crop_padding=2, flip=True),
    seed=3,
)
RECIPES = {
    "whole": RECIPE,
    "accumulated": replace(RECIPE, accumulate=2, epochs=2),
    "plain": replace(RECIPE, spec=PLAIN, batch_size=15, epochs=2),  # 15: unequal parts
    "local": replace(RECIPE, spec=LOCAL, batch_norm="local", epochs=1),
}
# What two processes with local batch norm do but for running statistics: each half by its own.
HALVES = replace(RECIPES["local"], accumulate=2)


def dataset() -> Dataset:
    whole = data.load("synthetic")
    parts = ((whole.train, 49), (whole.test, 37))
    return Dataset("synthetic", *(Split(s.images[:n], s.labels[:n]) for s, n in parts), whole.class_names)


def run(name: str, recipe: Recipe, group: Group) -> Parameters:
    """Losses, metrics, parameters, statistics and the optimiser's state after a training."""
    backend = registry.load(name)
    backend.apply_execution(Execution(recipe.precision), "cpu")
    session = sessions.start(backend, recipe, dataset(), group=group)
    epochs = loop.fit(session, loop.Listener())
    losses = np.array([loss for epoch in epochs for loss in epoch.losses])
    metrics = np.array([(e.train_loss, e.train_accuracy, e.test_loss, e.test_accuracy) for e in epochs])
    arrays = backend.to_canonical(session.network) | session.trainer.state()
    return {"losses": losses, "metrics": metrics, **arrays}


def main() -> None:
    name, devices, out, *wanted = sys.argv[1:]
    group = registry.load(name).join("cpu", int(devices))
    with one_of(group):
        for kind, precision in (each.split("-") for each in wanted):
            recipe = HALVES if kind == "local" and group.size == 1 else RECIPES[kind]
            arrays = run(name, replace(recipe, precision=precision), group)
            if group.rank == 0:
                np.savez(Path(out) / f"{kind}-{precision}.npz", **arrays)


if __name__ == "__main__":
    main()
