"""Whether a training learns, by a stated test, and what the run itself tells of why it does not.

An answer that ignores its image reaches a loss of the entropy of the labels at best (ln(classes) where all are as
frequent), and is right as often as the most frequent class comes. A training does not learn when the loss of its last
steps is within `NEAR` of that entropy, or above it with no more right answers than that (one-sided binomial test at
`LEVEL`). One that has just begun to learn is near that entropy too: it has more right answers than that, and a loss
that falls from the first half of these steps to the second (one-sided test of the means at `LEVEL`).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Images, Labels
from triptych.data import preprocess
from triptych.data.preprocess import InputTransform
from triptych.reference import network as reference
from triptych.spec.analysis import auxiliary_weights, totals
from triptych.spec.layers import Architecture, Clip, ReLU, Sigmoid, walk
from triptych.training.run_folder import Epoch
from triptych.utils.arrays import Array
from triptych.weights.initializers import Parameters

AFTER, WINDOW = 300, 100  # steps before it is said, and steps that it is judged by
NEAR, LEVEL = 0.01, 0.001
DEAD = 0.9  # of a layer's channels: the layer hands on next to nothing
SMALL_SPREAD, LARGE_SPREAD = 1e-3, 10.0  # of the logits at the start, from image to image
STILL, FAR = 1e-3, 3.0  # how far the weights have gone, against their size at the start
WORK = 1e10  # multiply-accumulates that a look at the layers may cost: seconds in NumPy
MOST_IMAGES, FEWEST_IMAGES = 32, 4


@dataclass(frozen=True)
class Chance:
    """What an answer that ignores its image reaches on these labels: its `loss`, auxiliary classifiers included, and
    its share of right answers."""

    loss: float
    share: float

    def near(self, loss: float) -> bool:
        """Whether a loss is no better and no worse than that."""
        return abs(loss - self.loss) <= NEAR * self.loss

    def beaten_by(self, right: float, count: int) -> bool:
        """Whether `right` answers of `count` are more than chance explains."""
        from scipy.special import bdtrc

        return count > 0 and right > 0 and float(bdtrc(right - 1, count, self.share)) < LEVEL


def chance_of(labels: Labels, architecture: Architecture | None = None) -> Chance:
    """Of these labels, with the weights of the architecture's auxiliary losses where it has some."""
    shares = np.bincount(labels) / len(labels)
    entropy = float(-sum(share * math.log(share) for share in shares if share))
    losses = 1 + (sum(auxiliary_weights(architecture)) if architecture is not None else 0.0)
    return Chance(losses * entropy, float(shares.max()))


def unlearned(epochs: Sequence[Epoch], train: Chance, test: Chance, tested: int) -> str:
    """Why a training that has ended counts as one that has learned nothing, by its last steps' loss and the right
    answers of `tested` images; empty if it has learned."""
    last = epochs[-1]
    if not test.beaten_by(round(last.test_accuracy * tested), tested):
        return f"its test accuracy of {last.test_accuracy:.3f} is not above chance, {test.share:.3f}"
    losses = last.losses[-WINDOW:]
    loss = sum(losses) / len(losses) if losses else last.train_loss
    return f"its loss of {loss:.4f} is that of chance, {train.loss:.4f}" if train.near(loss) else ""


@dataclass(eq=False)
class Watch:
    """Looks at a training's steps; `first` is the loss of the first one that it saw."""

    chance: Chance
    window: int = WINDOW
    first: float | None = None
    seen: deque[tuple[float, float, int]] = field(default_factory=deque)  # loss, right answers, images of a step

    def add(self, results: NDArray[np.float64], sizes: Sequence[int]) -> None:
        """The steps' losses and right answers `(steps, 2)`, and the images of each."""
        for (loss, right), size in zip(results.tolist(), sizes, strict=True):
            self.first = loss if self.first is None else self.first
            self.seen.append((loss, right, size))
        while len(self.seen) > self.window:
            self.seen.popleft()

    @property
    def loss(self) -> float:
        """The mean of the last steps."""
        return sum(loss for loss, _, _ in self.seen) / len(self.seen)

    @property
    def accuracy(self) -> float:
        """Of the last steps."""
        return sum(right for _, right, _ in self.seen) / sum(size for _, _, size in self.seen)

    @property
    def stuck(self) -> bool:
        """Whether the last steps show that nothing is learned; False before there are enough of them."""
        if len(self.seen) < self.window:
            return False
        right, count = (sum(column) for column in list(zip(*self.seen, strict=True))[1:])
        beaten = self.chance.beaten_by(right, int(count))
        if self.chance.near(self.loss):
            return not (beaten and self.falling)
        return self.loss > self.chance.loss and not beaten

    @property
    def falling(self) -> bool:
        """Whether the loss is lower in the second half of the steps than in the first, by more than its scatter."""
        from scipy.special import ndtri

        losses = np.array([loss for loss, _, _ in self.seen])
        before, after = np.array_split(losses, 2)
        scatter = math.sqrt(before.var() / len(before) + after.var() / len(after))
        return bool(before.mean() - after.mean() > -ndtri(LEVEL) * scatter)

    def verdict(self, steps: int) -> str:
        """What the steps show, in words."""
        loss = "inf" if self.loss > 1e6 else f"{self.loss:.4f}"
        return (
            f"does not learn: after {steps} steps the mean loss of the last {len(self.seen)} is {loss}, and "
            f"{self.accuracy:.1%} are right; answers that ignore the image have {self.chance.loss:.4f} and "
            f"{self.chance.share:.1%}"
        )


