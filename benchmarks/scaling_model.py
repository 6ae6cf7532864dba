"""What a training step costs on many devices, from what it costs on one: a model of the gradients' way.

python benchmarks/scaling_model.py            # the tables of docs/scaling.md

DistributedDataParallel adds gradients in buckets that leave as soon as they are full, while the backward pass goes on;
every host sends 2 (N - 1) / N of their bytes. JAX sends as many, on CPUs in one piece; MXNet's parameter server more.
The forward pass is a third of a step's products, the backward two thirds (one product for the input's gradient, one for
the kernel's).
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2, prod
from typing import NamedTuple

from triptych.bench.flops import NOMINAL, of_training
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture
from triptych.zoo import Options, build_with

BUCKET = 25 * 2**20  # bytes: DistributedDataParallel's default
FORWARD = 1 / 3  # of a step
HOP = 5e-6  # seconds from one host to the next, on a network for this purpose
# A device as the tables have it: 40 % of what an H100's data sheet says is an assumption, not a measurement.
DEVICE = 0.4 * NOMINAL["H100"]
BATCH = 64  # images of a device
LINKS = {"10 Gbit/s": 10e9 / 8, "100 Gbit/s": 100e9 / 8, "400 Gbit/s": 400e9 / 8}  # bytes a second of a device
COUNTS = (1, 8, 64, 256, 1024)
NETWORKS = ("vgg16", "resnet50_v1b", "googlenet")


class Way(NamedTuple):
    """How gradients are added, by the number of hosts: how often the slowest link carries their bytes, and how often a
    bucket goes from a host to the next."""

    copies: Callable[[int], float]
    hops: Callable[[int], float]


def shared_out(count: int) -> float:
    """Every host adds its part of the bytes, of all, and sends it to all."""
    return 2 * (count - 1) / count


RING = Way(shared_out, lambda count: 2 * (count - 1))  # gloo's
TREES = Way(shared_out, lambda count: 2 * log2(count))  # NCCL's double binary trees, since 2.4
# MXNet's, beside a worker: an array goes back when all have sent it, to each of the others by one link.
SERVER = Way(lambda count: count if count > 1 else 0, lambda count: 2 * min(1, count - 1))
WAYS = {"torch": RING, "jax": RING, "mxnet": SERVER}


@dataclass(frozen=True)
class StepCost:
    """One step: `compute` seconds without communication, `gradients` bytes."""

    compute: float
    gradients: float

    def communication(self, count: int, bandwidth: float, hop: float, way: Way) -> float:
        """Seconds that `count` hosts need to add their gradients, by links of `bandwidth` bytes a second."""
        return way.copies(count) * self.gradients / bandwidth + self.buckets * way.hops(count) * hop

    @property
    def buckets(self) -> int:
        """How many leave one after the other."""
        return max(1, round(self.gradients / BUCKET))

    def seconds(self, count: int, bandwidth: float, hop: float = HOP, way: Way = TREES) -> float:
        """The whole step: the backward pass fills the buckets in turn, and each is sent while the next is filled; the
        last one finds nothing left to hide behind."""
        backward, sent = (1 - FORWARD) * self.compute, self.communication(count, bandwidth, hop, way)
        pieces = self.buckets
        return FORWARD * self.compute + (backward + sent + (pieces - 1) * max(backward, sent)) / pieces

    def efficiency(self, count: int, bandwidth: float) -> float:
        """Images a second of each device, as a share of one alone."""
        return self.compute / self.seconds(count, bandwidth)


def gradient_bytes(architecture: Architecture, size: int = 4) -> int:
    """Bytes of one step's gradients."""
    return size * sum(prod(array.shape) for array in parameters(architecture) if array.trained)


def step_of(architecture: Architecture, size: int) -> StepCost:
    """`BATCH` images on the assumed device, with gradients of `size` bytes each."""
    return StepCost(BATCH * of_training(architecture) / DEVICE, gradient_bytes(architecture, size))


def table(name: str) -> list[str]:
    """Thousands of images a second, and the efficiency, of a network at 224x224, in Markdown."""
    architecture = build_with(name, Options())
    single, half = step_of(architecture, 4), step_of(architecture, 2)
    lines = [
        f"**{name}**: {single.gradients / 1e6:.0f} MB of float32 gradients a step, {1e3 * single.compute:.1f} ms of "
        f"computing for {BATCH} images",
        "",
        "| link of a device, gradients | " + " | ".join(map(str, COUNTS)) + " |",
        "|---" * (1 + len(COUNTS)) + "|",
    ]
    for link, bandwidth in LINKS.items():
        for kind, step in (("float32", single), ("bfloat16", half)):
            cells = (
                f"{count * BATCH / step.seconds(count, bandwidth) / 1e3:,.0f} ({step.efficiency(count, bandwidth):.0%})"
                for count in COUNTS
            )
            lines.append(f"| {link}, {kind} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    for network in NETWORKS:
        print("\n".join(table(network)))
