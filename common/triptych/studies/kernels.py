"""Stacks of 3x3 convolutions against one large kernel: the argument of section 2.3 of the VGG paper, counted."""

from triptych.report.figures import bars
from triptych.spec.analysis import analyse, totals
from triptych.spec.layers import Architecture, Conv, Dense, Flatten, GlobalAvgPool, Layer, ReLU
from triptych.studies import Cell, Counted, StudyResult, Table

CHANNELS = 64
SIZE = 56  # height and width of the map; any that holds the largest kernel gives the same ratios

UNITS = "parameters / C^2"
# the large kernel, and the number of 3x3 convolutions that see as far
PAIRS = ((5, 2), (7, 3), (11, 5))


def stack(kernel: int, depth: int) -> Architecture:
    """`depth` convolutions of `kernel` with ReLU, without bias, on a map of CHANNELS; the head only closes it."""
    layers: list[Layer] = []
    for number in range(1, depth + 1):
        padding = (kernel // 2, kernel // 2)
        layers.append(Conv(f"conv{number}", CHANNELS, (kernel, kernel), padding=padding, bias=False))
        layers.append(ReLU(f"relu{number}"))
    head = (GlobalAvgPool("pool"), Flatten("flatten"), Dense("dense", 1, bias=False))
    return Architecture(f"{depth} x {kernel}x{kernel}", (CHANNELS, SIZE, SIZE), 1, (*layers, *head))


def row(kernel: int, depth: int) -> dict[str, Cell]:
    """What a stack sees and costs, by the table's columns."""
    architecture = stack(kernel, depth)
    convolutions = [info for info in analyse(architecture) if isinstance(info.layer, Conv)]
    weights = sum(info.parameters for info in convolutions)
    macs = sum(info.macs for info in convolutions)
    assert totals(architecture).parameters == weights + CHANNELS  # the head's
    return {
        "stack": architecture.name,
        "receptive field": convolutions[-1].receptive_field[0],
        "nonlinearities": depth,
        UNITS: weights // CHANNELS**2,
        f"parameters, C = {CHANNELS}": weights,
        "MACs per pixel": macs // SIZE**2,
    }


def run() -> StudyResult:
    """Every large kernel beside the stack of 3x3 that sees as far."""
    rows = [row(kernel, depth) for large, small in PAIRS for kernel, depth in ((large, 1), (3, small))]
    findings = []
    for large, small in zip(rows[::2], rows[1::2], strict=True):
        saved = 1 - int(small[UNITS]) / int(large[UNITS])
        findings.append(
            f"{small['stack']} sees {small['receptive field']} pixels like {large['stack']}, with {small[UNITS]}C^2 "
            f"parameters for {large[UNITS]}C^2 ({saved:.0%} fewer) and {small['nonlinearities']} nonlinearities for "
            f"{large['nonlinearities']}."
        )
    figure = bars([str(row["stack"]) for row in rows], {UNITS: [float(row[UNITS]) for row in rows]}, y=UNITS)
    table = Table.of("Stacks of 3x3 against one kernel", rows)
    return StudyResult((table,), (("Parameters", figure),), tuple(findings))


STUDY = Counted(
    name="kernels",
    question="What do stacks of 3x3 convolutions save against one 5x5, 7x7 or 11x11?",
    source="Simonyan and Zisserman 2014, section 2.3 (27C^2 against 49C^2)",
    run=run,
)
