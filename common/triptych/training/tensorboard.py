"""Logs for TensorBoard, by its own writer; neither TensorFlow nor PyTorch is needed."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.training.loop import Listener
from triptych.training.run_folder import Epoch
from triptych.utils.files import told

IN_THE_RUN, FOLDER = "-", "tensorboard"  # what stands for a folder that was not named, and what it is then
PER_EPOCH = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/test": "test_accuracy",
    "speed/images per second": "images_per_second",
}


def place(target: str | None, run: Path | None) -> Path | None:
    """The folder of the log of a `run`, by the target that the command line names; None: none is written."""
    if target is None or run is None:  # only one of several processes has a run to write
        return None
    return run / FOLDER if target == IN_THE_RUN else Path(target)


class Log(Listener):
    """Tells `listener`, and writes every finished epoch: its steps' losses by step, the rest by epoch."""

    def __init__(self, listener: Listener, writer: Any) -> None:
        self.listener, self.writer = listener, writer

    def begin(self, epoch: int, total: int) -> None:
        self.listener.begin(epoch, total)

    def stuck(self, what: str) -> None:
        self.listener.stuck(what)

    def steps(self, epoch: int, total: int, losses: NDArray[np.float64], images_per_second: float) -> None:
        self.listener.steps(epoch, total, losses, images_per_second)

    def epoch(self, epoch: Epoch) -> None:
        first = epoch.step - len(epoch.losses)
        for index, loss in enumerate(epoch.losses, start=1):
            self.writer.add_scalar("loss/step", loss, first + index)
        for tag, name in PER_EPOCH.items():
            self.writer.add_scalar(tag, getattr(epoch, name), epoch.epoch)
        self.writer.flush()  # who watches sees it now, and a kill loses nothing
        self.listener.epoch(epoch)


@contextmanager
def logged(listener: Listener, folder: Path | None) -> Iterator[Listener]:
    """`listener`, with a log in `folder` unless that is None. Raises TriptychError if it cannot be written."""
    if folder is None:
        yield listener
        return
    from tensorboard.summary import Writer

    with told(f"--tensorboard {folder} cannot be written"):
        writer = Writer(str(folder))
    with closing(writer):
        yield Log(listener, writer)
