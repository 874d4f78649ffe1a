"""Crops, flips, shifts, affine maps and blurs of one image against Pillow and scipy; where drawn boxes lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from research.ops.image_geometry import (
    BOX_NUMBERS,
    affine,
    crop_and_resize,
    flip_horizontally,
    gaussian_blur,
    inside_box,
    pad_and_crop,
    random_box,
    whole_box,
)

Y, X, C = 13, 17, 3
CLOSE = dict(rtol=0, atol=2e-6)
IMAGE = np.random.default_rng(5).uniform(size=(Y, X, C)).astype(np.float32)


@functools.cache
def resizing(rows, columns):
    return jax.jit(functools.partial(crop_and_resize, rows=rows, columns=columns))


def by_channel(function, image):
    return np.stack([function(image[..., channel]) for channel in range(image.shape[-1])], axis=-1)


@pytest.mark.parametrize("size", [(7, 5), (13, 17), (23, 29)], ids=["smaller", "same", "larger"])
@pytest.mark.parametrize("box", [(0, 0, 13, 17), (2, 3, 11, 5), (12, 16, 1, 1), (0, 10, 3, 7)], ids=str)
def test_a_box_is_resized_as_pillow_does(box, size):
    top, left, height, width = box

    def pillow(channel):
        crop = Image.fromarray(channel).crop((left, top, left + width, top + height))
        return np.asarray(crop.resize(size[::-1], Image.Resampling.BILINEAR))

    found = resizing(*size)(IMAGE, jnp.array(box, jnp.float32))
    np.testing.assert_allclose(found, by_channel(pillow, IMAGE), **CLOSE)


def test_the_whole_image_at_its_own_size_stays():
    np.testing.assert_array_equal(resizing(Y, X)(IMAGE, whole_box(Y, X)), IMAGE)


def test_flipping_turns_the_columns_round():
    np.testing.assert_array_equal(flip_horizontally(jnp.asarray(IMAGE)), IMAGE[:, list(range(X))[::-1]])


@pytest.mark.parametrize("mode", ["reflect", "zeros"])
def test_every_shift_is_a_crop_of_the_padded_image(mode):
    padded = by_channel(lambda channel: np.pad(channel, 2, mode="reflect" if mode == "reflect" else "constant"), IMAGE)
    shift = jax.jit(functools.partial(pad_and_crop, padding=2, mode=mode))
    for row, column in [(0, 0), (4, 1), (2, 2), (3, 4)]:
        found = shift(IMAGE, jnp.array([row, column]))
        np.testing.assert_array_equal(found, padded[row : row + Y, column : column + X])


MATRICES = {
    "identity": [[1, 0, 0], [0, 1, 0]],
    "shift": [[1, 0, 2.25], [0, 1, -3.5]],
    "shear": [[1, 0.3, -1], [0.1, 1, 0]],
    "turn": [[0.8, -0.6, 5.0], [0.6, 0.8, -3.0]],
}
mapped = jax.jit(functools.partial(affine, fill=0.25))


@pytest.mark.parametrize("name", MATRICES)
def test_affine_map_is_scipys(name):
    matrix = np.array(MATRICES[name], np.float64)
    # From (x, y) with the first centre at 0.5 to scipy's (y, x) with it at 0.
    linear = matrix[::-1, 1::-1]
    offset = matrix[::-1, 2] + linear.sum(axis=1) * 0.5 - 0.5

    def scipy(channel):
        return ndimage.affine_transform(
            channel.astype(np.float64), linear, offset, order=1, mode="grid-constant", cval=0.25
        )

    found = mapped(IMAGE, jnp.array(matrix, jnp.float32))
    np.testing.assert_allclose(found, by_channel(scipy, IMAGE), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", MATRICES)
def test_affine_map_has_pillows_coordinates(name):
    matrix = MATRICES[name]
    size, transform = (X, Y), Image.Transform.AFFINE
    data = [*matrix[0], *matrix[1]]

    def pillow(channel, fill):
        image = Image.fromarray(channel)
        return np.asarray(image.transform(size, transform, data, Image.Resampling.BILINEAR, fillcolor=fill))

    # Pillow has no half-covered pixels at the border: compare where neighbours from both sides are inside.
    inside = ndimage.binary_erosion(pillow(np.ones((Y, X), np.float32), 0.0) > 0.5, np.ones((3, 3)))
    assert inside.sum() > 20
    found = mapped(IMAGE, jnp.array(matrix, jnp.float32))
    wanted = by_channel(lambda channel: pillow(channel, 0.25), IMAGE)
    np.testing.assert_allclose(np.asarray(found)[inside], wanted[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("radius", [1, 3, 12])
def test_blur_is_scipys_correlation_with_a_mirrored_border(radius):
    blur = jax.jit(functools.partial(gaussian_blur, radius=radius))
    for sigma in (0.3, 1.7):
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        wanted = IMAGE.astype(np.float64)
        for axis in (0, 1):
            wanted = ndimage.correlate1d(wanted, kernel / kernel.sum(), axis=axis, mode="mirror")
        np.testing.assert_allclose(blur(IMAGE, jnp.float32(sigma)), wanted, **CLOSE)


def test_a_blur_past_the_mirror_image_is_refused():
    with pytest.raises(ValueError, match="radius 13 reaches past .* 13 x 17"):
        gaussian_blur(jnp.asarray(IMAGE), jnp.float32(1.0), radius=13)


def test_inside_box_is_what_slicing_takes():
    wanted = np.zeros((Y, X), bool)
    wanted[2:7, 3:14] = True
    np.testing.assert_array_equal(inside_box(jnp.array([2.0, 3.0, 5.0, 11.0]), rows=Y, columns=X), wanted)


def boxes(num, **arguments):
    numbers = jax.random.uniform(jax.random.key(3), (num, BOX_NUMBERS))
    drawn, fits = jax.jit(jax.vmap(functools.partial(random_box, **arguments)))(numbers)
    return np.asarray(drawn, np.float64).T, np.asarray(fits)


def test_boxes_have_the_areas_and_aspects_that_were_asked_for():
    (top, left, height, width), fits = boxes(4000, rows=401, columns=307, area=(0.1, 0.3), aspect=(0.5, 2.0))
    assert fits.all()
    for value in (top, left, height, width):
        np.testing.assert_array_equal(value, np.round(value))
    assert top.min() >= 0 and left.min() >= 0 and (top + height).max() <= 401 and (left + width).max() <= 307
    share, aspect = height * width / (401 * 307), width / height
    # Sides are rounded to whole pixels, of at least 78 here.
    assert 0.098 < share.min() < 0.103 and 0.297 < share.max() < 0.303
    assert 0.49 < aspect.min() < 0.51 and 1.96 < aspect.max() < 2.04
    # 4,000 draws: a mean's standard error is 0.0009 of a share, 0.0063 of a logarithm; all of these boxes fit.
    assert abs(share.mean() - 0.2) < 0.005
    assert abs(np.log(aspect).mean()) < 0.026
    assert abs((top / (401 - height)).mean() - 0.5) < 0.02 and abs((left / (307 - width)).mean() - 0.5) < 0.02


def test_of_boxes_that_do_not_fit_the_first_that_does_is_taken():
    # Of a whole square's area no box but the square itself fits: aspects near 1 only.
    (_, _, height, width), fits = boxes(500, rows=101, columns=101, area=(0.9, 1.0), aspect=(0.5, 2.0))
    assert 0.3 < fits.mean() < 0.95
    assert (height[fits] <= 101).all() and (height * width)[fits].min() > 0.88 * 101 * 101


@pytest.mark.parametrize(
    ("shape", "wanted"), [((20, 50), (0, 11, 20, 27)), ((50, 20), (11, 0, 27, 20)), ((30, 30), (0, 0, 30, 30))]
)
def test_where_no_box_fits_the_central_one_is_taken(shape, wanted):
    rows, columns = shape
    drawn, fits = boxes(3, rows=rows, columns=columns, area=(4.0, 4.0), aspect=(3 / 4, 4 / 3))
    assert not fits.any()
    np.testing.assert_array_equal(drawn.T, np.tile(wanted, (3, 1)))
