"""A program for test_saving: trains one run again and again, kills it at random moments, and lets it end.

`killed.py BACKEND FOLDER KILLS SEED` prints, as JSON, how many kills fell within a save. Each training is a child of
this process, which has imported the framework and done nothing with it: a start costs no import."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from triptych.backend import registry
from triptych.data import Dataset, Split, synthetic
from triptych.data.batches import Augmentation
from triptych.optim.optimizers import Adam
from triptych.training import checkpoint as checkpoints
from triptych.training import keeping, loop, run_folder, sessions
from triptych.training.recipe import Recipe
from triptych.training.saving import Interval, SavePlan

RECIPE = Recipe("killed", architecture="lenet", data="synthetic", batch_size=16, epochs=3, learning_rate=0.003, seed=5)
RECIPE = replace(RECIPE, optimizer=Adam(weight_decay=1e-3), augmentation=Augmentation(crop_padding=2, flip=True))
PLAN = SavePlan(keep=3, every=Interval(steps=2))
PATIENCE = 120  # seconds that a child may take to begin, and to end


class Ready(loop.Listener):
    """Tells the parent of the first steps: from then on it is worth being killed."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def steps(self, *figures: object) -> None:
        os.write(self.pipe, b"r")


def images() -> Dataset:
    whole = synthetic.load()
    train, test = (Split(split.images[:96], split.labels[:96]) for split in (whole.train, whole.test))
    return Dataset("synthetic", train, test, whole.class_names)


def train(name: str, folder: Path, pipe: int) -> None:
    begun = folder if (folder / run_folder.RECIPE).exists() else None
    session = sessions.start(registry.load(name), RECIPE, images(), resumed=begun)
    keeping.keep_in(session, folder, PLAN)
    loop.fit(session, Ready(pipe))


def begin(name: str, folder: Path) -> tuple[int, int]:
    """A child that trains, and what it says that it is ready by."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        try:
            train(name, folder, send)
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    os.close(send)
    return child, receive


def run(name: str, folder: Path, delay: float | None) -> tuple[bool, float]:
    """Train until the end, or `delay` seconds after the first step; whether it was killed, and how long it took."""
    child, receive = begin(name, folder)
    select.select([receive], [], [], PATIENCE)
    since = time.monotonic()
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    os.close(receive)
    killed = os.WIFSIGNALED(status)
    if not killed and os.WEXITSTATUS(status):
        sys.exit(f"{name}: a training in {folder} ended with {os.WEXITSTATUS(status)}")
    return killed, time.monotonic() - since


def check_same(folder: Path, whole: Path) -> None:
    """The same losses, weights and optimizer's state, to the bit."""
    one, other = (run_folder.load(place, RECIPE, resuming=True) for place in (folder, whole))
    assert one is not None
    assert other is not None
    assert (one.epoch, one.step, one.remark) == (RECIPE.epochs, 18, "")
    for left, right in ((one.model, other.model), (one.optimizer, other.optimizer)):
        assert left.keys() == right.keys()
        assert [path for path in left if not np.array_equal(left[path], right[path])] == []
    losses = [[epoch.losses for epoch in run_folder.read_epochs(place)] for place in (folder, whole)]
    assert losses[0] == losses[1]
    names = {path.name for path in folder.iterdir() if not path.name.startswith("checkpoint")}
    assert names <= {run_folder.RECIPE, run_folder.METRICS}, names


def main(name: str, folder: Path, kills: int, seed: int) -> None:
    registry.load(name)
    draws = random.Random(seed)
    _, lasts = run(name, folder / "whole", None)
    done = within = rounds = 0
    while done < kills:
        rounds += 1
        part = folder / f"part-{rounds}"
        while done < kills:
            killed, _ = run(name, part, draws.uniform(0, lasts * 0.6))
            if not killed:
                break
            done += 1
            within += (part / checkpoints.NEW).exists()
        run(name, part, None)
        check_same(part, folder / "whole")
    print(json.dumps({"kills": done, "within": within, "rounds": rounds}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
