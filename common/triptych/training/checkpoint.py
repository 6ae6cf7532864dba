"""Checkpoints of a run: written whole or not at all, checked to the last bit when they are read.

`checkpoint/` is the newest, `checkpoint-STEP/` are those before it. Each holds the canonical model, the optimiser's
state and `state.json`, which is written last: SHA-256 and size of both files and of the metrics so far, and a digest
of itself. What does not fit together is no checkpoint."""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from triptych.spec import records
from triptych.utils.errors import TriptychError
from triptych.utils.files import remove_leftovers, sync_folder, write_atomically
from triptych.utils.reading import open_file
from triptych.weights import store
from triptych.weights.initializers import Parameters

CHECKPOINT = "checkpoint"
NEW, DAMAGED = f"{CHECKPOINT}.new", f"{CHECKPOINT}.damaged"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
LONGEST_STATE = 256 * 2**20  # bytes; 32 for each step of an unfinished epoch, and little else

Figures: TypeAlias = tuple[float, float]  # of one step: its loss, and how many answers were right


@dataclass(frozen=True)
class FileNote:
    """What a file has to be."""

    sha256: str
    size: int

    def check(self, content: bytes, where: str) -> None:
        """Raises TriptychError, which names the file, unless this is its content."""
        if len(content) != self.size:
            raise TriptychError(f"{where} was altered: it has {len(content)} bytes, {STATE} says {self.size}")
        if (actual := hashlib.sha256(content).hexdigest()) != self.sha256:
            raise TriptychError(f"{where} was altered: its SHA-256 is {actual}, {STATE} says {self.sha256}")


def note_of(content: bytes) -> FileNote:
    """The note of a file with this content."""
    return FileNote(hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True, kw_only=True)
