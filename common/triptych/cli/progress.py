"""Progress of training: a bar on a terminal, one clean line per epoch elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.report.tables import console

if TYPE_CHECKING:
    from triptych.runs import Epoch


def line(epoch: Epoch, epochs: int) -> str:
    """An epoch in one line."""
    return (
        f"{epoch.backend} epoch {epoch.epoch}/{epochs}: loss {epoch.train_loss:.4f}, "
        f"train accuracy {epoch.train_accuracy:.4f}, test accuracy {epoch.test_accuracy:.4f}, "
        f"{epoch.seconds:.1f} s, {epoch.images_per_second:.0f} images/s"
    )


class Reporter:
    """Tells a person how training goes; a context manager, so that the bar is always taken down.

    `quiet` prints nothing at all, for `--json` to stdout.
    """

    def __init__(self, epochs: int, *, quiet: bool = False) -> None:
        self.epochs = epochs
        self.quiet = quiet
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(
            *columns, console=console(stderr=True), disable=quiet or not sys.stderr.isatty(), transient=True
        )
        self.task = self.bar.add_task("epoch 1", figures="")

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def steps(self, epoch: int, done: int, total: int, loss: float, images_per_second: float) -> None:
        figures = f"loss {loss:.4f}  {images_per_second:.0f} images/s"
        description = f"epoch {epoch}/{self.epochs}"
        self.bar.update(self.task, description=description, completed=done, total=total, figures=figures)

    def epoch(self, epoch: Epoch) -> None:
        if not self.quiet:
            self.bar.console.file.flush()
            print(line(epoch, self.epochs), flush=True)
