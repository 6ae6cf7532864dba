"""What the Inception family shares: the notation of its tables, the layers they stand for, and heads on small maps.

A table names each branch and lists its steps. Everything else about a network (bias, batch norm) is in `Parts`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from triptych.spec import layers as spec
from triptych.spec.kinds.kind import TooSmallError
from triptych.spec.shapes import SEARCH_LIMIT, run_shapes
from triptych.zoo import Entry, Options

ENTRIES: tuple[Entry, ...] = ()

# eps is 1e-3 throughout the family. Google's own code keeps 0.9997 of the old running statistics, which wants
# millions of steps; the PyTorch ports (torchvision, timm, facenet-pytorch) and so this zoo take in 0.1 of each batch.
# Keras and slim train no gamma, the PyTorch ports do: the published counts include it.
NORM = spec.BatchNorm("norm", eps=1e-3, momentum=0.1, gamma=True, unbiased=True)


@dataclass(frozen=True)
class Unit:
    """A convolution, its batch norm if there is one, and ReLU. Without `padding` a stride of 1 keeps the size."""

    channels: int
    kernel: int | spec.Pair = 1
    stride: int = 1
    padding: int | None = None


@dataclass(frozen=True)
class Fork:
    """A branch that ends in branches of its own."""

    branches: "Table"


Step: TypeAlias = Unit | Fork | spec.MaxPool | spec.AvgPool | spec.LocalResponseNorm
Table: TypeAlias = Mapping[str, tuple[Step, ...]]

# 3x3 at stride 2 without padding: what halves the maps from Inception v3 on ("VALID" in Google's code).
HALVE = spec.MaxPool("pool", kernel=(3, 3), stride=(2, 2))
# The 3x3 average at stride 1 before a projection. PyTorch's and Gluon's v2 and v3 count the padded zeros; Keras, slim
# and everybody's v4 and Inception-ResNet v2 do not.
AVERAGE = spec.AvgPool("pool", kernel=(3, 3), stride=(1, 1), padding=(1, 1), count_padding=True)
AVERAGE_INSIDE = replace(AVERAGE, count_padding=False)
# The stem of Inception v3 and of both Inception-ResNets, with Google's names.
STEM: dict[str, Step] = {
    "conv1a": Unit(32, 3, 2, padding=0),
    "conv2a": Unit(32, 3, padding=0),
    "conv2b": Unit(64, 3),
    "pool3a": HALVE,
    "conv3b": Unit(80),
    "conv4a": Unit(192, 3, padding=0),
}


@dataclass(frozen=True)
class Parts:
    """Layers from a network's tables, narrowed by `options`; `norm` follows every convolution, `bias` is theirs."""

    options: Options
    norm: spec.BatchNorm | None = NORM
    bias: bool = False

    def unit(self, suffix: str, unit: Unit, path: str = "") -> spec.Layers:
        """Convolution, batch norm and ReLU, called `conv`, `norm` and `relu` with `suffix`."""
        channels = self.options.channels(unit.channels, f"{path}conv{suffix}")
        rows, columns = (unit.kernel, unit.kernel) if isinstance(unit.kernel, int) else unit.kernel
        padding = (rows // 2, columns // 2) if unit.padding is None else (unit.padding, unit.padding)
        stride = (unit.stride, unit.stride)
        conv = spec.Conv(f"conv{suffix}", channels, (rows, columns), stride, padding, bias=self.bias)
        norm = () if self.norm is None else (replace(self.norm, name=f"norm{suffix}"),)
        return (conv, *norm, spec.ReLU(f"relu{suffix}"))

    def stem(self, table: Mapping[str, Step]) -> spec.Layers:
        """The layers before the first branches, under the names in the table (`conv...` for a unit)."""
        layers: list[spec.Layer] = []
        for name, step in table.items():
            if isinstance(step, Unit):
                layers += self.unit(name.removeprefix("conv"), step)
            elif not isinstance(step, Fork):
                layers.append(replace(step, name=name))
        return tuple(layers)

    def branches(self, name: str, table: Table, path: str = "") -> spec.Branches:
        """One module: the branches of `table` side by side, their convolutions numbered from 1 in each."""
        path = f"{path}{name}."
        return spec.Branches(
            name, tuple(spec.Block(key, self._row(steps, f"{path}{key}.")) for key, steps in table.items())
        )

    def _row(self, steps: tuple[Step, ...], path: str) -> spec.Layers:
        layers: list[spec.Layer] = []
        number = 0
        for step in steps:
            if isinstance(step, Unit):
                number += 1
                layers += self.unit(str(number), step, path)
            elif isinstance(step, Fork):
                layers.append(self.branches("split", step.branches, path))
            else:
                layers.append(step)
        return tuple(layers)

    def classifier(self, pool: str, dropout: float) -> spec.Layers:
        """Global average pooling and one dense layer, which take any size of map."""
        drop = (spec.Dropout("dropout", dropout),) if dropout else ()
        return (spec.GlobalAvgPool(pool), spec.Flatten("flatten"), *drop, spec.Dense("dense", self.options.classes))


def window(layers: list[spec.Layer], options: Options, largest: int) -> int:
    """The side of the square window of an auxiliary head behind `layers`: `largest`, or the map's shorter side. A head
    must not forbid a resolution that the network itself survives, so it shrinks with its map, as slim's Inception v3
    does (`_reduced_kernel_size_for_small_input`); nothing changes at the size of the paper. An input too small for
    `layers` is theirs to report, and gets 1."""
    try:
        shape = run_shapes(tuple(layers), options.input, {})
    except TooSmallError:
        return 1
    return min(largest, *shape[1:])


def channels_after(layers: spec.Layers, channels: int) -> int:
    """The channels behind `layers` for `channels` in front of them, whatever the size of the map."""
    return run_shapes(layers, (channels, SEARCH_LIMIT, SEARCH_LIMIT), {})[0]
