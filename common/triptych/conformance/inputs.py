"""The data level: what reaches the network when a backend is given stored images.

Images of another size than the input, in a few batches of one planned epoch with crop, flip and (where there are
colours) their jitter, handed over by the training loop's own feed; then without, as in evaluation; then with other
channels than the network's, higher and narrower, of which a mean is subtracted and nothing divided; both cut, so that
one side is the input's; and where there are colours, blue first, of which nothing is subtracted. Every channel has its
own mean and deviation: constants or channels in another order show.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.backend.contract import Backend, Images, Native
from triptych.conformance.case import BATCH, Case
from triptych.data.batches import Augmentation, Batch, feed, plan
from triptych.data.preprocess import InputTransform
from triptych.optim.optimizers import SGD
from triptych.reference.pixels import network_input
from triptych.spec.kinds.layer_pass import Rounding, exact
from triptych.spec.layers import outputs
from triptych.utils.arrays import Array
from triptych.utils.randomness import generator

CROP_PADDING = 2
IMAGES = 2 * BATCH + 1  # three batches, the last one smaller
EPOCH = 1  # not 0, so that a plan which ignores the epoch shows


def transform_of(case: Case) -> InputTransform:
    """Resizes, and normalises every channel by numbers of its own."""
    channels, height, width = case.architecture.input
    mean = tuple(0.4 + 0.2 * channel / channels for channel in range(channels))
    std = tuple(0.2 + 0.1 * channel / channels for channel in range(channels))
    return InputTransform(channels, height, width, mean, std, CROP_PADDING)


def stored_images(case: Case, channels: int | None = None) -> Images:
    """`(IMAGES, channels, h, w)` lower than the network's input and wider: one axis is enlarged, one is shrunk. With
    other `channels` than the network's higher and narrower."""
    default, height, width = case.architecture.input
    size = (height // 2 + 1, width + 5) if channels is None else (height + 5, width // 2 + 1)
    shape = (IMAGES, channels or default, *size)
    return (generator(case.seed, "conformance", "stored").random(shape) * 256).astype(np.uint8)


def unplanned(case: Case) -> dict[str, tuple[Images, InputTransform]]:
    """Stored images that are prepared as they are, each with its transform."""
    transform, stored = transform_of(case), stored_images(case)
    others = stored_images(case, other_channels(case))
    sets = {"evaluation": (stored, transform), "other channels": (others, replace(transform, std=()))}
    sets["as wide"] = np.ascontiguousarray(stored[..., : transform.width]), transform
    sets["as high"] = np.ascontiguousarray(others[:, :, : transform.height]), transform
    return sets | ({"blue first": (stored, replace(transform, mean=(), reverse=True))} if colours(case) else {})


def colours(case: Case) -> bool:
    """Whether the network's channels can be red, green and blue."""
    return case.architecture.input[0] == 3


def everything(case: Case) -> dict[str, NDArray[Any]]:
    """All but the parameters that a backend is given on all levels, by name."""
    return {
        **{f"mask {step} of {path}": mask for step in range(2) for path, mask in case.masks(step).items()},
        "images": case.stored,
        **named_targets(case),
        "stored": stored_images(case),
        "other channels": stored_images(case, other_channels(case)),
    }


def named_targets(case: Case) -> dict[str, NDArray[Any]]:
    """The labels, or the cotangents, by name."""
    if isinstance(case.targets, tuple):
        return {
            f"cotangent of {path}": value for path, value in zip(outputs(case.architecture), case.targets, strict=True)
        }
    return {"labels": case.targets}


def other_channels(case: Case) -> int:
    """Stored channels that have to be fitted: grey images for a colour network, and colour ones for a grey network."""
    return 3 if case.architecture.input[0] == 1 else 1


def augmentation_of(case: Case) -> Augmentation:
    """Crop and flip, and where there are colours, their jitter: a strong one, so that a forgotten one shows."""
    return Augmentation(CROP_PADDING, flip=True, colour=0.5 if colours(case) else 0.0)


def planned(case: Case) -> list[Batch]:
    """The epoch's batches."""
    return plan(case.seed, EPOCH, IMAGES, BATCH, augmentation_of(case))


def reference_inputs(case: Case, rounding: Rounding = exact) -> dict[str, Array]:
    """The network's input by name, in float64."""
    transform, stored = transform_of(case), stored_images(case)
    arrays = {
        f"batch {number}": network_input(stored[batch.index], transform, batch)
        for number, batch in enumerate(planned(case))
    }
    arrays |= {name: network_input(images, of_set) for name, (images, of_set) in unplanned(case).items()}
    length = sum(stored.shape[1:]) + 4  # a fit of the channels, a resize, four operations by a constant
    largest_term = 1 / min(transform.std)
    return {name: rounding(value, length, largest_term) for name, value in arrays.items()}


def backend_inputs(backend: Backend, network: Native, case: Case) -> dict[str, NDArray[np.floating[Any]]]:
    """The network's input by name, as a backend's trainer prepares it."""
    trainer = backend.Trainer(network, SGD(), transform_of(case), case.seed)
    stored = stored_images(case)
    batches = feed(stored, np.zeros(IMAGES, np.int64), planned(case), augmentation_of(case))
    arrays = {f"batch {number}": trainer.prepare(images, gather) for number, (images, _, gather) in enumerate(batches)}
    for name, (images, transform) in unplanned(case).items():
        right = trainer if transform == transform_of(case) else backend.Predictor(network, transform)
        arrays[name] = right.prepare(images)
    return arrays
