"""A run folder: recipe, metrics, checkpoints. Every file in it is whole at every moment, and one process writes."""

import json
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from triptych.spec import records
from triptych.training import checkpoint as checkpoints
from triptych.training.checkpoint import CHECKPOINT, MODEL, NEW, OPTIMIZER, STATE, Checkpoint
from triptych.training.recipe import Recipe, identity
from triptych.utils import lock
from triptych.utils.errors import TriptychError
from triptych.utils.files import free_bytes, leftovers, probe, told, write_atomically
from triptych.utils.lock import Lock
from triptych.utils.reading import holds, read_bounded
from triptych.weights import store
from triptych.weights.initializers import Parameters

__all__ = ["CHECKPOINT", "MODEL", "OPTIMIZER", "STATE", "Checkpoint"]
RECIPE, METRICS, LOCK = "recipe.json", "metrics.jsonl", ".lock"
LONGEST_METRICS = 1 << 30  # bytes; 20 for each step
KEPT = 2  # checkpoints, so that a damaged one has another before it


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


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """The recipe of a run, also when it is continued for more epochs."""
    content = json.dumps(records.encode(recipe), indent=2).encode()
    with told(f"{RECIPE} cannot be saved in {folder}", needed=len(content), place=folder):
        write_atomically(folder / RECIPE, content)


def make_folder(folder: Path) -> Path:
    """An empty folder for output. Raises TriptychError if it holds something or cannot be written."""
    check_free(folder)
    with told(f"--out {folder} cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def claim(folder: Path) -> Lock:
    """An empty folder for output that is this process's until the lock is released. Raises TriptychError if it holds
    something, is another's, or cannot be written."""
    make_folder(folder)
    held = hold(folder)
    try:
        check_free(folder)  # again: another process may have used it in between
    except BaseException:
        held.release()
        raise
    return held


def own(folder: Path) -> Lock:
    """The lock of a folder that may hold anything, and is made where there is none. Raises TriptychError if another
    process has it, or it cannot be written."""
    with told(f"{folder} cannot be written"):
        folder.mkdir(parents=True, exist_ok=True)
    return hold(folder)


def hold(folder: Path) -> Lock:
    """The lock of a run folder, for whoever writes in it. Raises TriptychError if another process has it."""
    if not folder.is_dir():
        raise TriptychError(f"{folder} is not a run folder: there is no such folder")
    return lock.acquire(folder / LOCK, str(folder))


def check_free(folder: Path) -> None:
    """Raises TriptychError if the folder, which need not be there yet, holds something or cannot be written. What a
    killed process has left of its attempts is nothing."""
    with told(f"--out {folder} cannot be written"):
        if folder.exists() and (not folder.is_dir() or set(folder.iterdir()) - {folder / LOCK, *leftovers(folder)}):
            raise TriptychError(f"--out {folder} is already used; choose another, or remove it first")
        probe(folder)


def new_folder(name: str) -> Path:
    """A folder below `runs/` with the time in its name, made by this call."""
    first = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    for folder in chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2))):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise TriptychError(f"{folder} cannot be made: {error.strerror}; choose another place with --out") from None
        return folder
    raise AssertionError


def read_recipe(folder: Path) -> Recipe:
    """The recipe of a run. Raises TriptychError if the folder is no run, or the file is no recipe."""
    path = folder / RECIPE
    try:
        values = records.read(path)
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
        lines = read_bounded(path, LONGEST_METRICS).decode().splitlines() if path.exists() else []
        epochs = [records.decode(with_defaults(records.parse(line), Epoch), Epoch) for line in lines]
        for number, epoch in enumerate(epochs, start=1):
            if epoch.epoch != number:
                raise TriptychError(f"line {number} is of epoch {epoch.epoch}")
    except (OSError, ValueError, TriptychError) as error:
        raise TriptychError(f"{path} is damaged: {error}") from None
    return epochs


def save(folder: Path, epochs: Sequence[Epoch], checkpoint: Checkpoint, keep: int = KEPT) -> None:
    """Write metrics, then the checkpoint; until the new one is whole, the old one stays, and `keep` of all stay after
    that. Metrics go first: on resuming, those ahead of the checkpoint are dropped, while missing ones could not be
    regained. Raises TriptychError if the disk is full, or the folder has gone or become read-only."""
    metrics = _lines(epochs)
    files = checkpoints.encode(checkpoint, metrics)
    needed = len(metrics) + sum(map(len, files.values()))
    what = f"the checkpoint of {checkpoint.state.place} cannot be saved in {folder}"
    with told(what, lambda: _what_stays(folder), needed=needed, place=folder):
        checkpoints.prepare(folder)
        try:
            if (free := free_bytes(folder)) < needed:
                raise TriptychError(f"{what}: {needed:,} bytes are needed, {free:,} are free; {_what_stays(folder)}")
            if not holds(folder / METRICS, metrics):
                write_atomically(folder / METRICS, metrics)
            checkpoints.write(folder, files, checkpoint.step, keep)
        except OSError:
            checkpoints.discard(folder)
            raise


