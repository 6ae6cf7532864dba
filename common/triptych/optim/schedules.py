"""Schedules: the learning rate and momentum of every step, as data and a pure function of where a run is."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias, get_args

from triptych.spec import records
from triptych.utils.errors import TriptychError, unknown

POSITIVE = 1e-12, 1e12
FROM_ZERO = 0.0, 1e12
SHARE = 0.0, 1.0
MOMENTUM = 0.0, 0.999999
Ranges: TypeAlias = dict[str, tuple[float, float]]  # least and most, by field
Unit: TypeAlias = Literal["epoch", "batch"]
Measure: TypeAlias = Literal["loss", "accuracy"]
UNITS, MEASURES = get_args(Unit), get_args(Measure)
CHOICES = {"per": ("schedule unit", UNITS), "measure": ("schedule measure", MEASURES)}


class Score(NamedTuple):
    """The test after an epoch."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Moment:
    """Where a run is: `step` counts from 0 over the whole run of `epochs`; `history` has the finished epochs' tests."""

    step: int
    steps_per_epoch: int = 1
    epochs: int = 1
    history: Sequence[Score] = ()


@dataclass(frozen=True)
class Schedule:
    """What changes from step to step of the rates that a recipe starts from: here nothing. Raises TriptychError for a
    field outside of `ranges`, its least and its most, or of its `CHOICES`."""

    name: ClassVar[str]
    ranges: ClassVar[Ranges] = {}

    def __post_init__(self) -> None:
        for name, (what, known) in CHOICES.items():
            if getattr(self, name, known[0]) not in known:
                raise unknown(what, getattr(self, name), known)
        for name, (least, most) in self.ranges.items():
            if not least <= getattr(self, name) <= most:
                raise TriptychError(
                    f"--schedule {self.name}: {name} {getattr(self, name)} must be at least {least:g}"
                    + (f" and at most {most:g}" if math.isfinite(most) else "")
                )

    @property
    def main(self) -> "Schedule":
        """The schedule that a warm-up leads into; else itself."""
        return self

    def learning_rate(self, base: float, at: Moment) -> float:
        """The learning rate of a step."""
        return base

    def momentum(self, base: float, at: Moment) -> float:
        """The momentum of a step."""
        return base


@dataclass(frozen=True)
class Constant(Schedule):
    """The same rates in every step."""

    name = "constant"


