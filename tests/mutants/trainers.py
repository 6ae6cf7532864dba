"""Faults of the trainer that no step alone shows: what happens between steps, batches of other sizes, the dropout that
training draws; and those that only an uncommon value, size or graph meets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from mutants import networks as nets
from mutants.plants import Plant, everywhere, layer, native, other_spec, part, patched, replaced
from mutants.record import Mutant
from triptych.backend.targets import part_of
from triptych.data import batches
from triptych.optim.optimizers import Adam, decay_of, rates_of
from triptych.spec.analysis import parameters
from triptych.spec.layers import Architecture, BatchNorm, Clip, Dropout, ReLU, Softmax
from triptych.training.recipe import Recipe


def trainer(**overrides: Callable[..., Any]) -> Plant:
    """A trainer whose methods are replaced; each gets the trainer and the right method first."""

    @contextmanager
    def plant(framework: Any, precision: str) -> Iterator[Any]:
        def method(name: str) -> Callable[..., Any]:
            right = getattr(framework.Trainer, name)
            return lambda self, *given, **more: overrides[name](self, partial(right, self), *given, **more)

        wrong = type("Wrong", (framework.Trainer,), {name: method(name) for name in overrides})
        yield replaced(framework, Trainer=wrong), None

    return plant


def dropout(fault: str) -> Plant:
    """Dropout layers everywhere are those of `native`, in whatever network."""

    @contextmanager
    def plant(framework: Any, precision: str) -> Iterator[Any]:
        with patch.dict(part(framework, "layers").LAYERS, {Dropout: getattr(native(framework), fault)}):
            yield framework, None

    return plant


def filler_rows(self: Any, right: Callable[..., Any], images: np.ndarray) -> np.ndarray:
    """A smaller batch is filled up, and the rows behind it are returned."""
    self.largest = max(getattr(self, "largest", 0), len(images))
    filled = np.concatenate([images, np.zeros((self.largest - len(images), *images.shape[1:]), images.dtype)])
    return right(filled)[self.largest - len(images) :]


def large_in_reverse(self: Any, right: Callable[..., Any], images: np.ndarray) -> np.ndarray:
    """A batch of many images takes another road, on which their order is lost."""
    return right(images)[:: -1 if len(images) > 63 else 1]


def large_cut(
    self: Any, right: Callable[..., Any], images: Any, targets: Any, *given: Any, gather: Any = None, **more: Any
) -> Any:
    """Of a batch only the first 256 images train."""
    mine = slice(0, min(len(images), 256))
    if len(images) > mine.stop:
        more["shares"] = ()
    return right(images[mine], part_of(targets, mine), *given, gather=gather and gather.part(mine), **more)


def planned(change: Callable[..., Any]) -> Plant:
    """The loop follows another plan; `change` is given the right one first."""

    @contextmanager
    def plant(framework: Any, precision: str) -> Iterator[Any]:
        with patch.object(batches, "plan", partial(change, batches.plan)):
            yield framework, None

    return plant


def one_order(right: Callable[..., Any], seed: int, epoch: int, *given: Any, **more: Any) -> Any:
    """Every epoch has the first one's order."""
    both = zip(right(seed, epoch, *given, **more), right(seed, 0, *given, **more), strict=True)
    return [replace(batch, index=first.index) for batch, first in both]


