"""Many curves as small panels with the same axes, one a group, where a single legend of them all could not be read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, TypeAlias

from triptych.report import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points: TypeAlias = Sequence[tuple[float, float]]

ACROSS = 3  # panels beside each other
LETTERS = 32  # of a title in a line
BEHIND = "the other panels' curves"
PUBLISHED = "published"
FAINT = "#c8c8c8"


def panels(
    groups: Mapping[str, Mapping[str, Points]], *, x: str, y: str, texts: Mapping[str, Points] | None = None
) -> str:
    """A panel per group under its name, with its lines in their colours and all other groups' faintly behind, as an SVG
    element. A line of one name has the same colour in every panel, so that the legend has each name once. `texts` are
    of groups by name, drawn in black. x counts things and has whole ticks."""
    from matplotlib.figure import Figure

    columns = 2 if len(groups) == 4 else min(ACROSS, len(groups))
    rows = math.ceil(len(groups) / columns)
    titles = {name: "\n".join(wrap(name, LETTERS)) for name in groups}
    lines = max(title.count("\n") for title in titles.values())
    figure = Figure(figsize=(figures.WIDTH, 0.7 + rows * (1.5 + 0.15 * lines)), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    styles = dict(zip(names(groups), figures.STYLES, strict=False))
    places: list[Axes] = list(grid.flat)
    for axes, (name, series) in zip(places, groups.items(), strict=False):
        for points in others(groups, name):
            axes.plot(*zip(*points, strict=True), color=FAINT, linewidth=0.7, label=BEHIND)
        for number, (label, points) in enumerate(series.items()):
            colour, style = styles[label]
            marker = figures.marker_of(number)
            axes.plot(*zip(*points, strict=True), style, color=colour, marker=marker, markersize=3, label=label)
        if points := (texts or {}).get(name, ()):
            axes.plot(*zip(*points, strict=True), "--", color="black", marker="*", label=PUBLISHED)
        axes.set_title(titles[name], fontsize="small")
        axes.tick_params(labelsize="small")
        axes.grid(alpha=0.3)
    for axes in places[len(groups) :]:
        axes.remove()
    for axes in places[max(len(groups) - columns, 0) : len(groups)]:  # the lowest of each column, also above no panel
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(x, fontsize="small")
    for axes in places[: len(groups) : columns]:
        axes.set_ylabel(y, fontsize="small")
    figures.whole_ticks(places[0])
    drawn = {label: line for axes in places for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(drawn.values()), list(drawn), loc="outside lower center", ncols=4, fontsize="small")
    return figures.svg(figure)


def names(groups: Mapping[str, Mapping[str, Points]]) -> list[str]:
    """Of all lines, each once."""
    return list(dict.fromkeys(name for series in groups.values() for name in series))


def others(groups: Mapping[str, Mapping[str, Points]], name: str) -> Iterator[Points]:
    """The lines of every group but one."""
    for other, series in groups.items():
        if other != name:
            yield from series.values()