@dataclass(frozen=True)
class Symptoms:
    """What a run that does not learn shows, measured on some of its images. `dead`: the share of each ReLU's channels
    that are 0 everywhere; `spread`: how much the logits differ from image to image (standard deviation, mean over the
    classes), now and at the start; `moved`: how far the weights have gone, against their size at the start, the least
    and the most of any layer. What needs a start that is not known any more is None. `sigmoids` are the paths of these
    layers where it has no ReLU."""

    dead: Mapping[str, float]
    spread: float
    start_spread: float | None
    first_loss: float | None
    moved: tuple[float, float] | None
    sigmoids: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Each measurement in words."""
        worst = max(self.dead, key=lambda path: self.dead[path], default=None)
        said = [f"it has no ReLU, and {len(self.sigmoids)} sigmoids" if self.sigmoids else "it has no ReLU"]
        if worst is not None:
            few = [f"{path} {share:.0%}" for path, share in self.dead.items() if share >= DEAD][:3]
            said = [f"dead channels: {', '.join(few) or f'at most {self.dead[worst]:.0%} of any ReLU ({worst})'}"]
        start = "" if self.start_spread is None else f", {self.start_spread:.2g} at the start"
        said.append(f"logits differ by {self.spread:.2g} between images{start}")
        if self.first_loss is not None:
            said.append(f"first loss {self.first_loss:.4g}")
        if self.moved is not None:
            said.append(f"weights moved by {self.moved[0]:.2g} to {self.moved[1]:.2g} of their size, by layer")
        return said

    def cause(self, chance: Chance) -> str:
        """The likely cause and a way out, from the measurements alone."""
        dead = [path for path, share in self.dead.items() if share >= DEAD]
        late = (
            "a sigmoid hands down a quarter of a gradient at most, so the first layers begin late: ReLU instead, "
            "--optimizer adam, or more steps"
        )
        if self.start_spread is not None and self.start_spread < SMALL_SPREAD:
            return (
                late
                if self.sigmoids
                else "the start is too small for this depth: --init kaiming_uniform, or a network with batch norm"
            )
        if self.moved is not None and self.moved[1] > FAR:
            return "the rate is too large: a smaller --learning-rate, or --schedule warmup"
        if dead and (self.first_loss or 0) <= 3 * chance.loss:
            return f"{dead[0]} has died: a smaller --learning-rate, or --schedule warmup"
        if (self.first_loss or 0) > 3 * chance.loss or (self.start_spread or 0) > LARGE_SPREAD:
            return "the start is too large: another --init, or --mean and --std for the images"
        if self.moved is not None and self.moved[1] < STILL:
            return "the weights hardly move: a larger --learning-rate"
        return late if self.sigmoids else "none of these stands out; the rate and the start are the first to vary"


def examine(
    architecture: Architecture,
    parameters: Parameters,
    start: Parameters | None,
    images: Images,
    transform: InputTransform,
    first_loss: float | None,
) -> Symptoms:
    """A look at some of the stored `images`, in NumPy, so that the run is left as it is; `start` has the parameters
    that the run began with, None where they are not known any more."""
    count = int(np.clip(WORK / max(totals(architecture).macs, 1), FEWEST_IMAGES, MOST_IMAGES))
    x = preprocess.apply_reference(images[:count], transform)
    with np.errstate(all="ignore"):
        now = reference.forward(architecture, parameters, x)
        begun = None if start is None else reference.forward(architecture, start, x)
    dead = {path: dead_share(now.outputs[path]) for path in gates(architecture) if path in now.outputs}
    start_spread = None if begun is None else spread(begun.logits)
    moved = None if start is None else movements(start, parameters)
    sigmoids = [path for path, layer in walk(architecture.layers) if isinstance(layer, Sigmoid)]
    return Symptoms(dead, spread(now.logits), start_spread, first_loss, moved, () if dead else tuple(sigmoids))


def gates(architecture: Architecture) -> list[str]:
    """The paths of the layers that can die: they hand on 0 for whatever is below it."""
    return [path for path, layer in walk(architecture.layers) if isinstance(layer, ReLU | Clip)]


def dead_share(values: Array) -> float:
    """The share of the channels of `(N, C, ...)` that are 0 for every image at every place."""
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    return float((values == 0).all(axes).mean())


def spread(logits: Array) -> float:
    """The standard deviation over the images, the mean over the outputs."""
    return float(logits.reshape(len(logits), -1).std(0).mean())


def movements(start: Parameters, now: Parameters) -> tuple[float, float] | None:
    """The least and the most of any weight's distance from the start, against its size there; of weights that began at
    nothing none can be told."""
    ratios = []
    for path, before in start.items():
        size = float(np.linalg.norm(before.astype(np.float64)))
        if path.endswith(".weight") and before.ndim > 1 and size and path in now:
            ratios.append(float(np.linalg.norm(now[path].astype(np.float64) - before)) / size)
    return (min(ratios), max(ratios)) if ratios else None
