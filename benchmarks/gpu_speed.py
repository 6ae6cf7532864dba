"""Parts 2 and 5 of gpu.py: training speed against the device's best matrix product and the textbook's loop; memory."""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych import data
from triptych.backend import registry
from triptych.backend.contract import Backend
from triptych.backend.execution import Execution
from triptych.bench import flops
from triptych.bench.peers import textbook
from triptych.data import Dataset, Split
from triptych.optim.optimizers import SGD, Rates
from triptych.training import sessions
from triptych.training.recipe import Recipe, build_architecture, draw
from triptych.zoo import Options

Result = tuple[str, dict[str, Any]]
RATES = Rates(0.001, 0.9)


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    archs: tuple[str, ...]
    size: int
    batch: int
    width_ratio: int
    products: tuple[int, ...]
    batches: tuple[int, ...]
    repeats: int
    steps: int
    compilations: tuple[str, ...]


FULL = Scale(
    ("vgg16", "vgg11", "googlenet", "resnet50"),
    224,
    256,
    1,
    (4096, 8192, 16384),
    (32, 64, 128, 256, 512, 1024),
    5,
    8,
    ("full", "fused", "graphs"),
)
TINY = Scale(("lenet", "vgg11"), 32, 8, 16, (256, 512), (8, 16), 2, 1, ("full",))


def recipe_of(arch: str, scale: Scale, precision: str, batch: int | None = None) -> Recipe:
    """A thousand classes of colour images, as ImageNet has them."""
    size = Options(1000, (3, scale.size, scale.size), scale.width_ratio if arch != "lenet" else 1)
    return Recipe(
        name="gpu",
        architecture=arch,
        data="synthetic",
        network=size if arch != "lenet" else Options(10, (1, 28, 28)),
        batch_size=batch or scale.batch,
        learning_rate=RATES.learning_rate,
        optimizer=SGD(momentum=RATES.momentum),
        initializer="kaiming_uniform",
        precision=precision,
    )


def large(recipe: Recipe, small: Dataset) -> Dataset:
    """Random images as large as the network's input: nothing is left to resize."""
    channels, height, width = recipe.network.input
    images = np.random.default_rng(0).integers(0, 256, (recipe.batch_size, channels, height, width), np.uint8)
    labels = np.arange(recipe.batch_size) % 10
    return replace(small, train=Split(images, labels.astype(np.int64)))


