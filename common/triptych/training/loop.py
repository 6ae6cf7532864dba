"""The training loop, the same for every backend: plan the batches, step, read, test, save."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Masks, Native
from triptych.backend.group import Share
from triptych.data import batches, storage
from triptych.training import capacity, keeping, masks, scoring, sessions, watch
from triptych.training.distributed.shares import cut
from triptych.training.recipe import build_transform
from triptych.training.run_folder import Epoch
from triptych.training.sessions import EpochSoFar, Session
from triptych.utils.errors import TriptychError
from triptych.utils.interrupt import Interrupted, interruptible


class DivergedError(TriptychError):
    """A loss that is not finite."""


class StuckError(TriptychError):
    """A training that does not learn, and was to be stopped then."""


class Listener:
    """Who is told how training goes: a progress bar, a log; this one itself says nothing."""

    def begin(self, epoch: int, total: int) -> None:
        """An epoch of so many steps begins."""

    def steps(self, epoch: int, total: int, losses: NDArray[np.float64], images_per_second: float) -> None:
        """The losses of this epoch's steps so far, of `total`, and its speed."""

    def epoch(self, epoch: Epoch) -> None:
        """An epoch is done and saved."""

    def stuck(self, what: str) -> None:
        """The training does not learn; said once, with what is known of the cause."""


def fit(session: Session, listener: Listener, *, stop_stuck: bool = False) -> list[Epoch]:
    """Train until the recipe's epochs are done; returns all of them. Raises DivergedError at the first step whose loss
    is not finite, with `stop_stuck` StuckError where it is seen that nothing is learned (see
    `triptych.training.watch`), and Interrupted on SIGINT, SIGTERM or SIGHUP; finished epochs stay saved in all cases.
    What cannot be saved ends the training with the reason."""
    try:
        with interruptible() as interrupted, capacity.told(session.recipe, session.architecture, session.backend):
            for number in range(len(session.epochs), session.recipe.epochs):
                epoch = train_epoch(session, number, listener, interrupted, stop_stuck)
                session.epochs.append(epoch)
                session.part = EpochSoFar()
                keeping.save(session, partial(listener.epoch, epoch))
            keeping.settle(session)
            if interrupted():  # in the last epoch's last moments; `compare` must not go on with the next backend
                raise Interrupted(interrupted(), keeping.kept(session))
    finally:
        if session.saver is not None:
            session.saver.close()
    return session.epochs


def train_epoch(
    session: Session, number: int, listener: Listener, interrupted: Callable[[], int], stop_stuck: bool
) -> Epoch:
    """One epoch (counted from 0), or what is left of it, and its test."""
    recipe, split, saver = session.recipe, session.dataset.train, session.saver
    plan = batches.plan(recipe.seed, number, len(split), recipe.batch_size, recipe.augmentation)
    handles: list[Native] = []
    listener.begin(number + 1, len(plan))
    done, last = len(session.part.figures), time.perf_counter()
    parts = cut(plan[done:], session.group, recipe.accumulate)
    fed = batches.feed(split.images, split.labels, [batch for batch, _ in parts], recipe.augmentation)
    fed = storage.ahead(fed) if storage.is_mapped(split.images) else fed  # else there is nothing to wait for
    for index, (images, labels, gather) in enumerate(fed, start=done + 1):
        if number_of_signal := agreed(session, handles, interrupted()):
            stop(session, handles, number_of_signal)
        rates = recipe.rates(session.step, len(plan), session.history)
        shares = parts[index - 1 - done][1]
        drawn = shared_masks(session, len(plan[index - 1]), shares)
        step = partial(session.trainer.step, images, labels, rates, session.step, gather=gather, shares=shares)
        handles.append(step(masks=drawn) if drawn else step())
        session.step += 1
        due = index < len(plan) and bool(agreed(session, handles[1:], saver is not None and saver.due(session.step)))
        if due or len(handles) >= session.pace.every or index == len(plan):
            sizes = [len(batch) for batch in plan[:index]]
            last = look(session, handles, sizes, last, single=len(plan) == 1)
            listener.steps(number + 1, len(plan), session.part.figures[:, 0], session.part.speed(sum(sizes)))
            check_stuck(session, listener, stop_stuck)
        if due:
            session.trainer.settle()
            keeping.save(session, lambda: None)
        if saver is not None:
            saver.poll()
    return measure(session, number + 1, np.array([len(batch) for batch in plan]))


def shared_masks(session: Session, count: int, shares: Sequence[Share]) -> Masks | None:
    """The dropout masks of the next step, on a batch of `count` images; None where each framework draws its own."""
    recipe = session.recipe
    if recipe.masks != masks.SHARED:
        return None
    return masks.draw_part(session.architecture, recipe.seed, session.step, count, shares)


