"""The colours of one image [Y X C] with values in [0, 1]: brightness to hue, and the tone curves of AutoAugment.

Factors are Pillow's and torchvision's: 1 changes nothing, 0 gives black, one grey, or no colour. Results are clipped to
[0, 1]. One channel is a grey image: what only moves colour leaves it as it is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8


def from_bytes(images: UInt8[Array, "B Y X C"]) -> Float[Array, "B Y X C"]:
    """Bytes 0 to 255 as float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def luma(image: Float[Array, "Y X C"]) -> Float[Array, "Y X 1"]:
    """The grey image: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as Pillow's mode L)."""
    if image.shape[-1] == 1:
        return image
    return 0.299 * image[..., 0:1] + 0.587 * image[..., 1:2] + 0.114 * image[..., 2:3]


def greyscale(image: Float[Array, "Y X C"]) -> Float[Array, "Y X C"]:
    """The luma in every channel."""
    return jnp.broadcast_to(luma(image), image.shape)


def adjust_brightness(image: Float[Array, "Y X C"], factor: Float[Array, ""]) -> Float[Array, "Y X C"]:
    """The image times the factor."""
    return jnp.clip(factor * image, 0.0, 1.0)


def adjust_contrast(image: Float[Array, "Y X C"], factor: Float[Array, ""]) -> Float[Array, "Y X C"]:
    """Away from the image's mean luma, or towards it."""
    return _blend(jnp.mean(luma(image)), image, factor)


def adjust_saturation(image: Float[Array, "Y X C"], factor: Float[Array, ""]) -> Float[Array, "Y X C"]:
    """Away from each pixel's luma, or towards it."""
    return _blend(luma(image), image, factor)


def adjust_hue(image: Float[Array, "Y X 3"], amount: Float[Array, ""]) -> Float[Array, "Y X 3"]:
    """The hue turned by `amount` turns (0.5 is the opposite colour), in HSV (Smith 1978), as torchvision does.

    Value and chroma stay, so neither conversion is written out: a channel is max - chroma · (0 to 1 by its hue).
    """
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = jnp.maximum(jnp.maximum(red, green), blue)
    chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    hue = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0),
    )
    hue = hue + 6.0 * amount

    def channel(first: float) -> Array:
        sixth = jnp.mod(hue + first, 6.0)
        return value - chroma * jnp.clip(jnp.minimum(sixth, 4.0 - sixth), 0.0, 1.0)

    return jnp.clip(jnp.stack([channel(5.0), channel(3.0), channel(1.0)], axis=-1), 0.0, 1.0)


def adjust_sharpness(image: Float[Array, "Y X C"], factor: Float[Array, ""]) -> Float[Array, "Y X C"]:
    """Away from the smoothed image, or towards it: Pillow's SMOOTH, 3 x 3 with a weight of 5 of 13 in the middle.

    The border's pixels stay.
    """
    if min(image.shape[:2]) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4.0 * image[1:-1, 1:-1]) / 13.0
    return _blend(image.at[1:-1, 1:-1].set(smooth), image, factor)


def solarize(image: Float[Array, "Y X C"], threshold: float) -> Float[Array, "Y X C"]:
    """Values from the threshold on are inverted; none is above 1."""
    return jnp.where(image >= threshold, 1.0 - image, image)


def posterize(image: Float[Array, "Y X C"], num_bits: int) -> Float[Array, "Y X C"]:
    """The upper `num_bits` of each value's 8."""
    return (_bytes(image) & (256 - (1 << (8 - num_bits)))).astype(jnp.float32) / 255.0


def autocontrast(image: Float[Array, "Y X C"]) -> Float[Array, "Y X C"]:
    """Each channel stretched to [0, 1]; one of a single value stays."""
    low, high = jnp.min(image, axis=(0, 1), keepdims=True), jnp.max(image, axis=(0, 1), keepdims=True)
    stretched = (image - low) / jnp.where(high > low, high - low, 1.0)
    return jnp.where(high > low, stretched, image)


def equalize(image: Float[Array, "Y X C"]) -> Float[Array, "Y X C"]:
    """Each channel's 256 values spread so that they are used alike: Pillow's ImageOps.equalize, byte for byte."""
    return jax.vmap(_equalize_channel, in_axes=-1, out_axes=-1)(image)


def _equalize_channel(channel: Float[Array, "Y X"]) -> Float[Array, "Y X"]:
    values = _bytes(channel)
    # A histogram as a product of one-hot halves: scattered additions are serial on a CPU and slow on a TPU.
    sixteen = jnp.arange(16)
    upper = (values.reshape(-1)[:, None] // 16 == sixteen[None, :]).astype(jnp.float32)
    lower = (values.reshape(-1)[:, None] % 16 == sixteen[None, :]).astype(jnp.float32)
    histogram = jnp.einsum("NH,NL->HL", upper, lower, preferred_element_type=jnp.float32).reshape(256)
    histogram = histogram.astype(jnp.int32)
    last = histogram[jnp.max(values)]
    step = (values.size - last) // 255
    before = jnp.cumsum(histogram) - histogram
    table = jnp.minimum((before + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, table[values], values).astype(jnp.float32) / 255.0


def _bytes(image: Array) -> Array:
    return jnp.round(image * 255.0).astype(jnp.int32)


def _blend(start: Array, image: Array, factor: Array) -> Array:
    return jnp.clip(factor * image + (1.0 - factor) * start, 0.0, 1.0)
