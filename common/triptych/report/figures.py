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
MARKERS = "osD^v<>P"  # points: the second time a colour comes, it comes with another marker
FILLS = ("full", "none", "top")  # of points of one thing on several backends
GREY = "#767676"

WIDTH, HEIGHT = 6.4, 3.8  # inches
FEW = 5  # names in a legend that leave room for the curves
WIDEST = 40  # letters of a name that leave room for another beside it
CROWDED = 60  # letters of all names below an axis that still stand beside each other


def draw(plot: Callable[[Axes], Any], *, x: str, y: str, few: int = FEW, height: float = HEIGHT) -> str:
    """One figure of so many inches in height as an SVG element; `plot` draws on the axes. More than `few` names stand
    below them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    plot(axes)
    axes.set(xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    if len(names := axes.get_legend_handles_labels()[1]) > few:
        columns = 2 if max(map(len, names)) <= WIDEST else 1
        figure.legend(loc="outside lower center", ncols=columns, fontsize="small")
        figure.set_figheight(height + 0.2 * len(names) / columns)
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
    whole: bool = False,
    marked: bool = False,
    texts: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    **line: Any,
) -> str:
    """A named line each through its points; `line` is what matplotlib's lines take. `whole`: x is a number of things,
    and has whole ticks. `marked`: the points are drawn, too. `texts` are drawn in grey, a point alone as a star."""

    def plot(axes: Axes) -> None:
        add = axes.semilogy if logarithmic else axes.plot
        for number, ((name, points), (colour, style)) in enumerate(zip(series.items(), cycle(styles), strict=False)):
            xs, ys = ([point[axis] for point in points] for axis in (0, 1))
            add(xs, ys, style, color=colour, label=name, marker=marker_of(number) if marked else None, **line)
        for (name, points), style in zip((texts or {}).items(), cycle(("--", ":", "-.")), strict=False):
            xs, ys = ([point[axis] for point in points] for axis in (0, 1))
            axes.plot(xs, ys, style, color=GREY, marker="*", markersize=9, label=name)
        if whole:
            whole_ticks(axes)

    return draw(plot, x=x, y=y)


def marker_of(number: int) -> str:
    """Of the series of this number: no two of the same colour have the same."""
    round_, place = divmod(number, len(COLOURS))
    return MARKERS[(place + round_) % len(MARKERS)]


def whole_ticks(axes: Axes) -> None:
    """Ticks of x at whole numbers alone, as many as have room."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def plain_logarithms(axes: Axes) -> None:
    """Ticks of a logarithmic x at 1, 2 and 5 times a power of ten, written as numbers: matplotlib's overlap."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def loss_curves(trained: Mapping[str, Sequence[Epoch]]) -> str:
    """The training loss of every step, a line per backend."""
    series = {name: list(enumerate(_losses(epochs), start=1)) for name, epochs in trained.items()}
    return lines(series, x="step", y="training loss", linewidth=1.2)


def accuracy_curves(trained: Mapping[str, Sequence[Epoch]], texts: Mapping[str, Sequence[float]] | None = None) -> str:
    """Test accuracy after every epoch, a line per run; in grey what `texts` print of a run: of every epoch, or of the
    last one alone, which is drawn at ours."""
    series = {name: [(epoch.epoch, epoch.test_accuracy) for epoch in epochs] for name, epochs in trained.items()}
    last = max((epoch.epoch for epochs in trained.values() for epoch in epochs), default=1)
    printed = {f"{name}, published": published(values, last) for name, values in (texts or {}).items()}
    return lines(series, x="epoch", y="test accuracy", whole=True, texts=printed, marked=True)


def published(values: Sequence[float], last: int) -> list[tuple[float, float]]:
    """What a text prints after every epoch, from the first on; a single value is that of the last one, ours."""
    first = last if len(values) == 1 else 1
    return [(float(number), float(value)) for number, value in enumerate(values, start=first)]


def ranks(values: Mapping[str, float], *, x: str) -> str:
    """A bar across for every name, in their order from the top, with its value."""

    def plot(axes: Axes) -> None:
        places = list(range(len(values)))
        drawn = axes.barh(places, list(values.values()), color=COLOURS[0])
        axes.bar_label(drawn, fmt="%.3f", padding=3, fontsize="small")
        axes.set_yticks(places, list(values), fontsize="small")
        axes.invert_yaxis()
        axes.margins(x=0.15, y=0.5 / len(values))

    return draw(plot, x=x, y="", height=max(HEIGHT, 0.7 + 0.2 * len(values)))


def learning_curves(epochs: Sequence[Epoch]) -> str:
    """Training and test accuracy of one run after every epoch."""
    numbered = {name: [(e.epoch, getattr(e, f"{name}_accuracy")) for e in epochs] for name in ("train", "test")}
    return lines(numbered, x="epoch", y="accuracy", whole=True, marked=True)


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
            colour = COLOURS[index % len(COLOURS)]
            axes.bar(left, heights, width, bottom=floor if stacked else None, label=label, color=colour)
            floor = [low + height for low, height in zip(floor, heights, strict=True)]
        crowded = sum(map(len, names)) > CROWDED
        axes.set_xticks(places, names, rotation=30 if crowded else 0, ha="right" if crowded else "center")

    return draw(plot, x="", y=y, few=1)  # bars leave no room for names beside them


def scatter(points: Mapping[str, Mapping[str, tuple[float, float]]], *, x: str, y: str) -> str:
    """The points of things on backends, x on a logarithmic scale: a colour and a marker per thing, a filling per
    backend, so that the legend names each once."""
    backends = dict.fromkeys(backend for each in points.values() for backend in each)

    def plot(axes: Axes) -> None:
        for number, each in enumerate(points.values()):
            for backend, point in each.items():
                axes.semilogx(*point, marker_of(number), color=COLOURS[number % len(COLOURS)], fillstyle=fills[backend])
        for number, name in enumerate(points):
            axes.plot([], [], marker_of(number), color=COLOURS[number % len(COLOURS)], label=name)
        for backend in backends if len(backends) > 1 else ():
            axes.plot([], [], "o", color=GREY, fillstyle=fills[backend], label=backend)
        plain_logarithms(axes)

    fills = dict(zip(backends, cycle(FILLS), strict=False))
    return draw(plot, x=x, y=y)
