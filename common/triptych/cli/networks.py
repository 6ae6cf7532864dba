"""`archs` and `summary`: what is in the zoo. No framework, not even NumPy, is needed for them."""

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


def archs(*, json: JsonFile = None) -> None:
    """List the architectures with parameters, multiply-accumulates, input and source.

    Example: triptych archs
    """
    facts, rows = [], []
    for name, entry in zoo.registry().items():
        totals = analysis.totals(zoo.build(name))
        counts = (str(entry.classes), f"{totals.parameters:,}", f"{totals.macs:,}")
        rows.append((name, size(entry.input), *counts, entry.source))
        sums = {"arch": name, "parameters": totals.parameters, "macs": totals.macs}
        known = {"input": entry.input, "classes": entry.classes, "heads": entry.heads, "source": entry.source}
        facts.append(sums | known)
    write_json(json, facts)
    if json is None:
        columns = ("architecture", "input", "classes", "parameters", "MACs", "source")
        print_table(columns, rows, right=(2, 3, 4))


def summary(
    arch: Annotated[str, Parameter(help="Architecture (`triptych archs` lists them), file, or module:name.")],
    *,
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
    architecture = resolve(arch, network).architecture
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
    print(f"{architecture.name}, input {shape}, {ends(architecture)}; {architecture.source}")
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
