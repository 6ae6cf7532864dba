"""The page of one run: its recipe, its learning curves, a row per epoch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from triptych.report import figures
from triptych.report.page import write_page
from triptych.spec import records
from triptych.spec.layers import Architecture
from triptych.training.recipe import Recipe, start_name
from triptych.training.run_folder import Epoch

REPORT = "report.html"


def write(
    folder: Path, recipe: Recipe, architecture: Architecture, epochs: Sequence[Epoch], versions: Mapping[str, str]
) -> None:
    """`report.html` in the run's folder, readable with no network; the start stands in it also where the recipe leaves
    it to the `architecture`."""
    write_page(
        folder / REPORT,
        "run.html",
        title=f"{recipe.architecture} on {recipe.data}",
        versions=versions,
        figures=[
            ("Loss of every training step", figures.loss_curves({"training": epochs})),
            ("Accuracy after every epoch", figures.learning_curves(epochs)),
        ],
        epochs=epochs,
        recipe=records.encode(recipe) | {"initializer": start_name(recipe, architecture)},
    )