def agreed(session: Session, unread: Sequence[Native], value: int) -> int:
    """What is to be done at this step: the `value` of a process alone. Several ask each other where they have read all
    steps but this one, and for all of them the largest counts."""
    if session.group.size == 1:
        return value
    return 0 if unread else session.group.agree(value)


def look(session: Session, handles: list[Native], sizes: Sequence[int], last: float, *, single: bool = False) -> float:
    """Read the steps since the `last` look, which are forgotten; `sizes` are those of the epoch's batches up to now.
    Returns the time. Raises DivergedError for a loss that is not finite."""
    new, now = session.trainer.read(handles), time.perf_counter()
    new_sizes, seconds = sizes[len(sizes) - len(new) :], max(0.0, now - last)
    # A session's first step compiles; an epoch of one step has nothing else to be timed by.
    session.part.add(new, sum(new_sizes), seconds, timed=single or session.pace.first is not None)
    session.pace.seen(len(handles), seconds)
    handles.clear()
    check_finite(session.part.figures[:, 0], session.step - len(session.part.figures), session)
    session.watch.add(new, new_sizes)
    return now


def stop(session: Session, handles: list[Native], number: int) -> NoReturn:
    """End at a signal, between two steps; a run that is saved within its epochs is saved now."""
    saver = session.saver
    session.trainer.settle()
    if saver is not None and saver.plan.every is not None and session.step > saver.last_step:
        if handles:
            session.part.add(session.trainer.read(handles), 0, 0.0, timed=True)
            check_finite(session.part.figures[:, 0], session.step - len(session.part.figures), session)
        keeping.save(session, lambda: None)
    raise Interrupted(number, keeping.kept(session))


def measure(session: Session, number: int, sizes: NDArray[np.int64]) -> Epoch:
    """What an epoch (counted from 1) of batches of these sizes has come to, and its test."""
    part = session.part
    test_loss, test_accuracy = test(session)
    check_finite(np.array([test_loss]), session.step, session)  # the last step may have broken the network
    return Epoch(
        epoch=number,
        step=session.step,
        backend=session.backend.name,
        train_loss=float(np.average(part.figures[:, 0], weights=sizes)),
        train_accuracy=float(part.figures[:, 1].sum() / sizes.sum()),
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        seconds=part.seconds,
        images_per_second=part.speed(int(sizes.sum())),
        losses=tuple(part.figures[:, 0].tolist()),
        first_step=part.first_step,
    )


def check_stuck(session: Session, listener: Listener, stop: bool) -> None:
    """Say once that nothing is learned, with what the run shows of the cause; with `stop`, raise StuckError."""
    if session.stuck or session.step < watch.AFTER or not session.watch.stuck:
        return
    begun, recipe = sessions.start_of(session), session.recipe
    symptoms = watch.examine(
        session.architecture,
        session.backend.to_canonical(session.network),
        begun,
        session.dataset.train.images,
        replace(build_transform(recipe, session.architecture), crop_padding=0),
        session.epochs[0].losses[0] if session.epochs else session.watch.first,
    )
    rate = recipe.rates(session.step - 1, session.steps_per_epoch, session.history).learning_rate
    measured = "; ".join([*symptoms.texts(), f"rate {rate:.3g}"])
    likely = symptoms.cause(session.watch.chance)
    session.stuck = f"{session.backend.name}: {session.watch.verdict(session.step)} ({measured}). Likely: {likely}"
    listener.stuck(session.stuck)
    if stop:
        raise StuckError(f"training was stopped, {keeping.kept(session)}")


def check_finite(losses: NDArray[np.float64], first_step: int, session: Session) -> None:
    """Raises DivergedError for the first loss that is not finite, with its step."""
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise DivergedError(
            f"{session.backend.name}: the loss is {losses[bad[0]]} at step {first_step + int(bad[0])}; training was "
            f"stopped, {keeping.kept(session)}; try a smaller --learning-rate"
        )


def test(session: Session) -> tuple[float, float]:
    """Mean cross-entropy and accuracy on the test images, of which every process has a part."""
    session.trainer.settle()
    split, part = session.dataset.test, session.group.part_of(len(session.dataset.test))
    images, labels = split.images[part], split.labels[part]
    mine = np.zeros(2)
    if len(labels) or not len(split):
        mine = scoring.totals(scoring.logits_of(session.trainer, images, session.recipe.images_per_test), labels)
    loss, right = session.group.gather(mine).sum(0) / len(split)
    return float(loss), float(right)