class State:
    """What `state.json` says: `epoch` epochs and `step` steps in all are done; `figures`, `seconds`, `images` and
    `first_step` are `triptych.training.sessions.EpochSoFar` of an epoch that is not finished. `backend`, `seed`,
    `versions`: what wrote it. `input`, `class_names`: of the network. `recipe`: the digest of
    `triptych.training.recipe.identity`; `data`: SHA-256 of the images and labels by split. `files` and `metrics`
    (its first lines) are filled in when it is written, `digest` of all the rest, too."""

    epoch: int
    step: int
    input: tuple[int, int, int]
    class_names: tuple[str, ...]
    backend: str = ""
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    recipe: str = ""
    data: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0
    first_step: float = 0.0
    figures: tuple[Figures, ...] = ()
    metrics: FileNote = FileNote("", 0)  # frozen, so one shared value is safe
    files: dict[str, FileNote] = field(default_factory=dict)
    digest: str = ""

    def __post_init__(self) -> None:
        if self.epoch < 0 or self.step < self.epoch + len(self.figures) or min(self.seconds, self.images) < 0:
            raise TriptychError(f"epoch {self.epoch}, step {self.step}, {self.seconds} seconds: no run was ever there")

    @property
    def own_digest(self) -> str:
        """SHA-256 of everything else in it."""
        return records.digest(replace(self, digest=""))

    @property
    def place(self) -> str:
        """How far the run was, for a person."""
        return f"epoch {self.epoch}, step {self.step}"


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to go on, on any backend. `remark` says what was passed over to come to this one."""

    state: State
    model: Parameters
    optimizer: Parameters
    remark: str = field(default="", compare=False)

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return self.state.epoch

    @property
    def step(self) -> int:
        """How many steps are done, in all epochs and the one that is not finished."""
        return self.state.step


def places(folder: Path) -> list[Path]:
    """Where checkpoints of a run lie, whole or not, the newest first."""
    older = {_step_of(path): path for path in folder.glob(f"{CHECKPOINT}-*") if _step_of(path) is not None}
    newest = folder / CHECKPOINT
    return [newest] * newest.exists() + [older[step] for step in sorted(older, key=lambda step: -(step or 0))]


def read(place: Path) -> Checkpoint:
    """The checkpoint in a folder. Raises TriptychError, which names the file, unless every bit is as it was written."""
    state = read_state(place)
    contents = {}
    for name in (MODEL, OPTIMIZER):
        path = place / name
        if name not in state.files:
            raise TriptychError(f"{place / STATE} is damaged: it does not name {name}")
        contents[name] = _content(path, state.files[name].size)
        state.files[name].check(contents[name], str(path))
    model, optimizer = (store.decode(contents[name], place / name) for name in (MODEL, OPTIMIZER))
    return Checkpoint(state, model, optimizer)


def read_state(place: Path) -> State:
    """`state.json` of a checkpoint. Raises TriptychError for one that is missing or altered."""
    path = place / STATE
    content = _content(path, LONGEST_STATE)
    try:
        state = records.decode(records.parse(content.decode()), State)
    except (ValueError, TriptychError) as error:
        raise TriptychError(f"{path} is damaged, or of another version of triptych: {error}") from None
    if state.digest != state.own_digest:
        raise TriptychError(f"{path} was altered: its digest is {state.own_digest}, it says {state.digest}")
    if content != _text(state):
        raise TriptychError(f"{path} was altered: it is not written as triptych writes it")
    return state


def encode(checkpoint: Checkpoint, metrics: bytes) -> dict[str, bytes]:
    """The files of a checkpoint, `state.json` last, for the `metrics` that belong to it."""
    files = {MODEL: store.encode(checkpoint.model), OPTIMIZER: store.encode(checkpoint.optimizer)}
    notes = {name: note_of(content) for name, content in files.items()}
    state = replace(checkpoint.state, files=notes, metrics=note_of(metrics))
    return files | {STATE: _text(replace(state, digest=state.own_digest))}


def write(folder: Path, files: Mapping[str, bytes], step: int, keep: int) -> None:
    """Make these files the newest checkpoint of the run in `folder`, in the folder that `prepare` has made; the one
    before stays until then, and `keep` of all stay."""
    new, newest = folder / NEW, folder / CHECKPOINT
    for name, content in files.items():
        write_atomically(new / name, content)
    if newest.exists():
        aside = folder / _name_of(newest)
        shutil.rmtree(aside, ignore_errors=True)  # damaged, or this one would not be the newest
        newest.rename(aside)
    new.rename(newest)
    sync_folder(folder)
    prune(folder, step, keep)


def prepare(folder: Path) -> None:
    """An empty folder for the next checkpoint; what kills have left is removed."""
    remove_leftovers(folder)
    shutil.rmtree(folder / NEW, ignore_errors=True)
    (folder / NEW).mkdir()


def prune(folder: Path, step: int, keep: int) -> None:
    """Remove what is not among the `keep` last up to `step`: older ones, damaged ones, and those that a run which went
    on from an older one has left behind."""
    older = [place for place in places(folder) if place.name != CHECKPOINT]
    kept = [place for place in older if (_step_of(place) or 0) < step][: keep - 1]
    for place in (folder / DAMAGED, *(place for place in older if place not in kept)):
        shutil.rmtree(place, ignore_errors=True)


def discard(folder: Path) -> None:
    """Give back the space of a checkpoint that could not be finished; that it was begun is still to be seen."""
    shutil.rmtree(folder / NEW, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / NEW).mkdir()


def generation(folder: Path) -> list[tuple[str, int]]:
    """Changes when a checkpoint is added, moved or removed."""
    found = []
    for place in places(folder):
        with contextlib.suppress(OSError):
            found.append((place.name, place.stat().st_ino))
    return found


def _text(state: State) -> bytes:
    return records.write(state).encode()


def _name_of(place: Path) -> str:
    try:
        return f"{CHECKPOINT}-{read_state(place).step:08d}"
    except TriptychError:
        return DAMAGED


def _step_of(place: Path) -> int | None:
    found = re.fullmatch(rf"{CHECKPOINT}-(\d{{8,18}})", place.name)
    return int(found[1]) if found else None


def _content(path: Path, most: int) -> bytes:
    """The content of a file, of one byte more than `most` at most."""
    try:
        with open_file(path) as file:
            return file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    except OSError as error:
        raise TriptychError(f"{path} cannot be read: {error.strerror}") from None
