"""A session's run, kept in a folder as it goes."""

from collections.abc import Callable
from pathlib import Path

from triptych.training import run_folder
from triptych.training.checkpoint import Checkpoint, State
from triptych.training.recipe import identity
from triptych.training.saving import DEFAULT_PLAN, SavePlan, Saver
from triptych.training.sessions import Session


def keep_in(session: Session, folder: Path, plan: SavePlan = DEFAULT_PLAN) -> None:
    """Keep the run in `folder` from now on: a new one, or the one that it resumes, which gets the session's recipe.
    Raises TriptychError if the folder cannot be written, or is another process's."""
    held = session.held if folder == session.resumed else None
    held = held or (run_folder.hold(folder) if folder == session.resumed else run_folder.claim(folder))
    session.saver = Saver(folder, held, plan)
    session.saver.last_step = session.step
    try:
        run_folder.write_recipe(folder, session.recipe)
    except BaseException:
        session.saver.close()
        raise


def save(session: Session, then: Callable[[], None]) -> None:
    """Begin to save, if the run is kept; `then` is called as soon as that is done."""
    if session.saver is None:
        then()
    else:
        session.saver.save(session.epochs, checkpoint_of(session), then)


def settle(session: Session) -> None:
    """Wait until everything is saved. Raises what made that fail."""
    if session.saver is not None:
        session.saver.settle()


def kept(session: Session) -> str:
    """What an end before the last epoch leaves behind, once it is saved. Raises what makes that fail."""
    settle(session)
    done = f"{len(session.epochs)} finished epochs"
    if session.saver is None:
        return f"{done} are kept"
    further = session.saver.last_step - (session.epochs[-1].step if session.epochs else 0)
    steps = f" and {further} steps of the next" if further > 0 else ""
    return f"{done}{steps} are kept in {session.folder} (train --resume goes on)"


def checkpoint_of(session: Session) -> Checkpoint:
    """The session as it can be saved."""
    backend = session.backend
    state = State(
        epoch=len(session.epochs),
        step=session.step,
        input=session.architecture.input,
        class_names=tuple(session.dataset.class_names),
        backend=backend.name,
        seed=session.recipe.seed,
        versions=backend.versions(),
        recipe=identity(session.recipe),
        data=dict(session.dataset.digests),
        seconds=session.part.seconds,
        images=session.part.images,
        first_step=session.part.first_step,
        figures=tuple((float(loss), float(right)) for loss, right in session.part.figures),
    )
    return Checkpoint(state, backend.to_canonical(session.network), session.trainer.state())
