"""Where the pixels of one image come from: boxes drawn and resized, flips, shifts, affine maps, blurs.

An image is float32 [Y X C]. A box is (top, left, height, width) in pixels, the centre of the first pixel at 0.5.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_TRIES = 10  # torchvision's; for areas from 8 % on and aspects of 3/4 to 4/3 nearly always one fits
BOX_NUMBERS = 2 * _TRIES + 2


def random_box(
    numbers: Float[Array, " N"], *, rows: int, columns: int, area: tuple[float, ...], aspect: tuple[float, ...]
) -> tuple[Float[Array, " 4"], Bool[Array, ""]]:
    """A box of whole pixels at a uniform place, and whether it fits within the image, by BOX_NUMBERS uniform numbers.

    Its area is uniform in `area` (shares of the image's), its width over its height log-uniform in `aspect`. Of ten
    pairs the first that fits is taken: what torchvision's RandomResizedCrop and RandomErasing find in a loop. Where
    none fits the box is torchvision's fallback, the largest central one with an aspect in the range.
    """
    areas = rows * columns * (area[0] + (area[1] - area[0]) * numbers[:_TRIES])
    low, high = math.log(aspect[0]), math.log(aspect[1])
    aspects = jnp.exp(low + (high - low) * numbers[_TRIES:-2])
    heights, widths = jnp.round(jnp.sqrt(areas / aspects)), jnp.round(jnp.sqrt(areas * aspects))
    fits = (heights >= 1) & (heights <= rows) & (widths >= 1) & (widths <= columns)
    first, any_fits = jnp.argmax(fits), jnp.any(fits)
    height, width = heights[first], widths[first]
    top = jnp.floor(numbers[-2] * (rows - height + 1))
    left = jnp.floor(numbers[-1] * (columns - width + 1))
    central = jnp.array(_central_box(rows, columns, aspect), jnp.float32)
    return jnp.where(any_fits, jnp.stack([top, left, height, width]), central), any_fits


def whole_box(rows: int, columns: int) -> Float[Array, " 4"]:
    """The box of the whole image."""
    return jnp.array([0.0, 0.0, rows, columns], jnp.float32)


def crop_and_resize(
    image: Float[Array, "Y X C"], box: Float[Array, " 4"], *, rows: int, columns: int
) -> Float[Array, "V W C"]:
    """The box of the image as rows x columns pixels: bilinear where it grows, antialiased where it shrinks.

    Equal to cropping and then resizing with Pillow's BILINEAR (torchvision's `antialias=True`): the triangle's support
    grows with the scale and pixels outside the box do not count. Two small matrix products, no gather.
    """
    down = interpolation_matrix(box[0], box[2], num_in=image.shape[0], num_out=rows)
    across = interpolation_matrix(box[1], box[3], num_in=image.shape[1], num_out=columns)
    return _both_axes(image, down, across)


def interpolation_matrix(
    start: Float[Array, ""], extent: Float[Array, ""], *, num_in: int, num_out: int
) -> Float[Array, "V Y"]:
    """The weights of the pixels [start, start + extent) of one axis in each of the `num_out` pixels that replace them.

    Each row adds up to 1. `extent` is at least one pixel.
    """
    scale = extent / num_out
    centres = start + (jnp.arange(num_out, dtype=jnp.float32) + 0.5) * scale
    pixels = jnp.arange(num_in, dtype=jnp.float32) + 0.5
    distance = jnp.abs(pixels[None, :] - centres[:, None]) / jnp.maximum(scale, 1.0)
    inside = (pixels > start) & (pixels < start + extent)
    weights = jnp.where(inside[None, :], jnp.maximum(1.0 - distance, 0.0), 0.0)
    return weights / jnp.sum(weights, axis=1, keepdims=True)


def gaussian_blur(image: Float[Array, "Y X C"], sigma: Float[Array, ""], *, radius: int) -> Float[Array, "Y X C"]:
    """Each pixel is a Gaussian mean over 2 · radius + 1 pixels each way, mirrored at the border (not repeating it).

    Torchvision's `gaussian_blur`, as two products with banded matrices: a convolution with one kernel an example
    would be slow on every platform.

    Raises:
      ValueError: a radius that reaches past the mirrored image.
    """
    rows, columns = image.shape[:2]
    if radius >= min(rows, columns):
        raise ValueError(
            f"a blur of radius {radius} reaches past the mirror image of {rows} x {columns} pixels; "
            "use a smaller kernel (augmentation.blur_kernel_share) or larger images"
        )
    return _both_axes(image, _blur_matrix(sigma, radius, rows), _blur_matrix(sigma, radius, columns))


def flip_horizontally(image: Float[Array, "Y X C"]) -> Float[Array, "Y X C"]:
    """Left becomes right."""
    return image[:, ::-1]


def pad_and_crop(
    image: Float[Array, "Y X C"],
    offset: Int[Array, " 2"],
    *,
    padding: int,
    mode: Literal["reflect", "zeros"],
) -> Float[Array, "Y X C"]:
    """The image shifted by padding - offset pixels down and right; offset in 0 … 2 · padding, what is new padded."""
    widths = ((padding, padding), (padding, padding), (0, 0))
    padded = jnp.pad(image, widths, mode="reflect" if mode == "reflect" else "constant")
    return jax.lax.dynamic_slice(padded, (offset[0], offset[1], 0), image.shape)


def affine(image: Float[Array, "Y X C"], matrix: Float[Array, "2 3"], *, fill: float) -> Float[Array, "Y X C"]:
    """The pixel at (x, y) is read at matrix · (x, y, 1), bilinearly; whatever lies outside the image is `fill`.

    Coordinates are Pillow's for `Image.transform(AFFINE)`: x first, the centre of the first pixel at (0.5, 0.5).
    """
    rows, columns, channels = image.shape
    x = jnp.arange(columns, dtype=jnp.float32)[None, :] + 0.5
    y = jnp.arange(rows, dtype=jnp.float32)[:, None] + 0.5
    from_x = matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] - 0.5
    from_y = matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] - 0.5
    left, top = jnp.floor(from_x), jnp.floor(from_y)
    right_share, bottom_share = from_x - left, from_y - top
    flat = image.reshape(rows * columns, channels)

    def pixels(at_y: Array, at_x: Array) -> Array:
        inside = (at_y >= 0) & (at_y < rows) & (at_x >= 0) & (at_x < columns)
        index = jnp.clip(at_y, 0, rows - 1) * columns + jnp.clip(at_x, 0, columns - 1)
        return jnp.where(inside[..., None], flat[index.astype(jnp.int32)], fill)

    def between(first: Array, second: Array, share: Array) -> Array:
        return first + (second - first) * share[..., None]

    upper = between(pixels(top, left), pixels(top, left + 1), right_share)
    lower = between(pixels(top + 1, left), pixels(top + 1, left + 1), right_share)
    return between(upper, lower, bottom_share)


def inside_box(box: Float[Array, " 4"], *, rows: int, columns: int) -> Bool[Array, "Y X"]:
    """True where a pixel's centre lies in the box."""
    y = jnp.arange(rows, dtype=jnp.float32) + 0.5
    x = jnp.arange(columns, dtype=jnp.float32) + 0.5
    in_rows = (y > box[0]) & (y < box[0] + box[2])
    in_columns = (x > box[1]) & (x < box[1] + box[3])
    return in_rows[:, None] & in_columns[None, :]


