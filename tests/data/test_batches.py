"""The batch plan and the stateless random numbers under it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.data.batches import COLOUR_AXES, COLOUR_SCALES, Augmentation, Batch, feed, gather_indices, plan
from triptych.utils.errors import TriptychError
from triptych.utils.randomness import derive_seed, dropout_mask, generator, shuffled

PURPOSES = [(), ("a",), ("b",), ("1",), (1,), ("a", "b"), ("ab",), ("a", 1), ("a1",), (1, "a"), ("a", ""), ("a", "1")]
SMALL = st.integers(1, 60)


def joined(batches: list[Batch], field: str) -> np.ndarray:
    return np.concatenate([getattr(batch, field) for batch in batches])


def test_the_stream_is_pinned():
    """These numbers are part of every published result: a changed key would silently be another experiment."""
    assert generator(7, "order", 3).random(3).tolist() == [0.4989566332017046, 0.6181138831859859, 0.579201461874969]
    planned = plan(7, 3, 8, 3, Augmentation(2, True, 0.1))
    assert joined(planned, "index").tolist() == [6, 7, 3, 4, 0, 2, 1, 5]
    assert joined(planned, "rows").tolist() == [0, 3, 3, 3, 0, 3, 0, 2]
    assert joined(planned, "columns").tolist() == [0, 3, 1, 1, 3, 0, 2, 2]
    assert joined(planned, "flips").tolist() == [True, False, True, False, True, False, True, True]
    shifts = [0.009697312207980882, 0.012588007396426487, 0.013323276043026133]
    np.testing.assert_allclose(planned[0].shifts[0], shifts, rtol=1e-12)  # sines and logarithms may round differently
    assert derive_seed(7, "torch") == 1372864161


def test_the_colours_shifts_have_the_components_of_alexnet():
    """Their covariance is that of the axes, times the jitter; every batch size has the same, and so have crops."""
    planned = plan(3, 1, 20_000, 128, Augmentation(2, colour=0.1))
    shifts = joined(planned, "shifts")
    assert abs(shifts.mean(0)).max() < 0.001  # the largest deviation is 0.0127: six standard errors
    expected = 0.1**2 * COLOUR_AXES @ np.diag(COLOUR_SCALES**2) @ COLOUR_AXES.T
    np.testing.assert_allclose(np.cov(shifts.T), expected, rtol=0.05, atol=0.002 * expected.max())
    assert abs((abs(shifts @ COLOUR_AXES) < 0.1 * COLOUR_SCALES).mean() - 0.6827) < 0.01  # normal numbers
    assert (shifts == joined(plan(3, 1, 20_000, 77, Augmentation(colour=0.1)), "shifts")).all()
    assert not (shifts == joined(plan(3, 2, 20_000, 77, Augmentation(colour=0.1)), "shifts")).any()
    assert (joined(planned, "rows") == joined(plan(3, 1, 20_000, 128, Augmentation(2)), "rows")).all()
    assert plan(3, 1, 10, 10, Augmentation(2, True))[0].shifts is None


def test_part_of_a_gather_is_that_of_part_of_the_batch():
    (batch,) = plan(0, 0, 6, 6, Augmentation(1, True, 0.1))
    whole = gather_indices(batch, 4, 5, 1)
    for left, right in zip(whole.part(slice(2, 5)), whole, strict=True):
        assert np.array_equal(left, right[2:5])
    assert whole._replace(shifts=None).part(slice(2, 5)).shifts is None


def test_every_purpose_has_its_own_numbers():
    draws = [generator(seed, *purpose).random() for seed in (0, 1, -1) for purpose in PURPOSES]
    assert len(set(draws)) == 3 * len(PURPOSES)
    assert len({derive_seed(0, *purpose) for purpose in PURPOSES}) == len(PURPOSES)


def test_equal_purposes_have_equal_numbers_of_any_integer_type():
    assert generator(np.int64(3), "a", np.int32(4)).random() == generator(3, "a", 4).random()
    with pytest.raises(TypeError):
        generator(0, 1.5)


@given(st.integers(), st.text(max_size=5))
def test_seeds_for_frameworks_have_31_bits(seed, purpose):
    assert 0 <= derive_seed(seed, purpose) < 2**31


def test_dropout_masks_keep_the_stated_share_and_differ_by_step_and_layer():
    shape = (8, 16, 20, 10)
    mask = dropout_mask(0, 5, "classifier.drop1", shape, 0.3)
    assert mask.shape == shape
    assert mask.dtype == np.bool_
    assert abs(mask.mean() - 0.7) < 0.01  # 25,600 values: 3.5 standard deviations
    assert (mask == dropout_mask(0, 5, "classifier.drop1", shape, 0.3)).all()
    for other in (dropout_mask(0, 6, "classifier.drop1", shape, 0.3), dropout_mask(0, 5, "drop2", shape, 0.3)):
        assert abs((mask == other).mean() - 0.58) < 0.02  # 0.7^2 + 0.3^2: independent
    assert dropout_mask(0, 0, "x", shape, 0.0).all()
    with pytest.raises(TriptychError, match="'x' must be at least 0 and below 1"):
        dropout_mask(0, 0, "x", shape, 1.0)


@given(SMALL, SMALL, st.integers(0, 3), st.booleans(), st.integers(0, 5), st.booleans())
def test_every_image_is_in_an_epoch_once(num_images, batch_size, padding, flip, epoch, drop_last):
    augmentation = Augmentation(padding, flip)
    if drop_last and batch_size > num_images:
        with pytest.raises(TriptychError, match="never full"):
            plan(1, epoch, num_images, batch_size, augmentation, drop_last=True)
        return
    batches = plan(1, epoch, num_images, batch_size, augmentation, drop_last=drop_last)
    whole = num_images // batch_size * batch_size if drop_last else num_images
    index = joined(batches, "index")
    assert len(index) == len(set(index.tolist())) == whole
    assert set(index.tolist()) <= set(range(num_images))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    for field in ("rows", "columns"):
        offsets = joined(batches, field)
        assert offsets.dtype == np.int64
        assert 0 <= offsets.min() <= offsets.max() <= 2 * padding
    assert flip or not joined(batches, "flips").any()


def test_one_purpose_does_not_move_another():
    bare = plan(3, 2, 500, 32, Augmentation())
    crop = plan(3, 2, 500, 64, Augmentation(4, False))
    both = plan(3, 2, 500, 50, Augmentation(4, True), drop_last=True)
    assert (joined(bare, "index") == joined(crop, "index")).all()
    assert (joined(bare, "index") == joined(both, "index")).all()
    assert (joined(crop, "rows") == joined(both, "rows")).all()
    assert (joined(crop, "columns") == joined(both, "columns")).all()
    assert not (joined(crop, "rows") == joined(crop, "columns")).all()
    assert (joined(bare, "rows") == 0).all()


def test_crops_and_flips_are_uniform_and_change_with_the_epoch():
    batches = plan(0, 0, 9000, 100, Augmentation(1, True))
    for field in ("rows", "columns"):
        assert (np.abs(np.bincount(joined(batches, field)) - 3000) < 200).all()  # 4.5 standard deviations
    assert abs(joined(batches, "flips").mean() - 0.5) < 0.025
    other = plan(0, 1, 9000, 100, Augmentation(1, True))
    for field in ("index", "rows", "columns", "flips"):
        assert (joined(batches, field) != joined(other, field)).any()


def test_shuffling_moves_everything():
    order = shuffled(2000, generator(0, "x"))
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.1


@pytest.mark.parametrize(("images", "batch"), [(0, 1), (1, 0), (-1, 2), (5, -2)])
def test_sizes_below_one_are_refused(images, batch):
    with pytest.raises(TriptychError, match="at least 1"):
        plan(0, 0, images, batch, Augmentation())


def test_a_negative_padding_and_an_endless_jitter_are_refused():
    with pytest.raises(TriptychError, match="padding is -1 pixels"):
        Augmentation(-1)
    for colour in (-0.1, float("nan"), float("inf")):
        with pytest.raises(TriptychError, match=f"colour jitter is {colour}"):
            Augmentation(colour=colour)


@given(st.integers(0, 3), st.integers(1, 7), st.integers(1, 7), st.data())
def test_the_gather_is_a_crop_and_a_flip(padding, height, width, data):
    row, column = (data.draw(st.integers(0, 2 * padding)) for _ in "rc")
    flip = data.draw(st.booleans())
    image = np.arange(1, 1 + height * width).reshape(height, width)
    batch = Batch(np.array([0]), np.array([row]), np.array([column]), np.array([flip]))
    rows, columns, _ = gather_indices(batch, height, width, padding)
    padded = np.pad(image, padding)
    expected = padded[row : row + height, column : column + width]
    expected = expected[:, ::-1] if flip else expected
    assert (padded[rows[0][:, None], columns[0]] == expected).all()
    if not flip and row == column == padding:
        assert (expected == image).all()


def test_an_offset_beyond_the_padding_is_refused():
    for row, column in ((5, 0), (0, 5)):
        batch = Batch(np.array([0]), np.array([row]), np.array([column]), np.array([False]))
        with pytest.raises(TriptychError, match="offset of 5, a padding of 2 allows 4"):
            gather_indices(batch, 28, 28, 2)
        gather_indices(batch, 28, 28, 3)


def test_the_feed_hands_over_what_is_planned():
    images, labels = np.arange(7 * 2 * 3 * 4, dtype=np.uint8).reshape(7, 2, 3, 4), np.arange(7)
    augmentation = Augmentation(2, True, 0.1)
    planned = plan(0, 0, 7, 3, augmentation)
    fed = feed(images, labels, planned, augmentation)
    for batch, (stored, right, gather) in zip(planned, fed, strict=True):
        assert (right == batch.index).all()
        assert (stored == images[batch.index]).all()
        for found, expected in zip(gather, gather_indices(batch, 3, 4, 2), strict=True):
            assert np.array_equal(found, expected)
    colour = Augmentation(colour=0.1)
    (*_, gather), *_ = feed(images, labels, plan(0, 0, 7, 3, colour), colour)
    assert gather.shifts.shape == (3, 3)
    assert [gather for *_, gather in feed(images, labels, planned, Augmentation())] == [None] * 3