def timed(run: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def best_product(backend: str, scale: Scale, precision: str, device: str) -> float:
    """FLOP/s of the fastest square product, each size five times."""
    module, rates = registry.load_benchmark(backend), []
    for size in scale.products:
        product = module.matrix_product(size, Execution(precision), device)
        product()
        rates += [2 * size**3 / timed(product) for _ in range(5)]
    return max(rates)


def runner(
    session: sessions.Session, images: NDArray[np.uint8], labels: NDArray[np.int64], steps: int
) -> Callable[[], Any]:
    """A function that trains so many steps, each on the next batch of the images, and waits for them."""
    size = session.recipe.batch_size
    number = 0

    def run() -> None:
        nonlocal number
        handles = []
        for _ in range(steps):
            places = np.arange(number * size, (number + 1) * size) % len(labels)
            handles.append(session.trainer.step(images[places], labels[places], RATES, number))
            number += 1
        if not np.isfinite(session.trainer.read(handles)).all():
            raise FloatingPointError("a loss is not finite")

    return run


def start(
    backend: Backend, recipe: Recipe, dataset: Dataset, device: str, compilation: Any = "full"
) -> sessions.Session:
    """The one trainer, as the execution says."""
    architecture = build_architecture(recipe, dataset)
    return sessions.start(backend, recipe, dataset, device=device, architecture=architecture, compilation=compilation)


def speed(run: Callable[[], object], images: int, repeats: int) -> dict[str, float]:
    """Images per second: the median and the range of repeats."""
    rates = [images / timed(run) for _ in range(repeats)]
    return {"images_per_second": statistics.median(rates), "lowest": min(rates), "highest": max(rates)}


def throughput(options: argparse.Namespace, name: str) -> Iterator[Result]:
    """bf16 (float32 where there is none) on each architecture: images that need no resize, real ones of 28x28 that are
    resized on the device, the textbook's loop, and what else the execution offers."""
    scale, backend = (TINY if options.tiny else FULL), registry.load(name)
    product = best_product(name, scale, "bf16", options.device)
    yield "best product", {"bf16_tflops": product / 1e12, "versions": backend.versions()}
    real = data.load("fashion-mnist-mini")
    for arch in scale.archs:
        recipe = recipe_of(arch, scale, "bf16")
        synthetic, count = large(recipe, real), scale.steps * recipe.batch_size
        architecture = build_architecture(recipe, real)
        cost = flops.of_training(architecture)
        for compilation in scale.compilations if name == "torch" else scale.compilations[:1]:
            began = time.perf_counter()
            session = start(backend, recipe, synthetic, options.device, compilation)
            run = runner(session, synthetic.train.images, synthetic.train.labels, scale.steps)
            run()
            first = time.perf_counter() - began
            facts: dict[str, Any] = speed(run, count, scale.repeats)
            achieved = cost * facts["images_per_second"]
            facts |= {"of_best_product": achieved / product, "tflops": achieved / 1e12, "first_seconds": first}
            if peak := flops.nominal(backend, options.device):
                facts["mfu"] = achieved / peak
            if compilation == "full":
                fed_run = runner(session, real.train.images, real.train.labels, scale.steps)
                fed_run()
                fed = speed(fed_run, count, scale.repeats)
                facts["real_data_ratio"] = fed["images_per_second"] / facts["images_per_second"]
            yield f"{arch} {compilation}", facts
            del session, run
            gc.collect()
    yield from against_textbook(options, name, scale, real)


def against_textbook(options: argparse.Namespace, name: str, scale: Scale, real: Dataset) -> Iterator[Result]:
    """The loop of the framework's textbook on VGG-11 with a quarter of the channels, float32, against ours in bf16."""
    ratio, width, batch = (16, 64, 8) if options.tiny else (4, 4096, 128)
    network = Options(10, (1, scale.size, scale.size), ratio, dense_width=width)
    recipe = replace(recipe_of("vgg11", scale, "bf16", batch), network=network)
    session = start(registry.load(name), recipe, real, options.device)
    parameters, size = draw(recipe, session.architecture), recipe.batch_size
    plain = textbook(session.architecture, name, parameters, size, RATES, options.device)
    count = size * scale.steps * 2
    images, labels = real.train.images[:count], real.train.labels[:count]
    for _ in range(2):  # Flax compiles again for the optimiser's state after the first step
        plain.train(plain.load(images[:size], labels[:size]))
    theirs = speed(lambda: plain.train(plain.load(images, labels)), count, 3)
    run = runner(session, images, labels, scale.steps * 2)
    run()
    ours = speed(run, count, scale.repeats)
    times = ours["images_per_second"] / theirs["images_per_second"]
    yield "against the textbook's loop", {"ratio": times, "ours": ours, "theirs": theirs}


def memory(options: argparse.Namespace, name: str) -> Iterator[Result]:
    """The device's peak memory of VGG-16 by batch size, until it does not fit."""
    scale, backend = (TINY if options.tiny else FULL), registry.load(name)
    for batch in scale.batches:
        recipe = recipe_of("vgg11" if options.tiny else "vgg16", scale, "bf16", batch)
        dataset = large(recipe, data.load("synthetic"))
        try:
            session = start(backend, recipe, dataset, options.device)
            runner(session, dataset.train.images, dataset.train.labels, 2)()
        except Exception as error:  # out of memory is another class in every framework
            yield f"batch {batch}", {"fits": False, "error": str(error).splitlines()[0][:200]}
            return
        yield f"batch {batch}", {"fits": True, "peak_gib": backend.peak_memory(options.device) / 2**30}
        del session
        gc.collect()
