"""Patches that are encoded and patches that are masked: counts, padding, chance, and each example by itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.masking import example_keys
from research.ops.patch_masking import choose_patches


def chosen(num_real, num_patches, *, rate, ids=None, seed=0):
    ids = np.arange(len(num_real), dtype=np.uint32) if ids is None else ids
    real = jnp.asarray(np.arange(num_patches)[None, :] < np.asarray(num_real)[:, None])
    keep, masked = choose_patches(example_keys(jax.random.key(seed), jnp.asarray(ids)), real, rate=rate)
    return np.asarray(keep), np.asarray(masked), np.asarray(real)


@pytest.mark.parametrize(("rate", "num_patches", "kept"), [(0.75, 16, 4), (0.6, 10, 4), (0.5, 7, 3), (0.9, 5, 1)])
def test_of_whole_images_every_patch_is_kept_or_masked(rate, num_patches, kept):
    keep, masked, _ = chosen([num_patches] * 11, num_patches, rate=rate)
    assert keep.shape == (11, kept)
    for places, row in zip(keep, masked, strict=True):
        assert sorted([*places, *np.flatnonzero(row)]) == list(range(num_patches))
        assert list(places) == sorted(places)


def test_of_padded_ones_the_share_is_of_real_patches_and_padding_is_never_masked():
    num_real = [12, 8, 5, 3, 1]
    keep, masked, real = chosen(num_real, 12, rate=0.75)
    for places, row, mine, count in zip(keep, masked, real, num_real, strict=True):
        assert len(set(places)) == 3
        assert not (row & ~mine).any()
        assert not row[places].any()
        assert row.sum() == count - max(1, count // 4)
        assert mine[places].sum() == max(1, count // 4)


def test_a_choice_depends_on_the_example_alone():
    keep, masked, _ = chosen([16] * 6, 16, rate=0.5)
    order = np.array([3, 0, 5, 1, 4, 2])
    moved = chosen([16] * 6, 16, rate=0.5, ids=order.astype(np.uint32))
    np.testing.assert_array_equal(moved[0], keep[order])
    np.testing.assert_array_equal(moved[1], masked[order])
    assert len({tuple(places) for places in keep}) == 6


def test_every_patch_is_masked_as_often_as_the_rate_says():
    _, masked, _ = chosen([8] * 4000, 8, rate=0.75)
    # Six standard deviations of a share of 0.75 over 4,000 draws.
    assert np.abs(masked.mean(axis=0) - 0.75).max() < 6 * np.sqrt(0.75 * 0.25 / 4000)