def one_tint(right: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """The colours of all images of a batch are shifted alike."""
    return [replace(each, shifts=np.repeat(each.shifts[:1], len(each), 0)) for each in right(*given, **more)]


def no_smaller_batch(right: Callable[..., Any], *given: Any, **more: Any) -> Any:
    return right(*given, **more, drop_last=True)


@contextmanager
def late_rates(framework: Any, precision: str) -> Iterator[Any]:
    """The loop asks for the rates of the step before."""
    right = Recipe.rates
    with patch.object(Recipe, "rates", lambda self, step, *given: right(self, max(step - 1, 0), *given)):
        yield framework, None


def first_size(
    self: Any, right: Callable[..., Any], images: Any, targets: Any, rates: Any, *given: Any, **more: Any
) -> Any:
    """The loss is divided by the first batch's size, so that a smaller one counts too little."""
    self.first = getattr(self, "first", len(images))
    rates = replace(rates, learning_rate=rates.learning_rate * len(images) / self.first)
    return right(images, targets, rates, *given, **more)


def last_left_out(
    self: Any, right: Callable[..., Any], images: Any, targets: Any, rates: Any, *given: Any, **more: Any
) -> Any:
    """A batch that is not full moves nothing."""
    self.first = getattr(self, "first", len(images))
    return right(
        images, targets, rates if len(images) == self.first else replace(rates, learning_rate=0.0), *given, **more
    )


def not_in_parts(self: Any, right: Callable[..., Any], *given: Any, shares: Any = (), **more: Any) -> Any:
    """A batch that is given in parts is taken whole: one batch norm's statistics for all of it."""
    return right(*given, **more)


def part_lost(
    self: Any, right: Callable[..., Any], images: Any, targets: Any, *given: Any, shares: Any = (), **more: Any
) -> Any:
    """Of a batch's parts the last one moves nothing: every part begins its gradients anew, say."""
    if len(shares) < 2:
        return right(images, targets, *given, shares=shares, **more)
    mine = slice(0, shares[-1].begin)
    gather = more.pop("gather", None)
    cut = {"gather": gather and gather.part(mine), "shares": shares[:-1]}
    return right(images[mine], part_of(targets, mine), *given, **cut, **more)


def parts_of_the_first(
    self: Any,
    right: Callable[..., Any],
    images: Any,
    targets: Any,
    rates: Any,
    *given: Any,
    shares: Any = (),
    **more: Any,
) -> Any:
    """The loss is divided as if every batch came in as many parts as the first one."""
    self.parts = getattr(self, "parts", len(shares))
    if self.parts:
        rates = rates.times(len(shares) / self.parts)
    return right(images, targets, rates, *given, shares=shares, **more)


def parts_counted(self: Any, right: Callable[..., Any], *given: Any, shares: Any = (), **more: Any) -> Any:
    self.counts = [*getattr(self, "counts", []), max(1, len(shares))]
    return right(*given, shares=shares, **more)


def mean_of_the_parts(self: Any, right: Callable[..., Any], handles: Any) -> Any:
    """The right answers of a batch are the mean of its parts', as its loss is."""
    figures = right(handles)
    return figures / np.stack([np.ones(len(figures)), self.counts[-len(figures) :]], 1)


def crops_of_the_first_part(
    self: Any, right: Callable[..., Any], *given: Any, gather: Any = None, shares: Any = (), **more: Any
) -> Any:
    """Every part of a batch is cropped, mirrored and tinted as the batch's first images are."""
    if gather is not None and len(shares) > 1:
        places = np.concatenate([np.arange(len(share)) for share in shares])
        gather = gather.part(places)
    return right(*given, gather=gather, shares=shares, **more)


def masks_of_the_first_part(
    self: Any, right: Callable[..., Any], *given: Any, masks: Any = None, shares: Any = (), **more: Any
) -> Any:
    """Every part of a batch has the dropout masks of the batch's first images."""
    places = [np.arange(len(share)) for share in shares]
    taken = {path: mask[np.concatenate(places)] for path, mask in (masks or {}).items()} if places else masks
    return right(*given, masks=taken, shares=shares, **more)


def forgets(self: Any, right: Callable[..., Any], images: np.ndarray) -> np.ndarray:
    """An evaluation leaves no velocity behind."""
    self.load_state({})
    return right(images)


@contextmanager
def remembers(framework: Any, precision: str) -> Iterator[Any]:
    """Every evaluation uses the parameters that the first one saw."""

    class Wrong(framework.Trainer):  # type: ignore[misc, name-defined]
        def predict(self, images: Any) -> Any:
            now = framework.to_canonical(self.network)
            self.seen = getattr(self, "seen", now)
            framework.from_canonical(self.network, self.seen)
            logits = super().predict(images)
            framework.from_canonical(self.network, now)
            return logits

    yield replaced(framework, Trainer=Wrong), None


@contextmanager
def statistics_of_evaluation(framework: Any, precision: str) -> Iterator[Any]:
    """An evaluation moves the running means, as one in training mode does."""

    class Wrong(framework.Trainer):  # type: ignore[misc, name-defined]
        def predict(self, images: Any) -> Any:
            logits = super().predict(images)
            values = framework.to_canonical(self.network)
            means = {path: np.asarray(0.9 * v, v.dtype) for path, v in values.items() if path.endswith("running_mean")}
            framework.from_canonical(self.network, values | means)
            return logits

    yield replaced(framework, Trainer=Wrong), None


def untinted(self: Any, right: Callable[..., Any], *given: Any, gather: Any = None, **more: Any) -> Any:
    """Training does not shift the colours."""
    return right(*given, gather=gather and gather._replace(shifts=None), **more)


def number_forgotten(self: Any, right: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """The step's number does not reach the generator: every step drops the same."""
    *others, number = given
    return right(*others, 0 * number, **more)


def repeats(every: int) -> Callable[..., Any]:
    """The dropout of a step is that of the step so many before it."""

    def wrong(self: Any, right: Callable[..., Any], *given: Any, **more: Any) -> Any:
        *others, number = given
        return right(*others, number % every, **more)

    return wrong


def one_seed(self: Any, right: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """Every run drops the same."""
    self.seed = 0
    return right(*given, **more)


def limited(least: float = 0.0, most: float = 1e9) -> Callable[..., Any]:
    """A learning rate that has bounds."""

    def wrong(self: Any, right: Callable[..., Any], *given: Any, **more: Any) -> Any:
        images, targets, rates, *others = given
        rates = replace(rates, learning_rate=min(most, max(least, rates.learning_rate)))
        return right(images, targets, rates, *others, **more)

    return wrong


def velocity_kept(
    self: Any, right: Callable[..., Any], images: Any, targets: Any, rates: Any, *given: Any, **more: Any
) -> Any:
    """A step without momentum leaves the velocity of the one before."""
    before = self.state()
    handle = right(images, targets, rates, *given, **more)
    if not rates.momentum and any(name.startswith("velocity.") for name in before):
        self.load_state({**self.state(), **{n: v for n, v in before.items() if n.startswith("velocity.")}})
    return handle


def count_stuck(self: Any, right: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """The second step is counted as the first."""
    handle, state = right(*given, **more), self.state()
    if state.get("count") == 2:
        self.load_state(state | {"count": np.asarray(1.0)})
    return handle


def newer_count_kept(self: Any, right: Callable[..., Any], state: Any) -> None:
    """A trainer that is taken back to an older state goes on counting."""
    counts = [known["count"] for known in (self.state(), state) if "count" in known]
    right(state | ({"count": max(counts)} if "count" in state else {}))


def nothing_taken_up(self: Any, right: Callable[..., Any], state: Any) -> None:
    """A trainer that is taken back to its beginning keeps what it has."""
    if state:
        right(state)


def begins_anew(self: Any, right: Callable[..., Any], *given: Any, **more: Any) -> Any:
    """A trainer's first step forgets the state that it has taken up, of whatever optimiser but SGD."""
    if not getattr(self, "begun", False) and not any(name.startswith("velocity.") for name in self.state()):
        self.load_state({})
    self.begun = True
    return right(*given, **more)


def one_head_smoothed(right: Callable[..., Any]) -> Callable[..., Any]:
    """The labels of auxiliary classifiers are not smoothed."""

    def wrong(network: Any, output: Any, targets: Any, smoothing: float = 0.0) -> Any:
        if not smoothing or not isinstance(output, list | tuple):
            return right(network, output, targets, smoothing)
        auxiliary = right(network, output, targets) - right(network, output[0], targets)
        return right(network, output[0], targets, smoothing) + auxiliary

    return wrong


def ignored(**options: Any) -> Plant:
    """The trainer does not look at options of its own."""

    @contextmanager
    def plant(framework: Any, precision: str) -> Iterator[Any]:
        class Wrong(framework.Trainer):  # type: ignore[misc, name-defined]
            def __init__(self, *given: Any, **more: Any) -> None:
                super().__init__(*given, **more | options)

        yield replaced(framework, Trainer=Wrong), None

    return plant


@contextmanager
def one_buffer(framework: Any, precision: str) -> Iterator[Any]:
    """What is saved next is written over what was saved before."""
    buffers: dict[str, Any] = {}

    def to_canonical(network: Any) -> dict[str, Any]:
        for path, value in framework.to_canonical(network).items():
            if path in buffers and buffers[path].shape == value.shape and buffers[path].dtype == value.dtype:
                buffers[path][...] = value
            else:
                buffers[path] = np.array(value)
        return {path: buffers[path] for path in framework.to_canonical(network)}

    yield replaced(framework, to_canonical=to_canonical), None


def bounded(architecture: Architecture) -> Architecture:
    """ReLU6 for ReLU."""
    layers = (Clip(x.name, 0.0, 6.0) if isinstance(x, ReLU) else x for x in architecture.layers)
    return replace(architecture, layers=tuple(layers))


def decay_of_gamma(right: Callable[..., Any]) -> Callable[..., Any]:
    """The decay reaches gamma, in the table that everybody asks."""

    def wrong(optimizer: Any, architecture: Any, *frozen: Any) -> dict[str, float]:
        decay = decay_of(replace(optimizer, decayed="all"), architecture, *frozen)
        return right(optimizer, architecture, *frozen) | {
            info.path: decay[info.path]
            for info in parameters(architecture)
            if info.role == "scale" and info.path in decay
        }

    return wrong


def rates_ignored(right: Callable[..., Any]) -> Callable[..., Any]:
    """Every parameter has the learning rate itself."""
    return lambda *given: dict.fromkeys(right(*given), 1.0)


def decays_ignored(right: Callable[..., Any]) -> Callable[..., Any]:
    """Every parameter has the weight decay itself."""
    return lambda optimizer, *given: right(replace(optimizer, multipliers=()), *given)


def rates_in_the_decay(right: Callable[..., Any]) -> Callable[..., Any]:
    """What multiplies the learning rate multiplies the weight decay as well."""

    def wrong(optimizer: Any, *given: Any) -> dict[str, float]:
        rates = rates_of(optimizer, *given)
        return {path: strength * rates[path] for path, strength in right(optimizer, *given).items()}

    return wrong


def eps_before(**told: Any) -> Plant:
    """Adam with its eps added before the correction is another one."""

    def plant(framework: Any, precision: str) -> Any:
        class Wrong(framework.Trainer):  # type: ignore[misc, name-defined]
            def __init__(self, network: Any, right: Any, *given: Any, **more: Any) -> None:
                before = type(right) is Adam and right.eps_added == "before"
                super().__init__(network, replace(right, **told) if before else right, *given, **more)

        return nullcontext((replaced(framework, Trainer=Wrong), None))

    return plant


HYBRID = dict.fromkeys(("torch", "jax"), "there is one way to run a network")
PRODUCT = dict.fromkeys(("torch", "mxnet"), "it has no convolution of its own")
TRAINING = "training"
HIDES = "seen in the trainer's life alone, which is lived in float64"

MUTANTS = (
    *(
        Mutant(name, architecture, plant, TRAINING, "", TRAINING)
        for name, architecture, plant in (
            ("filler rows predicted", nets.PLAIN, trainer(predict=filler_rows)),
            ("one order for every epoch", nets.PLAIN, planned(one_order)),
            ("one tint for a batch", nets.PLAIN, planned(one_tint)),
            ("smaller batch left out by the loop", nets.PLAIN, planned(no_smaller_batch)),
            ("rates of the step before", nets.PLAIN, late_rates),
            ("large batches predicted in reverse", nets.PLAIN, trainer(predict=large_in_reverse)),
            ("large batches cut", nets.PLAIN, trainer(step=large_cut)),
            ("loss over the first batch's size", nets.PLAIN, trainer(step=first_size)),
            ("last batch left out", nets.PLAIN, trainer(step=last_left_out)),
            ("velocity lost in evaluation", nets.PLAIN, trainer(predict=forgets)),
            ("evaluation of the first start", nets.PLAIN, remembers),
            ("statistics of evaluation", nets.PLAIN, statistics_of_evaluation),
            ("colours not shifted in training", nets.PLAIN, trainer(step=untinted)),
            ("one mask for the batch", nets.DROPOUT, dropout("one_mask")),
            ("one mask for the channels", nets.DROPOUT, dropout("one_mask_of_channels")),
            ("one mask for every step", nets.DROPOUT, trainer(step=number_forgotten)),
            ("relu6 for relu", nets.PLAIN, other_spec(bounded)),
            ("maximum for relu", nets.PLAIN, layer(ReLU, "maximum")),
            ("relu6 for relu of flat values", nets.MLP, other_spec(bounded)),
            ("softmax that overflows", nets.SOFTMAX, layer(Softmax, "overflowing_softmax")),
            ("maps dropped whole", nets.DROPOUT, dropout("dropped_maps")),
            ("masks of two images", nets.DROPOUT, dropout("two_masks")),
            ("dropout repeats after four steps", nets.DROPOUT, trainer(step=repeats(4))),
            ("dropout repeats after a thousand steps", nets.DROPOUT, trainer(step=repeats(1000))),
            ("dropout of one seed", nets.DROPOUT, trainer(step=one_seed)),
            ("least learning rate", nets.PLAIN, trainer(step=limited(least=1e-4))),
            ("largest learning rate", nets.PLAIN, trainer(step=limited(most=0.05))),
            ("velocity kept without momentum", nets.PLAIN, trainer(step=velocity_kept)),
            ("adam's count stuck", nets.PLAIN, trainer(step=count_stuck)),
            ("state not taken up", nets.PLAIN, trainer(step=begins_anew)),
            ("smoothing ignored", nets.PLAIN, ignored(smoothing=0.0)),
            ("frozen layers trained", nets.PLAIN, ignored(frozen=frozenset())),
            ("one buffer for what is saved", nets.PLAIN, one_buffer),
            ("multipliers of the rate ignored", nets.PLAIN, everywhere("rates_of", rates_ignored)),
            ("multipliers of the decay ignored", nets.PLAIN, everywhere("decay_of", decays_ignored)),
            ("multipliers of the rate in the decay", nets.PLAIN, everywhere("decay_of", rates_in_the_decay)),
            ("adam's eps added after", nets.PLAIN, eps_before(eps_added="after")),
            ("multipliers ignored with eps before", nets.PLAIN, eps_before(multipliers=())),
            ("parts taken as a whole", nets.PLAIN, trainer(step=not_in_parts)),
            ("last part lost", nets.PLAIN, trainer(step=part_lost)),
            ("parts of the first batch", nets.PLAIN, trainer(step=parts_of_the_first)),
            ("masks of the first part", nets.PLAIN, trainer(step=masks_of_the_first_part)),
            ("right answers averaged", nets.PLAIN, trainer(step=parts_counted, read=mean_of_the_parts)),
            ("newer count kept", nets.PLAIN, trainer(load_state=newer_count_kept)),
            ("newer state kept", nets.PLAIN, trainer(load_state=nothing_taken_up)),
            ("one head smoothed", nets.PLAIN, patched("total_loss", one_head_smoothed)),
            ("crops of the first part", nets.PLAIN, trainer(step=crops_of_the_first_part)),
        )
    ),
    Mutant("decay of gamma", nets.NORM, everywhere("decay_of", decay_of_gamma), "update", "norm", "update"),
    Mutant(
        "wrong when hybrid", nets.RECTIFIED, layer(ReLU, "wrong_when_hybrid"), TRAINING, "", TRAINING, impossible=HYBRID
    ),
    Mutant(
        *("fast variance", nets.NORM, layer(BatchNorm, "fast_variance"), TRAINING, "", TRAINING),
        impossible={"mxnet": "its operator computes the variance"},
    ),
    Mutant(
        *("strided product mirrored", nets.PLAIN, patched("convolve", "strided_product_mirrored")),
        *(TRAINING, "", TRAINING),
        impossible=PRODUCT,
        hides=HIDES,
    ),
    Mutant(
        *("product with kernel swapped", nets.PLAIN, patched("convolve", "swapped_product"), TRAINING, "", TRAINING),
        impossible=PRODUCT,
        hides=HIDES,
    ),
    Mutant(
        *("gradient of the kernel swapped", nets.PLAIN, patched("_kernel_gradient", "swapped_gradient")),
        *("gradient", "conv", "gradient"),
        impossible=PRODUCT,
    ),
)
