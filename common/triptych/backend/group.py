"""How processes that train one network share its batches: which images each is given, and what they count."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """The images `begin` to `end` of a batch of `whole` images, as one process or device is given them; `end` is
    excluded. They belong to the micro-batch `first` to `last`: the whole batch, unless gradients are accumulated.
    `copies`: how many processes or devices are given the same images."""

    begin: int
    end: int
    first: int
    last: int
    whole: int
    copies: int = 1

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def images(self) -> slice:
        """Where they stand in the batch."""
        return slice(self.begin, self.end)

    @property
    def entire(self) -> bool:
        """Whether they are the whole batch, and nobody else has them."""
        return len(self) == self.whole and self.copies == 1

    @property
    def weight(self) -> float:
        """What the mean over these images counts in the mean over the batch; all weights together are 1."""
        return len(self) / self.whole / self.copies


def entire(count: int) -> Share:
    """A batch of `count` images that nobody shares."""
    return Share(0, count, 0, count, count)


class Group:
    """The processes that train one network together, each with one or several devices; this one is alone.

    A batch is cut into as many parts as there are devices, in order, so that the parts one after the other are the
    batch. A micro-batch that is smaller than that, or with `even` one that cannot be cut into equal parts, is given
    to all of them whole, and counts once."""

    rank = 0
    size = 1
    devices = 1
    even = False

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(size, *values.shape)`: what every process calls this with, by rank and to the bit. All have to call it."""
        return values[None]

    def lost(self, error: RuntimeError) -> bool:
        """Whether the error says that another process does not answer any more."""
        return False

    def shares(self, count: int, accumulate: int = 1) -> tuple[Share, ...]:
        """This process's images of a batch of `count`, for each of `accumulate` micro-batches (fewer if there are fewer
        images)."""
        pieces = min(accumulate, count)
        bounds = [count * piece // pieces for piece in range(pieces + 1)]
        first_part, parts = self.rank * self.devices, self.size * self.devices
        return tuple(
            self._cut(Share(first, last, first, last, count), first_part, self.devices, parts, self.size)
            for first, last in pairwise(bounds)
        )

    def device_shares(self, share: Share) -> tuple[Share, ...]:
        """What each device of this process is given of the process's share."""
        micro_batch = Share(share.first, share.last, share.first, share.last, share.whole)
        first_part, parts = self.rank * self.devices, self.size * self.devices
        return tuple(
            self._cut(micro_batch, part, 1, parts, parts) for part in range(first_part, first_part + self.devices)
        )

    def _cut(self, micro_batch: Share, part: int, count: int, parts: int, copies: int) -> Share:
        """`count` parts from `part` on, of `parts`; where it is not cut, as many as `copies` have the whole."""
        first, last, whole = micro_batch.first, micro_batch.last, micro_batch.whole
        number = last - first
        if number < parts or (self.even and number % parts):
            return Share(first, last, first, last, whole, copies)
        begin, end = (first + number * edge // parts for edge in (part, part + count))
        return Share(begin, end, first, last, whole)

    def part_of(self, count: int) -> slice:
        """This process's part of `count` things, which nobody else has; it may be empty."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def agree(self, value: int) -> int:
        """The largest of what the processes call this with; not asked where there is but one."""
        return int(self.gather(np.array([float(value)])).max()) if self.size > 1 else value


ALONE = Group()
