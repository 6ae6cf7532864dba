"""The catalogue's faults in an optimiser's step, as the reference computes it with each of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from triptych.conformance.compare import Arrays
from triptych.conformance.reference_run import ReferenceRun
from triptych.conformance.updates import MOMENTUM, OTHERS
from triptych.optim.optimizers import COUNT, SGD, Adagrad, Adam, AdamW, Optimizer, Rates, RMSprop, reference_step
from triptych.reference.decay import decay_by_path
from triptych.utils.arrays import Array

Slots = list[Array]


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
    decay = decay_by_path(optimizer, net)
    gradients = run.steps.gradients if name in OTHERS else run.gradients
    right = Wrong(optimizer, rates, decay, state, gradients)
    everything = decay_by_path(replace(optimizer, decayed="all"), net)
    weights = decay_by_path(replace(optimizer, decayed="weights"), net)
    scaled = {
        factor: tuple(replace(r, learning_rate=factor * r.learning_rate) for r in rates)
        for factor in (batch, 1 / batch)
    }
    yield "there is no weight decay", replace(right, decay=dict.fromkeys(decay, 0.0))
    yield "weight decay reaches biases, gamma and beta too", replace(right, decay=everything)
    yield "weight decay does not reach biases, gamma and beta", replace(right, decay=weights)
    yield "weight decay is twice as strong", replace(right, decay={path: 2 * value for path, value in decay.items()})
    for text, method in DECAY_FAULTS[type(optimizer)].items():
        yield text, _other(right, decay=method)
    yield f"constant factor {batch} in the gradient: the loss is summed, not averaged", replace(right, factor=batch)
    twice = f"constant factor 1/{batch} in the gradient: divided by the batch size twice"
    yield twice, replace(right, factor=1 / batch)
    yield f"the learning rate is {batch} times as large, as for a summed loss", replace(right, rates=scaled[batch])
    yield f"the learning rate is divided by the batch size, {batch}", replace(right, rates=scaled[1 / batch])
    yield from OWN_FAULTS[type(optimizer)](right)
    if len(rates) > 1:
        yield from _schedule_faults(right)


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
    empty = _other(
        replace(right, state={}), move=lambda self, w, g, slots, *rest: SGD.move(self, w, g, [np.zeros_like(w)], *rest)
    )
    yield "the velocity is lost between steps", empty


def _adam_faults(right: Wrong) -> Iterator[tuple[str, Wrong]]:
    optimizer: Any = right.optimizer
    count = float(right.state[COUNT]) + 1
    before = replace(optimizer, eps=optimizer.eps / (1 - optimizer.beta2**count) ** 0.5)
    yield "eps is added before the bias correction (MXNet's form)", replace(right, optimizer=before)
    yield "eps stands inside the root", _other(right, move=_inside_root)
    yield "there is no bias correction", _other(right, move=_uncorrected)
    yield "the first steps' count is off by one", replace(right, state={**right.state, COUNT: np.asarray(count)})
    yield "the first steps' count is off by one", replace(right, state={**right.state, COUNT: np.asarray(count - 2)})
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
    inside = "the learning rate is inside the velocity (MXNet's form): it departs when the rate changes"
    yield inside, replace(right, inside=True)
    yield "the schedule is late by a step", replace(right, rates=(first, first))
    yield "the schedule is early by a step", replace(right, rates=(second, second))
    rate = replace(second, learning_rate=first.learning_rate)
    yield "the learning rate does not change", replace(right, rates=(first, rate))
    yield "the momentum does not change", replace(right, rates=(first, replace(second, momentum=first.momentum)))


def take_steps(run: ReferenceRun, wrong: Wrong) -> dict[str, Array]:
    """Trained parameters and state after the steps."""
    values: dict[str, Array] = dict(run.parameters)
    state = dict(wrong.state)
    gradients = wrong.gradients
    for number, rates in enumerate(wrong.rates):
        if number:
            gradients = run.backward(values, run.case.images, run.case.masks(number))
        factor = wrong.factor * (1 - wrong.dampening if number or wrong.state else 1.0)
        g = {path: factor * gradients[path] for path in wrong.decay}
        if wrong.inside and number:
            ratio = wrong.rates[number - 1].learning_rate / rates.learning_rate
            state = {path: ratio * value for path, value in state.items()}
        moved, state = reference_step(values, g, state, rates, wrong.optimizer, wrong.decay)
        values |= moved
    return {path: values[path] for path in wrong.decay} | state


def _other(right: Wrong, **methods: Any) -> Wrong:
    """The right optimiser, but for some methods in place of its own."""
    kind: Any = type("Wrong", (type(right.optimizer),), methods)
    return replace(right, optimizer=right.optimizer.as_kind(kind))


# The weight decay's two forms, each in place of the other.
_DECOUPLED = {"weight decay is decoupled from the gradient (AdamW's form)": AdamW.decay}
_COUPLED: Mapping[str, Any] = {
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
