"""Figures of images: feature maps, predictions beside the truth, a confusion matrix. matplotlib is imported late."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.dataset import Split
from triptych.utils.files import told, write_atomically
from triptych.utils.terminal import cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RIGHT, WRONG = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermillion, which the colour-blind can tell apart
NOTE: dict[str, Any] = {
    "fontsize": "x-small",
    "color": WRONG,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1},
}
ROWS, COLUMNS = 5, 8  # of predictions, at most
MOST_PREDICTIONS = ROWS * COLUMNS
ANNOTATED = 20  # classes up to which the counts are written into the cells


def save(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's suffix names. Raises TriptychError if it cannot be written."""
    buffer = io.BytesIO()
    stamp = {} if path.suffix == ".png" else {"CreationDate" if path.suffix == ".pdf" else "Date": None}
    figure.savefig(buffer, format=path.suffix[1:], dpi=150, metadata=stamp)
    with told(f"{path} cannot be written"):
        write_atomically(path, buffer.getvalue())


def feature_maps(
    picture: NDArray[np.uint8], maps: Mapping[str, NDArray[np.floating[Any]]], *, title: str, channels: int = 8
) -> Figure:
    """The picture `(C, h, w)`, and a row per layer with its first channels, all of a layer on one scale, which its
    title has; a map of one value says which, and one that is 0 everywhere that it is dead."""
    widest = max((len(values) for values in maps.values()), default=1)
    figure, rows = _grid(1 + len(maps), min(channels, widest), 1.3)
    _show(rows[0][0], picture)
    _entitle(figure, title)
    for cells, (path, values) in zip(rows[1:], maps.items(), strict=True):
        low, high = float(values.min()), float(values.max())
        words = f"{_plain(path)}  {'x'.join(map(str, values.shape))}  {low:.3g} to {high:.3g}"
        cells[0].set_title(words, loc="left", fontsize="small")
        for place, channel in zip(cells, values, strict=False):
            place.imshow(channel, cmap="gray", interpolation="nearest", vmin=low, vmax=high)
            if not np.ptp(channel):
                text = "dead" if not channel.any() else f"constant\n{float(channel.flat[0]):.3g}"
                place.text(0.5, 0.5, text, transform=place.transAxes, ha="center", va="center", **NOTE)
    return figure


def score_map(
    picture: NDArray[np.uint8], scores: NDArray[np.floating[Any]], names: Sequence[str], *, title: str
) -> Figure:
    """The picture `(C, h, w)`, and the scores `(classes, height, width)` of the classes with the highest mean, best
    first, all on one scale."""
    best = scores.mean((1, 2)).argsort()[::-1][: COLUMNS - 1]
    figure, rows = _grid(1, 1 + len(best), 1.6)
    _show(rows[0][0], picture)
    _entitle(figure, title)
    for place, index in zip(rows[0][1:], best, strict=True):
        place.imshow(scores[index], cmap="viridis", interpolation="nearest", vmin=scores.min(), vmax=scores.max())
        place.set_title(f"{_plain(names[index])}\n{scores[index].mean():.3g}", fontsize="x-small")
    return figure


def predictions(
    split: Split, logits: NDArray[np.floating[Any]], names: Sequence[str], *, title: str, columns: int = COLUMNS
) -> Figure:
    """The first images of a split, the predicted class above; where it is wrong, in another colour and the true one."""
    count = min(len(split), columns * ROWS)
    figure, cells = _grid(math.ceil(count / columns), columns, 1.4)
    _entitle(figure, title)
    places = [place for row in cells for place in row]
    for place, image, label, best in zip(places, split.images, split.labels, logits.argmax(1), strict=False):
        _show(place, image)
        text = _plain(names[best]) if best == label else f"{_plain(names[best])}\nnot {_plain(names[label])}"
        place.set_title(text, fontsize="x-small", color=RIGHT if best == label else WRONG)
    return figure


def confusion(matrix: NDArray[np.int64], true: Sequence[str], predicted: Sequence[str], *, title: str) -> Figure:
    """Counts `(true, predicted)`; the shade is the share of the true class."""
    from matplotlib.figure import Figure

    side = max(4.8, 0.5 * min(len(true), 2 * ANNOTATED))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title="\n".join(wrap(_plain(title), int(side * 11))))
    if len(predicted) <= ANNOTATED:
        axes.set_xticks(range(len(predicted)), map(_plain, predicted), rotation=45, ha="right")
        axes.set_yticks(range(len(true)), map(_plain, true))
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize="x-small", color=colour)
    return figure


def _entitle(figure: Figure, title: str) -> None:
    """A title in as many lines as the figure's width wants."""
    letters = max(int(figure.get_figwidth() * 14), 20)
    figure.suptitle("\n".join(wrap(_plain(title), letters)), fontsize="small")


def _plain(text: str) -> str:
    """A name as matplotlib draws it letter by letter; between two dollars it would read a formula."""
    return cell(text).replace("$", r"\$")


def _grid(rows: int, columns: int, inches: float) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(inches * columns, (inches + 0.2) * rows + 0.3), layout="constrained")
    cells = figure.subplots(rows, columns, squeeze=False).tolist()
    for place in (place for row in cells for place in row):
        place.axis("off")
    return figure, cells


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    pixels = np.moveaxis(image, 0, 2)
    axes.imshow(pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=255)
