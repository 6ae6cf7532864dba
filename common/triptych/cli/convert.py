"""`convert`: weights from one format into another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from triptych.cli import options
from triptych.cli.arch import is_zoo, request_of, resolve
from triptych.utils.errors import TriptychError

if TYPE_CHECKING:
    from triptych.porting.convert import Conversion


def convert(
    source: Annotated[str, Parameter(help="A run folder or network with weights; with --arch, a file of weights.")],
    target: Annotated[
        Path,
        Parameter(
            help="File to write: .safetensors, .pt, .params, .npz, .msgpack, .weights.h5 or .orbax.",
            validator=options.writable("DST"),
        ),
    ],
    *,
    arch: Annotated[
        str | None, Parameter(help="The network of a file of weights, or the one that a run began from.")
    ] = None,
    network: options.NetworkOptions = options.DEFAULT_NETWORK,
    to: Annotated[
        str | None,
        Parameter(help="canonical, torch, gluon, gluon-exported, flax, linen or keras; else by DST's ending."),
    ] = None,
    mapping: Annotated[
        Path | None, Parameter(help="JSON: names in SRC, or in DST where SRC is a network, to the spec's paths.")
    ] = None,
    propose_mapping: Annotated[
        Path | None,
        Parameter(
            help="File for what is known of the pairs, to edit and give as --mapping.",
            validator=options.writable("--propose-mapping"),
        ),
    ] = None,
    flatten: Annotated[
        str | None, Parameter(help="How a Flax or Keras network flattens a map: hwc (their way) or chw (triptych's).")
    ] = None,
    allow_unmatched: Annotated[options.Flag, Parameter(help="Convert what matches, leave the rest.")] = False,
    bits_only: Annotated[options.Flag, Parameter(help="Run no network with the written weights.")] = False,
) -> int:
    """Write weights in another framework's format, names and axes; check the bits and the outputs.

    Exit status 1: the outputs differ by more than rounding.

    Example: triptych convert runs/vgg11 vgg11.params
    """
    from triptych.porting.matching import read_mapping

    names = read_mapping(mapping)
    done = _converted(
        source, target, arch, network, to, names, propose_mapping, flatten, allow_unmatched, not bits_only
    )
    for remark in done.remarks:
        print(f"{target}: {remark}", file=sys.stderr)
    print(f"{target}: {done.summary}")
    return 0 if done.outputs.explained else 1


def _converted(
    source: str,
    target: Path,
    arch: str | None,
    network: options.NetworkOptions,
    to: str | None,
    names: dict[str, str],
    propose: Path | None,
    flatten: str | None,
    allow_unmatched: bool,
    compare: bool,
) -> Conversion:
    from triptych.porting import convert as conversion

    conversion.check_target(target, to, flatten)
    if arch is None:
        _check_source(source, network)
        if allow_unmatched or propose is not None:
            option = "--allow-unmatched" if allow_unmatched else "--propose-mapping"
            raise TriptychError(f"{option} is for a file of weights, with --arch; a network has all of its own")
        imported = resolve(source, network)
        symbol = conversion.symbol_of(source, imported.architecture, network.weights, vars(request_of(network)))
        return conversion.from_network(
            imported, target, to=to, mapping=names, flatten=flatten, compare=compare, symbol=symbol
        )
    architecture = resolve(arch, network).architecture
    return conversion.from_file(
        Path(source),
        architecture,
        target,
        to=to,
        mapping=names,
        flatten=flatten,
        allow_unmatched=allow_unmatched,
        propose=propose,
        compare=compare,
        symbol=conversion.symbol_of(arch, architecture, network.weights, vars(request_of(network))),
    )


def _check_source(source: str, network: options.NetworkOptions) -> None:
    """Raises TriptychError for a source without weights, and for a file of weights whose network is not named."""
    from triptych.weights.formats.endings import ENDINGS

    bare = (ending.ending for ending in ENDINGS if ending.ending not in (".pt", ".pth"))  # these can be TorchScript
    if source.endswith(tuple(bare)):
        raise TriptychError(f"{source} holds weights only; say which network with --arch")
    if is_zoo(source) and network.weights is None:
        raise TriptychError(f"'{source}' is a name of the zoo, without weights; give a run folder, or --weights FILE")
