"""The batch plan as one of several processes has it."""

from collections.abc import Sequence

import numpy as np

from triptych.backend.group import Group, Share
from triptych.data.batches import Batch


def cut(plan: Sequence[Batch], group: Group, accumulate: int) -> list[tuple[Batch, tuple[Share, ...]]]:
    """This process's part of every batch: the images of its shares, one after the other, and what the shares are. A
    process alone has the whole batches, also where it takes them in micro-batches."""
    shares = [group.shares(len(batch), accumulate) for batch in plan]
    places = [np.concatenate([np.arange(share.begin, share.end) for share in of_batch]) for of_batch in shares]
    parts = [batch.part(images) for batch, images in zip(plan, places, strict=True)]
    return list(zip(parts, shares, strict=True))
