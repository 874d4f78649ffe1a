"""RandAugment (Cubuk et al. 2020): a few of fourteen operations, drawn anew for each image, all of one magnitude."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from research.ops.image_color import (
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
    autocontrast,
    equalize,
    posterize,
    solarize,
)
from research.ops.image_geometry import affine

OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
MAX_MAGNITUDE = 30.0
_FILL = 0.5  # what comes in from outside the image: grey, as in the authors' code


def rand_augment(
    key: Key[Array, ""], image: Float[Array, "Y X C"], *, num_operations: int, magnitude: float
) -> Float[Array, "Y X C"]:
    """`num_operations` times one of OPERATIONS, each as likely as another, with a random sign where it has one."""
    drawn = jax.random.randint(key, (num_operations, 2), 0, 2 * len(OPERATIONS))

    # A loop, so that the operations are compiled once.
    def step(image: Array, numbers: Array) -> tuple[Array, None]:
        sign = 1.0 - 2.0 * (numbers[1] % 2)
        return apply_operation(image, numbers[0] // 2, sign, magnitude=magnitude), None

    return jax.lax.scan(step, image, drawn)[0]


def apply_operation(
    image: Float[Array, "Y X C"], operation: Int[Array, ""], sign: Float[Array, ""], *, magnitude: float
) -> Float[Array, "Y X C"]:
    """The image after OPERATIONS[operation].

    Strength grows in proportion to the magnitude, from nothing at 0 to torchvision's greatest at 30: shears of 0.3,
    shifts of 150/331 of the image, 30 degrees, factors of 1 ± 0.9, 4 of 8 bits, inversion of every value. Solarize
    begins at 256 and not at 255, so that nothing happens to white at 0. On a grey image "color" does nothing.
    The image is resampled once whichever geometric operation is drawn; the others are all computed and one is taken,
    since images of a batch draw different ones.
    """
    level = magnitude / MAX_MAGNITUDE
    factor = 1.0 + sign * 0.9 * level
    moved = affine(image, _matrix(operation, sign, level, image.shape[0], image.shape[1]), fill=_FILL)
    outcomes = {name: moved for name in OPERATIONS} | {
        "identity": image,
        "autocontrast": autocontrast(image),
        "equalize": equalize(image),
        "solarize": solarize(image, 256.0 / 255.0 * (1.0 - level)),
        "color": adjust_saturation(image, factor),
        "posterize": posterize(image, 8 - round(4 * level)),
        "contrast": adjust_contrast(image, factor),
        "brightness": adjust_brightness(image, factor),
        "sharpness": adjust_sharpness(image, factor),
    }
    return jax.lax.select_n(operation, *(outcomes[name] for name in OPERATIONS))


def _matrix(operation: Array, sign: Array, level: float, rows: int, columns: int) -> Float[Array, "2 3"]:
    """Output to input coordinates, as `affine` wants them; shears keep the upper left corner, rotations the centre."""
    shear, shift = 0.3 * level, 150.0 / 331.0 * level
    cosine, sine = math.cos(math.radians(30.0 * level)), math.sin(math.radians(30.0 * level))
    x, y = columns / 2, rows / 2
    # What is kept whatever the sign, and what turns with it.
    even, odd = np.zeros((2, len(OPERATIONS), 2, 3))
    even[:, 0, 0] = even[:, 1, 1] = 1.0
    at = OPERATIONS.index
    even[at("rotate")] = [[cosine, 0.0, x - cosine * x], [0.0, cosine, y - cosine * y]]
    odd[at("rotate")] = [[0.0, -sine, sine * y], [sine, 0.0, -sine * x]]
    odd[at("shear_x"), 0, 1] = shear
    odd[at("shear_y"), 1, 0] = shear
    odd[at("translate_x"), 0, 2] = shift * columns
    odd[at("translate_y"), 1, 2] = shift * rows
    return jnp.asarray(even, jnp.float32)[operation] + sign * jnp.asarray(odd, jnp.float32)[operation]
