"""Optimisers: a record each, with what it remembers and the NumPy step that judges the backends' own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from triptych.optim.multipliers import Multiplier, factors_of
from triptych.spec import records
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture
from triptych.utils.arrays import Array
from triptych.utils.errors import TriptychError, unknown
from triptych.weights.initializers import Parameters

Decayed: TypeAlias = Literal["all", "weights"]
EpsAdded: TypeAlias = Literal["after", "before"]
COUNT = "count"  # the name, in an optimiser's state, of how many steps it has made
PART = 2**22  # numbers that move at a time
SQUARES = ("variance", "square", "sum")  # the slots that hold squares of gradients: never below 0


@dataclass(frozen=True)
class Rates:
    """What may change from step to step, rounded to float32 because MXNet's optimiser operators read it so; `exact`:
    the learning rate before that, for what it is multiplied by yet."""

    learning_rate: float
    momentum: float = 0.0
    exact: float = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exact", self.learning_rate)
        for name in ("learning_rate", "momentum"):
            object.__setattr__(self, name, float32(getattr(self, name)))

    def times(self, factor: float) -> Rates:
        """Those of a parameter with so many times the learning rate."""
        return Rates(self.exact * factor, self.momentum)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How parameters w follow their gradients g, in PyTorch's forms; learning rate and momentum come per step.

    `decayed` says which trained parameters decay: "all", biases, gamma and beta included, or only the "weights" of
    convolution and dense layers; `multipliers` what the learning rate and the decay of single ones are times. `slots`
    are what is remembered of every parameter; `counts`: the steps are counted, for a bias correction; `normalized`: a
    step's size does not depend on the gradients'.
    Raises TriptychError for values outside their range.
    """

    name: ClassVar[str]
    slots: ClassVar[tuple[str, ...]]
    counts: ClassVar[bool] = False
    normalized: ClassVar[bool] = False
    LATER: ClassVar[tuple[str, ...]] = ("multipliers",)

    weight_decay: float = 0.0
    decayed: Decayed = "all"
    multipliers: tuple[Multiplier, ...] = ()

    def __post_init__(self) -> None:
        if self.decayed not in get_args(Decayed):
            raise unknown("decayed", self.decayed, get_args(Decayed))
        if not 0 <= self.weight_decay < float("inf"):
            raise TriptychError(f"--weight-decay {self.weight_decay} must be a number of at least 0")

    @property
    def momentum(self) -> float:
        """The momentum that a schedule starts from; 0 for an optimiser that has none."""
        return 0.0

    def rates(self, learning_rate: float, momentum: float) -> Rates:
        """A step's rates, without the momentum where the optimiser has none."""
        return Rates(learning_rate)

    def remembers(self, rates: Rates) -> bool:
        """Whether a step with these rates leaves a state behind."""
        return True

    def size(self, rates: Rates, count: int) -> float:
        """What step `count` (from 1) multiplies its direction by."""
        return rates.learning_rate

    def decay(self, w: Array, g: Array, learning_rate: float, strength: float) -> tuple[Array, Array]:
        """Parameter and gradient as the weight decay has them before the step; here coupled: `g += decay * w`."""
        return w, g + strength * w if strength else g

    def move(self, w: Array, g: Array, slots: list[Array], rates: Rates, count: int) -> tuple[Array, list[Array]]:
        """The parameter and its slots after step `count` (from 1) along the decayed gradient."""
        raise NotImplementedError

    def as_kind(self, kind: type[Optimizer]) -> Optimizer:
        """An optimiser of another kind, with the settings that both have."""
        shared = {f.name for f in dataclasses.fields(self)} & {f.name for f in dataclasses.fields(kind)}
        return kind(**{name: getattr(self, name) for name in shared})

    def check_share(self, *names: str) -> None:
        """Raises TriptychError for a field that is not at least 0 and below 1."""
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise TriptychError(f"--{name} {getattr(self, name)} must be at least 0 and below 1")

    def check_above_zero(self, name: str) -> None:
        """Raises TriptychError for a field that is no number above 0."""
        if not 0 < getattr(self, name) < float("inf"):
            raise TriptychError(f"--{name} {getattr(self, name)} must be a number above 0")


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """`g += weight_decay * w; v = momentum * v + g; w -= learning_rate * v`, with `nesterov` `w -= learning_rate *
    (g + momentum * v)`. The learning rate stands outside the velocity (MXNet's own keeps it inside). A step with
    momentum 0 leaves no velocity behind. Raises TriptychError for Nesterov without momentum.
    """

    name = "sgd"
    slots = ("velocity",)

    momentum: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("momentum")
        if self.nesterov and not self.momentum:
            raise TriptychError("--nesterov needs a momentum above 0 (--momentum)")

    def rates(self, learning_rate: float, momentum: float) -> Rates:
        return Rates(learning_rate, momentum)

    def remembers(self, rates: Rates) -> bool:
        return rates.momentum != 0

    def move(self, w: Array, g: Array, slots: list[Array], rates: Rates, count: int) -> tuple[Array, list[Array]]:
        # In place where it can be: a dense layer of 17 million weights is 134 MB, and every temporary another.
        velocity = rates.momentum * slots[0]
        velocity += g
        moved = g + rates.momentum * velocity if self.nesterov else velocity
        moved = moved * -rates.learning_rate
        moved += w
        return moved, [velocity]


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """`g += weight_decay * w; m = beta1 * m + (1 - beta1) * g; s = beta2 * s + (1 - beta2) * g * g;
    w -= learning_rate * m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps)` in step t, counted from 1 (Kingma and Ba,
    algorithm 1).

    `eps_added`: "after" the correction of the bias, as above, or "before" it, as MXNet's: `w -= size * m / (sqrt(s) +
    eps)` with `size = learning_rate * sqrt(1 - beta2^t) / (1 - beta1^t)`. MXNet's operator reads size, eps, beta1 and
    beta2 as float32, and so it is here; the betas of the size are not read by it. 1 - 0.999 is 1e-5 smaller so.
    """

    LATER: ClassVar[tuple[str, ...]] = ("multipliers", "eps_added")
    name = "adam"
    slots = ("mean", "variance")
    counts = True
    normalized = True

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    eps_added: EpsAdded = "after"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("beta1", "beta2")
        self.check_above_zero("eps")
        if self.eps_added not in get_args(EpsAdded):
            raise unknown("eps_added", self.eps_added, get_args(EpsAdded))
        beta1, beta2, eps = self.moments
        if not (max(beta1, beta2) < 1 and eps > 0):
            raise TriptychError(f"beta1 {self.beta1}, beta2 {self.beta2} or eps {self.eps} is 1 or 0 in float32")

    @property
    def moments(self) -> tuple[float, float, float]:
        """beta1, beta2 and eps as a step of the moments reads them."""
        numbers = self.beta1, self.beta2, self.eps
        return numbers if self.eps_added == "after" else (float32(self.beta1), float32(self.beta2), float32(self.eps))

    def size(self, rates: Rates, count: int) -> float:
        if self.eps_added == "after":
            return rates.learning_rate
        return float32(rates.exact * (math.sqrt(1 - self.beta2**count) / (1 - self.beta1**count)))

    def move(self, w: Array, g: Array, slots: list[Array], rates: Rates, count: int) -> tuple[Array, list[Array]]:
        if self.eps_added == "before":
            return self._move_before(w, g, slots, rates, count)
        mean = self.beta1 * slots[0] + (1 - self.beta1) * g
        variance = self.beta2 * slots[1] + (1 - self.beta2) * g * g
        root = np.sqrt(variance / (1 - self.beta2**count)) + self.eps
        return w - rates.learning_rate * mean / (1 - self.beta1**count) / root, [mean, variance]

    def _move_before(
        self, w: Array, g: Array, slots: list[Array], rates: Rates, count: int
    ) -> tuple[Array, list[Array]]:
        """With the numbers that MXNet's operator gets, written by itself: `size` and `moments` are what is judged."""
        beta1, beta2, eps = np.asarray([self.beta1, self.beta2, self.eps], np.float32).astype(np.float64).tolist()
        mean = beta1 * slots[0] + (1 - beta1) * g
        variance = beta2 * slots[1] + (1 - beta2) * g * g
        size = np.float32(rates.exact * ((1 - self.beta2**count) ** 0.5 / (1 - self.beta1**count)))
        return w - float(size) * mean / (np.sqrt(variance) + eps), [mean, variance]


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam on the gradient alone, and `w -= learning_rate * weight_decay * w` (Loshchilov and Hutter); eps is added
    after the correction."""

    LATER: ClassVar[tuple[str, ...]] = ("multipliers",)
    name = "adamw"

    eps_added: ClassVar[EpsAdded] = "after"  # type: ignore[misc]  # no field of AdamW's: MXNet has none

    def decay(self, w: Array, g: Array, learning_rate: float, strength: float) -> tuple[Array, Array]:
        return w - learning_rate * strength * w, g


@dataclass(frozen=True, kw_only=True)
class RMSprop(Optimizer):
    """`g += weight_decay * w; s = alpha * s + (1 - alpha) * g * g; v = momentum * v + g / (sqrt(s) + eps);
    w -= learning_rate * v` (Tieleman and Hinton 2012, with PyTorch's momentum). `s` begins at 0, and eps stands outside
    the root: TensorFlow begins at 1, MXNet and optax's default put eps inside. A step with momentum 0 leaves no `v`
    behind.
    """

    name = "rmsprop"
    slots = ("square", "velocity")
    normalized = True

    momentum: float = 0.0
    alpha: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("momentum", "alpha")
        self.check_above_zero("eps")

    def rates(self, learning_rate: float, momentum: float) -> Rates:
        return Rates(learning_rate, momentum)

    def move(self, w: Array, g: Array, slots: list[Array], rates: Rates, count: int) -> tuple[Array, list[Array]]:
        square = self.alpha * slots[0] + (1 - self.alpha) * g * g
        velocity = rates.momentum * slots[1] + g / (np.sqrt(square) + self.eps)
        kept = velocity if rates.momentum else np.zeros_like(velocity)
        return w - rates.learning_rate * velocity, [square, kept]


@dataclass(frozen=True, kw_only=True)
class Adagrad(Optimizer):
    """`g += weight_decay * w; s = s + g * g; w -= learning_rate * g / (sqrt(s) + eps)` (Duchi et al. 2011). `s` begins
    at 0 and eps stands outside the root: optax begins at 0.1, MXNet and optax put eps inside."""

    name = "adagrad"
    slots = ("sum",)
    normalized = True

    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_above_zero("eps")

    def move(self, w: Array, g: Array, slots: list[Array], rates: Rates, count: int) -> tuple[Array, list[Array]]:
        total = slots[0] + g * g
        return w - rates.learning_rate * g / (np.sqrt(total) + self.eps), [total]


AnyOptimizer: TypeAlias = SGD | Adam | AdamW | RMSprop | Adagrad  # for fields that are written as JSON
OPTIMIZERS: Mapping[str, type[Optimizer]] = {kind.name: kind for kind in get_args(AnyOptimizer)}
records.register(*OPTIMIZERS.values())


def get_kind(name: str) -> type[Optimizer]:
    """The optimiser called `name`. Raises TriptychError with the nearest match if there is none."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


def settings_of(kind: type[Optimizer], text: str, **others: float) -> dict[str, Any]:
    """`momentum=0.9,nesterov=true` as fields of an optimiser, or `others` that may be said beside them. Raises
    TriptychError otherwise."""
    known: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(kind) if f.name != "multipliers"} | others
    found: dict[str, Any] = {}
    for part in text.split(","):
        key, mark, value = part.partition("=")
        if key not in known:
            raise unknown(f"setting of optimizer '{kind.name}'", key, known)
        if isinstance(known[key], bool):
            if value.lower() not in ("true", "false", ""):
                raise TriptychError(f"{key}={value} must be true or false")
            found[key] = value.lower() != "false"
        elif isinstance(known[key], str):
            found[key] = value
        else:
            try:
                found[key] = float(value) if mark else float("nan")
            except ValueError:
                raise TriptychError(f"{key}={value} is not a number") from None
    return found


