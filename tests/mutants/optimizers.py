"""Faults in the update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mutants import networks as nets
from mutants.plants import Plant, replaced
from mutants.record import Mutant
from triptych.conformance.case import BATCH
from triptych.optim.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop, decay_of


def trainer(
    optimizer: Callable[[Any], Any] = lambda optimizer: optimizer,
    rates: Callable[[Any, Any], Any] = lambda rates, last: rates,
    velocity: Callable[[Any, Any], float] = lambda rates, last: 1.0,
    after: Callable[..., None] | None = None,
) -> Plant:
    """A trainer whose optimiser is changed, or its rates or velocity before a step (given this step's rates and the
    last one's), or its weights after it."""

    @contextmanager
    def plant(framework: Any, precision: str) -> Iterator[Any]:
        class Wrong(framework.Trainer):  # type: ignore[misc, name-defined]
            def __init__(self, network: Any, right: Any, transform: Any, seed: int, **more: Any) -> None:
                super().__init__(network, optimizer(right), transform, seed, **more)
                self.right, self.last = right, None

            def step(self, images: Any, labels: Any, given: Any, number: int, **more: Any) -> Any:
                right = super().step
                return self.wrongly(given, lambda rates: right(images, labels, rates, number, **more))

            def update(self, gradients: Any, given: Any) -> None:
                right = super().update
                self.wrongly(given, lambda rates: right(gradients, rates))

            def wrongly(self, given: Any, step: Callable[[Any], Any]) -> Any:
                last, self.last = self.last or given, given
                if (factor := velocity(given, last)) != 1.0:
                    self.load_state({path: factor * value for path, value in self.state().items()})
                values, state = framework.to_canonical(self.network), self.state()
                handle = step(rates(given, last))
                if after is not None:
                    after(framework, self, values, state, given)
                return handle

        yield replaced(framework, Trainer=Wrong), None

    return plant


def decay_weights(framework: Any, trainer: Any, values: Any, state: Any, rates: Any) -> None:
    """`w -= learning_rate * weight_decay * w`, as AdamW does, beside an SGD without decay."""
    moved = framework.to_canonical(trainer.network)
    for path, strength in decay_of(trainer.right, trainer.network.architecture).items():
        moved[path] = moved[path] - moved[path].dtype.type(rates.learning_rate * strength) * values[path]
    framework.from_canonical(trainer.network, moved)


def decay_beside_look_ahead(framework: Any, trainer: Any, values: Any, state: Any, rates: Any) -> None:
    """Nesterov whose decay enters the velocity, but not the gradient beside it."""
    if not getattr(trainer.right, "nesterov", False):
        return
    moved = framework.to_canonical(trainer.network)
    for path, strength in decay_of(trainer.right, trainer.network.architecture).items():
        moved[path] = moved[path] + moved[path].dtype.type(rates.learning_rate * strength) * values[path]
    framework.from_canonical(trainer.network, moved)


def epsilon_in_the_root(framework: Any, trainer: Any, values: Any, state: Any, rates: Any) -> None:
    """Adam that divides by `sqrt(s + eps)` instead of `sqrt(s) + eps`."""
    right, state = trainer.right, trainer.state()
    if type(right) is not Adam:
        return
    moved, count = framework.to_canonical(trainer.network), float(state["count"])
    for path in decay_of(right, trainer.network.architecture):
        mean = state[f"mean.{path}"] / (1 - right.beta1**count)
        root = (state[f"variance.{path}"] / (1 - right.beta2**count) + right.eps) ** 0.5
        moved[path] = (values[path] - rates.learning_rate * mean / root).astype(moved[path].dtype)
    framework.from_canonical(trainer.network, moved)


def adagrad_epsilon_in_the_root(framework: Any, trainer: Any, values: Any, state: Any, rates: Any) -> None:
    """As optax and MXNet have it."""
    right, after = trainer.right, trainer.state()
    if type(right) is not Adagrad:
        return
    moved = framework.to_canonical(trainer.network)
    for path in decay_of(right, trainer.network.architecture):
        step, kind = (after[f"sum.{path}"] - state[f"sum.{path}"]) ** 0.5, moved[path].dtype
        sign = -((moved[path] > values[path]) * 2.0 - 1.0)
        root = (after[f"sum.{path}"] + right.eps) ** 0.5
        moved[path] = (values[path] - rates.learning_rate * sign * step / root).astype(kind)
    framework.from_canonical(trainer.network, moved)


def rmsprop_of_the_default(right: Any) -> Any:
    return replace(right, alpha=0.99) if isinstance(right, RMSprop) else right


def adam_for_adamw(right: Any) -> Any:
    return right.as_kind(Adam) if isinstance(right, AdamW) else right


def statistics_kept(framework: Any, trainer: Any, values: Any, state: Any, rates: Any) -> None:
    """Training steps that do not move the running statistics, as Gluon's passes without a backward one."""
    moved = framework.to_canonical(trainer.network)
    kept = {path: value for path, value in values.items() if "running_" in path}
    framework.from_canonical(trainer.network, moved | kept)


WARM_UP = trainer(rates=lambda rates, last: replace(rates, learning_rate=rates.learning_rate / 3))
BATCH_TIMES = trainer(rates=lambda rates, last: replace(rates, learning_rate=BATCH * rates.learning_rate))

HIDES = {
    "nesterov form": "one step's decay is less than float32 rounds",
    "adam epsilon": "beside these gradients it is less than float32 rounds",
}

MUTANTS = (
    Mutant("statistics kept", nets.NORM, trainer(after=statistics_kept), "update", "norm", "update"),
    *(
        Mutant(name, nets.PLAIN, plant, "update", "conv", "update", hides=HIDES.get(name, ""))
        for name, plant in (
            ("rate in the velocity", trainer(velocity=lambda rates, last: last.learning_rate / rates.learning_rate)),
            ("decoupled decay", trainer(lambda right: replace(right, weight_decay=0.0), after=decay_weights)),
            ("decay of biases", trainer(lambda right: replace(right, decayed="all"))),
            ("nesterov form", trainer(after=decay_beside_look_ahead)),
            ("adam epsilon", trainer(after=epsilon_in_the_root)),
            ("schedule off by one", trainer(rates=lambda rates, last: last)),
            ("warm-up for constant", WARM_UP),  # torch.optim.lr_scheduler.ConstantLR
            ("momentum cycle ignored", trainer(rates=lambda rates, last: replace(rates, momentum=last.momentum))),
            ("loss summed in training", BATCH_TIMES),
            ("no decay", trainer(lambda right: replace(right, weight_decay=0.0))),
            ("no momentum", trainer(rates=lambda rates, last: replace(rates, momentum=0.0))),
            ("no nesterov", trainer(lambda right: replace(right, nesterov=False) if isinstance(right, SGD) else right)),
            ("default decay", trainer(lambda right: replace(right, weight_decay=1e-2))),  # that of torch.optim.AdamW
            ("adam for adamw", trainer(adam_for_adamw)),
            ("adagrad epsilon", trainer(after=adagrad_epsilon_in_the_root)),
            ("rmsprop decay of 0.99", trainer(rmsprop_of_the_default)),
        )
    ),
)
