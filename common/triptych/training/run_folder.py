"""A run folder: recipe, metrics, checkpoint. Every file in it is whole at every moment."""

import json
import shutil
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from triptych.spec import records
from triptych.training.recipe import Recipe
from triptych.utils.errors import TriptychError
from triptych.utils.files import probe, told, write_atomically
from triptych.weights import store
from triptych.weights.initializers import Parameters

RECIPE, METRICS, CHECKPOINT = "recipe.json", "metrics.jsonl", "checkpoint"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured. Losses are means over images; `seconds` and `images_per_second` are of training
    alone, without the test and without a session's first step, whose seconds are `first_step` (0 where there was none):
    it holds a framework's compilation. `epoch` counts from 1, `step` is the number of updates so far."""

    epoch: int
    step: int
    backend: str
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float
    losses: tuple[float, ...] = ()
    first_step: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on, on any backend: `epoch` epochs, `step` steps are done."""

    epoch: int
    step: int
    model: Parameters
    optimizer: Parameters
    state: dict[str, Any]


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """The recipe of a run, also when it is continued for more epochs."""
    write_atomically(folder / RECIPE, json.dumps(records.encode(recipe), indent=2).encode())


def make_folder(folder: Path) -> Path:
    """An empty folder for output. Raises TriptychError if it holds something or cannot be written."""
    check_free(folder)
    with told(f"--out {folder} cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_free(folder: Path) -> None:
    """Raises TriptychError if the folder, which need not be there yet, holds something or cannot be written."""
    with told(f"--out {folder} cannot be written"):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise TriptychError(f"--out {folder} is already used; choose another, or remove it first")
        probe(folder)


def new_folder(name: str) -> Path:
    """A folder below `runs/` that does not exist, with the time in its name."""
    first = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    others = (first.with_name(f"{first.name}-{number}") for number in count(2))
    return next(folder for folder in chain([first], others) if not folder.exists())


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run. Raises TriptychError if the folder is no run, or the file is no recipe."""
    path = folder / RECIPE
    try:
        values = records.parse(path.read_bytes().decode(errors="replace"))
        if isinstance(values, dict) and "network" not in values and "architecture" in values:
            raise TriptychError("it was written by an older triptych; train again, or go on with that version")
        return records.decode(with_defaults(values, Recipe), Recipe)
    except OSError as error:
        raise TriptychError(f"{folder} is not a run folder: cannot read {RECIPE} ({error.strerror})") from None
    except (ValueError, TriptychError) as error:
        raise TriptychError(f"{path} is no recipe that can be read: {error}") from None


def with_defaults(values: Any, kind: type) -> Any:
    """The JSON of a record, with the defaults of the fields that it does not have: those that came later."""
    if not isinstance(values, dict):
        return values
    later = (item for item in fields(kind) if item.default is not MISSING and item.name not in values)
    return values | {item.name: records.encode(item.default) for item in later}


def read_epochs(folder: Path) -> list[Epoch]:
    """The metrics so far, an epoch per line. Raises TriptychError for a damaged line."""
    path = folder / METRICS
    try:
        lines = path.read_text().splitlines() if path.exists() else []
        return [records.decode(with_defaults(records.parse(line), Epoch), Epoch) for line in lines]
    except (OSError, ValueError, TriptychError) as error:
        raise TriptychError(f"{path} is damaged: {error}") from None


def save(folder: Path, epochs: list[Epoch], checkpoint: Checkpoint) -> None:
    """Write metrics, then the checkpoint; until the new one is whole, the old one stays. Metrics go first: on resuming,
    those ahead of the checkpoint are dropped, while missing ones could not be regained."""
    lines = "".join(json.dumps(records.encode(epoch)) + "\n" for epoch in epochs)
    write_atomically(folder / METRICS, lines.encode())
    current, new, old = (folder / f"{CHECKPOINT}{suffix}" for suffix in ("", ".new", ".old"))
    if old.exists() and not current.exists():
        old.rename(current)  # killed between the two renames below: the only checkpoint there is
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir()
    store.save(new / MODEL, checkpoint.model)
    store.save(new / OPTIMIZER, checkpoint.optimizer)
    state = {"epoch": checkpoint.epoch, "step": checkpoint.step, **checkpoint.state}
    write_atomically(new / STATE, json.dumps(state, indent=2).encode())
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path) -> Checkpoint | None:
    """The last whole checkpoint; None if no epoch was finished. Raises TriptychError for a damaged one."""
    newest = _newest(folder)
    if newest is None:
        return None
    try:
        state = json.loads((newest / STATE).read_text())
        epoch, step = int(state.pop("epoch")), int(state.pop("step"))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TriptychError(f"{newest / STATE} is damaged: {error}") from None
    return Checkpoint(epoch, step, store.load(newest / MODEL), store.load(newest / OPTIMIZER), state)


def model_file(source: Path) -> Path:
    """The safetensors file of canonical parameters that `source` is, or that a run folder's last checkpoint holds.
    Raises TriptychError for a folder without a checkpoint."""
    if not source.is_dir():
        return source
    newest = _newest(source)
    if newest is None:
        raise TriptychError(f"--init-from {source}: there is no checkpoint in it, so nothing to start from")
    return newest / MODEL


def _newest(folder: Path) -> Path | None:
    names = (CHECKPOINT, f"{CHECKPOINT}.old")  # .old: killed between the two renames of `save`
    return next((folder / name for name in names if (folder / name / STATE).exists()), None)