def _central_box(rows: int, columns: int, aspect: tuple[float, ...]) -> tuple[float, ...]:
    height, width = float(rows), float(columns)
    if columns / rows < aspect[0]:
        height = float(max(1, round(columns / aspect[0])))
    elif columns / rows > aspect[1]:
        width = float(max(1, round(rows * aspect[1])))
    return (rows - height) // 2, (columns - width) // 2, height, width


def _blur_matrix(sigma: Array, radius: int, size: int) -> Float[Array, "Y Y"]:
    taps = jnp.arange(-radius, radius + 1, dtype=jnp.float32)
    total = jnp.sum(jnp.exp(-0.5 * (taps / sigma) ** 2))
    to, of = jnp.arange(size)[:, None], jnp.arange(size)[None, :]

    def weight(offset: Array) -> Array:
        return jnp.where(jnp.abs(offset) <= radius, jnp.exp(-0.5 * (offset / sigma) ** 2) / total, 0.0)

    before = jnp.where(of > 0, weight(-of - to), 0.0)
    behind = jnp.where(of < size - 1, weight(2 * (size - 1) - of - to), 0.0)
    return weight(of - to) + before + behind


def _both_axes(image: Array, down: Array, across: Array) -> Array:
    # HIGHEST: a TPU would else round the pixels to eight bits, and each product again.
    highest = jax.lax.Precision.HIGHEST
    image = jnp.einsum("VY,YXC->VXC", down, image, precision=highest)
    return jnp.einsum("WX,VXC->VWC", across, image, precision=highest)
