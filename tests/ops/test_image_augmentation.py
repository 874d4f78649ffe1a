"""Random augmentation of a batch of images: by key alone, in range, as often and as far as the block says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ops.image_augmentation import IMAGE_AUGMENTATIONS, ImageAugmentation

B, Y, X = 5, 13, 11
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(size=(B, Y, X, 3)), jnp.float32)
KEYS = jax.random.split(jax.random.key(11), B)
EVERYTHING = ImageAugmentation(
    size=17,
    crop_area=(0.2, 1.0),
    pad=2,
    flip_probability=0.5,
    rand_augment_operations=1,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.8,
    greyscale_probability=0.3,
    blur_probability=0.5,
    blur_kernel_share=0.3,
    erasing_probability=0.5,
)


@functools.cache
def jitted(augmentation):
    return jax.jit(augmentation)


def many(image, num=2000, **block):
    """One image under `num` keys."""
    images = jnp.broadcast_to(jnp.asarray(image, jnp.float32), (num, *image.shape))
    return np.asarray(jitted(ImageAugmentation(**block))(images, jax.random.split(jax.random.key(5), num)))


def test_an_example_depends_on_its_key_alone():
    found = np.asarray(jitted(EVERYTHING)(IMAGES, KEYS))
    assert found.shape == (B, 17, 17, 3) and found.dtype == np.float32
    order = np.array([3, 0, 4, 1, 2])
    np.testing.assert_array_equal(jitted(EVERYTHING)(IMAGES[order], KEYS[order]), found[order])
    np.testing.assert_allclose(jitted(EVERYTHING)(IMAGES[1:3], KEYS[1:3]), found[1:3], rtol=0, atol=1e-6)
    others = np.asarray(jitted(EVERYTHING)(IMAGES, jax.random.split(jax.random.key(12), B)))
    assert (np.abs(others - found).max(axis=(1, 2, 3)) > 0.1).all()


@pytest.mark.parametrize("images", [IMAGES * 0, IMAGES * 0 + 1, jnp.round(IMAGES)], ids=["black", "white", "both"])
def test_values_stay_in_range(images):
    for seed in range(3):
        found = np.asarray(jitted(EVERYTHING)(images, jax.random.split(jax.random.key(seed), B)))
        assert np.isfinite(found).all() and found.min() >= 0.0 and found.max() <= 1.0 + 1e-6


def test_one_operation_does_not_change_the_draws_of_another():
    block = dict(flip_probability=0.5, crop_area=(0.3, 1.0))
    both = jitted(ImageAugmentation(**block, erasing_probability=1.0, erasing_value=0.0))(IMAGES, KEYS)
    alone = np.asarray(jitted(ImageAugmentation(**block))(IMAGES, KEYS))
    kept = np.asarray(both) > 0
    np.testing.assert_array_equal(np.asarray(both)[kept], alone[kept])
    assert 0.2 < kept.mean() < 0.99


@pytest.mark.parametrize(
    "block",
    [
        {},
        dict(crop_area=(1.0, 1.0), size=0, rand_augment_operations=0, hue=0.0),
        dict(jitter_probability=0.0, brightness=0.4, saturation=0.4, hue=0.2),
        dict(pad=0, flip_probability=0.0, greyscale_probability=0.0, blur_probability=0.0, erasing_probability=0.0),
    ],
)
def test_a_block_that_asks_for_nothing_changes_nothing(block):
    np.testing.assert_array_equal(ImageAugmentation(**block)(IMAGES, KEYS), IMAGES)


def test_a_size_alone_resizes_the_whole_image():
    flat = jnp.broadcast_to(jnp.linspace(0.1, 0.9, B)[:, None, None, None], IMAGES.shape)
    found = ImageAugmentation(size=7)(flat, KEYS)
    assert found.shape == (B, 7, 7, 3)
    np.testing.assert_allclose(found, flat[:, :7, :7], rtol=0, atol=1e-6)


# 2,000 draws: five standard errors of a share of 0.3 are 0.051.
def test_flips_are_as_frequent_as_asked():
    ramp = np.arange(6.0).reshape(1, 6, 1) / 6
    flipped = many(ramp, flip_probability=0.3)[:, 0, 0, 0] > 0.5
    assert abs(flipped.mean() - 0.3) < 0.051


def test_greyscale_blur_and_erasing_are_as_frequent_as_asked():
    image = np.random.default_rng(1).uniform(size=(7, 7, 3))
    grey = many(image, greyscale_probability=0.3)
    assert abs((np.ptp(grey, axis=-1).max(axis=(1, 2)) == 0).mean() - 0.3) < 0.051
    point = np.zeros((7, 7, 1))
    point[3, 3] = 1.0
    blurred = many(point, blur_probability=0.3, blur_sigma=(0.5, 1.5), blur_kernel_share=1.0)[:, 3, 3, 0]
    assert abs((blurred < 1.0).mean() - 0.3) < 0.051
    # The middle of the kernel tells sigma: its weights are exp(-0.5 (i / sigma)^2), i from -3 to 3, each way.
    middle = [np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2).sum() ** -2 for sigma in (1.5, 0.5)]
    assert middle[0] - 1e-5 < blurred.min() < middle[0] + 0.01
    assert middle[1] - 0.05 < blurred[blurred < 1.0].max() < middle[1] + 1e-5
    white = np.ones((20, 20, 1))
    block = dict(erasing_probability=0.3, erasing_area=(0.1, 0.2), erasing_value=0.25)
    erased = (many(white, **block) == 0.25).mean(axis=(1, 2, 3))
    assert abs((erased > 0).mean() - 0.3) < 0.051
    assert 0.08 < erased[erased > 0].min() < 0.11 and 0.19 < erased.max() < 0.22


def test_crops_show_the_area_that_was_asked_for():
    # The first channel grows by 1 a row, the second by 1 a column: differences tell the box's sides.
    rows, columns = np.mgrid[0:64, 0:64] / 64
    image = np.stack([rows, columns, rows], axis=-1)
    found = many(image, num=1000, size=8, crop_area=(0.25, 0.5), crop_aspect=(0.8, 1.25))
    height = (found[:, 5, 3, 0] - found[:, 2, 3, 0]) / 3 * 8
    width = (found[:, 3, 5, 1] - found[:, 3, 2, 1]) / 3 * 8
    area, aspect = height * width, width / height
    assert 0.24 < area.min() < 0.26 and 0.49 < area.max() < 0.51 and abs(area.mean() - 0.375) < 0.012
    assert 0.78 < aspect.min() < 0.83 and 1.2 < aspect.max() < 1.28


def test_jitter_draws_its_factors_and_its_frequency():
    grey = np.full((2, 2, 1), 0.4)
    found = many(grey, brightness=0.5, jitter_probability=0.8)[:, 0, 0, 0] / 0.4
    changed = found[np.abs(found - 1) > 1e-6]
    assert abs(len(changed) / 2000 - 0.8) < 0.045
    assert 0.5 <= changed.min() < 0.51 and 1.49 < changed.max() <= 1.5 + 1e-6
    assert abs(changed.mean() - 1.0) < 0.037  # a standard error is 0.0072
    strong = many(grey, brightness=1.4)[:, 0, 0, 0] / 0.4
    assert 0.0 <= strong.min() < 0.01 and 2.38 < strong.max() <= 2.4 + 1e-6


def test_hue_turns_either_way_as_far_as_asked():
    red = np.array([1.0, 0.0, 0.0]).reshape(1, 1, 3)
    found = many(red, hue=0.1)[:, 0, 0]
    turned = (found[:, 1] - found[:, 2]) / 6  # towards yellow is positive, towards magenta negative
    assert -0.1 - 1e-6 <= turned.min() < -0.098 and 0.098 < turned.max() <= 0.1 + 1e-6


def test_jitter_goes_brightness_contrast_saturation_hue():
    """One after the other, each alone, is the whole: each has its own draw."""
    names = ("brightness", "contrast", "saturation", "hue")
    strengths = dict(brightness=0.4, contrast=0.3, saturation=0.5, hue=0.1)

    def one_by_one(images):
        for name in names:
            images = ImageAugmentation(**{name: strengths[name]})(images, KEYS)
        return images

    found, wanted = jax.jit(lambda images: (ImageAugmentation(**strengths)(images, KEYS), one_by_one(images)))(IMAGES)
    assert np.abs(found - IMAGES).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_padded_crops_are_all_shifts_alike():
    image = np.zeros((5, 5, 1))
    image[2, 2] = 1.0
    found = many(image, pad=2, pad_mode="zeros")
    counts = found.sum(axis=0)[..., 0]
    assert (found.sum(axis=(1, 2, 3)) == 1).all()
    assert np.abs(counts - 80).max() < 44  # five standard errors of 80


def test_random_operations_change_a_grey_batch_too():
    found = jitted(ImageAugmentation(rand_augment_operations=1, rand_augment_magnitude=27.0))(IMAGES[..., :1], KEYS)
    assert found.shape == (B, Y, X, 1) and np.abs(found - IMAGES[..., :1]).max() > 0.1


@pytest.mark.parametrize("name", ["simclr", "cifar"])
def test_preset_augments_and_may_be_changed(name):
    augmentation = IMAGE_AUGMENTATIONS[name](size=19, blur_kernel_share=0.2)
    first, second = (jitted(augmentation)(IMAGES, jax.random.split(jax.random.key(seed), B)) for seed in (1, 2))
    assert first.shape == (B, 19, 19, 3)
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.1


def test_presets_are_the_papers():
    found = dataclasses.asdict(IMAGE_AUGMENTATIONS["simclr"]())
    changed = {key: value for key, value in found.items() if value != getattr(ImageAugmentation(), key)}
    assert changed == dict(
        crop_area=(0.08, 1.0),
        flip_probability=0.5,
        jitter_probability=0.8,
        brightness=0.8,
        contrast=0.8,
        saturation=0.8,
        hue=0.2,
        greyscale_probability=0.2,
        blur_probability=0.5,
    )
    moco = IMAGE_AUGMENTATIONS["moco_v2"]()
    assert (moco.crop_area, moco.brightness, moco.hue, moco.blur_probability) == ((0.2, 1.0), 0.4, 0.1, 0.5)
    small = IMAGE_AUGMENTATIONS["simclr_cifar"]()
    assert (small.crop_area, small.brightness, small.hue, small.blur_probability) == ((0.08, 1.0), 0.4, 0.1, 0.0)
    assert (found["crop_aspect"], found["blur_sigma"], found["blur_kernel_share"]) == ((3 / 4, 4 / 3), (0.1, 2.0), 0.1)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (dict(flip_probability=1.5), "augmentation.flip_probability=1.5; wanted a probability from 0"),
        (dict(blur_probability=float("nan")), "augmentation.blur_probability=nan; wanted"),
        (dict(crop_area=(0.5, 0.2)), r"augmentation.crop_area=\(0.5, 0.2\); wanted two numbers \(low, high\)"),
        (dict(crop_area=(0.5,)), r"augmentation.crop_area=\(0.5,\); wanted two"),
        (dict(crop_area=(0.0, 1.0)), "augmentation.crop_area=.* from 1e-06 on up to 1: shares"),
        (dict(erasing_aspect=(0.0, 1.0)), "augmentation.erasing_aspect=.*: width over height"),
        (dict(brightness=-0.1), "augmentation.brightness=-0.1; wanted 0 or more: a strength"),
        (dict(brightness=float("inf")), "augmentation.brightness=inf; wanted 0 or more"),
        (dict(hue=0.6), "augmentation.hue=0.6; wanted 0 to 0.5: turns"),
        (dict(rand_augment_magnitude=31.0), "augmentation.rand_augment_magnitude=31.0; wanted 0 to 30"),
        (dict(size=-1), "augmentation.size=-1; wanted 0 or more: pixels"),
        (dict(blur_sigma=(0.0, 2.0)), "augmentation.blur_sigma="),
    ],
)
def test_impossible_blocks_are_refused(block, words):
    with pytest.raises(ValueError, match=words):
        ImageAugmentation(**block)


@pytest.mark.parametrize(
    ("block", "images", "words"),
    [
        (dict(saturation=0.4), IMAGES[..., :1], "augmentation.saturation=0.4 needs 3 channels and the images have 1"),
        (dict(greyscale_probability=0.2), IMAGES[..., :1], "augmentation.greyscale_probability=0.2 needs 3 channels"),
        (dict(hue=0.1), IMAGES[..., :1], "augmentation.hue=0.1 needs 3 channels"),
        (dict(pad=11), IMAGES, "augmentation.pad=11 is more than an image of 13 x 11 can reflect; wanted at most 10"),
        (dict(blur_probability=0.5), IMAGES, "augmentation.blur_kernel_share=0.1 of 13 x 11 pixels .* kernel of 1;"),
        ({}, IMAGES[..., :2], r"augmentation got images float32\[5, 13, 11, 2\]; wanted float \[B Y X C\]"),
    ],
)
def test_images_that_do_not_fit_the_block_are_refused(block, images, words):
    with pytest.raises(ValueError, match=words):
        ImageAugmentation(**block)(images, KEYS)
