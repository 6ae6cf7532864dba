"""Several runs of one recipe as one table in Markdown: per epoch, and how far the losses are apart at the start.

python benchmarks/collect.py RUN [RUN ...] > benchmarks/results/NAME.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from triptych.training import run_folder

STARTS = (1, 10, 50, 100, 200)  # steps over which the losses are compared


def main(folders: list[Path]) -> None:
    """Print the table; the first run is the one that the others' losses are compared with."""
    recipes = {(folder / run_folder.RECIPE).read_text() for folder in folders}
    if len(recipes) != 1:
        sys.exit("collect: the runs do not have the same recipe")
    recipe = json.loads(recipes.pop())
    trained = {folder: run_folder.read_epochs(folder) for folder in folders}
    print(f"Recipe: `{json.dumps(recipe)}`\n")
    print("| backend | versions | epoch | train loss | train accuracy | test accuracy | images/s |")
    print("|---|---|---|---|---|---|---|")
    for folder, epochs in trained.items():
        state = json.loads((folder / run_folder.CHECKPOINT / run_folder.STATE).read_text())
        versions = ", ".join(f"{name} {version}" for name, version in state["versions"].items())
        for e in epochs:
            figures = f"{e.train_loss:.4f} | {e.train_accuracy:.4f} | {e.test_accuracy:.4f} | {e.images_per_second:.0f}"
            print(f"| {e.backend} | {versions} | {e.epoch} | {figures} |")
    losses = [[loss for epoch in epochs for loss in epoch.losses] for epochs in trained.values()]
    names = [epochs[0].backend for epochs in trained.values()]
    print(f"\nLargest difference of the training loss to {names[0]}, over the first steps:\n")
    print("| backend | " + " | ".join(f"{count} steps" if count > 1 else "1 step" for count in STARTS) + " |")
    print("|---" * (len(STARTS) + 1) + "|")
    for name, values in list(zip(names, losses, strict=True))[1:]:
        cells = (max(abs(a - b) for a, b in zip(losses[0][:n], values[:n], strict=True)) for n in STARTS)
        print(f"| {name} | " + " | ".join(f"{cell:.1e}" for cell in cells) + " |")


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