def _what_stays(folder: Path) -> str:
    """What is left of a run where nothing more could be saved."""
    if not folder.is_dir():
        return "the folder is gone, with what was saved in it"
    whole = "the one before is whole, and train --resume goes on with it"
    return whole if checkpoints.places(folder) else "none was saved before it"


def load(folder: Path, recipe: Recipe | None = None, *, resuming: bool = False) -> Checkpoint | None:
    """The last checkpoint that is whole, and belongs to `recipe` where one is given and, for `resuming`, to the
    metrics; its remark says which were passed over. None if the run has saved nothing yet. Raises TriptychError, which
    says what is wrong with each, if there is none that can be used."""
    refused: list[str] = []
    generation = checkpoints.generation(folder)
    for place in checkpoints.places(folder):
        try:
            found = checkpoints.read(place)
            _check_belongs(found, place, recipe)
            if resuming:
                _check_metrics(found, folder)
        except TriptychError as error:
            refused.append(str(error))
            if generation != checkpoints.generation(folder):
                break
            continue
        if place.name != CHECKPOINT and not refused:
            refused.append(f"{folder / CHECKPOINT} is not there")
        remark = f"{'; '.join(refused)}; {place.name} before it is taken: {found.state.place}" if refused else ""
        return Checkpoint(found.state, found.model, found.optimizer, remark)
    if generation != checkpoints.generation(folder):  # a running training has saved the next one meanwhile
        return load(folder, recipe, resuming=resuming)
    if not refused and not _saved_nothing(folder):
        refused.append(f"{METRICS} shows that there was one, and it was removed")
    if refused:
        raise TriptychError(f"no checkpoint in {folder} can be used: {'; '.join(refused)}; nothing was changed")
    return None


def read_model(source: Path) -> tuple[Parameters, str]:
    """The canonical parameters of a safetensors file, or of a run folder's last whole checkpoint, with the remark of
    `load`. Raises TriptychError for a folder without a checkpoint."""
    if not source.is_dir():
        return store.load(source), ""
    found = load(source)
    if found is None:
        raise TriptychError(f"--init-from {source}: there is no checkpoint in it, so nothing to start from")
    return found.model, found.remark


def check_model(source: Path) -> None:
    """Raises TriptychError for what `read_model` will find nothing in; the parameters are not read."""
    if not source.is_dir():
        store.check_header(source)
    elif not checkpoints.places(source):
        raise TriptychError(f"--init-from {source}: there is no checkpoint in it, so nothing to start from")


def _lines(epochs: Sequence[Epoch]) -> bytes:
    return "".join(json.dumps(records.encode(epoch)) + "\n" for epoch in epochs).encode()


def _check_belongs(found: Checkpoint, place: Path, recipe: Recipe | None) -> None:
    if recipe is not None and found.state.recipe != identity(recipe):
        raise TriptychError(f"{place} is of another recipe than {RECIPE} has; one of the two was changed")


def _check_metrics(found: Checkpoint, folder: Path) -> None:
    """Raises TriptychError unless the first lines of the metrics are those of the time of the checkpoint."""
    path, state = folder / METRICS, found.state
    try:
        content = read_bounded(path, LONGEST_METRICS)[: state.metrics.size]
    except OSError as error:
        raise TriptychError(f"{path} cannot be read: {error.strerror}") from None
    state.metrics.check(content, f"the beginning of {path}")
    epochs = read_epochs(folder)[: content.count(b"\n")]
    done = (epochs[-1].step if epochs else 0) + len(state.figures)
    if (len(epochs), done) != (state.epoch, state.step):
        raise TriptychError(f"{STATE} says {state.place}; {path} and it make {len(epochs)} epochs, {done} steps")


def _saved_nothing(folder: Path) -> bool:
    """Whether a run without a checkpoint may never have had one: it was stopped before or within its first save."""
    return not (folder / METRICS).exists() or ((folder / NEW).exists() and len(read_epochs(folder)) <= 1)
