"""Colours and tone curves of one image against plain float64 references, colorsys and Pillow."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from research.ops.image_color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    adjust_sharpness,
    autocontrast,
    equalize,
    from_bytes,
    greyscale,
    posterize,
    solarize,
)

Y, X = 13, 17
CLOSE = dict(rtol=0, atol=2e-6)
ONE_BYTE = dict(rtol=0, atol=1.0 / 255 + 1e-6)
FACTORS = [0.0, 0.3, 1.0, 1.8]


def photo(seed=0):
    """Bytes with dark and light parts, pure colours, black, white and equal channels."""
    rng = np.random.default_rng(seed)
    image = (rng.uniform(size=(Y, X, 3)) * np.linspace(0.2, 1.0, X)[None, :, None] * 255).astype(np.uint8)
    image[0, :6] = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]
    return image


BYTES = photo()
IMAGE = jnp.asarray(BYTES, jnp.float32) / 255
PLAIN = BYTES / 255.0
LUMA = PLAIN @ np.array([0.299, 0.587, 0.114])


def blend(start, factor):
    return np.clip(start + factor * (PLAIN - start), 0, 1)


def smooth():
    wanted = PLAIN.copy()
    for y in range(1, Y - 1):
        for x in range(1, X - 1):
            wanted[y, x] = (PLAIN[y - 1 : y + 2, x - 1 : x + 2].sum(axis=(0, 1)) + 4 * PLAIN[y, x]) / 13
    return wanted


ADJUST = {
    "brightness": (adjust_brightness, lambda: 0.0 * PLAIN, ImageEnhance.Brightness),
    "contrast": (adjust_contrast, lambda: np.full_like(PLAIN, LUMA.mean()), ImageEnhance.Contrast),
    "saturation": (adjust_saturation, lambda: np.repeat(LUMA[..., None], 3, axis=-1), ImageEnhance.Color),
    "sharpness": (adjust_sharpness, smooth, ImageEnhance.Sharpness),
}


@pytest.mark.parametrize("name", ADJUST)
def test_factors_blend_as_in_float64_and_as_in_pillow(name):
    function, start, enhance = ADJUST[name]
    for factor in FACTORS:
        found = np.asarray(jax.jit(function)(IMAGE, jnp.float32(factor)))
        np.testing.assert_allclose(found, blend(start(), factor), **CLOSE)
        # Pillow rounds the grey and the result to bytes: two of them, times a factor of up to 1.8.
        pillow = np.asarray(enhance(Image.fromarray(BYTES)).enhance(factor)) / 255
        np.testing.assert_allclose(found, pillow, rtol=0, atol=2.5 / 255)


@pytest.mark.parametrize("amount", [0.0, 0.1, -0.2, 0.5])
def test_hue_turns_as_in_colorsys(amount):
    found = jax.jit(adjust_hue)(IMAGE, jnp.float32(amount))
    wanted = np.zeros_like(PLAIN)
    for y, x in np.ndindex(Y, X):
        hue, saturation, value = colorsys.rgb_to_hsv(*PLAIN[y, x])
        wanted[y, x] = colorsys.hsv_to_rgb((hue + amount) % 1.0, saturation, value)
    np.testing.assert_allclose(found, wanted, **CLOSE)


def test_greyscale_is_the_luma_in_every_channel():
    np.testing.assert_allclose(greyscale(IMAGE), np.repeat(LUMA[..., None], 3, axis=-1), **CLOSE)


def test_solarize_inverts_from_the_threshold_on():
    found = solarize(IMAGE, 128 / 255)
    np.testing.assert_allclose(found, np.asarray(ImageOps.solarize(Image.fromarray(BYTES), 128)) / 255, **CLOSE)
    np.testing.assert_array_equal(solarize(IMAGE, 256 / 255), IMAGE)


@pytest.mark.parametrize("num_bits", [1, 4, 8])
def test_posterize_is_pillows(num_bits):
    wanted = np.asarray(ImageOps.posterize(Image.fromarray(BYTES), num_bits)) / 255
    np.testing.assert_allclose(posterize(IMAGE, num_bits), wanted, **CLOSE)


def test_autocontrast_stretches_each_channel():
    low = jnp.array([0.2, 0.0, 0.4])[None, None, :] + IMAGE * jnp.array([0.5, 1.0, 0.0])[None, None, :]
    found = np.asarray(jax.jit(autocontrast)(low))
    plain = np.asarray(low, np.float64)
    for channel in (0, 1):
        values = plain[..., channel]
        wanted = (values - values.min()) / (values.max() - values.min())
        np.testing.assert_allclose(found[..., channel], wanted, **CLOSE)
    np.testing.assert_array_equal(found[..., 2], np.asarray(low)[..., 2])
    small = BYTES // 2 + 30
    pillow = np.asarray(ImageOps.autocontrast(Image.fromarray(small))) / 255
    np.testing.assert_allclose(autocontrast(jnp.asarray(small, jnp.float32) / 255), pillow, **ONE_BYTE)


def equalized():
    rng = np.random.default_rng(1)
    flat = np.full((37, 41, 3), 7, np.uint8)
    dark = (rng.uniform(size=(37, 41, 3)) ** 3 * 200).astype(np.uint8)
    steep = np.where(rng.uniform(size=(37, 41, 3)) < 0.65, 255, dark).astype(np.uint8)  # a step of 2
    return {"flat": flat, "dark": dark, "steep": steep}


@pytest.mark.parametrize("name", equalized())
def test_equalize_is_pillows_byte_for_byte(name):
    image = equalized()[name]
    found = jax.jit(equalize)(jnp.asarray(image, jnp.float32) / 255)
    wanted = np.asarray(ImageOps.equalize(Image.fromarray(image)))
    np.testing.assert_array_equal(np.round(np.asarray(found) * 255), wanted)
    assert (wanted == image).all() == (name == "flat")


def test_a_grey_image_keeps_its_one_channel():
    grey = IMAGE[..., :1]
    np.testing.assert_array_equal(greyscale(grey), grey)
    np.testing.assert_allclose(adjust_saturation(grey, jnp.float32(1.7)), grey, **CLOSE)
    wanted = np.clip(PLAIN[..., :1].mean() + 0.5 * (PLAIN[..., :1] - PLAIN[..., :1].mean()), 0, 1)
    np.testing.assert_allclose(adjust_contrast(grey, jnp.float32(0.5)), wanted, **CLOSE)


def test_pillows_smooth_is_the_filter_of_sharpness():
    pillow = np.asarray(Image.fromarray(BYTES).filter(ImageFilter.SMOOTH)) / 255
    np.testing.assert_allclose(adjust_sharpness(IMAGE, jnp.float32(0.0)), pillow, **ONE_BYTE)


def test_bytes_become_shares_of_255():
    np.testing.assert_allclose(from_bytes(jnp.asarray(BYTES)[None])[0], PLAIN, rtol=1e-7)
