"""Random augmentation of images on the device: what a config block says, drawn for each example by its key."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from research.ops.augmentation_checks import check_keys, check_number, check_probability, check_range
from research.ops.image_color import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, greyscale
from research.ops.image_geometry import (
    BOX_NUMBERS,
    crop_and_resize,
    flip_horizontally,
    gaussian_blur,
    inside_box,
    pad_and_crop,
    random_box,
    whole_box,
)
from research.ops.rand_augment import MAX_MAGNITUDE, rand_augment


@dataclass(frozen=True)
class ImageAugmentation:
    """Crop and resize, pad and crop, flip, RandAugment, colour jitter, greyscale, blur and erasing, in this order.

    By default nothing happens. What is drawn for an image depends on its key alone, and one operation's draws do not
    depend on whether another is on.

    A random resized crop (Szegedy et al. 2015) takes a share `crop_area` of the image with a width over height in
    `crop_aspect` (see `random_box`), off where the area is (1, 1); `size` is the side of the square output, 0 keeps the
    input's. `pad` pixels around and a random crop of the former size is the shift of He et al. 2016 for CIFAR.

    Colour jitter applies, to a share `jitter_probability` of the images, brightness, contrast, saturation and hue in
    this fixed order (torchvision shuffles it, which in a batch would cost each of the four four times). Factors are
    uniform in [max(0, 1 - strength), 1 + strength]; the hue turns by up to `hue` turns either way.

    Blurring draws a sigma in pixels, its kernel covers the share `blur_kernel_share` of the rows (SimCLR's tenth).
    RandAugment takes a magnitude of torchvision's scale, 0 to 30. Erasing (Zhong et al. 2020) fills one box of each of
    a share of the images with `erasing_value`, the paper's variant of a constant grey; a box that fits is nearly always
    found, else the image stays.

    Raises:
      ValueError: a key out of its range; when called, images that are not float [B Y X 1 or 3], colour on one channel.
    """

    size: int = 0
    crop_area: tuple[float, ...] = (1.0, 1.0)
    crop_aspect: tuple[float, ...] = (3 / 4, 4 / 3)
    pad: int = 0
    pad_mode: Literal["reflect", "zeros"] = "reflect"
    flip_probability: float = 0.0
    rand_augment_operations: int = 0
    rand_augment_magnitude: float = 9.0
    jitter_probability: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    greyscale_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, ...] = (0.1, 2.0)
    blur_kernel_share: float = 0.1
    erasing_probability: float = 0.0
    erasing_area: tuple[float, ...] = (0.02, 0.33)
    erasing_aspect: tuple[float, ...] = (0.3, 3.3)
    erasing_value: float = 0.5

    def __post_init__(self) -> None:
        for key in ("flip", "jitter", "greyscale", "blur", "erasing"):
            check_probability(f"{key}_probability", getattr(self, f"{key}_probability"))
        check_number("size", self.size, lowest=0, unit="pixels a side, 0 for those of the input")
        check_number("pad", self.pad, lowest=0, unit="pixels on each side")
        check_number("rand_augment_operations", self.rand_augment_operations, lowest=0, unit="operations an image")
        check_number(
            "rand_augment_magnitude",
            self.rand_augment_magnitude,
            lowest=0,
            highest=MAX_MAGNITUDE,
            unit="torchvision's scale, on which the paper's 9 of 10 is 27",
        )
        for key in ("brightness", "contrast", "saturation"):
            check_number(key, getattr(self, key), lowest=0, unit="a strength, such as 0.4")
        check_number("hue", self.hue, lowest=0, highest=0.5, unit="turns of the colour circle")
        for key in ("crop", "erasing"):
            area, aspect = f"{key}_area", f"{key}_aspect"
            check_range(area, getattr(self, area), lowest=1e-6, highest=1.0, unit="shares of the image's area")
            check_range(aspect, getattr(self, aspect), lowest=1e-3, highest=1e3, unit="width over height")
        check_range("blur_sigma", self.blur_sigma, lowest=1e-3, unit="pixels")
        check_number("blur_kernel_share", self.blur_kernel_share, lowest=0, highest=1, unit="a share of the rows")
        check_number("erasing_value", self.erasing_value, lowest=0, highest=1, unit="black to white")

    def __call__(self, images: Float[Array, "B Y X C"], keys: Key[Array, " B"]) -> Float[Array, "B V W C"]:
        """The augmented images, in [0, 1] where they were."""
        self._check(images, keys)
        return jax.vmap(self._augment)(images, keys)

    def _augment(self, image: Array, key: Array) -> Array:
        first, second = jax.random.split(key)
        # A row an operation: whether, and how. Drawn at once, since each draw is a program of its own to compile.
        crop, place, flip, jitter, grey, blur, erase = jax.random.uniform(first, (7, 1 + BOX_NUMBERS))
        image = self._crop(image, crop)
        if self.pad:
            offset = jnp.floor(place[1:3] * (2 * self.pad + 1)).astype(jnp.int32)
            image = pad_and_crop(image, offset, padding=self.pad, mode=self.pad_mode)
        image = _sometimes(flip, self.flip_probability, image, flip_horizontally)
        if self.rand_augment_operations:
            image = rand_augment(
                second, image, num_operations=self.rand_augment_operations, magnitude=self.rand_augment_magnitude
            )
        if any((self.brightness, self.contrast, self.saturation, self.hue)):
            image = _sometimes(jitter, self.jitter_probability, image, lambda image: self._jitter(image, jitter[1:]))
        image = _sometimes(grey, self.greyscale_probability, image, greyscale)
        image = _sometimes(blur, self.blur_probability, image, lambda image: self._blur(image, blur[1]))
        return _sometimes(erase, self.erasing_probability, image, lambda image: self._erase(image, erase[1:]))

    def _crop(self, image: Array, draw: Array) -> Array:
        rows, columns, _ = image.shape
        if tuple(self.crop_area) != (1.0, 1.0):
            box, _ = random_box(draw[1:], rows=rows, columns=columns, area=self.crop_area, aspect=self.crop_aspect)
        elif self.size:
            box = whole_box(rows, columns)
        else:
            return image
        # Rounding of the weights may exceed white by 1e-7.
        resized = crop_and_resize(image, box, rows=self.size or rows, columns=self.size or columns)
        return jnp.clip(resized, 0.0, 1.0)

    def _jitter(self, image: Array, numbers: Array) -> Array:
        def factor(number: Array, strength: float) -> Array:
            low = max(0.0, 1.0 - strength)
            return low + (1.0 + strength - low) * number

        if self.brightness:
            image = adjust_brightness(image, factor(numbers[0], self.brightness))
        if self.contrast:
            image = adjust_contrast(image, factor(numbers[1], self.contrast))
        if self.saturation:
            image = adjust_saturation(image, factor(numbers[2], self.saturation))
        return adjust_hue(image, self.hue * (2.0 * numbers[3] - 1.0)) if self.hue else image

    def _blur(self, image: Array, number: Array) -> Array:
        low, high = self.blur_sigma
        return gaussian_blur(image, low + (high - low) * number, radius=self._blur_radius(image.shape[0]))

    def _erase(self, image: Array, numbers: Array) -> Array:
        rows, columns, _ = image.shape
        box, fits = random_box(numbers, rows=rows, columns=columns, area=self.erasing_area, aspect=self.erasing_aspect)
        erased = inside_box(box, rows=rows, columns=columns)[..., None] & fits
        return jnp.where(erased, self.erasing_value, image)

    def _blur_radius(self, rows: int) -> int:
        return math.floor(self.blur_kernel_share * rows) // 2

    def _check(self, images: Array, keys: Array) -> None:
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(
                f"augmentation got images {images.dtype}{list(images.shape)}; wanted float [B Y X C] in [0, 1] with 1 "
                "or 3 channels (ops.image_color.from_bytes takes bytes)"
            )
        check_keys(keys, images.shape[0])
        _, rows, columns, channels = images.shape
        if channels == 1:
            for key in ("saturation", "hue", "greyscale_probability"):
                if getattr(self, key):
                    raise ValueError(
                        f"augmentation.{key}={getattr(self, key)} needs 3 channels and the images have 1; set it to 0"
                    )
        rows, columns = self.size or rows, self.size or columns
        if self.pad >= min(rows, columns) and self.pad_mode == "reflect":
            raise ValueError(
                f"augmentation.pad={self.pad} is more than an image of {rows} x {columns} can reflect; "
                f"wanted at most {min(rows, columns) - 1}, or pad_mode='zeros'"
            )
        if self.blur_probability and not 0 < self._blur_radius(rows) < columns:
            raise ValueError(
                f"augmentation.blur_kernel_share={self.blur_kernel_share} of {rows} x {columns} pixels gives a kernel "
                f"of {2 * self._blur_radius(rows) + 1}; wanted 3 or more and less than twice the image: change the "
                "share, or set blur_probability to 0"
            )


def _sometimes(draw: Array, probability: float, image: Array, change: Callable[[Array], Array]) -> Array:
    """The changed image with this probability; both are computed where it is neither 0 nor 1."""
    if probability == 0.0:
        return image
    if probability == 1.0:
        return change(image)
    return jnp.where(draw[0] < probability, change(image), image)


_SIMCLR = functools.partial(
    ImageAugmentation,
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

# Presets; a block may change any of their keys.
IMAGE_AUGMENTATIONS: Mapping[str, Callable[..., ImageAugmentation]] = {
    "none": ImageAugmentation,
    # Chen et al. 2020, appendix A, strength 1.
    "simclr": _SIMCLR,
    # The same, appendix B.9: strength 0.5 and no blur for images of 32 pixels.
    "simclr_cifar": functools.partial(
        _SIMCLR, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, blur_probability=0.0
    ),
    # Chen et al. 2020, "Improved baselines with momentum contrastive learning", and the authors' code.
    "moco_v2": functools.partial(_SIMCLR, crop_area=(0.2, 1.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    # He et al. 2016, section 4.2, with the border reflected.
    "cifar": functools.partial(ImageAugmentation, pad=4, flip_probability=0.5),
    # Cubuk et al. 2020 for ResNet-50: two operations of magnitude 9 of 10, after the usual crop.
    "rand_augment": functools.partial(
        ImageAugmentation,
        crop_area=(0.08, 1.0),
        flip_probability=0.5,
        rand_augment_operations=2,
        rand_augment_magnitude=27.0,
    ),
}
