"""The catalogue's faults in an optimiser's step, as the reference computes it with each of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triptych.conformance.compare import Arrays
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.updates import MOMENTUM, OTHERS
from triptych.optim.optimizers import (
    COUNT,
    OPTIMIZERS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Optimizer,
    Rates,
    RMSprop,
    reference_step,
)
from triptych.reference.decay import decay_by_path
from triptych.spec.layers import Architecture
from triptych.utils.arrays import Array

Slots = list[Array]
INSIDE = "the learning rate is inside the velocity (MXNet's form): it departs when the rate changes"
# What people take for an optimiser's numbers.
USUAL: Mapping[str, tuple[float, ...]] = {
    "momentum": (0.0, 0.5, 0.8, 0.9, 0.95, 0.99),
    "weight_decay": (1e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 0.1),
    "beta1": (0.5, 0.8, 0.9, 0.95),
    "beta2": (0.9, 0.95, 0.98, 0.99, 0.999),
    "alpha": (0.9, 0.95, 0.99),
    "eps": (1e-10, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1.0),
}
BATCHES = (8, 16, 32, 64, 100, 128, 256)
DAMPENINGS = (0.1, 0.5, 0.9)
WORDS = {"weight_decay": "the weight decay"}


@dataclass(frozen=True)
class Wrong:
    """How the steps of an optimiser go wrong; what is left out is right. `decay` by parameter path; `factor` multiplies
    the gradient; `state` is what the first step finds; `inside`: the velocity holds the learning rate; `dampening` of
    the gradient."""

    optimizer: Optimizer
    rates: tuple[Rates, ...]
    decay: Mapping[str, float]
    state: Arrays
    gradients: Arrays
    factor: float = 1.0
    inside: bool = False
    dampening: float = 0.0


def update_faults(run: ReferenceRun, name: str) -> Iterator[tuple[str, Wrong]]:
    """What can be wrong in the steps of the optimiser called `name`, in words, and the steps with it."""
    net, batch = run.case.architecture, len(run.case.stored)
    optimizer = OTHERS.get(name, MOMENTUM)
    rates = (run.steps.rates(optimizer),) if name in OTHERS else run.steps.momentum
    state = run.steps.state(run.case, optimizer) if name in OTHERS else {}
    gradients = run.steps.gradients if name in OTHERS else run.gradients
    right = Wrong(optimizer, rates, decay_by_path(optimizer, net), state, gradients)
    yield from _decay_faults(right, net)
    scaled = {
        factor: tuple(replace(r, learning_rate=factor * r.learning_rate) for r in rates)
        for factor in (batch, 1 / batch)
    }
    yield f"constant factor {batch} in the gradient: the loss is summed, not averaged", replace(right, factor=batch)
    twice = f"constant factor 1/{batch} in the gradient: divided by the batch size twice"
    yield twice, replace(right, factor=1 / batch)
    yield f"the learning rate is {batch} times as large, as for a summed loss", replace(right, rates=scaled[batch])
    yield f"the learning rate is divided by the batch size, {batch}", replace(right, rates=scaled[1 / batch])
    yield from OWN_FAULTS[type(optimizer)](right)
    if len(rates) > 1:
        yield from _schedule_faults(right)


def step_faults(right: Wrong, net: Architecture) -> Iterator[tuple[str, Wrong]]:
    """What can be wrong in the steps of an optimiser that begins with no state, in words: its form, another value of
    one of its numbers."""
    optimizer: Any = right.optimizer
    yield from _decay_faults(right, net)
    yield from OWN_FAULTS[type(optimizer)](right)
    if isinstance(optimizer, SGD) and optimizer.momentum:
        yield INSIDE, replace(right, inside=True)
    for batch in BATCHES:
        yield (
            f"the gradient is divided by {batch} (rescale_grad, or a step that is told of a batch)",
            replace(right, factor=1 / batch),
        )
        yield f"the gradient is {batch} times as large, as of a summed loss", replace(right, factor=batch)
    for name, values in USUAL.items():
        for value in values if hasattr(optimizer, name) and name != "momentum" else ():
            other = replace(optimizer, **{name: value})
            decay = decay_by_path(other, net)
            yield (
                f"{WORDS.get(name, name)} is {value:g}, not {getattr(optimizer, name):g}",
                replace(right, optimizer=other, decay={path: decay[path] for path in right.decay}),
            )
    for value in USUAL["momentum"] if isinstance(optimizer, SGD | RMSprop) else ():
        rates = tuple(replace(each, momentum=value) for each in right.rates)
        plain = replace(optimizer, nesterov=False) if isinstance(optimizer, SGD) and not value else optimizer
        yield f"the momentum is {value:g}, not {optimizer.momentum:g}", replace(right, rates=rates, optimizer=plain)


def other_kinds(right: Wrong, net: Architecture) -> Iterator[tuple[str, Wrong]]:
    """The steps of another kind of optimiser, with the same weight decay, another one, or none."""
    for kind in OPTIMIZERS.values():
        if type(right.optimizer) is kind:
            continue
        for strength in dict.fromkeys((right.optimizer.weight_decay, 0.0, *USUAL["weight_decay"])):
            other = replace(right.optimizer.as_kind(kind), weight_decay=strength)
            decay = decay_by_path(other, net)
            decayed = {path: decay[path] for path in right.decay}
            for momentum in dict.fromkeys((other.momentum, 0.9)) if issubclass(kind, SGD | RMSprop) else (0.0,):
                told = [f"a weight decay of {strength:g}"] * (strength != right.optimizer.weight_decay)
                told += [f"a momentum of {momentum:g}"] * bool(momentum)
                rates = tuple(other.rates(each.learning_rate, momentum) for each in right.rates)
                text = f"its steps are those of {kind.name}{' with ' * bool(told)}{' and '.join(told)}"
                wrong = replace(right, optimizer=other, rates=rates, decay=decayed)
                yield f"{text}, not of {right.optimizer.name}", wrong


def _decay_faults(right: Wrong, net: Architecture) -> Iterator[tuple[str, Wrong]]:
    optimizer, decay = right.optimizer, right.decay
    if not optimizer.weight_decay:
        return
    everything = decay_by_path(replace(optimizer, decayed="all"), net)
    weights = decay_by_path(replace(optimizer, decayed="weights"), net)
    yield "there is no weight decay", replace(right, decay=dict.fromkeys(decay, 0.0))
    reaching = {path: everything[path] for path in decay}
    yield "weight decay reaches biases, gamma and beta too", replace(right, decay=reaching)
    sparing = {path: weights[path] for path in decay}
    yield "weight decay does not reach biases, gamma and beta", replace(right, decay=sparing)
    yield "weight decay is twice as strong", replace(right, decay={path: 2 * value for path, value in decay.items()})
    for text, method in DECAY_FAULTS[type(optimizer)].items():
        yield text, _other(right, decay=method)


def _sgd_faults(right: Wrong) -> Iterator[tuple[str, Wrong]]:
    optimizer: Any = right.optimizer
    if not optimizer.momentum:
        return
    other = replace(optimizer, nesterov=not optimizer.nesterov)
    still = tuple(replace(rate, momentum=0.0) for rate in right.rates)
    plain = replace(optimizer, nesterov=False)
    yield "there is no momentum", replace(right, rates=still, optimizer=plain)
    yield "Nesterov momentum" if other.nesterov else "plain momentum, not Nesterov's", replace(right, optimizer=other)
    if optimizer.nesterov:
        beside = "the decay enters the velocity, not the gradient beside it (Nesterov)"
        yield (
            beside,
            _other(right, decay=lambda self, w, g, rate, strength: (w + rate * strength * w, g + strength * w)),
        )
    yield "the gradient is dampened by 1 - momentum", replace(right, dampening=optimizer.momentum)
    for share in DAMPENINGS:
        yield (
            f"the gradient is dampened: multiplied by {1 - share:g} on its way into the velocity",
            replace(right, dampening=share),
        )
    empty = _other(
        replace(right, state={}), move=lambda self, w, g, slots, *rest: SGD.move(self, w, g, [np.zeros_like(w)], *rest)
    )
    yield "the velocity is lost between steps", empty


def _adam_faults(right: Wrong) -> Iterator[tuple[str, Wrong]]:
    optimizer: Any = right.optimizer
    count = float(right.state.get(COUNT, 0)) + 1
    if optimizer.eps_added == "after":
        yield "eps is added before the bias correction (MXNet's form)", _other(right, move=_before_correction)
    else:
        after = replace(right, optimizer=replace(optimizer, eps_added="after"))
        yield "eps is added after the bias correction (PyTorch's and optax's form)", after
    yield "eps stands inside the root", _other(right, move=_inside_root)
    yield "there is no bias correction", _other(right, move=_uncorrected)
    yield "the first steps' count is off by one", replace(right, state={**right.state, COUNT: np.asarray(count)})
    if count > 1:
        yield (
            "the first steps' count is off by one",
            replace(right, state={**right.state, COUNT: np.asarray(count - 2)}),
        )
    for beta in (0.99, 0.95, 0.9):
        yield f"beta2 is {beta:g}, not {optimizer.beta2:g}", replace(right, optimizer=replace(optimizer, beta2=beta))
    for eps in (1e-8, 1e-7, 1e-6):
        yield f"eps is {eps:g}, not {optimizer.eps:g}", replace(right, optimizer=replace(optimizer, eps=eps))


def _root_faults(right: Wrong) -> Iterator[tuple[str, Wrong]]:
    """RMSprop's and Adagrad's."""
    optimizer: Any = right.optimizer
    yield "eps stands inside the root (MXNet's and optax's form)", _other(right, move=_inside_its_root)
    for eps in (1e-10, 1e-8, 1e-7):
        yield f"eps is {eps:g}, not {optimizer.eps:g}", replace(right, optimizer=replace(optimizer, eps=eps))
    for alpha in (0.9, 0.95, 0.99) if isinstance(optimizer, RMSprop) else ():
        yield f"alpha is {alpha:g}, not {optimizer.alpha:g}", replace(right, optimizer=replace(optimizer, alpha=alpha))
    if optimizer.momentum:
        still = tuple(replace(rate, momentum=0.0) for rate in right.rates)
        yield "there is no momentum", replace(right, rates=still)


def _schedule_faults(right: Wrong) -> Iterator[tuple[str, Wrong]]:
    first, second = right.rates
    yield INSIDE, replace(right, inside=True)
    yield "the schedule is late by a step", replace(right, rates=(first, first))
    yield "the schedule is early by a step", replace(right, rates=(second, second))
    rate = replace(second, learning_rate=first.learning_rate)
    yield "the learning rate does not change", replace(right, rates=(first, rate))
    yield "the momentum does not change", replace(right, rates=(first, replace(second, momentum=first.momentum)))


def take_steps(run: ReferenceRun, wrong: Wrong) -> dict[str, Array]:
    """Trained parameters and state after the steps."""

    def gradients(number: int, values: Arrays) -> Arrays:
        return run.backward(values, run.case.images, run.case.masks(number)) if number else wrong.gradients

    *_, (values, state) = walk_steps(wrong, run.parameters, gradients)
    return {path: values[path] for path in wrong.decay} | state


def walk_steps(
    wrong: Wrong, values: Arrays, gradients: Callable[[int, Arrays], Arrays]
) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """All parameters, and the state, after every step; `gradients`: of a step, counted from 0, at these values."""
    moved, state = dict(values), dict(wrong.state)
    for number, rates in enumerate(wrong.rates):
        arrays = gradients(number, moved)
        kept = 1 - wrong.dampening if number or wrong.state else 1.0  # of the decay, too: it is in the gradient by then
        g = {path: kept * wrong.factor * arrays[path] for path in wrong.decay}
        decay = {path: kept * strength for path, strength in wrong.decay.items()}
        if wrong.inside and number:
            ratio = wrong.rates[number - 1].learning_rate / rates.learning_rate
            state = {path: ratio * value for path, value in state.items()}
        after, state = reference_step(moved, g, state, rates, wrong.optimizer, decay)
        moved = moved | after
        yield moved, state


def _other(right: Wrong, **methods: Any) -> Wrong:
    """The right optimiser, but for some methods in place of its own."""
    kind: Any = type("Wrong", (type(right.optimizer),), methods)
    return replace(right, optimizer=right.optimizer.as_kind(kind))


def _added_behind(self: Optimizer, w: Array, g: Array, learning_rate: float, strength: float) -> tuple[Array, Array]:
    return w + strength * w, g


_BEHIND: Mapping[str, Any] = {
    "weight decay is added behind the step: neither multiplied by the learning rate nor subtracted": _added_behind
}
# The weight decay's two forms, each in place of the other.
_DECOUPLED: Mapping[str, Any] = {"weight decay is decoupled from the gradient (AdamW's form)": AdamW.decay, **_BEHIND}
_COUPLED: Mapping[str, Any] = {
    **_BEHIND,
    "weight decay is coupled to the gradient (Adam's form)": Adam.decay,
    "weight decay is not multiplied by the learning rate": lambda self, w, g, learning_rate, strength: (
        w - self.weight_decay * w if strength else w,
        g,
    ),
}
DECAY_FAULTS: Mapping[type[Optimizer], Mapping[str, Any]] = {
    **dict.fromkeys((SGD, Adam, RMSprop, Adagrad), _DECOUPLED),
    AdamW: _COUPLED,
}
OWN_FAULTS: Mapping[type[Optimizer], Callable[[Wrong], Iterator[tuple[str, Wrong]]]] = {
    SGD: _sgd_faults,
    **dict.fromkeys((Adam, AdamW), _adam_faults),
    **dict.fromkeys((RMSprop, Adagrad), _root_faults),
}


def _inside_root(self: Adam, w: Array, g: Array, slots: Slots, rates: Rates, count: int) -> tuple[Array, Slots]:
    _, (mean, variance) = Adam.move(self, w, g, slots, rates, count)
    root = np.sqrt(variance / (1 - self.beta2**count) + self.eps)
    return w - rates.learning_rate * mean / (1 - self.beta1**count) / root, [mean, variance]


def _before_correction(self: Adam, w: Array, g: Array, slots: Slots, rates: Rates, count: int) -> tuple[Array, Slots]:
    corrected = replace(self, eps=self.eps / (1 - self.beta2**count) ** 0.5)
    return Adam.move(corrected, w, g, slots, rates, count)


def _uncorrected(self: Adam, w: Array, g: Array, slots: Slots, rates: Rates, count: int) -> tuple[Array, Slots]:
    _, (mean, variance) = Adam.move(self, w, g, slots, rates, count)
    return w - rates.learning_rate * mean / (np.sqrt(variance) + self.eps), [mean, variance]


def _inside_its_root(self: Any, w: Array, g: Array, slots: Slots, rates: Rates, count: int) -> tuple[Array, Slots]:
    right: type[RMSprop] | type[Adagrad] = RMSprop if isinstance(self, RMSprop) else Adagrad
    kept = right.move(self, w, g, slots, rates, count)[1]
    move = g / np.sqrt(kept[0] + self.eps)
    if len(slots) > 1:
        move = rates.momentum * slots[1] + move
    return w - rates.learning_rate * move, [kept[0], move][: len(slots)]
