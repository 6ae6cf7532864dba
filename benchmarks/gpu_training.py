"""Parts 3 and 4 of gpu.py: the textbook's run, CIFAR-10 and Fashion-MNIST to an accuracy, whole, in seconds."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from scipy import stats

from triptych import data
from triptych.backend import registry
from triptych.data import Dataset
from triptych.data.batches import Augmentation
from triptych.optim.optimizers import SGD
from triptych.optim.schedules import OneCycle
from triptych.training import loop, sessions
from triptych.training.recipe import Recipe, vary
from triptych.training.recipes import get_recipe
from triptych.utils.errors import TriptychError
from triptych.zoo import Options

Result = tuple[str, dict[str, Any]]
RUNS = 10


def textbook(options: argparse.Namespace, name: str) -> Iterator[Result]:
    """VGG-11 with a quarter of the channels, 224x224, five epochs, as the textbook has it; then in bf16."""
    recipe = get_recipe("d2l-vgg")
    for precision in ("fp32", "bf16"):
        yield precision, trained(options, name, tiny(options, vary(recipe, precision=precision)), 0, goal=0.90)


def fashion(options: argparse.Namespace, name: str) -> Iterator[Result]:
    """Fashion-MNIST to 94 %, many seeds."""
    recipe = fast("fashion-mnist", Options(10, (1, 28, 28), 1, head="small"), epochs=15)
    yield from seeds(options, name, recipe, goal=0.94)


def cifar(options: argparse.Namespace, name: str) -> Iterator[Result]:
    """CIFAR-10 to 93 % (91 % of the copy in JPEG), many seeds."""
    recipe = fast(options.cifar or "cifar10", Options(10, (3, 32, 32), 1, head="small"), epochs=30)
    yield from seeds(options, name, recipe, goal=0.91 if options.cifar else 0.93)


def fast(source: str, network: Options, epochs: int) -> Recipe:
    """VGG-11 with batch norm, one cycle of SGD with Nesterov's momentum, crops and flips, bf16."""
    return Recipe(
        name="fast",
        architecture="vgg11_bn",
        data=source,
        network=network,
        batch_size=512,
        test_batch_size=1000,
        epochs=epochs,
        learning_rate=0.2,
        optimizer=SGD(momentum=0.9, nesterov=True, weight_decay=5e-4),
        schedule=OneCycle(maximum=0.2),
        initializer="kaiming_uniform",
        augmentation=Augmentation(crop_padding=4, flip=True),
        mean=(0.5,) * network.input[0],
        std=(0.25,) * network.input[0],
        precision="bf16",
    )


def tiny(options: argparse.Namespace, recipe: Recipe) -> Recipe:
    """With `--tiny`: an epoch of the small set at 32x32."""
    if not options.tiny:
        return recipe
    channels = recipe.network.input[0]
    network = replace(recipe.network, input=(channels, 32, 32), width_ratio=16, dense_width=None)
    return replace(recipe, data="synthetic", network=network, epochs=1, batch_size=64, test_batch_size=0)


def dataset_of(options: argparse.Namespace, recipe: Recipe) -> Dataset:
    """The recipe's data; the textbook's small set where the whole of Fashion-MNIST is not here."""
    try:
        return data.load(recipe.data, data_dir=options.data_dir)
    except TriptychError:
        if recipe.data != "fashion-mnist":
            raise
        return data.load("fashion-mnist-mini")


def trained(options: argparse.Namespace, name: str, recipe: Recipe, seed: int, goal: float) -> dict[str, Any]:
    """One run: seconds of training, the first epoch's apart (it compiles), and the test accuracy."""
    dataset = dataset_of(options, recipe)
    began = time.perf_counter()
    session = sessions.start(registry.load(name), replace(recipe, seed=seed), dataset, device=options.device)
    epochs = loop.fit(session, loop.Listener())
    facts = {
        "data": dataset.name,
        "seconds": sum(epoch.seconds for epoch in epochs),
        "first_epoch_seconds": epochs[0].seconds,
        "whole_seconds": time.perf_counter() - began,
        "accuracy": epochs[-1].test_accuracy,
        "reached": next((epoch.epoch for epoch in epochs if epoch.test_accuracy >= goal), None),
    }
    return facts if options.tiny else facts | {"passed": epochs[-1].test_accuracy >= goal}


def seeds(options: argparse.Namespace, name: str, recipe: Recipe, goal: float) -> Iterator[Result]:
    """One run after another, each as soon as it is done; then their mean with its 95 % interval."""
    try:
        dataset_of(options, tiny(options, recipe))
    except TriptychError as error:
        yield "data", {"passed": False, "not_run": str(error)}
        return
    found = []
    for seed in range(2 if options.tiny else RUNS):
        facts = trained(options, name, tiny(options, recipe), seed, goal)
        found.append(facts["accuracy"])
        yield f"seed {seed}", facts
    half = float(stats.t.ppf(0.975, len(found) - 1)) * statistics.stdev(found) / len(found) ** 0.5
    yield "accuracy", {"runs": len(found), "mean": statistics.mean(found), "half_interval": half, "goal": goal}
