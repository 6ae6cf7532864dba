"""The reference of the input transform, against Pillow and against properties it must have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from triptych.data.batches import Augmentation, Batch, plan
from triptych.data.preprocess import InputTransform, apply_reference, channel_matrix, resize_matrix
from triptych.utils.errors import TriptychError

SIZES = [
    ((28, 28), (224, 224)),
    ((28, 28), (96, 96)),
    ((28, 28), (64, 64)),
    ((32, 32), (224, 224)),
    ((64, 64), (28, 28)),
    ((37, 53), (28, 28)),
    ((37, 53), (64, 41)),
    ((53, 37), (24, 96)),
    ((1, 1), (5, 3)),
]
SIZE = st.integers(1, 70)


def random_images(number: int, channels: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, channels, height, width), np.uint8)


def check_against_pillow(before: tuple[int, int], after: tuple[int, int]) -> None:
    image = random_images(1, 1, *before)
    ours = apply_reference(image, InputTransform(1, *after))[0, 0] * 255
    pillow = Image.fromarray(image[0, 0])
    # Pillow rounds an 8-bit image to whole levels after each of its two passes, half a level each ...
    eight_bit = np.asarray(pillow.resize(after[::-1], Image.Resampling.BILINEAR), np.float64)
    assert np.abs(ours - eight_bit).max() <= 1.001
    # ... and a floating point one not at all, which leaves no room for a wrong weight.
    exact = np.asarray(pillow.convert("F").resize(after[::-1], Image.Resampling.BILINEAR), np.float64)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_resize_equals_pillow(before, after):
    check_against_pillow(before, after)


@settings(deadline=None, max_examples=60)
@given(SIZE, SIZE, SIZE, SIZE)
def test_resize_equals_pillow_at_any_size(height, width, new_height, new_width):
    check_against_pillow((height, width), (new_height, new_width))


@given(SIZE, SIZE)
def test_resize_matrices_are_weights(size_in, size_out):
    matrix = resize_matrix(size_in, size_out)
    assert matrix.shape == (size_out, size_in)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-13)  # no shift to one side


def test_the_same_size_is_left_alone():
    assert (resize_matrix(28, 28) == np.eye(28)).all()


def test_enlarging_does_not_blur_more_than_two_pixels():
    assert ((resize_matrix(28, 224) > 0).sum(axis=1) <= 2).all()


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0)])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(TriptychError, match="at least 1"):
        resize_matrix(*sizes)


def test_normalisation_is_per_network_channel():
    images = random_images(2, 3, 4, 5)
    transform = InputTransform(3, 4, 5, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    result = apply_reference(images, transform)
    for channel, (mean, std) in enumerate(zip(transform.mean, transform.std, strict=True)):
        np.testing.assert_allclose(result[:, channel], (images[:, channel] / 255 - mean) / std, rtol=1e-13)


def test_without_mean_and_std_pixels_lie_between_0_and_1():
    result = apply_reference(np.array([0, 255], np.uint8).reshape(2, 1, 1, 1), InputTransform(1, 2, 2))
    assert (result[0] == 0).all()
    assert (result[1] == 1).all()


def test_a_grey_image_is_repeated_for_a_colour_network():
    images = random_images(2, 1, 6, 6)
    colour, grey = (apply_reference(images, InputTransform(channels, 9, 9)) for channels in (3, 1))
    assert colour.shape == (2, 3, 9, 9)
    assert (colour == grey).all()


def test_a_colour_image_becomes_grey_as_in_pillow():
    image = random_images(1, 3, 20, 20)
    ours = apply_reference(image, InputTransform(1, 20, 20))[0, 0] * 255
    pillow = np.asarray(Image.fromarray(image[0].transpose(1, 2, 0)).convert("L"), np.float64)
    assert np.abs(ours - pillow).max() <= 0.51  # it rounds to whole levels


@pytest.mark.parametrize("channels", [(3, 2), (4, 3), (2, 1)])
def test_other_channels_are_refused(channels):
    with pytest.raises(TriptychError, match=f"images of {channels[0]} channels"):
        channel_matrix(*channels)


def test_crop_and_flip_come_before_everything_else():
    images = random_images(5, 3, 8, 6)
    batch = plan(0, 0, 5, 5, Augmentation(2, True))[0]
    transform = InputTransform(3, 12, 7, (0.4,) * 3, (0.2,) * 3, crop_padding=2)
    by_hand = np.zeros_like(images)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for i in range(5):
        part = padded[i, :, batch.rows[i] : batch.rows[i] + 8, batch.columns[i] : batch.columns[i] + 6]
        by_hand[i] = part[:, :, ::-1] if batch.flips[i] else part
    assert batch.flips.any()
    assert not batch.flips.all()
    assert (apply_reference(images, transform, batch) == apply_reference(by_hand, transform)).all()


def test_a_tint_is_added_to_every_pixel_of_0_to_1():
    images, transform = random_images(4, 3, 7, 9), InputTransform(3, 12, 5, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    (batch,) = plan(0, 0, 4, 4, Augmentation(colour=0.2))
    tinted, plain = (apply_reference(images, transform, b) for b in (batch, replace(batch, shifts=None)))
    expected = np.broadcast_to((batch.shifts / transform.std)[:, :, None, None], plain.shape)
    np.testing.assert_allclose(tinted - plain, expected, rtol=0, atol=1e-14)


def test_a_centred_batch_changes_nothing():
    images = random_images(3, 1, 7, 7)
    centre = np.full(3, 4)
    batch = Batch(np.arange(3), centre, centre, np.zeros(3, bool))
    transform = InputTransform(1, 7, 7, crop_padding=4)
    assert (apply_reference(images, transform, batch) == apply_reference(images, transform)).all()


def test_single_precision_is_close_and_stays_single():
    images = random_images(2, 1, 28, 28)
    transform = InputTransform(3, 64, 64, (0.3,) * 3, (0.3,) * 3)
    single = apply_reference(images, transform, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, apply_reference(images, transform), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"channels": 0}, "at least 1"),
        ({"crop_padding": -1}, "at least 0"),
        ({"mean": (0.5, 0.5)}, "mean has 2 numbers"),
        ({"std": (0.5, 0.5)}, "std has 2 numbers"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
        ({"std": (1.0, float("nan"), 1.0)}, "above 0"),
    ],
)
def test_contradictory_transforms_are_refused(fields, message):
    with pytest.raises(TriptychError, match=message):
        InputTransform(**{"channels": 3, "height": 8, "width": 8} | fields)


def test_unfit_images_are_refused():
    transform = InputTransform(1, 8, 8)
    with pytest.raises(TriptychError, match="expected uint8 images"):
        apply_reference(np.zeros((1, 1, 8, 8)), transform)
    with pytest.raises(TriptychError, match="expected uint8 images"):
        apply_reference(np.zeros((8, 8), np.uint8), transform)
    batch = plan(0, 0, 4, 4, Augmentation())[0]
    with pytest.raises(TriptychError, match="2 images for a batch of 4"):
        apply_reference(random_images(2, 1, 8, 8), transform, batch)
