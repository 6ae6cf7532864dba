"""`archs` and `summary`: what is in the zoo. No framework, not even NumPy, is needed for them."""

import re
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import Parameter

from triptych import zoo
from triptych.cli.arch import resolve
from triptych.cli.options import DEFAULT_NETWORK, Flag, JsonFile, NetworkOptions, write_json
from triptych.report.tables import print_table
from triptych.spec import analysis
from triptych.spec.analysis import LayerInfo
from triptych.spec.layers import Architecture, Shape, children, outputs
from triptych.spec.shapes import output_shapes
from triptych.spec.stack import parse
from triptych.utils.errors import TriptychError
from triptych.zoo import Options
from triptych.zoo.vgg import of_conv_arch

MOST_ROWS = 30


def archs(*, json: JsonFile = None) -> None:
    """List the architectures with parameters, multiply-accumulates, input and source.

    Example: triptych archs
    """
    facts, rows = [], []
    for name, entry in zoo.registry().items():
        parameters, macs, *_ = analysis.counts(zoo.build(name))
        counts = (str(entry.classes), f"{parameters:,}", f"{macs:,}")
        rows.append((name, size(entry.input), *counts, entry.source))
        sums = {"arch": name, "parameters": parameters, "macs": macs}
        known = {"input": entry.input, "classes": entry.classes, "heads": entry.heads, "source": entry.source}
        facts.append(sums | known)
    write_json(json, facts)
    if json is None:
        columns = ("architecture", "input", "classes", "parameters", "MACs", "source")
        print_table(columns, rows, right=(2, 3, 4), cut=(5,))


def summary(
    arch: Annotated[
        str | None, Parameter(help="Architecture (`triptych archs` lists them), file, or module:name.")
    ] = None,
    *,
    conv_arch: Annotated[
        str | None, Parameter(help="A VGG instead, as 1x64,1x128,2x256: convolutions x channels.")
    ] = None,
    stack: Annotated[str | None, Parameter(help="Layers instead, e.g. 'conv3 valid, conv3 s2 c64, pool2'.")] = None,
    network: NetworkOptions = DEFAULT_NETWORK,
    blocks: Annotated[
        Flag, Parameter(help="One line per block with its output shape, as the textbooks print it.")
    ] = False,
    spec: Annotated[Flag, Parameter(help="The spec as JSON, which --arch takes as FILE.json.")] = False,
    json: JsonFile = None,
) -> None:
    """Print every layer's output shape, parameters, multiply-accumulates, receptive field and stride.

    Example: triptych summary vgg11 --input 1x224x224 --classes 10 --blocks
    """
    if blocks + spec + (json is not None) > 1:
        raise TriptychError("give one of --blocks, --spec and --json")
    architecture = summarised(arch, conv_arch, stack, network, checked=spec)  # others judge by a spec
    if spec:
        from triptych.spec import records

        print(records.write(architecture), end="")
    elif blocks:
        shapes = output_shapes(architecture)
        for layer in architecture.layers:
            print(f"{layer.name} output shape: {(1, *shapes[layer.name])}")  # for a batch of one image
    elif json is not None:
        write_json(json, as_json(architecture))
    else:
        print_summary(architecture)


def summarised(
    arch: str | None, conv_arch: str | None, stack: str | None, network: NetworkOptions, *, checked: bool
) -> Architecture:
    """What is to be summed up; `checked` as `resolve` takes it. Raises TriptychError unless exactly one of the three is
    given, and for one that is no network."""
    if sum(one is not None for one in (arch, conv_arch, stack)) != 1:
        raise TriptychError("give an architecture, or --conv-arch, or --stack: one of them")
    if arch is not None:
        return resolve(arch, network, checked=checked).architecture
    if conv_arch is not None:
        return of_conv_arch(rows_of(conv_arch), Options().vary(**network.changes()).filled(10, (1, 224, 224)))
    known = replace(network, input=None, resolution=None)
    if known != DEFAULT_NETWORK:
        raise TriptychError("--stack takes --input or --resolution, and nothing else of a network's options")
    size = Options().vary(**network.changes()).filled(0, (3, 224, 224)).input
    return parse(str(stack), size)


def rows_of(conv_arch: str) -> tuple[tuple[int, int], ...]:
    """`1x64,2x128` as pairs (convolutions, channels). Raises TriptychError for anything else."""
    rows = [re.fullmatch(r"([1-9][0-9]{0,2})x([1-9][0-9]{0,5})", item.strip()) for item in conv_arch.split(",")]
    if None in rows or len(rows) > MOST_ROWS:
        raise TriptychError(f"--conv-arch '{conv_arch[:60]}' is not like 1x64,1x128,2x256 (convolutions x channels)")
    return tuple((int(row[1]), int(row[2])) for row in rows if row is not None)


def as_json(architecture: Architecture) -> dict[str, Any]:
    """The summary as data: the layers that compute, by path; receptive field and stride of the larger axis."""
    return {
        "arch": architecture.name,
        "input": list(architecture.input),
        "classes": architecture.classes,
        **vars(analysis.totals(architecture)),
        "layers": [
            {
                "name": info.path,
                "kind": info.kind,
                "output": list(info.output),
                "parameters": info.parameters,
                "macs": info.macs,
                "receptive_field": max(info.receptive_field),
                "stride": max(info.stride),
                "auxiliary": info.auxiliary,
            }
            for info in analysis.primitives(architecture)
        ],
    }


def print_summary(architecture: Architecture) -> None:
    """The layer table and the totals."""
    shape = size(architecture.input)
    source = f"; {architecture.source}" if architecture.source else ""
    print(f"{architecture.name}, input {shape}, {ends(architecture)}{source}")
    columns = ("layer", "kind", "output", "parameters", "MACs", "field", "stride")
    print_table(columns, [row(info) for info in analysis.analyse(architecture)], right=(3, 4, 5, 6))
    totals = analysis.totals(architecture)
    print(f"parameters {totals.parameters:,}, multiply-accumulates {totals.macs:,} per image")
    if totals.auxiliary_parameters:
        print(
            f"auxiliary heads, in training only: {totals.auxiliary_parameters:,} parameters and "
            f"{totals.auxiliary_macs:,} multiply-accumulates more"
        )
    megabytes = totals.forward_bytes / 1e6, totals.training_bytes / 1e6
    print(f"activations per image (float32): {megabytes[0]:.2f} MB forward, {megabytes[1]:.2f} MB training")


def row(info: LayerInfo) -> tuple[str, ...]:
    """One line of the table; composites head their layers, which are indented below them."""
    name = "  " * info.depth + info.path.rsplit(".", 1)[-1]
    if children(info.layer):
        return name, info.kind, size(info.output), f"{info.parameters:,}", f"{info.macs:,}", "", ""
    field, stride = pair(info.receptive_field), pair(info.stride)
    return name, info.kind, size(info.output), count(info.parameters), count(info.macs), field, stride


def ends(architecture: Architecture) -> str:
    """`10 classes`; or the outputs with their shapes."""

    if architecture.classes:
        return f"{architecture.classes} classes"
    shapes = output_shapes(architecture)
    return ", ".join(f"output {path} {size(shapes[path])}" for path in outputs(architecture))


def size(shape: Shape) -> str:
    """`64x112x112`."""
    return "x".join(map(str, shape))


def pair(values: tuple[int, int]) -> str:
    """One number where rows and columns agree."""
    return str(values[0]) if values[0] == values[1] else size(values)


def count(number: int) -> str:
    """With separators; nothing for 0."""
    return f"{number:,}" if number else ""
