"""Progress of training: a bar on a terminal, one clean line per epoch elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from triptych.training.loop import Listener
from triptych.utils.terminal import console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from triptych.training.run_folder import Epoch


class Reporter(Listener):
    """Tells a person how training goes; a context manager, so that the bar is always taken down. `quiet` prints nothing
    at all, for `--json` to stdout. `log_every` prints the mean loss of every so many iterations of an epoch (0: of
    none), as soon as they are read from the device. `before` is what the bar says until the first epoch begins."""

    def __init__(self, epochs: int, *, quiet: bool = False, log_every: int = 0, before: str = "starting") -> None:
        self.epochs, self.quiet, self.log_every = epochs, quiet, log_every
        self.logged = (0, 0)  # the epoch, and how many of its iterations have been seen
        what, figures = TextColumn("{task.description}"), TextColumn("{task.fields[figures]}")
        # A bar of 14, so that the whole line stands in 80 columns.
        columns = (what, BarColumn(14), MofNCompleteColumn(), figures, TimeRemainingColumn(compact=True))
        shown = not quiet and sys.stderr.isatty()
        self.terminal = shown and sys.stdout.isatty()  # else lines go to a file, not above the bar
        self.bar = Progress(
            *columns,
            console=console(stderr=True),
            disable=not shown,
            transient=True,
            redirect_stdout=self.terminal,
        )
        self.task = self.bar.add_task(before, total=None, figures="")

    def __enter__(self) -> Reporter:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def begin(self, epoch: int, total: int) -> None:
        self.bar.reset(self.task, description=f"epoch {epoch}/{self.epochs}", total=total, figures="")

    def say(self, line: str) -> None:
        """A line above the bar, whole: rich would break it where the terminal ends."""
        if self.quiet:
            return
        if self.terminal:
            self.bar.console.print(line, soft_wrap=True)
        else:
            print(line, flush=True)

    def stuck(self, what: str) -> None:
        self.say(what)

    def steps(self, epoch: int, total: int, losses: NDArray[np.float64], images_per_second: float) -> None:
        figures = f"loss {losses.mean():.4f}  {images_per_second:.0f} images/s"
        description = f"epoch {epoch}/{self.epochs}"
        self.bar.update(self.task, description=description, completed=len(losses), total=total, figures=figures)
        if self.log_every and not self.quiet:
            self.log(epoch, total, losses)

    def log(self, epoch: int, total: int, losses: NDArray[np.float64]) -> None:
        """A line for every `log_every`th iteration that is new, with the mean of those since the line before."""
        seen = self.logged[1] if self.logged[0] == epoch else 0
        for number in range(seen // self.log_every + 1, len(losses) // self.log_every + 1):
            iteration = number * self.log_every
            mean = losses[iteration - self.log_every : iteration].mean()
            self.say(f"epoch {epoch}, iteration {iteration}/{total}: loss {mean:.4f}")
        self.logged = (epoch, len(losses))

    def epoch(self, epoch: Epoch) -> None:
        """A line that stands in 80 columns: the loss, the accuracies of training and test."""
        seconds = f"{epoch.seconds:.1f}" if epoch.seconds < 10 else f"{epoch.seconds:.0f}"
        self.say(
            f"{epoch.backend} epoch {epoch.epoch}/{self.epochs}: loss {epoch.train_loss:.4f}, "
            f"train {epoch.train_accuracy:.4f}, test {epoch.test_accuracy:.4f}, "
            f"{seconds} s, {epoch.images_per_second:.0f} images/s"
        )
