"""A data set that is larger than memory: `python benchmarks/large_data.py [--backend torch]`.

Training from a mapped file beside training from memory, in turns, the same images and batches; and how fast images of
ImageNet's usual size are decoded, written and hashed, from which docs/scaling.md plans a folder of 1.28 million."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from triptych.backend import registry
from triptych.data import Dataset, Split, cached, decoded, load, storage
from triptych.training import loop, sessions
from triptych.training.recipe import Recipe, vary
from triptych.utils.process import prepare_process

IMAGES, TURNS = 30_000, 5
NETWORKS = {"lenet": (28, 1.0), "vgg11": (32, 8.0)}  # resolution, width ratio
PICTURES, SIZE = 400, (500, 375)  # ImageNet's images are 400 x 350 in the mean, 500 x 375 most often
DECODED = (224, 224)


def trained(name: str, backend: str, dataset: Dataset) -> float:
    """Images per second of an epoch."""
    side, ratio = NETWORKS[name]
    recipe = vary(Recipe(name="x", architecture=name, data="synthetic"), input=(0, side, side), width_ratio=ratio)
    session = sessions.start(registry.load(backend), replace(recipe, batch_size=128, epochs=1), dataset)
    return loop.fit(session, loop.Listener())[0].images_per_second


def compare(backend: str, place: Path) -> None:
    """Epochs from memory and from a file, in turns."""
    small = load("fashion-mnist-mini")
    places = np.arange(IMAGES) % len(small.train)
    resident = small.train.images[places]
    mapped = storage.mapped(resident.shape, place)
    mapped[:] = resident
    labels, test = small.train.labels[places], Split(small.test.images[:64], small.test.labels[:64])
    sets = {kind: Dataset("x", Split(x, labels), test, small.class_names) for kind, x in
            (("memory", resident), ("file", mapped))}  # fmt: skip
    for name in NETWORKS:
        speeds: dict[str, list[float]] = {kind: [] for kind in sets}
        for _ in range(TURNS):
            for kind, dataset in sets.items():
                speeds[kind].append(trained(name, backend, dataset))
        middle = {kind: float(np.median(values)) for kind, values in speeds.items()}
        print(f"{backend} {name}: {middle['memory']:.0f} images/s from memory, {middle['file']:.0f} from a file, ratio "
              f"{middle['file'] / middle['memory']:.2f}")  # fmt: skip


def decode(place: Path) -> None:
    """Rates of the parts of a first start and of a later one."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(PICTURES):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        noisy = np.clip(np.asarray(coarse) + random.normal(0, 12, (SIZE[1], SIZE[0], 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(place / f"{number}.jpg", quality=90)
    paths = sorted(place.glob("*.jpg"))
    size = sum(path.stat().st_size for path in paths) / len(paths)
    began, cpu = time.perf_counter(), time.process_time()
    images = decoded.decode(paths, DECODED)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(f"decoded to {DECODED[0]}x{DECODED[1]}: {PICTURES / seconds:.0f} images/s, {1e3 * cpu / PICTURES:.2f} ms of "
          f"the processor each; files of {size / 1e3:.0f} kB, {images[0].nbytes / 1e3:.0f} kB decoded")  # fmt: skip
    began = time.perf_counter()
    cached._hash(images)
    print(f"hashed: {images.nbytes / (time.perf_counter() - began) / 1e9:.2f} GB/s")


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--only", choices=("train", "decode"))
    given = parser.parse_args()
    prepare_process()
    with TemporaryDirectory() as folder:
        if given.only != "train":
            decode(Path(folder))
        if given.only != "decode":
            compare(given.backend, Path(folder))


if __name__ == "__main__":
    main()
