"""Stacks of 3x3 convolutions against one large kernel: the argument of section 2.3 of the VGG paper, counted."""

from __future__ import annotations

from triptych.report.figures import bars
from triptych.spec.analysis import analyse, totals
from triptych.spec.layers import Architecture, Conv, Dense, Flatten, GlobalAvgPool, Layer, ReLU
from triptych.studies import Counted, StudyResult, Table

CHANNELS = 64
SIZE = 56  # height and width of the map; any that holds the largest kernel gives the same ratios

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


def row(kernel: int, depth: int) -> tuple[str | int | float, ...]:
    """Name, receptive field, nonlinearities, parameters in units of C^2 and at C = CHANNELS, and MACs per pixel."""
    architecture = stack(kernel, depth)
    convolutions = [info for info in analyse(architecture) if isinstance(info.layer, Conv)]
    weights = sum(info.parameters for info in convolutions)
    macs = sum(info.macs for info in convolutions)
    assert totals(architecture).parameters == weights + CHANNELS  # the head's
    field = convolutions[-1].receptive_field[0]
    return (architecture.name, field, depth, weights // CHANNELS**2, weights, macs // SIZE**2)


def run() -> StudyResult:
    """Every large kernel beside the stack of 3x3 that sees as far."""
    rows = [row(kernel, depth) for large, small in PAIRS for kernel, depth in ((large, 1), (3, small))]
    columns = (
        "stack",
        "receptive field",
        "nonlinearities",
        "parameters / C^2",
        f"parameters, C = {CHANNELS}",
        "MACs per pixel",
    )
    findings = []
    for large, small in zip(rows[::2], rows[1::2], strict=True):
        saved = 1 - int(small[3]) / int(large[3])
        findings.append(
            f"{small[0]} sees {small[1]} pixels like {large[0]}, with {small[3]}C^2 parameters for {large[3]}C^2 "
            f"({saved:.0%} fewer) and {small[2]} nonlinearities for {large[2]}."
        )
    figure = bars([str(r[0]) for r in rows], {"parameters / C^2": [float(r[3]) for r in rows]}, y="parameters / C^2")
    return StudyResult(
        (Table("Stacks of 3x3 against one kernel", columns, tuple(rows)),), (("Parameters", figure),), tuple(findings)
    )


STUDY = Counted(
    name="kernels",
    question="What do stacks of 3x3 convolutions save against one 5x5, 7x7 or 11x11?",
    source="Simonyan and Zisserman 2014, section 2.3 (27C^2 against 49C^2)",
    run=run,
)
