"""RandAugment: each operation against Pillow with torchvision's strengths, and how often each is drawn."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from research.ops.rand_augment import OPERATIONS, apply_operation, rand_augment

Y, X = 29, 31
RNG = np.random.default_rng(2)
BYTES = np.asarray(ndimage.gaussian_filter(RNG.uniform(size=(Y, X, 3)), (2, 2, 0)) * 700 - 200).clip(0, 255)
BYTES = BYTES.astype(np.uint8)
IMAGE = jnp.asarray(BYTES, jnp.float32) / 255
MAGNITUDE = 9.0
LEVEL = MAGNITUDE / 30


@functools.cache
def every_operation(magnitude):
    """An image after every operation with either sign, [14 2 Y X C]."""
    over_signs = jax.vmap(functools.partial(apply_operation, magnitude=magnitude), in_axes=(None, None, 0))
    over_both = jax.jit(jax.vmap(over_signs, in_axes=(None, 0, None)))
    return lambda image: np.asarray(over_both(image, jnp.arange(len(OPERATIONS)), jnp.array([1.0, -1.0])))


@functools.cache
def applied(magnitude):
    return dict(zip(OPERATIONS, every_operation(magnitude)(IMAGE), strict=True))


def transformed(pillow, data):
    affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return pillow.transform((X, Y), affine, data, bilinear, fillcolor=(128, 128, 128))


def by_pillow(name, sign):
    pillow = Image.fromarray(BYTES)
    shear, factor, shift = 0.3 * LEVEL * sign, 1 + 0.9 * LEVEL * sign, 150 / 331 * LEVEL * sign
    return {
        "identity": lambda: pillow,
        "autocontrast": lambda: ImageOps.autocontrast(pillow),
        "equalize": lambda: ImageOps.equalize(pillow),
        "rotate": lambda: pillow.rotate(30 * LEVEL * sign, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128)),
        "solarize": lambda: ImageOps.solarize(pillow, math.ceil(256 * (1 - LEVEL))),
        "color": lambda: ImageEnhance.Color(pillow).enhance(factor),
        "posterize": lambda: ImageOps.posterize(pillow, 7),
        "contrast": lambda: ImageEnhance.Contrast(pillow).enhance(factor),
        "brightness": lambda: ImageEnhance.Brightness(pillow).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(pillow).enhance(factor),
        "shear_x": lambda: transformed(pillow, (1, shear, 0, 0, 1, 0)),
        "shear_y": lambda: transformed(pillow, (1, 0, 0, shear, 1, 0)),
        "translate_x": lambda: transformed(pillow, (1, 0, shift * X, 0, 1, 0)),
        "translate_y": lambda: transformed(pillow, (1, 0, 0, 0, 1, shift * Y)),
    }[name]()


GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_is_pillows(name):
    for sign, found in zip((1, -1), applied(MAGNITUDE)[name], strict=True):
        wanted = np.asarray(by_pillow(name, sign)) / 255
        where = np.ones((Y, X), bool)
        if name in GEOMETRIC:
            # Pillow does not blend with what lies outside: leave two pixels beside it out.
            where = ndimage.binary_erosion(np.abs(wanted * 255 - 128).sum(axis=-1) > 0.5, np.ones((3, 3)), iterations=2)
            assert where.sum() > 0.4 * Y * X
        np.testing.assert_allclose(found[where], wanted[where], rtol=0, atol=2.5 / 255)
        if name != "identity":
            assert np.abs(found - BYTES / 255).max() > 0.9 / 255


@pytest.mark.parametrize("name", GEOMETRIC)
def test_what_comes_in_from_outside_is_grey(name):
    corners = applied(MAGNITUDE)[name][:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (np.abs(corners - 0.5).max(axis=-1).min(axis=-1) < 1e-6).all()


def test_nothing_happens_at_magnitude_0_but_for_what_has_none():
    for name, found in applied(0.0).items():
        if name not in ("autocontrast", "equalize"):
            np.testing.assert_allclose(found, np.stack([BYTES, BYTES]) / 255, rtol=0, atol=1e-5, err_msg=name)


def test_values_stay_in_range_at_the_greatest_magnitude():
    for name, found in applied(30.0).items():
        assert found.min() >= 0.0 and found.max() <= 1.0 + 1e-6, name


@functools.cache
def drawn_operations(num_operations):
    draw = functools.partial(rand_augment, num_operations=num_operations, magnitude=MAGNITUDE)
    return jax.jit(jax.vmap(draw, in_axes=(0, None)))


def test_each_operation_and_sign_is_drawn_alike():
    """What an image became tells which of the 14 operations and signs it was."""
    small = IMAGE[6:23, 6:23]
    found = np.asarray(drawn_operations(1)(jax.random.split(jax.random.key(1), 1400), small))
    every = every_operation(MAGNITUDE)(small)
    # One random direction tells the outcomes apart.
    direction = RNG.normal(size=small.size)
    apart = np.abs(found.reshape(1400, 1, -1) @ direction - (every.reshape(28, -1) @ direction)[None])
    assert apart.min(axis=1).max() < 1e-3
    counts = np.bincount(apart.argmin(axis=1), minlength=28).reshape(14, 2)
    # 100 expected of each: five standard errors are 48; 50 of each sign where there is one: 35.
    assert (np.abs(counts.sum(axis=1) - 100) < 48).all()
    signed = [OPERATIONS.index(name) for name in (*GEOMETRIC, "color", "contrast", "brightness", "sharpness")]
    assert (np.abs(counts[signed] - 50) < 35).all()


def test_two_operations_are_one_after_the_other():
    small, key = IMAGE[6:23, 6:23], jax.random.key(4)
    wanted = small
    for number, sign in np.asarray(jax.random.randint(key, (2, 2), 0, 28)):
        wanted = every_operation(MAGNITUDE)(wanted)[number // 2, sign % 2]
    assert np.abs(wanted - small).max() > 0.01
    np.testing.assert_allclose(drawn_operations(2)(key[None], small)[0], wanted, rtol=0, atol=1e-6)