@dataclass(frozen=True)
class Planned(Schedule):
    """A schedule over a plan of `total_epochs` (0: the recipe's), in steps of an epoch or of a batch. A run may stop
    before its plan ends; behind its end, the last value holds."""

    ranges: ClassVar[Ranges] = {"total_epochs": FROM_ZERO}

    total_epochs: int = 0
    per: Unit = "epoch"

    def position(self, at: Moment) -> tuple[int, int]:
        """How much of the plan is done, and its length, in epochs or batches."""
        total = self.total_epochs or at.epochs
        if self.per == "epoch":
            return min(at.step // at.steps_per_epoch, total), total
        return min(at.step, total * at.steps_per_epoch), total * at.steps_per_epoch


@dataclass(frozen=True)
class Step(Schedule):
    """Times `factor` after every `every` epochs or batches (PyTorch's StepLR)."""

    name = "step"
    ranges: ClassVar[Ranges] = {"every": (1, math.inf), "factor": POSITIVE}

    every: int = 1
    factor: float = 0.1
    per: Unit = "epoch"

    def learning_rate(self, base: float, at: Moment) -> float:
        done = at.step // at.steps_per_epoch if self.per == "epoch" else at.step
        try:
            return float(base * self.factor ** (done // self.every))
        except OverflowError:  # a factor above 1; the training that follows diverges, and is stopped with a line
            return math.inf


@dataclass(frozen=True)
class MultiStep(Schedule):
    """Times `factor` at each of the `milestones`, in epochs or batches (PyTorch's MultiStepLR, MXNet's
    MultiFactorScheduler). Raises TriptychError unless they rise."""

    name = "multistep"
    ranges: ClassVar[Ranges] = {"factor": POSITIVE}

    milestones: tuple[int, ...] = (1,)
    factor: float = 0.1
    per: Unit = "epoch"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.milestones or list(self.milestones) != sorted({m for m in self.milestones if m > 0}):
            shown = ",".join(map(str, self.milestones))
            raise TriptychError(f"--schedule multistep: milestones '{shown}' must rise, from 1 on")

    def learning_rate(self, base: float, at: Moment) -> float:
        done = at.step // at.steps_per_epoch if self.per == "epoch" else at.step
        return float(base * self.factor ** sum(milestone <= done for milestone in self.milestones))


@dataclass(frozen=True)
class Cosine(Planned):
    """Half a cosine from the recipe's rate to `minimum` (PyTorch's CosineAnnealingLR; that one rises again)."""

    name = "cosine"
    ranges: ClassVar[Ranges] = Planned.ranges | {"minimum": FROM_ZERO}

    minimum: float = 0.0

    def learning_rate(self, base: float, at: Moment) -> float:
        done, total = self.position(at)
        return between(base, self.minimum, done / total)


@dataclass(frozen=True)
class Polynomial(Planned):
    """The recipe's rate times (1 - done / planned)^power (PyTorch's PolynomialLR)."""

    name = "polynomial"
    ranges: ClassVar[Ranges] = Planned.ranges | {"power": POSITIVE}

    power: float = 1.0

    def learning_rate(self, base: float, at: Moment) -> float:
        done, total = self.position(at)
        return float(base * (1 - done / total) ** self.power)


@dataclass(frozen=True)
class OneCycle(Planned):
    """PyTorch's OneCycleLR: half a cosine from `maximum / div` up to the `maximum`, another down to `maximum / div /
    final_div`, while the momentum goes from `high_momentum` to `low_momentum` and back.

    It overwrites what the recipe says: the learning rate, unless `maximum` is 0 (then the recipe's is the maximum),
    and the momentum, also of an SGD without any. Adam's beta1, which PyTorch cycles as well, stays as it is.
    """

    name = "one-cycle"
    ranges: ClassVar[Ranges] = (
        Planned.ranges
        | {"maximum": FROM_ZERO, "div": POSITIVE, "final_div": POSITIVE, "warm_up": SHARE}
        | {"high_momentum": MOMENTUM, "low_momentum": MOMENTUM}
    )

    per: Unit = "batch"
    maximum: float = 0.0
    div: float = 25.0
    final_div: float = 1e4
    warm_up: float = 0.3
    high_momentum: float = 0.95
    low_momentum: float = 0.85

    def learning_rate(self, base: float, at: Moment) -> float:
        maximum = self.maximum or base
        return self.cycle(maximum / self.div, maximum, maximum / self.div / self.final_div, at)

    def momentum(self, base: float, at: Moment) -> float:
        return self.cycle(self.high_momentum, self.low_momentum, self.high_momentum, at)

    def cycle(self, start: float, peak: float, end: float, at: Moment) -> float:
        done, total = self.position(at)
        top, last = self.warm_up * total - 1, total - 1  # the peak need not be a whole step, and PyTorch rounds nothing
        done = min(done, last)
        if done < top:
            return between(start, peak, done / top)
        return between(peak, end, (done - top) / (last - top)) if last > top else peak


@dataclass(frozen=True)
class Plateau(Schedule):
    """Times `factor` when the test's `measure` was no better than its best in more than `patience` epochs in a row,
    after which counting begins anew (PyTorch's ReduceLROnPlateau with its relative threshold, without its `eps`)."""

    name = "plateau"
    ranges: ClassVar[Ranges] = {"factor": (1e-12, 1), "patience": FROM_ZERO, "threshold": SHARE, "minimum": FROM_ZERO}

    measure: Measure = "loss"
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    minimum: float = 0.0

    def learning_rate(self, base: float, at: Moment) -> float:
        rate, best, waited = base, None, 0
        for tested in at.history:
            value: float = getattr(tested, self.measure)
            better = best is None or (
                value < best * (1 - self.threshold) if self.measure == "loss" else value > best * (1 + self.threshold)
            )
            best, waited = (value, 0) if better else (best, waited + 1)
            if waited > self.patience:
                rate, waited = min(rate, max(rate * self.factor, self.minimum)), 0
        return rate


def between(start: float, end: float, share: float) -> float:
    """Half a cosine from `start` (share 0) to `end` (share 1)."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


Warmed: TypeAlias = Constant | Step | MultiStep | Cosine | Polynomial | Plateau  # what a warm-up can lead into


@dataclass(frozen=True)
class Warmup(Schedule):
    """From the share `start` of the rate in a straight line to all of it `over` so many epochs or batches (PyTorch's
    LinearLR), times the rate of the schedule `then`, which counts from the run's first step, too."""

    name = "warmup"
    ranges: ClassVar[Ranges] = {"over": (1, math.inf), "start": SHARE}

    over: int = 500
    start: float = 0.1
    per: Unit = "batch"
    then: Warmed = Constant()  # frozen, so one shared value is safe

    @property
    def main(self) -> Schedule:
        return self.then

    def learning_rate(self, base: float, at: Moment) -> float:
        done = at.step // at.steps_per_epoch if self.per == "epoch" else at.step
        share = self.start + (1 - self.start) * min(done, self.over) / self.over
        return share * self.then.learning_rate(base, at)


# For fields written as JSON.
AnySchedule: TypeAlias = Constant | Step | MultiStep | Cosine | Polynomial | OneCycle | Plateau | Warmup
SCHEDULES: Mapping[str, type[Schedule]] = {kind.name: kind for kind in get_args(AnySchedule)}
records.register(*SCHEDULES.values())


def parse(text: str) -> Schedule:
    """`cosine`, `step:every=2,factor=0.5`, `multistep:milestones=30,60`, `warmup:over=500,then=cosine`, ...: a name,
    and fields of its class; what stands behind `then=` is a schedule of its own. Raises TriptychError otherwise."""
    name, _, rest = text.partition(":")
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    known: dict[str, Any] = {item.name: item.default for item in dataclasses.fields(SCHEDULES[name])}
    settings: dict[str, Any] = {}
    for key, value in _settings(rest):
        if not known:
            raise TriptychError(f"--schedule {name} has no settings, and '{rest}' was given")
        if key not in known:
            raise unknown(f"setting of schedule '{name}'", key, known)
        if key in settings:
            raise TriptychError(f"--schedule {name}: '{key}' is there twice")
        settings[key] = _value(name, key, value, known[key])
    return SCHEDULES[name](**settings)


def _settings(text: str) -> Iterator[tuple[str, str]]:
    """Names and values; a part without a name belongs to the value before it."""
    plain, then, nested = text.partition("then=")
    pairs: list[list[str]] = []
    for part in filter(None, plain.split(",")):
        key, mark, value = part.partition("=")
        if mark or not pairs:
            pairs.append([key, value])
        else:
            pairs[-1][1] += f",{part}"
    yield from ((key, value) for key, value in pairs)
    if then:
        yield "then", nested


def _value(name: str, key: str, text: str, default: Any) -> Any:
    if isinstance(default, Schedule):
        nested = parse(text)
        if not isinstance(nested, get_args(Warmed)):
            raise TriptychError(f"--schedule {name}: '{nested.name}' cannot stand behind a warm-up")
        return nested
    try:
        return tuple(map(int, text.split(","))) if isinstance(default, tuple) else type(default)(text)
    except ValueError:
        kind = "number" if isinstance(default, float) else "whole number"
        raise TriptychError(f"--schedule {name}: {key} '{text}' is not a {kind}") from None
