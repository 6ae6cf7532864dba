"""Which traps of the porting guide wait at which layer of a network: the page and its section, and what to watch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.spec import layers as spec
from triptych.spec.analysis import LayerInfo, analyse
from triptych.spec.layers import Architecture, Layer


@dataclass(frozen=True)
class Trap:
    """A section of `docs/porting`: `page`, `section` (its heading), and in a sentence what goes wrong silently."""

    page: str
    section: str
    text: str

    @property
    def anchor(self) -> str:
        """The heading's name in an address, as GitHub and MyST make it."""
        kept = "".join(c for c in self.section.lower() if c.isalnum() or c in " -_")
        return kept.replace(" ", "-")


def _named(kind: type[Layer] | tuple[type[Layer], ...], condition: Callable[[Any, LayerInfo], bool]) -> Any:
    return lambda info: isinstance(info.layer, kind) and condition(info.layer, info)


POOLS = (spec.MaxPool, spec.AvgPool)
# When a trap applies, by what is known of the layer, and the trap.
TRAPS: tuple[tuple[Callable[[LayerInfo], bool], Trap], ...] = (
    (
        _named((spec.Conv, *POOLS), lambda layer, info: max(layer.stride) > 1 and max(layer.padding) > 0),
        Trap(
            "convolution",
            "Padding at stride 2",
            "Flax's default, SAME, pads otherwise at stride 2: at even sizes below and on the right only.",
        ),
    ),
    (
        _named(spec.Conv, lambda layer, info: max(layer.stride) == 1 and max(layer.kernel) > 1),
        Trap(
            "convolution",
            "A padding that is off by one",
            "PyTorch and Gluon pad nothing by default, Flax pads SAME: a forgotten padding still runs.",
        ),
    ),
    (
        _named((spec.Conv, spec.ConvTranspose), lambda layer, info: True),
        Trap(
            "convolution",
            "The kernel's axes and its direction",
            "The weight is OIHW in PyTorch and Gluon, HWIO in Flax.",
        ),
    ),
    (
        _named(spec.Dense, lambda layer, info: True),
        Trap(
            "convolution",
            "The dense weight",
            "The weight is (out, in) in PyTorch and Gluon, (in, out) in Flax; a square one fits either way.",
        ),
    ),
    (
        _named(spec.Flatten, lambda layer, info: max(info.input[1:], default=1) > 1),
        Trap(
            "layouts",
            "Flatten before a dense layer",
            "A map is flattened channels first in PyTorch and Gluon, last in Flax: the next weight's columns move.",
        ),
    ),
    (
        _named(spec.ReLU, lambda layer, info: True),
        Trap(
            "convolution",
            "The activation that a layer brings along",
            "Gluon's layers take an activation as an argument; jnp.maximum has another gradient at 0 than a ReLU.",
        ),
    ),
    (
        _named(spec.BatchNorm, lambda layer, info: not layer.frozen),
        Trap(
            "normalisation",
            "Batch norm: the momentum's direction",
            "PyTorch's momentum 0.1 is MXNet's and Flax's 0.9.",
        ),
    ),
    (
        _named(spec.BatchNorm, lambda layer, info: not layer.frozen),
        Trap(
            "normalisation",
            "Batch norm: the running variance",
            "PyTorch keeps the unbiased variance of the batch, MXNet and Flax the biased one.",
        ),
    ),
    (
        _named(spec.BatchNorm, lambda layer, info: not layer.gamma or layer.eps != 1e-5),
        Trap(
            "normalisation",
            "Batch norm: eps and gamma",
            "The eps of MXNet's bare operator is 1e-3, and it fixes gamma at 1 unless it is told not to.",
        ),
    ),
    (
        _named(spec.LocalResponseNorm, lambda layer, info: True),
        Trap(
            "normalisation",
            "Local response normalisation",
            "PyTorch and MXNet divide alpha by the size, the paper's formula does not; Flax has none.",
        ),
    ),
    (
        _named(POOLS, lambda layer, info: layer.ceil),
        Trap(
            "pooling",
            "Ceil: the last, incomplete window",
            "The output's size is rounded up, as Caffe did; floor is the default, and Flax has nothing else.",
        ),
    ),
    (
        _named(spec.AvgPool, lambda layer, info: max(layer.padding) > 0),
        Trap(
            "pooling",
            "Average pooling: is padding counted?",
            "The padded zeros are counted by default in all three; many networks leave them out.",
        ),
    ),
    (
        _named(spec.MaxPool, lambda layer, info: True),
        Trap(
            "pooling",
            "The gradient where values tie",
            "Behind a ReLU whole windows are 0; the framework's own pooling sends the gradient to the first pixel.",
        ),
    ),
    (
        _named(spec.Dropout, lambda layer, info: True),
        Trap(
            "dropout",
            "The number is the share that is dropped",
            "The rate is the share that is dropped; older code gives the share to keep.",
        ),
    ),
    (
        _named(spec.Branches, lambda layer, info: layer.merge == "concatenate"),
        Trap(
            "layouts",
            "Joining branches",
            "Channels are axis 1 in PyTorch and Gluon, the last in Flax; the branches' order is part of it.",
        ),
    ),
    (
        _named(spec.Residual, lambda layer, info: layer.scale != 1),
        Trap(
            "layouts",
            "The residual's scale",
            "What the block adds is multiplied first; without it, shapes and parameters are the same.",
        ),
    ),
    (
        _named(spec.Auxiliary, lambda layer, info: True),
        Trap(
            "losses",
            "Auxiliary heads",
            "Each head's loss has its own weight, and evaluation leaves the heads out.",
        ),
    ),
)


def traps_in(architecture: Architecture) -> dict[Trap, list[str]]:
    """Every trap of a network with the paths of the layers at which it waits."""
    infos: Sequence[LayerInfo] = analyse(architecture)
    found = {trap: [info.path for info in infos if applies(info)] for applies, trap in TRAPS}
    return {trap: paths for trap, paths in found.items() if paths}


def local_guide() -> str:
    """The address of this checkout's porting guide, its built pages or else their text; empty where it has none."""
    docs = Path(__file__).parents[3] / "docs"
    places = (docs / "_build" / "html" / "porting", docs / "porting")
    return next((f"{place.as_uri()}/" for place in places if place.is_dir()), "")