def float32(value: float) -> float:
    """The nearest float32, as a Python float."""
    return float(np.float32(value))


def decay_of(
    optimizer: Optimizer, architecture: Architecture, frozen: frozenset[str] = frozenset()
) -> dict[str, float]:
    """The weight decay of every parameter that is trained and not `frozen`, by path, rounded to float32. Raises
    TriptychError for a multiplier that matches no parameter."""
    factors = factors_of(optimizer.multipliers, architecture)
    return {
        info.path: float32(optimizer.weight_decay * factors[info.path].decay)
        if optimizer.decayed == "all" or info.role == "weight"
        else 0.0
        for info in parameters(architecture)
        if info.trained and info.path not in frozen
    }


def rates_of(
    optimizer: Optimizer, architecture: Architecture, frozen: frozenset[str] = frozenset()
) -> dict[str, float]:
    """How many times the learning rate each such parameter has, by path. Raises as `decay_of` does."""
    factors = factors_of(optimizer.multipliers, architecture)
    return {path: own.rate for path, own in factors.items() if path not in frozen}


def _parts(shape: tuple[int, ...]) -> Iterator[Any]:
    """Indices of all of an array, a few rows of a large one at a time: of a dense layer of 100 million weights every
    temporary is 0.8 GB. Every number moves alone."""
    if math.prod(shape) <= PART:
        yield ...
        return
    rows = max(1, PART // math.prod(shape[1:]))
    yield from (slice(first, first + rows) for first in range(0, shape[0], rows))


def reference_step(
    values: Mapping[str, Array],
    gradients: Mapping[str, Array],
    state: Mapping[str, Array],
    rates: Rates,
    optimizer: Optimizer,
    decay: Mapping[str, float],
    factors: Mapping[str, float] | None = None,
) -> tuple[Parameters, Parameters]:
    """One float64 step: the new `(values, state)` of every parameter named in `decay`; `factors`: of the learning rate,
    by path (None: all 1). The state's keys are `velocity.PATH`, or `mean.PATH`, `variance.PATH` and `count`; what it
    lacks is zero."""
    count = int(state.get(COUNT, 0)) + 1
    moved: Parameters = {}
    after: Parameters = {}
    for path, strength in decay.items():
        names = [f"{slot}.{path}" for slot in optimizer.slots]
        before, gradient, kept = values[path], gradients[path], [state.get(name) for name in names]
        own = rates if factors is None else rates.times(factors[path])
        arrays: list[Array] = [np.empty(np.shape(values[path])) for _ in range(1 + len(names))]
        for part in _parts(np.shape(values[path])):
            w: Array = np.asarray(before[part], np.float64)
            slots = [np.zeros_like(w) if slot is None else np.asarray(slot[part], np.float64) for slot in kept]
            w, g = optimizer.decay(w, gradient[part], own.learning_rate, strength)
            w, slots = optimizer.move(w, g, slots, own, count)
            for array, value in zip(arrays, (w, *slots), strict=True):
                array[part] = value
        moved[path] = arrays[0]
        after |= dict(zip(names, arrays[1:], strict=True))
    if not optimizer.remembers(rates):
        return moved, {}
    return moved, after | ({COUNT: np.asarray(count, np.float64)} if optimizer.counts else {})
