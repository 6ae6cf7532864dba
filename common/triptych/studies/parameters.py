"""Where the parameters sit in AlexNet, VGG, NiN and GoogLeNet, and what 1x1 convolutions and global pooling removed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from triptych import zoo
from triptych.report.figures import bars
from triptych.spec.analysis import LayerInfo, analyse, primitives, totals
from triptych.spec.layers import Architecture, Block, Branches, Conv, Dense, Flatten, GlobalAvgPool, Layer
from triptych.studies import Counted, StudyResult, Table, TableRow
from triptych.zoo import ImageShape

NETWORKS = ("alexnet", "vgg11", "vgg16", "nin", "googlenet")
INPUT, CLASSES = (3, 224, 224), 1000  # the same for all, so that only the layers differ
GROUPS = ("first convolution", "larger convolutions", "1x1 convolutions", "dense, first", "dense, others", "other")


def network(name: str, input: ImageShape = INPUT, classes: int = CLASSES) -> Architecture:
    """A network at the common input and number of classes."""
    return zoo.build(name, input=input, classes=classes)


def group(info: LayerInfo, before: list[LayerInfo]) -> str:
    """The group of a layer that has parameters; `before` are the layers ahead of it."""
    same = [other for other in before if type(other.layer) is type(info.layer)]
    match info.layer:
        case Conv() if not same:
            return "first convolution"
        case Conv(kernel=(1, 1)):
            return "1x1 convolutions"
        case Conv():
            return "larger convolutions"
        case Dense():
            return "dense, others" if same else "dense, first"
        case _:
            return "other"


def shares(architecture: Architecture) -> dict[str, tuple[int, int]]:
    """Parameters and multiply-accumulates by group; auxiliary heads are left out."""
    sums = dict.fromkeys(GROUPS, (0, 0))
    before: list[LayerInfo] = []
    for info in primitives(architecture):
        if info.auxiliary:
            continue
        name = group(info, before)
        sums[name] = (sums[name][0] + info.parameters, sums[name][1] + info.macs)
        before.append(info)
    return sums


def without_reductions(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Inception blocks whose larger convolutions see all channels: the 1x1 ahead of them, and its ReLU, left out."""
    return tuple(
        replace(layer, branches=tuple(map(_without_reduction, layer.branches)))
        if isinstance(layer, Branches)
        else layer
        for layer in layers
    )


def _without_reduction(branch: Block) -> Block:
    convolutions = [layer for layer in branch.layers if isinstance(layer, Conv)]
    if len(convolutions) < 2 or convolutions[0].kernel != (1, 1):
        return branch
    start = branch.layers.index(convolutions[1])
    return replace(branch, layers=branch.layers[start:])


def without_global_pool(layers: tuple[Layer, ...], classes: int = CLASSES) -> tuple[Layer, ...]:
    """The whole last map goes into a dense layer to the classes, as in AlexNet and VGG."""
    kept = [layer for layer in layers if not isinstance(layer, GlobalAvgPool | Flatten | Dense)]
    return (*kept, Flatten("flatten"), Dense("dense", classes))


def what_if(networks: Mapping[str, Architecture]) -> Table:
    """NiN and GoogLeNet, those of them that are asked for, as they are and without what made them small."""
    rows: list[TableRow] = []
    for name in ("nin", "googlenet"):
        if name not in networks:
            continue
        whole = networks[name]
        changes = {"dense layer for global average pooling": without_global_pool(whole.layers, whole.classes)}
        if name == "googlenet":
            changes["no 1x1 reduction before 3x3 and 5x5"] = without_reductions(whole.layers)
        base = totals(whole)
        rows.append((name, "as it is", base.parameters, base.macs, 1.0, 1.0))
        for what, layers in changes.items():
            changed = totals(replace(whole, layers=layers))
            ratios = changed.parameters / base.parameters, changed.macs / base.macs
            rows.append((name, what, changed.parameters, changed.macs, *ratios))
    columns = ("network", "change", "parameters", "MACs", "parameters, times", "MACs, times")
    return Table("What 1x1 convolutions and global average pooling remove", columns, tuple(rows))


def by_layer(name: str, architecture: Architecture) -> Table:
    """The top-level records of one network that have parameters."""
    whole = totals(architecture).parameters
    rows: tuple[TableRow, ...] = tuple(
        (info.path, info.kind, info.parameters, f"{info.parameters / whole:.1%}", info.macs)
        for info in analyse(architecture)
        if info.depth == 0 and info.parameters and not info.auxiliary
    )
    return Table(f"{name}, group by group", ("layers", "kind", "parameters", "share", "MACs"), rows)


def run(names: Sequence[str] = NETWORKS, input: ImageShape = INPUT, classes: int = CLASSES) -> StudyResult:
    """Parameters by kind of layer and by group, and what they would be without the two inventions. Raises TriptychError
    for a name that is none of the zoo, and an input that is too small for a network."""
    networks = {name: network(name, input, classes) for name in names}
    by_network = {name: shares(architecture) for name, architecture in networks.items()}
    rows: tuple[TableRow, ...] = tuple(
        (name, *(groups[kind][0] for kind in GROUPS), sum(parameters for parameters, _ in groups.values()))
        for name, groups in by_network.items()
    )
    title = f"Parameters by kind of layer, {'x'.join(map(str, input))}, {classes} classes"
    kinds, removed = Table(title, ("network", *GROUPS, "all"), rows), what_if(networks)
    findings = [
        f"{name}: {sum(groups[k][0] for k in GROUPS if 'dense' in k) / sum(p for p, _ in groups.values()):.0%} "
        "of the parameters are in dense layers."
        for name, groups in by_network.items()
    ]
    findings += [f"{r[0]}, {r[1]}: {float(r[4]):.2f} times the parameters." for r in removed.rows if r[1] != "as it is"]
    millions = {kind: [by_network[name][kind][0] / 1e6 for name in names] for kind in GROUPS}
    figure = bars(names, millions, y="million parameters", stacked=True)
    details = (by_layer(name, architecture) for name, architecture in networks.items())
    tables = (kinds, *((removed,) if removed.rows else ()), *details)
    return StudyResult(tables, (("Parameters by kind of layer", figure),), tuple(findings))


STUDY = Counted(
    name="parameters",
    question="Where do the parameters sit, and what did 1x1 convolutions and global average pooling remove?",
    source="Lin et al. 2013, section 3.2; Szegedy et al. 2014, sections 4 and 5",
    run=run,
    takes=("names", "input", "classes"),
)
