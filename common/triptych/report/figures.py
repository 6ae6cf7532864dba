"""Figures as SVG text, to be set into a page. matplotlib is imported when one is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from triptych.training.run_folder import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart, and line styles, because equal curves overlap.
# Seven and four: 28 pairs before one comes again.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = tuple(zip(COLOURS * 4, ("-", "--", ":", "-.") * 7, strict=True))

FEW = 5  # names in a legend that leave room for the curves


def draw(plot: Callable[[Axes], Any], *, x: str, y: str, few: int = FEW) -> str:
    """One figure as an SVG element; `plot` draws on the axes. More than `few` names stand below them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    if len(names := axes.get_legend_handles_labels()[1]) > few:
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")
        figure.set_figheight(3.8 + 0.1 * len(names))
    elif names:
        axes.legend()
    return svg(figure)


def svg(figure: Figure) -> str:
    """A figure as an SVG element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    styles: Sequence[tuple[str, str]] = STYLES,
    logarithmic: bool = False,
    ticks: Sequence[int] | None = None,
    **line: Any,
) -> str:
    """A named line each through its points; `line` is what matplotlib's lines take."""

    def plot(axes: Axes) -> None:
        add = axes.semilogy if logarithmic else axes.plot
        for (name, points), (colour, style) in zip(series.items(), cycle(styles), strict=False):
            add([point[0] for point in points], [point[1] for point in points], style, color=colour, label=name, **line)
        if ticks is not None:
            axes.set_xticks(ticks)

    return draw(plot, x=x, y=y)


def loss_curves(trained: Mapping[str, Sequence[Epoch]]) -> str:
    """The training loss of every step, a line per backend."""
    series = {name: list(enumerate(_losses(epochs), start=1)) for name, epochs in trained.items()}
    return lines(series, x="step", y="training loss", linewidth=1.2)


def accuracy_curves(trained: Mapping[str, Sequence[Epoch]]) -> str:
    """Test accuracy after every epoch, a line per backend."""
    series = {name: [(epoch.epoch, epoch.test_accuracy) for epoch in epochs] for name, epochs in trained.items()}
    ticks = sorted({epoch.epoch for epochs in trained.values() for epoch in epochs})
    return lines(series, x="epoch", y="test accuracy", ticks=ticks, marker="o")


def learning_curves(epochs: Sequence[Epoch]) -> str:
    """Training and test accuracy of one run after every epoch."""
    numbered = {name: [(e.epoch, getattr(e, f"{name}_accuracy")) for e in epochs] for name in ("train", "test")}
    return lines(numbered, x="epoch", y="accuracy", marker="o")


def loss_differences(trained: Mapping[str, Sequence[Epoch]]) -> str:
    """How far every backend's loss is from the first one's, per step, on a logarithmic scale."""
    first, *others = trained
    series = {}
    for name in others:
        pairs = zip(_losses(trained[first]), _losses(trained[name]), strict=False)
        series[f"{name} - {first}"] = [(step, max(abs(a - b), 1e-9)) for step, (a, b) in enumerate(pairs, start=1)]
    y = "difference of the training losses"
    return lines(series, x="step", y=y, styles=STYLES[1:], logarithmic=True, linewidth=1)


def _losses(epochs: Sequence[Epoch]) -> list[float]:
    return [loss for epoch in epochs for loss in epoch.losses]


def bars(names: Sequence[str], series: Mapping[str, Sequence[float]], *, y: str, stacked: bool = False) -> str:
    """A bar per name and series; `stacked` puts the series of a name on top of each other."""

    def plot(axes: Axes) -> None:
        places = [float(place) for place in range(len(names))]
        width = 0.8 if stacked else 0.8 / len(series)
        floor = [0.0] * len(names)
        for index, (label, heights) in enumerate(series.items()):
            left = [place + (0 if stacked else (index - (len(series) - 1) / 2) * width) for place in places]
            axes.bar(left, heights, width, bottom=floor if stacked else None, label=label)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        axes.set_xticks(places, names)

    return draw(plot, x="", y=y, few=1)  # bars leave no room for names beside them


def scatter(points: Mapping[str, tuple[float, float]], *, x: str, y: str) -> str:
    """A named point each, x on a logarithmic scale."""

    def plot(axes: Axes) -> None:
        for (name, point), (colour, _), marker in zip(points.items(), cycle(STYLES), cycle("osD^v<>"), strict=False):
            axes.semilogx(*point, marker, color=colour, label=name)

    return draw(plot, x=x, y=y)
