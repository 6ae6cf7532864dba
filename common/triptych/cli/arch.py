"""What `--arch` names, as a spec: a name of the zoo with its options, or anybody's network."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from triptych.cli.options import DEFAULT_NETWORK, NetworkOptions
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.importers.steps import Imported, Request
    from triptych.spec.layers import Architecture
    from triptych.zoo import Options

OF_THE_ZOO = ("classes", "width_ratio", "dense_width", "head")
OF_SOURCES = ("output", "keep_softmax")


def resolve(
    arch: str, network: NetworkOptions = DEFAULT_NETWORK, *, small: bool = False, checked: bool = True
) -> Imported:
    """The network that `arch` names, with its own weights where it has some. `small`: one of the zoo without options is
    narrow and small but complete, as conformance takes it; `checked`: what is imported is run beside its source. What
    an importer has to say goes to standard error. Raises TriptychError for what is no network, and for options that
    belong to other networks."""
    imported = read(arch, network, small=small, checked=checked)
    for remark in imported.remarks:
        print(f"{arch}: {remark}", file=sys.stderr)
    return imported


def read(
    arch: str, network: NetworkOptions = DEFAULT_NETWORK, *, small: bool = False, checked: bool = True
) -> Imported:
    """As `resolve`; what an importer has to say stays in the result."""
    from triptych import zoo
    from triptych.importers.steps import Imported

    if not is_zoo(arch):
        return _imported(arch, network, checked)
    _refuse(network, OF_SOURCES, f"is for networks from files and modules; '{arch}' is one of the zoo")
    architecture = zoo.build_with(arch, zoo_options(arch, network, small))
    if network.weights is None:
        return Imported(architecture, None)
    from triptych.porting import sources

    return sources.load_weights(network.weights, architecture)


def zoo_options(arch: str, network: NetworkOptions, small: bool) -> Options:
    """The options of a network of the zoo, complete."""
    if small and replace(network, weights=None) == DEFAULT_NETWORK:
        from triptych.conformance import case

        return case.conformance_options(arch)
    return network.options(arch)


def certified_options(arch: str, network: NetworkOptions) -> Options | None:
    """What rebuilds the network from the zoo; None for one that is whole by itself."""
    return zoo_options(arch, network, small=True) if is_zoo(arch) else None


def is_zoo(arch: str) -> bool:
    """Whether `arch` is a name of the zoo, or a mistyped one."""
    from triptych import zoo

    if arch in zoo.registry():
        return True
    from triptych.porting import sources

    return sources.is_zoo(arch)


def _imported(arch: str, network: NetworkOptions, checked: bool) -> Imported:
    from triptych.porting import sources

    _refuse(network, OF_THE_ZOO, f"is for networks of the zoo; '{arch}' is complete")
    imported = sources.read(arch, request_of(network), network.weights, checked=checked)
    if network.resolution is None:
        return imported
    return replace(imported, architecture=_resized(imported.architecture, network.resolution))


def request_of(network: NetworkOptions) -> Request:
    """What the options want of a network that is imported."""
    from triptych.importers.steps import Request

    outputs = tuple(name.strip() for name in (network.output or "").split(",") if name.strip())
    return Request(input=network.shape(), outputs=outputs, keep_softmax=network.keep_softmax)


def _resized(architecture: Architecture, resolution: int) -> Architecture:
    from triptych.spec.shapes import output_shapes

    resized = replace(architecture, input=(architecture.input[0], resolution, resolution))
    output_shapes(resized)
    return resized


def _refuse(network: NetworkOptions, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if getattr(network, name) != getattr(DEFAULT_NETWORK, name):
            raise TriptychError(f"--{name.replace('_', '-')} {reason}; leave it out")
